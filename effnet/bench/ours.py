"""Our own contestants: a network through each engine, from pictures to logits."""

from __future__ import annotations

from effnet.bench.contestant import Contestant, Pictures
from effnet.exporting.choose import engine
from effnet.net import EfficientNet


def ours(model: EfficientNet, kind: str, precision: str, seen: Pictures, threads: int) -> Contestant:
    """``model`` through the engine ``kind``, from the pictures ``seen`` as they come: normalising is timed too.

    Raises ``ValueError`` or ``ImportError`` where the engine cannot do this here.
    """
    batch, height, width, _ = seen.shape
    made = engine(model, kind, batch, (height, width), precision, threads)
    return Contestant(made.kind, made.precision, lambda: made.run(seen), lambda: made.run(seen))
