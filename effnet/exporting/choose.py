"""The fastest correct way to run a network on this machine. Imports torch only where the network itself is needed."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.record import choice, whole
from effnet.engines.engine import KINDS, PACKAGES, PRECISIONS, Engine, Pictures, granted, installed, missing
from effnet.engines.opening import is_exported, open_file, opened
from effnet.exporting import kept
from effnet.exporting.alike import answer, share_right
from effnet.exporting.choice import LeftOut, Question, Throughput, read, remember, remembered
from effnet.exporting.origin import COMPILED, FILES, Origin, Size, noise

if TYPE_CHECKING:
    from effnet.net import EfficientNet

log = logging.getLogger("effnet")


def engine(
    model: EfficientNet | str | Path | Origin,
    kind: str = "auto",
    batch: int = 1,
    size: Size | None = None,
    precision: str = "float32",
    threads: int | None = None,
    max_drop: float | None = None,
    pictures: Pictures | None = None,
) -> Engine:
    """``model`` ready to run: a network, a file or a name of weights, or an exported file.

    "auto": what was fastest here for so many pictures of that (height, width), None being the network's own, on so many
    threads. Where that is not known yet, a contest finds it in a few seconds and it is remembered: engines that are
    installed run in float32, and in ``precision`` too where that is another; each must agree with eager. With
    ``max_drop``, percentage points, another precision takes part only where it changes the likeliest class of no more
    of ``pictures``, which are cropped ones, uint8 (N, H, W, C); of several labels so many of these, of values so much
    of their variance.
    An exported file is opened by the first engine that can.
    Raises ``ImportError`` for an engine that is not installed, and ``ValueError`` for one that is unknown, fails or
    disagrees, and for sizes, threads, or a precision that are not to be had.
    """
    choice("kind", kind, ("auto", *KINDS))
    choice("precision", precision, PRECISIONS)
    whole("batch", batch, 1)
    granted(threads)
    for side in size or ():
        whole("size", side, 1)
    if max_drop is not None and (pictures is None or precision == "float32"):
        raise ValueError("max_drop holds another precision to pictures: give both, as precision='bfloat16', pictures=…")
    if kind in PACKAGES and kind not in installed():
        raise missing(kind)
    found: Engine | None
    if isinstance(model, (str, Path)) and is_exported(Path(model)):
        found = open_file(model, None if kind == "auto" else kind, precision, threads)
    elif precision == "int8":
        raise ValueError("int8 is a property of a file: export the network as int8, and give that file")
    else:
        origin = model if isinstance(model, Origin) else Origin(model)
        question = Question.now(batch, size, precision, threads)
        if kind != "auto":
            found = origin.engine(kind, precision, threads)
        else:
            found = origin.remembered(question) if max_drop is None else None
        found = found or _chosen(origin, question, max_drop, pictures)
    found.prepare(batch, size)
    return found


def at_hand(
    key: str,
    batch: int = 1,
    size: Size | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> Engine | None:
    """The engine that starts without torch, of the network with that key in the cache; None where only torch can.

    It is the one remembered for this use or, where nothing is, whichever opens what is kept, in float32. Files that are
    damaged, or of another version, are removed.
    """
    known = remembered(key, batch, size, precision, threads)
    kinds = (known.kind,) if known else tuple(FILES)
    for kind in kinds:
        name = FILES.get(kind, "")
        path = kept.find(key, name) if name and kind in installed() else None
        if path:
            try:
                return opened(kind, path, known.precision if known else "float32", threads, path.with_name(COMPILED))
            except ValueError:
                kept.drop(key, name)
            except ImportError:  # it is there and does not load
                continue
    return None


def keep(model: EfficientNet, path: Path) -> bool:
    """Leaves in the cache what lets ``path``, to which ``model`` was written, start without torch next time.

    False where the disk does not take it, or no engine that is installed opens it. Raises as `engine` does.
    """
    kind = next((kind for kind in FILES if kind in installed()), None)
    if kind is None:
        return False
    try:
        return bool(Origin(model, kept.key(path)).engine(kind, "float32", None))
    except OSError:
        return False


def throughput(model: EfficientNet | str | Path | Origin, engine: Engine, size: Size | None = None) -> Throughput:
    """How many pictures a second ``engine``, made of ``model``, gives at which batch; measured once, and remembered."""
    key = (model if isinstance(model, Origin) else Origin(model)).key
    question = Question.now(0, size, engine.precision, engine.threads)
    for one in read(key).throughputs:
        if (one.question, one.kind, one.precision) == (question, engine.kind, engine.precision):
            return one
    from effnet.exporting.contest import throughput

    found = throughput(engine, question, noise(1, size or engine.contract.preprocess.size, engine))
    remember(key, found)
    return found


def _chosen(origin: Origin, question: Question, max_drop: float | None, pictures: Pictures | None) -> Engine:
    """The winner of the contest that ``question`` asks for; its reasons are told, and remembered."""
    from effnet.engines.eager import Eager
    from effnet.exporting.contest import hold
    from effnet.net.device import pick

    if pick().type != "cpu":  # the others compute on the CPU, and what a GPU is there changes from start to start
        return Eager(origin.network, precision=question.precision, threads=question.threads)
    reference = Eager(origin.network, "cpu", threads=question.threads)
    precisions = tuple(dict.fromkeys(("float32", question.precision)))
    left_out = tuple(LeftOut(kind, "", str(missing(kind))) for kind in PACKAGES if kind not in installed())
    ways = {
        (kind, precision): partial(origin.open, kind, precision, question.threads)
        for kind in ("eager", *PACKAGES)
        for precision in precisions
        if kind in installed() and (kind, precision) != ("eager", "float32")
    }
    if max_drop is not None:
        assert pictures is not None
        expected = answer(reference.run(pictures), reference.contract.labels.kind)
        ways = {
            (kind, precision): way if precision == "float32" else partial(_held, way, pictures, expected, max_drop)
            for (kind, precision), way in ways.items()
        }
    asked = noise(question.batch, question.size or origin.network.preprocess.size, reference)
    found, winner = hold({("eager", "float32"): lambda: reference, **ways}, reference, question, asked, left_out)
    log.info("%s", found.in_words())
    for one in found.left_out:
        log.info("left out: %s", " ".join(filter(None, (one.kind, one.precision))) + f": {one.why}")
    if max_drop is None:
        remember(origin.key, found)
    return winner


def _held(way: partial[Engine], pictures: Pictures, expected: np.ndarray, max_drop: float) -> Engine:
    """The engine, if it changes no more than ``max_drop`` percent of the answers ``expected``."""
    made = way()
    kind = made.contract.labels.kind
    changed = 100 * (1 - share_right(made.run(pictures), expected, kind))
    if changed > max_drop:
        what = {"one": "answer to", "any": "answer to", "value": "values by"}[kind]
        of = {"one": "pictures", "any": "labels", "value": "variance"}[kind]
        raise ValueError(f"it changes the {what} {changed:.1f} % of the {of}")
    return made
