"""Choosing the engine that is fastest here and correct, and remembering it. Imports torch if the network is needed."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.serde import check_choice, check_int, check_size
from effnet.runtime import base, engine_cache, foreign_onnx, io_spec
from effnet.runtime.engine_cache import (
    ENGINE_FILES,
    OPENVINO_CACHE_DIR,
    EngineChoice,
    EngineThroughput,
    EngineTiming,
    ExcludedEngine,
    TuningKey,
)
from effnet.tasks import task_of
from effnet.timing import THREAD_POOL_PAUSE, Stopwatch, Timing, time_interleaved

if TYPE_CHECKING:
    from effnet.net import EfficientNet

CACHED_IO_SPEC = io_spec.IOSpec("floats", "logits", embedding=True, size=None)

# Largest accepted difference from eager in float32, relative to eager's largest output. In bfloat16 a network of random
# weights is off by 0.05 to 0.13, in eager as in OpenVINO.
ENGINE_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.025}
COMPARED_IMAGES = 4  # enough to show a wrong graph, few enough for the largest networks

TIMING_SECONDS = 2.5
MAX_CALL_SECONDS = 0.5  # if the batch would take longer, a smaller one is timed
MAX_SLOWDOWN = 3.0  # engines slower than this times the fastest are timed once only
MAX_LOW_PRECISION_TIME = 0.95  # a lower precision is chosen only below this share of float32's time
MAX_ROUNDS, CONSECUTIVE_CALLS = 15, 3
BATCH_SIZES = (1, 8, 16, 32, 64, 128)  # tried for throughput

# Of an engine that runs a file: outputs that disagree, a full disk, a missing package
ENGINE_ERRORS = (ValueError, OSError, ImportError)

EngineOpener = Callable[[], base.Engine]
EngineVariant = tuple[str, str]  # kind and precision

LOG = logging.getLogger("effnet")


def engine(
    model: "EfficientNet | str | Path | foreign_onnx.OnnxFile | LazyModel",
    kind: str = "auto",
    batch_size: int = 1,
    size: int | tuple[int, int] | None = None,
    precision: str = "float32",
    threads: int | None = None,
    max_drop: float | None = None,
    images: base.ImageBatch | None = None,
) -> base.Engine:
    """Return an engine that runs ``model`` on this machine.

    "auto" takes the engine that was fastest here for this use. If none is known yet, the installed engines whose
    outputs agree with eager's are timed, which takes a few seconds, and the result is remembered.

    Args:
        model: a network, anything `effnet.load` accepts, or an exported file, which the first suitable engine opens.
        kind: "auto", "eager", "compiled", "native", "onnxruntime", "openvino" or "litert".
        batch_size: images per call to optimize for; others run too.
        size: side or (height, width) in pixels to optimize for, by default the network's own.
        precision: "float32", or "bfloat16" or "float16" to allow that as well where it is faster.
        threads: by default one per core.
        max_drop: percentage points of predictions that a lower precision may change on ``images``: the top class of
            images, single labels if multi-label, or R² for regression.
        images: cropped images for ``max_drop``, uint8 (N, H, W, C).

    Raises:
        ImportError: the engine is not installed.
        ValueError: unknown or failing engine, outputs that disagree with eager's, or an unsupported size, number of
            threads or precision.

    Example:
        >>> runner = effnet.engine("model.safetensors", size=224)
        >>> logits = runner.run(images)  # uint8 (N, 224, 224, 3) -> float32 (N, classes)
    """
    check_choice("kind", kind, ("auto", *base.ENGINE_KINDS))
    check_choice("precision", precision, base.PRECISIONS)
    check_int("batch_size", batch_size, 1)
    base.resolve_threads(threads)
    size = None if size is None else check_size(size)
    if max_drop is not None and (images is None or precision == "float32"):
        raise ValueError("max_drop requires images and a precision other than float32, such as precision='bfloat16'")
    if kind in base.ENGINE_PACKAGES and kind not in base.installed_engines():
        raise base.not_installed_error(kind)
    found: base.Engine | None
    if foreign := foreign_onnx.find_runnable(model, kind):
        found = foreign_onnx.open_foreign(foreign, kind, precision, threads)
    elif isinstance(model, (str, Path)) and io_spec.is_exported(Path(model)):
        found = base.open_exported(model, None if kind == "auto" else kind, precision, threads)
    elif precision == "int8":
        raise ValueError("this network is not quantized: export it with effnet.quantize, and open that file")
    else:
        assert not isinstance(model, foreign_onnx.OnnxFile)
        lazy_model = model if isinstance(model, LazyModel) else LazyModel(model)
        key = TuningKey.for_this_machine(batch_size, size, precision, threads)
        if kind != "auto":
            found = lazy_model.verified_engine(kind, precision, threads)
        else:
            found = lazy_model.remembered_engine(key) if max_drop is None else None
        found = found or _autotuned_engine(lazy_model, key, max_drop, images)
    found.prepare(batch_size, size)
    return found


def open_cached_engine(
    key: str,
    batch_size: int = 1,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> base.Engine | None:
    """Open the network with that cache key without torch, in the remembered engine or any with a cached file."""
    choice = engine_cache.find_choice(key, TuningKey.for_this_machine(batch_size, size, precision, threads))
    precision = choice.precision if choice else "float32"
    for kind in installed_file_engines():
        if choice is None or kind == choice.kind:
            with suppress(ImportError, base.UnsupportedPrecisionError):  # installed, but fails to import
                if found := _open_cached_file(key, kind, precision, threads):
                    return found
    return None


def installed_file_engines() -> tuple[str, ...]:
    """Return the installed engines that run a file."""
    installed = base.installed_engines()
    return tuple(kind for kind in ENGINE_FILES if kind in installed)


def _open_cached_file(key: str, kind: str, precision: str, threads: int | None) -> base.Engine | None:
    """Open the cached file of that engine. None if there is none, or if it was damaged, and is removed."""
    path = engine_cache.find_cached(key, ENGINE_FILES[kind])
    if path is None:
        return None
    try:
        return base.open_engine(kind, path, precision, threads, path.with_name(OPENVINO_CACHE_DIR))
    except base.UnsupportedPrecisionError:
        raise
    except ValueError:
        engine_cache.remove_cached(key, path.name)
        return None


def cache_engine(model: "EfficientNet", path: Path) -> bool:
    """Cache a file with which ``path``, a saved ``model``, starts without torch; return False if impossible."""
    return LazyModel(model, engine_cache.file_key(path)).open_file_engine(None) is not None


class LazyModel:
    """A network that is loaded when it is needed; its cache key is known without torch."""

    def __init__(self, model: "EfficientNet | str | Path", key: str | None = None) -> None:
        self._model, self._key = model, key

    @cached_property
    def key(self) -> str:
        """Key in the engine cache."""
        if self._key:
            return self._key
        if isinstance(self._model, (str, Path)):
            from effnet.weights.resolve import resolve_weights

            weights = resolve_weights(self._model)
            return engine_cache.file_key(weights.path, weights.entry.name if weights.entry else "")
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self._model.state_dict().items()}
        return engine_cache.model_key(tensors, self._model.metadata)

    @cached_property
    def network(self) -> "EfficientNet":
        """The network, loaded on first access."""
        if not isinstance(self._model, (str, Path)):
            return self._model
        from effnet.weights import load

        return load(self._model)

    def verified_engine(self, kind: str, precision: str, threads: int | None) -> base.Engine:
        """Return the engine, compared with eager unless it was before. Raises ``ValueError`` if it disagrees."""
        opened = self.open_engine(kind, precision, threads)
        if kind in ENGINE_FILES and not engine_cache.is_verified(self.key, kind, precision):
            self._verify(opened)
            engine_cache.mark_verified(self.key, kind, precision)
        return opened

    def remembered_engine(self, key: TuningKey) -> base.Engine | None:
        """Return the engine that was fastest for this use, with its file written again if it is missing, or None."""
        choice = engine_cache.find_choice(self.key, key)
        if choice is None or (choice.kind in base.ENGINE_PACKAGES and choice.kind not in base.installed_engines()):
            return None
        with suppress(*ENGINE_ERRORS):
            return self.verified_engine(choice.kind, choice.precision, key.threads)
        return None

    def open_file_engine(self, threads: int | None) -> base.Engine | None:
        """Return the first engine that runs a file made of the network, cached for later, and agrees with eager."""
        for kind in installed_file_engines():
            with suppress(*ENGINE_ERRORS):
                return self.verified_engine(kind, "float32", threads)
        return None

    def open_engine(self, kind: str, precision: str, threads: int | None) -> base.Engine:
        """Return the engine. Its file is written if it is missing or damaged."""
        if kind not in ENGINE_FILES:
            from effnet.runtime.torch import CompiledEngine, EagerEngine

            torch_engine = CompiledEngine if kind == "compiled" else EagerEngine
            return torch_engine(self.network, precision=precision, threads=threads)
        if found := _open_cached_file(self.key, kind, precision, threads):
            return found
        name = ENGINE_FILES[kind]
        path = engine_cache.write_cached(self.key, name, lambda target: write_engine_file(name, target, self.network))
        if path is None:
            raise OSError(
                f"no space for the file that {kind} opens: free some, set EFFNET_HOME, or use the eager engine"
            )
        return base.open_engine(kind, path, precision, threads, path.with_name(OPENVINO_CACHE_DIR))

    @cached_property
    def _reference(self) -> tuple[base.ImageBatch, base.FloatArray]:
        from effnet.runtime.torch import EagerEngine

        eager = EagerEngine(self.network, "cpu")
        image = noise_images(eager, 1)
        return image, eager.run(image)

    def _verify(self, candidate: base.Engine) -> None:
        image, expected = self._reference
        difference = max_relative_difference(candidate.run(image), expected)
        if not difference <= ENGINE_TOLERANCES[candidate.precision]:
            engine_cache.remove_cached(self.key, ENGINE_FILES[candidate.kind])
            raise ValueError(
                f"the outputs of {candidate.kind} differ from the network's (by {difference:.1e}): use the eager engine"
            )


def write_engine_file(name: str, path: Path, model: "EfficientNet") -> None:
    """Write the file called ``name`` in `ENGINE_FILES` to ``path``."""
    if name.endswith(".effplan"):
        from effnet.runtime.native_writer import write_plan

        write_plan(path, model)
    elif name.endswith(".tflite"):
        from effnet.runtime.litert import write_litert

        write_litert(path, model, CACHED_IO_SPEC)
    else:
        from effnet.runtime.onnx_writer import write_onnx

        write_onnx(path, model, CACHED_IO_SPEC)


def noise_images(engine: base.Engine, count: int, size: tuple[int, int] | None = None) -> base.ImageBatch:
    """Return random images for ``engine``, uint8 (N, H, W, C), by default of its own size; always the same ones."""
    preprocess = engine.metadata.preprocess
    shape = (count, *(size or preprocess.size), len(preprocess.mean))
    images: base.ImageBatch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return images


def _autotuned_engine(
    lazy_model: LazyModel, key: TuningKey, max_drop: float | None, images: base.ImageBatch | None
) -> base.Engine:
    from effnet.runtime.torch import EagerEngine, select_device

    if select_device().type != "cpu":  # the other engines run on the CPU, and a GPU may not be there the next time
        return EagerEngine(lazy_model.network, precision=key.precision, threads=key.threads)
    reference = EagerEngine(lazy_model.network, "cpu", threads=key.threads)
    installed = base.installed_engines()
    missing = (kind for kind in base.ENGINE_PACKAGES if kind not in installed)
    excluded = tuple(ExcludedEngine(kind, "", str(base.not_installed_error(kind))) for kind in missing)
    openers: dict[EngineVariant, EngineOpener] = {("eager", "float32"): lambda: reference}
    for kind in ("eager", *base.ENGINE_PACKAGES):
        for precision in dict.fromkeys(("float32", key.precision)):
            if kind in installed and (kind, precision) not in openers:
                openers[kind, precision] = partial(lazy_model.open_engine, kind, precision, key.threads)
    if max_drop is not None:
        assert images is not None
        expected = task_of(reference.metadata.labels.task).predict(reference.run(images))
        for (kind, precision), opener in openers.items():
            if precision != "float32":
                openers[kind, precision] = partial(_open_within_drop, opener, images, expected, max_drop)
    choice, fastest = autotune(openers, reference, key, noise_images(reference, key.batch_size, key.size), excluded)
    LOG.info("%s", choice.describe())
    for one in choice.excluded:
        LOG.info("excluded: %s", " ".join(filter(None, (one.kind, one.precision))) + f": {one.reason}")
    if max_drop is None:
        engine_cache.save_record(lazy_model.key, choice)
    return fastest


def _open_within_drop(
    opener: EngineOpener, images: base.ImageBatch, expected: np.ndarray, max_drop: float
) -> base.Engine:
    opened = opener()
    task = task_of(opened.metadata.labels.task)
    changed = 100 * (1 - task.score(opened.run(images), expected))
    if changed > max_drop:
        raise ValueError(f"it changes {changed:.1f} % of the {task.metric_unit}")
    return opened


def autotune(
    openers: Mapping[EngineVariant, EngineOpener],
    reference: base.Engine,
    key: TuningKey,
    images: base.ImageBatch,
    excluded: tuple[ExcludedEngine, ...] = (),
) -> tuple[EngineChoice, base.Engine]:
    """Return the fastest of ``openers`` that agrees with ``reference`` on ``images``, uint8 (N, H, W, C), and why."""
    watch = Stopwatch()
    expected = reference.run(images[:COMPARED_IMAGES])
    seconds_per_image = watch.seconds / len(expected)
    batch_size = max(1, min(len(images), int(MAX_CALL_SECONDS / max(seconds_per_image, 1e-9))))
    images = images[:batch_size]
    engines: dict[EngineVariant, base.Engine] = {}
    differences: dict[EngineVariant, float] = {}
    failed: list[ExcludedEngine] = []
    for (kind, precision), opener in openers.items():
        try:
            opened = opener()
            opened.prepare(batch_size, images.shape[1:3])
            difference = max_relative_difference(opened.run(images)[:COMPARED_IMAGES], expected[:batch_size])
        except Exception as error:  # whatever is wrong with one of them, the others run
            failed.append(ExcludedEngine(kind, precision, str(error) or type(error).__name__))
            continue
        if difference <= ENGINE_TOLERANCES[precision]:
            engines[kind, precision], differences[kind, precision] = opened, difference
        else:
            failed.append(ExcludedEngine(kind, precision, f"its outputs differ by {difference:.1e}"))
    times = _time_engines(engines, images)
    fastest = _select_fastest(times)
    timings = tuple(
        EngineTiming(*name, time.seconds, time.p10, time.p90, time.runs, differences[name])
        for name, time in sorted(times.items(), key=lambda pair: pair[1].seconds)
    )
    choice = EngineChoice(key, *fastest, timings, (*excluded, *failed), batch_size, _timestamp())
    return choice, engines[fastest]


def max_relative_difference(outputs: base.FloatArray, expected: base.FloatArray) -> float:
    """Return the largest difference relative to the largest ``expected`` value; infinite if an output is not finite."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return float("inf")
    return float(np.abs(outputs - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _time_engines(engines: Mapping[EngineVariant, base.Engine], images: base.ImageBatch) -> dict[EngineVariant, Timing]:
    names = {" ".join(name): name for name in engines}
    calls = {text: partial(engines[name].run, images) for text, name in names.items()}
    first = time_interleaved(calls, runs=1, warmup_runs=0)  # each has run once already
    fastest = min(time.seconds for time in first.values())
    calls = {text: call for text, call in calls.items() if first[text].seconds <= MAX_SLOWDOWN * fastest}
    round_seconds = sum(THREAD_POOL_PAUSE + (1 + CONSECUTIVE_CALLS) * first[text].seconds for text in calls)
    runs = min(max(int(TIMING_SECONDS / round_seconds), 3), MAX_ROUNDS)
    times = first | time_interleaved(
        calls, runs, warmup_runs=0, calls_per_round=CONSECUTIVE_CALLS, pause=THREAD_POOL_PAUSE, seconds=TIMING_SECONDS
    )
    return {names[text]: time for text, time in times.items()}


def _select_fastest(timings: Mapping[EngineVariant, Timing]) -> EngineVariant:
    exact = [name for name in timings if name[1] == "float32"]
    best, best_exact = (min(names, key=lambda name: timings[name].seconds) for names in (timings, exact or timings))
    return best if timings[best].seconds <= MAX_LOW_PRECISION_TIME * timings[best_exact].seconds else best_exact


def get_throughput(model: LazyModel, engine: base.Engine) -> EngineThroughput:
    """Return the images per second of an engine of ``model`` by batch size; measured once and remembered."""
    key = TuningKey.for_this_machine(0, None, engine.precision, engine.threads)
    for record in engine_cache.read_records(model.key).throughputs:
        if (record.key, record.kind, record.precision) == (key, engine.kind, engine.precision):
            return record
    record = measure_throughput(engine, key, noise_images(engine, 1))
    engine_cache.save_record(model.key, record)
    return record


def measure_throughput(engine: base.Engine, key: TuningKey, image: base.ImageBatch) -> EngineThroughput:
    """Measure images per second of ``image``, uint8 (1, H, W, C), for growing `BATCH_SIZES` as long as they gain."""
    measured: list[tuple[int, float]] = []
    for batch_size in BATCH_SIZES:
        images = np.repeat(image, batch_size, axis=0)
        engine.prepare(batch_size, images.shape[1:3])
        call = partial(engine.run, images)
        time = time_interleaved({"": call}, runs=5, warmup_runs=1, seconds=TIMING_SECONDS / 5)[""]
        measured.append((batch_size, batch_size / time.seconds))
        if len(measured) > 1 and (measured[-1][1] < measured[-2][1] or time.seconds > 2 * MAX_CALL_SECONDS):
            break
    return EngineThroughput(key, engine.kind, engine.precision, tuple(measured), _timestamp())


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
