"""The contest behind a choice: engines that are installed, each compared with eager, then timed in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.serde import check_choice, check_int
from effnet.runtime import engine_cache
from effnet.runtime.base import (
    ENGINE_KINDS,
    ENGINE_PACKAGES,
    PRECISIONS,
    Engine,
    FloatArray,
    ImageBatch,
    installed_engines,
    not_installed_error,
    open_engine,
    open_exported,
    resolve_threads,
)
from effnet.runtime.engine_cache import (
    EngineChoice,
    EngineThroughput,
    EngineTiming,
    ExcludedEngine,
    TuningKey,
    find_choice,
    is_verified,
    mark_verified,
    read_records,
    save_record,
)
from effnet.runtime.io_spec import IOSpec, is_exported
from effnet.tasks import task_of
from effnet.timing import THREAD_POOL_PAUSE, Stopwatch, Timing
from effnet.timing import time_interleaved as timed

if TYPE_CHECKING:
    from effnet.net import EfficientNet

# The largest difference from eager in float32 that is let through, as a share of eager's largest answer. In bfloat16 a
# network of random numbers is off by .05 to .13, in eager itself as in OpenVINO.
ENGINE_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.025}


COMPARED_IMAGES = 4  # pictures: enough to show a wrong graph, few enough for the largest networks


TIMING_SECONDS = 2.5  # of timing


MAX_CALL_SECONDS = 0.5  # seconds of one call; where the batch would take longer, a smaller one is timed


MAX_SLOWDOWN = 3.0  # times as slow as the fastest in the first calls: such are not timed further


MAX_LOW_PRECISION_TIME = 0.95  # fewer bits are chosen only where they take this share of float32's time, or less


MAX_ROUNDS, CONSECUTIVE_CALLS = 15, 3


BATCH_SIZES = (1, 8, 16, 32, 64, 128)


EngineOpener = Callable[[], Engine]


EngineOpeners = Mapping[tuple[str, str], EngineOpener]  # (kind, precision) -> the engine, where it can be had


def autotune(
    openers: EngineOpeners,
    reference: Engine,
    key: TuningKey,
    images: ImageBatch,
    excluded: tuple[ExcludedEngine, ...] = (),
) -> tuple[EngineChoice, Engine]:
    """The fastest of ``ways`` that agrees with ``reference``, and why: a few seconds for all but the largest networks.

    ``pictures``: uint8 (N, H, W, C), as many as are to be asked at once. What cannot be opened, or disagrees, is left
    out, and the choice says so. ``ways`` must contain ``reference``'s own kind in float32.
    """
    some = images[:COMPARED_IMAGES]
    watch = Stopwatch()
    expected = reference.run(some)
    each = watch.seconds / len(some)
    batch = max(1, min(len(images), int(MAX_CALL_SECONDS / max(each, 1e-9))))
    images = images[:batch]
    engines: dict[tuple[str, str], Engine] = {}
    apart: dict[tuple[str, str], float] = {}
    excluded = list(excluded)
    for (kind, precision), opened in openers.items():
        try:
            engine = opened()
            engine.prepare(batch, images.shape[1:3])
            apart[kind, precision] = max_relative_difference(engine.run(images)[:COMPARED_IMAGES], expected[:batch])
        except Exception as error:  # whatever ails one of them, the others run
            excluded.append(ExcludedEngine(kind, precision, str(error) or type(error).__name__))
        else:
            if apart[kind, precision] <= ENGINE_TOLERANCES[precision]:
                engines[kind, precision] = engine
            else:
                excluded.append(ExcludedEngine(kind, precision, f"its answers differ by {apart[kind, precision]:.1e}"))
    times = _time_engines(engines, images)
    chosen = _select_fastest(times)
    contestants = tuple(
        EngineTiming(*name, time.seconds, time.p10, time.p90, time.runs, apart[name])
        for name, time in sorted(times.items(), key=lambda pair: pair[1].seconds)
    )
    return EngineChoice(key, *chosen, contestants, tuple(excluded), batch, _timestamp()), engines[chosen]


def max_relative_difference(outputs: FloatArray, expected: FloatArray) -> float:
    """The largest difference over the largest of ``expected``; infinite where an answer is no number."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return float("inf")
    return float(np.abs(outputs - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def measure_throughput(engine: Engine, key: TuningKey, image: ImageBatch) -> EngineThroughput:
    """Pictures a second of ``engine`` in batches of `BATCHES`, as long as they gain; a second or two.

    ``picture``: uint8 (1, H, W, C).
    """
    measured: list[tuple[int, float]] = []
    for batch in BATCH_SIZES:
        pictures = np.repeat(image, batch, axis=0)
        engine.prepare(batch, pictures.shape[1:3])
        time = timed({"": partial(engine.run, pictures)}, runs=5, warmup_runs=1, seconds=TIMING_SECONDS / 5)[""]
        measured.append((batch, batch / time.seconds))
        if len(measured) > 1 and (measured[-1][1] < measured[-2][1] or time.seconds > 2 * MAX_CALL_SECONDS):
            break
    return EngineThroughput(key, engine.kind, engine.precision, tuple(measured), _timestamp())


def _time_engines(engines: Mapping[tuple[str, str], Engine], images: ImageBatch) -> dict[tuple[str, str], Timing]:
    """What each took; of those far behind, only a first call."""
    names = {" ".join(name): name for name in engines}
    calls = {text: partial(engines[name].run, images) for text, name in names.items()}
    first = timed(calls, runs=1, warmup_runs=0)  # all have answered once already
    least = min(time.seconds for time in first.values())
    ahead = {text: call for text, call in calls.items() if first[text].seconds <= MAX_SLOWDOWN * least}
    rounds = TIMING_SECONDS / sum(THREAD_POOL_PAUSE + (1 + CONSECUTIVE_CALLS) * first[text].seconds for text in ahead)
    runs = min(max(int(rounds), 3), MAX_ROUNDS)
    found = first | timed(
        ahead, runs, warmup_runs=0, calls_per_round=CONSECUTIVE_CALLS, pause=THREAD_POOL_PAUSE, seconds=TIMING_SECONDS
    )
    return {names[text]: time for text, time in found.items()}


def _select_fastest(timings: Mapping[tuple[str, str], Timing]) -> tuple[str, str]:
    exact = [name for name in timings if name[1] == "float32"]
    best, exactly = (min(among, key=lambda name: timings[name].seconds) for among in (timings, exact or timings))
    return best if timings[best].seconds <= MAX_LOW_PRECISION_TIME * timings[exactly].seconds else exactly


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# Where an engine's network comes from: the key it is kept by, its files in the cache, itself only where needed.


ENGINE_FILES = {"onnxruntime": "network.onnx", "openvino": "network.onnx", "litert": "network.tflite"}


CACHED_IO_SPEC = IOSpec("floats", "logits", embedding=True, size=None)  # of these files: they serve every use


OPENVINO_CACHE_DIR = "openvino"  # the folder in which OpenVINO keeps what it compiled


ImageSize = tuple[int, int]  # height, width


class LazyModel:
    """A network that may still lie in a file: its key is known without torch, itself it is loaded when it is needed."""

    def __init__(self, model: EfficientNet | str | Path, key: str | None = None) -> None:
        self._model, self._key = model, key

    @cached_property
    def key(self) -> str:
        """What it is kept by."""
        if self._key:
            return self._key
        if isinstance(self._model, (str, Path)):
            from effnet.weights.resolve import resolve_weights

            located = resolve_weights(self._model)
            return engine_cache.file_key(located.path, located.entry.name if located.entry else "")
        state = self._model.state_dict()
        return engine_cache.model_key(
            {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}, self._model.metadata
        )

    @cached_property
    def network(self) -> EfficientNet:
        """The network, loaded if it is not yet."""
        if not isinstance(self._model, (str, Path)):
            return self._model
        from effnet.weights import load

        return load(self._model)

    def verified_engine(self, kind: str, precision: str, threads: int | None) -> Engine:
        """The engine called ``kind``, compared with eager unless it was before. Raises ``ValueError`` if it differs."""
        made = self.open_engine(kind, precision, threads)
        if kind in ENGINE_FILES and not is_verified(self.key, kind, precision):
            self._verify(made)
            mark_verified(self.key, kind, precision)
        return made

    def open_engine(self, kind: str, precision: str, threads: int | None) -> Engine:
        """The engine called ``kind``; its file is written where it is not kept yet, or damaged."""
        if kind not in ENGINE_FILES:
            return self._open_torch(kind, precision, threads)
        path = engine_cache.find_cached(self.key, ENGINE_FILES[kind])
        if path:
            try:
                return open_engine(kind, path, precision, threads, path.with_name(OPENVINO_CACHE_DIR))
            except ValueError:
                engine_cache.remove_cached(self.key, ENGINE_FILES[kind])
        path = self._write_file(ENGINE_FILES[kind])
        if path is None:
            raise OSError(
                f"there is no room for the file that {kind} opens: free some, or set EFFNET_HOME, or use eager"
            )
        return open_engine(kind, path, precision, threads, path.with_name(OPENVINO_CACHE_DIR))

    def _write_file(self, name: str) -> Path | None:
        """The file of that name, written now; None where the disk does not take it."""
        return engine_cache.write_cached(self.key, name, lambda beside: write_engine_file(name, beside, self.network))

    def remembered_engine(self, key: TuningKey) -> Engine | None:
        """The engine remembered for that use where it needs torch, or its file is gone and can be written again."""
        known = find_choice(self.key, key.batch_size, key.size, key.precision, key.threads)
        if known is None or (known.kind in ENGINE_PACKAGES and known.kind not in installed_engines()):
            return None
        try:
            return self.verified_engine(known.kind, known.precision, key.threads)
        except (ValueError, OSError, ImportError):
            return None

    def _open_torch(self, kind: str, precision: str, threads: int | None) -> Engine:
        if kind == "compiled":
            from effnet.runtime.torch import CompiledEngine

            return CompiledEngine(self.network, precision=precision, threads=threads)
        from effnet.runtime.torch import EagerEngine

        return EagerEngine(self.network, precision=precision, threads=threads)

    @cached_property
    def _reference(self) -> tuple[ImageBatch, FloatArray]:
        """A picture, and what the network answers to it."""
        from effnet.runtime.torch import EagerEngine

        eager = EagerEngine(self.network, "cpu")
        picture = noise_images(1, self.network.preprocess.size, eager)
        return picture, eager.run(picture)

    def _verify(self, candidate: Engine) -> None:
        """Raises ``ValueError``, and removes its file, where the engine does not answer as the network does."""

        picture, answer = self._reference
        apart = max_relative_difference(candidate.run(picture), answer)
        if not apart <= ENGINE_TOLERANCES[candidate.precision]:
            engine_cache.remove_cached(self.key, ENGINE_FILES[candidate.kind])
            raise ValueError(
                f"{candidate.kind} does not answer as the network does (they differ by {apart:.1e}): use eager"
            )


def write_engine_file(name: str, path: Path, model: EfficientNet) -> None:
    """Leaves at ``path`` what those engines open whose file is called ``name``, one of `FILES`."""
    if name.endswith(".tflite"):
        from effnet.runtime import litert

        litert.write_litert(path, model, CACHED_IO_SPEC)
    else:
        from effnet.runtime import onnx

        onnx.write_onnx(path, model, CACHED_IO_SPEC)


def noise_images(count: int, size: ImageSize, engine: Engine) -> ImageBatch:
    """So many pictures of that (height, width) for ``engine``: uint8 (N, H, W, C), the same ones each time."""
    channels = len(engine.metadata.preprocess.mean)
    made: ImageBatch = np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)
    return made


# The fastest correct way to run a network on this machine. Imports torch only where the network itself is needed.


log = logging.getLogger("effnet")


def engine(
    model: EfficientNet | str | Path | LazyModel,
    kind: str = "auto",
    batch_size: int = 1,
    size: ImageSize | None = None,
    precision: str = "float32",
    threads: int | None = None,
    max_drop: float | None = None,
    images: ImageBatch | None = None,
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
    check_choice("kind", kind, ("auto", *ENGINE_KINDS))
    check_choice("precision", precision, PRECISIONS)
    check_int("batch", batch_size, 1)
    resolve_threads(threads)
    for side in size or ():
        check_int("size", side, 1)
    if max_drop is not None and (images is None or precision == "float32"):
        raise ValueError("max_drop holds another precision to pictures: give both, as precision='bfloat16', pictures=…")
    if kind in ENGINE_PACKAGES and kind not in installed_engines():
        raise not_installed_error(kind)
    found: Engine | None
    if isinstance(model, (str, Path)) and is_exported(Path(model)):
        found = open_exported(model, None if kind == "auto" else kind, precision, threads)
    elif precision == "int8":
        raise ValueError("int8 is a property of a file: export the network as int8, and give that file")
    else:
        origin = model if isinstance(model, LazyModel) else LazyModel(model)
        question = TuningKey.for_this_machine(batch_size, size, precision, threads)
        if kind != "auto":
            found = origin.verified_engine(kind, precision, threads)
        else:
            found = origin.remembered_engine(question) if max_drop is None else None
        found = found or _autotuned_engine(origin, question, max_drop, images)
    found.prepare(batch_size, size)
    return found


def open_cached_engine(
    key: str,
    batch_size: int = 1,
    size: ImageSize | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> Engine | None:
    """The engine that starts without torch, of the network with that key in the cache; None where only torch can.

    It is the one remembered for this use or, where nothing is, whichever opens what is kept, in float32. Files that are
    damaged, or of another version, are removed.
    """
    known = find_choice(key, batch_size, size, precision, threads)
    kinds = (known.kind,) if known else tuple(ENGINE_FILES)
    for kind in kinds:
        name = ENGINE_FILES.get(kind, "")
        path = engine_cache.find_cached(key, name) if name and kind in installed_engines() else None
        if path:
            try:
                return open_engine(
                    kind, path, known.precision if known else "float32", threads, path.with_name(OPENVINO_CACHE_DIR)
                )
            except ValueError:
                engine_cache.remove_cached(key, name)
            except ImportError:  # it is there and does not load
                continue
    return None


def cache_engine(model: EfficientNet, path: Path) -> bool:
    """Leaves in the cache what lets ``path``, to which ``model`` was written, start without torch next time.

    False where the disk does not take it, or no engine that is installed opens it. Raises as `engine` does.
    """
    kind = next((kind for kind in ENGINE_FILES if kind in installed_engines()), None)
    if kind is None:
        return False
    try:
        return bool(LazyModel(model, engine_cache.file_key(path)).verified_engine(kind, "float32", None))
    except OSError:
        return False


def get_throughput(
    model: EfficientNet | str | Path | LazyModel, engine: Engine, size: ImageSize | None = None
) -> EngineThroughput:
    """How many pictures a second ``engine``, made of ``model``, gives at which batch; measured once, and remembered."""
    key = (model if isinstance(model, LazyModel) else LazyModel(model)).key
    question = TuningKey.for_this_machine(0, size, engine.precision, engine.threads)
    for one in read_records(key).throughputs:
        if (one.key, one.kind, one.precision) == (question, engine.kind, engine.precision):
            return one

    found = measure_throughput(engine, question, noise_images(1, size or engine.metadata.preprocess.size, engine))
    save_record(key, found)
    return found


def _autotuned_engine(
    lazy_model: LazyModel, key: TuningKey, max_drop: float | None, images: ImageBatch | None
) -> Engine:
    """The winner of the contest that ``question`` asks for; its reasons are told, and remembered."""
    from effnet.runtime.torch import EagerEngine, select_device

    if (
        select_device().type != "cpu"
    ):  # the others compute on the CPU, and what a GPU is there changes from start to start
        return EagerEngine(lazy_model.network, precision=key.precision, threads=key.threads)
    reference = EagerEngine(lazy_model.network, "cpu", threads=key.threads)
    precisions = tuple(dict.fromkeys(("float32", key.precision)))
    left_out = tuple(
        ExcludedEngine(kind, "", str(not_installed_error(kind)))
        for kind in ENGINE_PACKAGES
        if kind not in installed_engines()
    )
    ways = {
        (kind, precision): partial(lazy_model.open_engine, kind, precision, key.threads)
        for kind in ("eager", *ENGINE_PACKAGES)
        for precision in precisions
        if kind in installed_engines() and (kind, precision) != ("eager", "float32")
    }
    if max_drop is not None:
        assert images is not None
        expected = task_of(reference.metadata.labels.task).predict(reference.run(images))
        ways = {
            (kind, precision): way
            if precision == "float32"
            else partial(_open_within_drop, way, images, expected, max_drop)
            for (kind, precision), way in ways.items()
        }
    asked = noise_images(key.batch_size, key.size or lazy_model.network.preprocess.size, reference)
    found, winner = autotune({("eager", "float32"): lambda: reference, **ways}, reference, key, asked, left_out)
    log.info("%s", found.in_words())
    for one in found.excluded:
        log.info("left out: %s", " ".join(filter(None, (one.kind, one.precision))) + f": {one.reason}")
    if max_drop is None:
        save_record(lazy_model.key, found)
    return winner


def _open_within_drop(
    open_engine_file: partial[Engine], images: ImageBatch, expected: np.ndarray, max_drop: float
) -> Engine:
    """The engine, if it changes no more than ``max_drop`` percent of the answers ``expected``."""
    made = open_engine_file()
    task = task_of(made.metadata.labels.task)
    changed = 100 * (1 - task.score(made.run(images), expected))
    if changed > max_drop:
        raise ValueError(f"it changes {changed:.1f} % of the {task.metric_unit}")
    return made
