"""Measured latency as the cost of an architecture, for `effnet.fit` and the searches; networks of random weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import torch
from torch import Tensor, nn

from effnet.arch import Arch, serde
from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet, FusedMBConv, MBConv, create, layers
from effnet.runtime import autotune, base, engine_cache
from effnet.runtime.torch import EagerEngine, select_device
from effnet.timing import Timing, child_process, time_interleaved

FLOAT32 = "float32"  # what `predict` uses unless another precision is allowed
TIMING_SECONDS = 1.5  # a network with longer calls still gets `effnet.timing.timer.MIN_ROUNDS` of them
MAX_CALLS, WARMUP_CALLS = 200, 3
MIN_PROCESSES, MAX_PROCESSES = 2, 3  # the last one only if the others differ
PROCESS_TOLERANCE = 0.1  # largest difference between processes that agree, as a share of the faster time
SECONDS_BETWEEN_MEASUREMENTS = 45.0  # slow spells, in which other guests of the machine take its cache, lasted up to 35
MAX_SLOWDOWN = 1.5  # engines slower than this times the fastest are not tried for the next network

NOISE_IMAGES, MAX_NOISE_SIDE = 4, 128  # batch of noise from which batch norm takes its statistics
RESIDUAL_GAIN = 0.2  # batch norm's weight at the end of a residual branch


@dataclass(frozen=True)
class LatencyMeasurement:
    """Time of one call for a batch, and the engine that ran it."""

    arch: Arch
    engine: str
    timing: Timing

    def describe(self) -> str:
        """Return one line such as "19.6 ms (p10–p90 19.3–20.4, 76 calls in openvino)"."""
        time = self.timing
        low, high = time.p10 * 1e3, time.p90 * 1e3
        return f"{time.seconds * 1e3:.3g} ms (p10–p90 {low:.3g}–{high:.3g}, {time.runs} calls in {self.engine})"


class Latency:
    """A cost function for `effnet.fit`: seconds that an architecture takes on this machine for one batch, in float32.

    The fastest engine with correct outputs is found as by `effnet.engine`, without touching the engine cache, and its
    calls are timed in a new process, since one that has run other networks tends to be slower. A second process opens
    that engine alone, as `effnet predict` does, and times it again; if the two differ by 10 %, so does a third. The
    median counts, of two the faster.

    Asking again for the same architecture may be due to a spell in which the whole machine is slower, so the second
    measurement waits until 45 seconds after the first. All results are kept in ``measurements``.

    Args:
        threads: by default one per core.
        batch_size: images per call.
        on_measured: called with each result.

    Raises:
        ValueError: less than one thread or image.

    Example:
        >>> effnet.fit("b0", costs=[(effnet.latency(threads=2), 0.020)])  # the largest scaled b0 that takes 20 ms
    """

    def __init__(
        self,
        threads: int | None = None,
        batch_size: int = 1,
        classes: int = 1000,
        channels: int = 3,
        on_measured: Callable[[LatencyMeasurement], object] = lambda measurement: None,
    ) -> None:
        base.resolve_threads(threads)
        serde.check_int("batch_size", batch_size, 1)
        self.threads, self.batch_size = threads, batch_size
        self.measurements: list[LatencyMeasurement] = []
        self._measured_at: dict[Arch, float] = {}
        self._classes_channels, self._on_measured = (classes, channels), on_measured
        self._engines = autotune.installed_file_engines()

    def __call__(self, arch: Arch) -> float:
        """Return median seconds per call. Raises ``ChildProcessError``, ``RuntimeError`` if ``arch`` is too large."""
        if arch in self._measured_at:
            sleep(max(0.0, self._measured_at[arch] + SECONDS_BETWEEN_MEASUREMENTS - monotonic()))
        measurement = self._measure(arch)
        self._measured_at[arch] = monotonic()
        self.measurements.append(measurement)
        self._on_measured(measurement)
        return measurement.timing.seconds

    def _measure(self, arch: Arch) -> LatencyMeasurement:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            task = LatencyTask(arch, *self._classes_channels, self.batch_size, self.threads, Path(folder))
            fastest = child_process.run_in_subprocess(time_fastest_engine, task, self._engines).value
            self._engines = fastest.close_kinds
            times = [fastest.timing]
            while len(times) < MIN_PROCESSES or (len(times) < MAX_PROCESSES and _times_differ(times)):
                times.append(child_process.run_in_subprocess(time_engine, task, fastest.engine).value)
        times.sort(key=lambda time: time.seconds)
        return LatencyMeasurement(arch, fastest.engine, times[(len(times) - 1) // 2])


latency = Latency  # the name that `effnet` exports


@dataclass(frozen=True)
class LatencyTask:
    """What a process has to time, and the folder of its files."""

    arch: Arch
    classes: int
    channels: int
    batch_size: int
    threads: int | None
    folder: Path

    @cached_property
    def network(self) -> EfficientNet:
        """The network with random weights."""
        return random_network(self.arch, self.classes, self.channels)

    def open_engine(self, kind: str) -> base.Engine:
        """Open the engine ``kind``, writing its file first if necessary."""
        if kind not in engine_cache.ENGINE_FILES:
            return EagerEngine(self.network, threads=self.threads)
        path = self.folder / engine_cache.ENGINE_FILES[kind]
        if not path.exists():
            autotune.write_engine_file(path.name, path, self.network)
        return base.open_engine(kind, path, FLOAT32, self.threads, self.folder / engine_cache.OPENVINO_CACHE_DIR)


@dataclass(frozen=True)
class FastestEngine:
    """The fastest engine, the time of its calls alone, and the engines that were close to it."""

    engine: str
    close_kinds: tuple[str, ...]
    timing: Timing


def time_fastest_engine(task: LatencyTask, kinds: tuple[str, ...]) -> FastestEngine:
    """Time the engine that `effnet.engine` would choose among eager and ``kinds``."""
    eager = task.open_engine(EagerEngine.kind)
    if not kinds or select_device().type != "cpu":
        return FastestEngine(eager.kind, kinds, _time_calls(eager, task.batch_size))
    openers: dict[autotune.EngineVariant, autotune.EngineOpener] = {(eager.kind, FLOAT32): lambda: eager}
    openers |= {(kind, FLOAT32): partial(task.open_engine, kind) for kind in kinds}
    key = engine_cache.TuningKey.for_this_machine(task.batch_size, threads=task.threads)
    choice, fastest = autotune.autotune(openers, eager, key, autotune.noise_images(eager, task.batch_size))
    limit = MAX_SLOWDOWN * choice.timings[0].seconds
    close = tuple(one.kind for one in choice.timings if one.kind in base.ENGINE_PACKAGES and one.seconds <= limit)
    return FastestEngine(fastest.kind, close, _time_calls(fastest, task.batch_size))


def time_engine(task: LatencyTask, kind: str) -> Timing:
    """Open the engine ``kind`` alone and time it."""
    return _time_calls(task.open_engine(kind), task.batch_size)


def _time_calls(engine: base.Engine, batch_size: int) -> Timing:
    images = autotune.noise_images(engine, batch_size)
    engine.prepare(batch_size)
    return time_interleaved({"": partial(engine.run, images)}, MAX_CALLS, WARMUP_CALLS, seconds=TIMING_SECONDS)[""]


def _times_differ(times: list[Timing]) -> bool:
    seconds = [time.seconds for time in times]
    return max(seconds) > (1 + PROCESS_TOLERANCE) * min(seconds)


def random_network(arch: str | Arch, classes: int = 1000, channels: int = 3) -> EfficientNet:
    """Return a network with random weights whose feature maps have typical magnitudes, in evaluation mode.

    Time depends on the values after all: without batch-norm statistics, activations of a deep random network fade to
    denormals, which take processors many times as long. Residual branches contribute little, or rounding errors would
    grow from block to block as in no trained network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(arch, classes, channels).eval()
        for module in model.modules():
            if isinstance(module, (MBConv, FusedMBConv)) and module.layer.residual:
                last = module.project if isinstance(module.project, layers.ConvNorm) else module.fused
                assert isinstance(last.norm, nn.BatchNorm2d)
                nn.init.constant_(last.norm.weight, RESIDUAL_GAIN)
        side = min(model.arch.resolution, MAX_NOISE_SIDE)
        # The same distribution as the images it is timed on; with another one, activations would grow block by block
        images = torch.randint(256, (NOISE_IMAGES, side, side, channels), dtype=torch.uint8)
        set_batch_norm_statistics(model, normalize(images, model.preprocess))
    return model


def set_batch_norm_statistics(model: nn.Module, x: Tensor) -> None:
    """Set the running statistics of every batch norm of ``model`` to those of one forward pass of ``x``."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm, _ in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(x)
    for norm, momentum in norms:
        norm.eval().momentum = momentum
