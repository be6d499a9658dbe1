"""Latency on this machine as the cost of an arch: in the engine that `effnet predict` would come to use for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from effnet.arch import Arch
from effnet.arch.record import whole
from effnet.bench.network import random_network
from effnet.clock import Timing, contest
from effnet.engines.eager import Eager
from effnet.engines.engine import PACKAGES, Engine, Pictures, granted, installed
from effnet.engines.opening import opened
from effnet.exporting.choice import Question
from effnet.exporting.contest import hold
from effnet.exporting.origin import COMPILED, FILES, SERVED, noise
from effnet.net import EfficientNet
from effnet.net.device import pick

FLOAT32 = "float32"  # what `predict` answers in unless another precision is allowed
SECONDS = 1.5  # of timing; a network whose call takes longer is called `clock.contest.LEAST` times all the same
CALLS_MOST, WARM_UP = 200, 3
CALM = 0.1  # a spread that is no disturbance
TRIES = 2, 3  # goes that are always made, and at the most to reach it
CLOSE = 1.5  # times the fastest engine's time: slower ones take no part in the next contest


@dataclass(frozen=True)
class Measured:
    """How long a network takes for a batch, in which engine."""

    arch: Arch
    kind: str
    timing: Timing

    def in_words(self) -> str:
        """One line for a person: "19.6 ms (p10–p90 19.3–20.4, 76 calls in openvino)"."""
        time = self.timing
        low, high = time.p10 * 1e3, time.p90 * 1e3
        return f"{time.seconds * 1e3:.3g} ms (p10–p90 {low:.3g}–{high:.3g}, {time.runs} calls in {self.kind})"


class Latency:
    """Seconds that a network takes for one call, as a function of its arch; what it was asked for is in ``measured``.

    Each network gets random weights, which do not change its time. A contest finds the fastest engine whose answers
    are right, as it does for `effnet.engine`, in a folder of its own: the engine cache is left as it is. The winner's
    calls are then timed alone, one after the other, and their median counts. There are two goes, where calls
    spread widely three, and the fastest counts, for what disturbs a machine only adds to a time.
    Some seconds a network.
    """

    def __init__(
        self,
        threads: int | None = None,
        batch: int = 1,
        classes: int = 1000,
        channels: int = 3,
        told: Callable[[Measured], object] = lambda found: None,
    ) -> None:
        granted(threads)
        whole("batch", batch, 1)
        self.threads, self.batch = threads, batch
        self.measured: list[Measured] = []
        self._of, self._told = (classes, channels), told
        self._kinds: tuple[str, ...] = tuple(kind for kind in installed() if kind in FILES)

    def __call__(self, arch: Arch) -> float:
        """The median of the seconds of one call. Raises ``MemoryError`` or ``RuntimeError`` for one too large."""
        found = self._measure(arch)
        self.measured.append(found)
        self._told(found)
        return found.timing.seconds

    def _measure(self, arch: Arch) -> Measured:
        model = random_network(arch, *self._of)
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            engine, pictures = self._fastest(model, Path(folder))
            engine.prepare(self.batch)
            times: list[Timing] = []
            while len(times) < TRIES[0] or (len(times) < TRIES[1] and times[-1].spread > CALM):
                times.append(contest({"": partial(engine.run, pictures)}, CALLS_MOST, WARM_UP, seconds=SECONDS)[""])
        return Measured(arch, engine.kind, min(times, key=lambda time: time.seconds))

    def _fastest(self, model: EfficientNet, folder: Path) -> tuple[Engine, Pictures]:
        """The engine that `effnet.engine` would choose, and noise for it."""
        if pick().type != "cpu":
            device = Eager(model, threads=self.threads)
            return device, noise(self.batch, model.preprocess.size, device)
        eager = Eager(model, "cpu", threads=self.threads)
        pictures = noise(self.batch, model.preprocess.size, eager)
        ways: dict[tuple[str, str], Callable[[], Engine]] = {("eager", FLOAT32): lambda: eager}
        for kind in self._kinds:
            ways[kind, FLOAT32] = partial(_filed, model, kind, folder, self.threads)
        if len(ways) == 1:
            return eager, pictures
        found, winner = hold(ways, eager, Question.now(self.batch, None, FLOAT32, self.threads), pictures)
        least = found.contestants[0].seconds
        self._kinds = tuple(
            one.kind for one in found.contestants if one.kind in PACKAGES and one.seconds <= CLOSE * least
        )
        return winner, pictures


def latency(threads: int | None = None, batch: int = 1, classes: int = 1000, channels: int = 3) -> Latency:
    """A cost for ``effnet.fit``: the seconds that an arch takes on this machine for ``batch`` pictures at once.

    ``effnet.fit("b0", costs=[(effnet.latency(threads=2), 0.020)])`` is the largest network on B0's line that takes
    20 ms at most. It is measured in float32 in the engine that `effnet predict` would use, on so many ``threads`` (one
    a core if None), and again each time that it is called.
    Raises ``ValueError`` for less than one thread or picture.
    """
    return Latency(threads, batch, classes, channels)


def _filed(model: EfficientNet, kind: str, folder: Path, threads: int | None) -> Engine:
    path = folder / FILES[kind]
    if not path.exists():
        if path.suffix == ".tflite":
            from effnet.exporting.litert import write
        else:
            from effnet.exporting.onnx import write  # type: ignore[assignment]
        write(path, model, SERVED)
    return opened(kind, path, FLOAT32, threads, folder / COMPILED)
