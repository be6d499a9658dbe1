"""The fastest correct way to run a network on this machine. Imports torch only where the network itself is needed."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.record import choice, whole
from effnet.engines.engine import KINDS, PACKAGES, PRECISIONS, Engine, Pictures, granted, installed, missing
from effnet.engines.interface import INTERFACE
from effnet.engines.opening import open_file, opened
from effnet.exporting import kept
from effnet.exporting.choice import LeftOut, Question, Throughput, read, remember, remembered
from effnet.exporting.source import COMPILED, FILES, Size, Source, noise

if TYPE_CHECKING:
    from effnet.net import EfficientNet

EXPORTED = (".onnx", ".xml")

log = logging.getLogger("effnet")


def engine(
    model: EfficientNet | str | Path | Source,
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
    of ``pictures``, which are cropped ones, uint8 (N, H, W, C).
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
        source = model if isinstance(model, Source) else Source(model)
        question = Question.now(batch, size, precision, threads)
        if kind != "auto":
            found = source.engine(kind, precision, threads)
        else:
            found = source.remembered(question) if max_drop is None else None
        found = found or _chosen(source, question, max_drop, pictures)
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
        return bool(Source(model, kept.key(path)).engine(kind, "float32", None))
    except OSError:
        return False


def best_batch(model: EfficientNet | str | Path, engine: Engine, size: Size | None = None) -> int:
    """The batch at which ``engine``, made of ``model``, gives the most pictures a second; measured once."""
    key = Source(model).key
    question = Question.now(0, size, engine.precision, engine.threads)
    for one in read(key).throughputs:
        if (one.question, one.kind, one.precision) == (question, engine.kind, engine.precision):
            return one.best
    from effnet.exporting.contest import throughput

    found: Throughput = throughput(engine, question, noise(1, size or engine.contract.preprocess.size, engine))
    remember(key, found)
    return found.best


def _chosen(source: Source, question: Question, max_drop: float | None, pictures: Pictures | None) -> Engine:
    """The winner of the contest that ``question`` asks for; its reasons are told, and remembered."""
    from effnet.engines.eager import Eager
    from effnet.exporting.contest import hold
    from effnet.net.device import pick

    if pick().type != "cpu":  # the others compute on the CPU, and what a GPU is there changes from start to start
        return Eager(source.network, precision=question.precision, threads=question.threads)
    reference = Eager(source.network, "cpu", threads=question.threads)
    precisions = tuple(dict.fromkeys(("float32", question.precision)))
    left_out = tuple(LeftOut(kind, "", str(missing(kind))) for kind in PACKAGES if kind not in installed())
    ways = {
        (kind, precision): partial(source.open, kind, precision, question.threads)
        for kind in ("eager", *PACKAGES)
        for precision in precisions
        if kind in installed() and (kind, precision) != ("eager", "float32")
    }
    if max_drop is not None:
        assert pictures is not None
        expected = reference.run(pictures).argmax(1)
        ways = {
            (kind, precision): way if precision == "float32" else partial(_held, way, pictures, expected, max_drop)
            for (kind, precision), way in ways.items()
        }
    asked = noise(question.batch, question.size or source.network.preprocess.size, reference)
    found, winner = hold({("eager", "float32"): lambda: reference, **ways}, reference, question, asked, left_out)
    log.info("%s", found.in_words())
    for one in found.left_out:
        log.info("left out: %s", " ".join(filter(None, (one.kind, one.precision))) + f": {one.why}")
    if max_drop is None:
        remember(source.key, found)
    return winner


def _held(way: partial[Engine], pictures: Pictures, expected: np.ndarray, max_drop: float) -> Engine:
    """The engine, if it changes the likeliest class of no more than ``max_drop`` percent of the pictures."""
    made = way()
    changed = 100 * float((made.run(pictures).argmax(1) != expected).mean())
    if changed > max_drop:
        raise ValueError(f"it changes the answer to {changed:.1f} % of the pictures")
    return made


def is_exported(path: Path) -> bool:
    """Whether the file is one to run as it is: an IR or ONNX, or a ``.tflite`` that says how it is to be used."""
    if path.suffix != ".tflite" or not path.is_file():
        return path.suffix in EXPORTED
    from effnet.engines.litert import metadata

    try:
        return INTERFACE in metadata(path)
    except ValueError:  # whoever reads its weights says what is wrong with it
        return False
