"""Networks to be timed that nobody has trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import torch
from torch import Tensor, nn

from effnet.arch import Arch
from effnet.arch.serde import check_int
from effnet.data.preprocessing import normalize
from effnet.metadata import Numerics
from effnet.net import EfficientNet, FusedMBConv, MBConv, create
from effnet.net.layers import ConvNorm
from effnet.runtime.autotune import ENGINE_FILES, OPENVINO_CACHE_DIR, autotune, noise_images, write_engine_file
from effnet.runtime.base import ENGINE_PACKAGES, Engine, installed_engines, open_engine, resolve_threads
from effnet.runtime.engine_cache import TuningKey
from effnet.runtime.torch import EagerEngine, select_device
from effnet.timing import Timing, run_in_subprocess, time_interleaved

NOISE_IMAGES, MAX_NOISE_SIDE = 4, 128  # of noise, from which batch norm takes its statistics


RESIDUAL_GAIN = 0.2  # batch norm's gain at the end of a residual branch


def random_network(
    arch: str | Arch, classes: int = 1000, channels: int = 3, numerics: Numerics | None = None
) -> EfficientNet:
    """A network with random weights whose maps have the usual size of numbers, in evaluation mode.

    Time depends on the numbers after all: without statistics of its own a deep random network fades to numbers so
    small (denormals) that processors take many times as long for them. Residual branches add little to what they are
    added to, or rounding grows from block to block as in no trained network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(arch, classes, channels, numerics).eval()
        for module in model.modules():
            if isinstance(module, (MBConv, FusedMBConv)) and module.layer.residual:
                last = module.project if isinstance(module.project, ConvNorm) else module.fused
                assert isinstance(last.norm, nn.BatchNorm2d)
                nn.init.constant_(last.norm.weight, RESIDUAL_GAIN)
        side = min(model.arch.resolution, MAX_NOISE_SIDE)
        # noise as it is then asked of: of another spread it would grow from block to block, and rounding with it
        pictures = torch.randint(256, (NOISE_IMAGES, side, side, channels), dtype=torch.uint8)
        set_batch_norm_statistics(model, normalize(pictures, model.preprocess))
    return model


def set_batch_norm_statistics(model: nn.Module, x: Tensor) -> None:
    """Gives every batch norm of ``model`` the statistics of one pass of ``x``; nothing else of it changes."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm, _ in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(x)
    for norm, momentum in norms:
        norm.eval().momentum = momentum


# Latency on this machine as the cost of an arch: in the engine that `effnet predict` would come to use for it.


FLOAT32 = "float32"  # what `predict` answers in unless another precision is allowed


TIMING_SECONDS = 1.5  # of timing; a network whose call takes longer is called `clock.contest.LEAST` times all the same


MAX_CALLS, WARMUP_CALLS = 200, 3


MIN_MAX_PROCESSES = 2, 3  # that always time a network, and at the most, where those differ


PROCESS_TOLERANCE = 0.1  # of the faster time: processes that differ by less agree


SECONDS_BETWEEN_MEASUREMENTS = (
    45.0  # seconds: spells in which other guests of the machine take its cache lasted up to 35
)


MAX_SLOWDOWN = 1.5  # times the fastest engine's time: slower ones take no part in the next contest


@dataclass(frozen=True)
class LatencyMeasurement:
    """How long a network takes for a batch, in which engine."""

    arch: Arch
    engine: str
    timing: Timing

    def in_words(self) -> str:
        """One line for a person: "19.6 ms (p10–p90 19.3–20.4, 76 calls in openvino)"."""
        time = self.timing
        low, high = time.p10 * 1e3, time.p90 * 1e3
        return f"{time.seconds * 1e3:.3g} ms (p10–p90 {low:.3g}–{high:.3g}, {time.runs} calls in {self.engine})"


class Latency:
    """Seconds that a network takes for one call, as a function of its arch; what it was asked for is in ``measured``.

    Each network gets random weights, which do not change its time. A contest finds the fastest engine whose answers
    are right, as it does for `effnet.engine`, in a folder of its own: the engine cache is left as it is. The winner's
    calls are then timed alone, one after the other, and their median counts.

    All this happens in a new process, for one that has run other networks tends to be slower. Another one opens the
    winner alone, as `effnet predict` does, and times it again; where the two differ by a tenth, so does a third. The
    middle one counts, of two the faster. Some seconds a network.

    Whoever asks for a network again doubts its time. That may be due to a spell in which the whole machine is slower,
    so the second measurement comes 45 seconds after the first.
    """

    def __init__(
        self,
        threads: int | None = None,
        batch_size: int = 1,
        classes: int = 1000,
        channels: int = 3,
        on_measured: Callable[[LatencyMeasurement], object] = lambda found: None,
    ) -> None:
        resolve_threads(threads)
        check_int("batch", batch_size, 1)
        self.threads, self.batch_size = threads, batch_size
        self.measurements: list[LatencyMeasurement] = []
        self._measured_at: dict[Arch, float] = {}  # when each was measured
        self._classes_channels, self._on_measured = (classes, channels), on_measured
        self._engines = file_engines()

    def __call__(self, arch: Arch) -> float:
        """The median of the seconds of one call. Raises ``MemoryError`` or ``RuntimeError`` for one too large."""
        if arch in self._measured_at:
            sleep(max(0.0, self._measured_at[arch] + SECONDS_BETWEEN_MEASUREMENTS - monotonic()))
        found = self._measure(arch)
        self._measured_at[arch] = monotonic()
        self.measurements.append(found)
        self._on_measured(found)
        return found.timing.seconds

    def _measure(self, arch: Arch) -> LatencyMeasurement:
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            asked = LatencyTask(arch, *self._classes_channels, self.batch_size, self.threads, Path(name))
            raced = run_in_subprocess(time_fastest_engine, asked, self._engines).value
            self._engines = raced.close_kinds
            times = [raced.timing]
            while len(times) < MIN_MAX_PROCESSES[0] or (len(times) < MIN_MAX_PROCESSES[1] and _times_differ(times)):
                times.append(run_in_subprocess(time_engine, asked, raced.engine).value)
        times.sort(key=lambda time: time.seconds)
        return LatencyMeasurement(arch, raced.engine, times[(len(times) - 1) // 2])


@dataclass(frozen=True)
class LatencyTask:
    """What a process is to time: the network, so many pictures at once, and where its files lie."""

    arch: Arch
    classes: int
    channels: int
    batch_size: int
    threads: int | None
    folder: Path

    def network(self) -> EfficientNet:
        """With the same random weights each time."""
        return random_network(self.arch, self.classes, self.channels)

    def open_engine(self, kind: str, model: EfficientNet | None = None) -> Engine:
        """The engine called ``kind`` with its file, which is written if it is not there."""
        path = self.folder / ENGINE_FILES[kind]
        if not path.exists():
            write_engine_file(path.name, path, model or self.network())
        return open_engine(kind, path, FLOAT32, self.threads, self.folder / OPENVINO_CACHE_DIR)


@dataclass(frozen=True)
class FastestEngine:
    """The engine that won a contest, which were close to it, and what its calls took alone."""

    engine: str
    close_kinds: tuple[str, ...]
    timing: Timing


def file_engines() -> tuple[str, ...]:
    """The engines that are installed and run a file: those that may beat eager."""
    return tuple(kind for kind in installed_engines() if kind in ENGINE_FILES)


def time_fastest_engine(task: LatencyTask, kinds: tuple[str, ...]) -> FastestEngine:
    """The engine that `effnet.engine` would choose, among eager and ``kinds``, and its time."""
    model = task.network()
    if not kinds or select_device().type != "cpu":
        return FastestEngine(
            EagerEngine.kind, kinds, _time_calls(EagerEngine(model, threads=task.threads), task.batch_size)
        )
    eager = EagerEngine(model, "cpu", threads=task.threads)
    ways: dict[tuple[str, str], Callable[[], Engine]] = {(EagerEngine.kind, FLOAT32): lambda: eager}
    for kind in kinds:
        ways[kind, FLOAT32] = partial(task.open_engine, kind, model)
    question = TuningKey.for_this_machine(task.batch_size, None, FLOAT32, task.threads)
    found, winner = autotune(ways, eager, question, noise_images(task.batch_size, model.preprocess.size, eager))
    close = MAX_SLOWDOWN * found.timings[0].seconds
    near = tuple(one.kind for one in found.timings if one.kind in ENGINE_PACKAGES and one.seconds <= close)
    return FastestEngine(winner.kind, near, _time_calls(winner, task.batch_size))


def time_engine(task: LatencyTask, kind: str) -> Timing:
    """The time of the engine called ``kind``, which is opened alone."""
    engine = task.open_engine(kind) if kind in ENGINE_FILES else EagerEngine(task.network(), threads=task.threads)
    return _time_calls(engine, task.batch_size)


def _time_calls(engine: Engine, batch_size: int) -> Timing:
    pictures = noise_images(batch_size, engine.metadata.preprocess.size, engine)
    engine.prepare(batch_size)
    return time_interleaved({"": partial(engine.run, pictures)}, MAX_CALLS, WARMUP_CALLS, seconds=TIMING_SECONDS)[""]


def _times_differ(times: list[Timing]) -> bool:
    seconds = [time.seconds for time in times]
    return max(seconds) > (1 + PROCESS_TOLERANCE) * min(seconds)


def latency(threads: int | None = None, batch_size: int = 1, classes: int = 1000, channels: int = 3) -> Latency:
    """A cost for ``effnet.fit``: the seconds that an arch takes on this machine for ``batch`` pictures at once.

    ``effnet.fit("b0", costs=[(effnet.latency(threads=2), 0.020)])`` is the largest network on B0's line that takes
    20 ms at most. It is measured in float32 in the engine that `effnet predict` would use, on so many ``threads`` (one
    a core if None), and again each time that it is called: for the same arch at the earliest 45 seconds later.
    Raises ``ValueError`` for less than one thread or picture.
    """
    return Latency(threads, batch_size, classes, channels)
