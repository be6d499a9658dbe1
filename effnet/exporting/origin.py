"""Where an engine's network comes from: the key it is kept by, its files in the cache, itself only where needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.engines.engine import PACKAGES, Engine, Floats, Pictures, installed
from effnet.engines.interface import Interface
from effnet.engines.opening import opened
from effnet.exporting import kept
from effnet.exporting.choice import Question, agreed, proved, remembered

if TYPE_CHECKING:
    from effnet.net import EfficientNet

FILES = {"onnxruntime": "network.onnx", "openvino": "network.onnx", "litert": "network.tflite"}
SERVED = Interface("floats", "logits", embedding=True, size=None)  # of these files: they serve every use
COMPILED = "openvino"  # the folder in which OpenVINO keeps what it compiled

Size = tuple[int, int]  # height, width


class Origin:
    """A network that may still lie in a file: its key is known without torch, itself it is loaded when it is needed."""

    def __init__(self, model: EfficientNet | str | Path, key: str | None = None) -> None:
        self._model, self._key = model, key

    @cached_property
    def key(self) -> str:
        """What it is kept by."""
        if self._key:
            return self._key
        if isinstance(self._model, (str, Path)):
            from effnet.weights.find import find

            located = find(self._model)
            return kept.key(located.path, located.card.name if located.card else "")
        state = self._model.state_dict()
        return kept.key_of(
            {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}, self._model.contract
        )

    @cached_property
    def network(self) -> EfficientNet:
        """The network, loaded if it is not yet."""
        if not isinstance(self._model, (str, Path)):
            return self._model
        from effnet.weights import load

        return load(self._model)

    def engine(self, kind: str, precision: str, threads: int | None) -> Engine:
        """The engine called ``kind``, compared with eager unless it was before. Raises ``ValueError`` if it differs."""
        made = self.open(kind, precision, threads)
        if kind in FILES and not agreed(self.key, kind, precision):
            self._prove(made)
            proved(self.key, kind, precision)
        return made

    def open(self, kind: str, precision: str, threads: int | None) -> Engine:
        """The engine called ``kind``; its file is written where it is not kept yet, or damaged."""
        if kind not in FILES:
            return self._torch(kind, precision, threads)
        path = kept.find(self.key, FILES[kind])
        if path:
            try:
                return opened(kind, path, precision, threads, path.with_name(COMPILED))
            except ValueError:
                kept.drop(self.key, FILES[kind])
        path = self._file(FILES[kind])
        if path is None:
            raise OSError(
                f"there is no room for the file that {kind} opens: free some, or set EFFNET_HOME, or use eager"
            )
        return opened(kind, path, precision, threads, path.with_name(COMPILED))

    def _file(self, name: str) -> Path | None:
        """The file of that name, written now; None where the disk does not take it."""
        return kept.keep(self.key, name, lambda beside: write(name, beside, self.network))

    def remembered(self, question: Question) -> Engine | None:
        """The engine remembered for that use where it needs torch, or its file is gone and can be written again."""
        known = remembered(self.key, question.batch, question.size, question.precision, question.threads)
        if known is None or (known.kind in PACKAGES and known.kind not in installed()):
            return None
        try:
            return self.engine(known.kind, known.precision, question.threads)
        except (ValueError, OSError, ImportError):
            return None

    def _torch(self, kind: str, precision: str, threads: int | None) -> Engine:
        if kind == "compiled":
            from effnet.engines.compiled import Compiled

            return Compiled(self.network, precision=precision, threads=threads)
        from effnet.engines.eager import Eager

        return Eager(self.network, precision=precision, threads=threads)

    @cached_property
    def _asked(self) -> tuple[Pictures, Floats]:
        """A picture, and what the network answers to it."""
        from effnet.engines.eager import Eager

        eager = Eager(self.network, "cpu")
        picture = noise(1, self.network.preprocess.size, eager)
        return picture, eager.run(picture)

    def _prove(self, made: Engine) -> None:
        """Raises ``ValueError``, and removes its file, where the engine does not answer as the network does."""
        from effnet.exporting.contest import TOLERANCE, differing

        picture, answer = self._asked
        apart = differing(made.run(picture), answer)
        if not apart <= TOLERANCE[made.precision]:
            kept.drop(self.key, FILES[made.kind])
            raise ValueError(f"{made.kind} does not answer as the network does (they differ by {apart:.1e}): use eager")


def write(name: str, path: Path, model: EfficientNet) -> None:
    """Leaves at ``path`` what those engines open whose file is called ``name``, one of `FILES`."""
    if name.endswith(".tflite"):
        from effnet.exporting import litert

        litert.write(path, model, SERVED)
    else:
        from effnet.exporting import onnx

        onnx.write(path, model, SERVED)


def noise(count: int, size: Size, engine: Engine) -> Pictures:
    """So many pictures of that (height, width) for ``engine``: uint8 (N, H, W, C), the same ones each time."""
    channels = len(engine.contract.preprocess.mean)
    made: Pictures = np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)
    return made
