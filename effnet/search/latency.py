"""Latency on this machine as the cost of an arch: in the engine that `effnet predict` would come to use for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from effnet.arch import Arch
from effnet.arch.record import whole
from effnet.bench.network import random_network
from effnet.clock import Timing, contest, in_fresh_process
from effnet.engines.eager import Eager
from effnet.engines.engine import PACKAGES, Engine, granted, installed
from effnet.engines.opening import opened
from effnet.exporting.choice import Question
from effnet.exporting.contest import hold
from effnet.exporting.origin import COMPILED, FILES, noise, write
from effnet.net import EfficientNet
from effnet.net.device import pick

FLOAT32 = "float32"  # what `predict` answers in unless another precision is allowed
SECONDS = 1.5  # of timing; a network whose call takes longer is called `clock.contest.LEAST` times all the same
CALLS_MOST, WARM_UP = 200, 3
PROCESSES = 2, 3  # that always time a network, and at the most, where those differ
ALIKE = 0.1  # of the faster time: processes that differ by less agree
APART = 45.0  # seconds: spells in which other guests of the machine take its cache lasted up to 35
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
        batch: int = 1,
        classes: int = 1000,
        channels: int = 3,
        told: Callable[[Measured], object] = lambda found: None,
    ) -> None:
        granted(threads)
        whole("batch", batch, 1)
        self.threads, self.batch = threads, batch
        self.measured: list[Measured] = []
        self._ended: dict[Arch, float] = {}  # when each was measured
        self._of, self._told = (classes, channels), told
        self._kinds = filed()

    def __call__(self, arch: Arch) -> float:
        """The median of the seconds of one call. Raises ``MemoryError`` or ``RuntimeError`` for one too large."""
        if arch in self._ended:
            sleep(max(0.0, self._ended[arch] + APART - monotonic()))
        found = self._measure(arch)
        self._ended[arch] = monotonic()
        self.measured.append(found)
        self._told(found)
        return found.timing.seconds

    def _measure(self, arch: Arch) -> Measured:
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            asked = Asked(arch, *self._of, self.batch, self.threads, Path(name))
            raced = in_fresh_process(race, asked, self._kinds).value
            self._kinds = raced.close
            times = [raced.timing]
            while len(times) < PROCESSES[0] or (len(times) < PROCESSES[1] and _differ(times)):
                times.append(in_fresh_process(again, asked, raced.kind).value)
        times.sort(key=lambda time: time.seconds)
        return Measured(arch, raced.kind, times[(len(times) - 1) // 2])


@dataclass(frozen=True)
class Asked:
    """What a process is to time: the network, so many pictures at once, and where its files lie."""

    arch: Arch
    classes: int
    channels: int
    batch: int
    threads: int | None
    folder: Path

    def network(self) -> EfficientNet:
        """With the same random weights each time."""
        return random_network(self.arch, self.classes, self.channels)

    def filed(self, kind: str, model: EfficientNet | None = None) -> Engine:
        """The engine called ``kind`` with its file, which is written if it is not there."""
        path = self.folder / FILES[kind]
        if not path.exists():
            write(path.name, path, model or self.network())
        return opened(kind, path, FLOAT32, self.threads, self.folder / COMPILED)


@dataclass(frozen=True)
class Raced:
    """The engine that won a contest, which were close to it, and what its calls took alone."""

    kind: str
    close: tuple[str, ...]
    timing: Timing


def filed() -> tuple[str, ...]:
    """The engines that are installed and run a file: those that may beat eager."""
    return tuple(kind for kind in installed() if kind in FILES)


def race(asked: Asked, kinds: tuple[str, ...]) -> Raced:
    """The engine that `effnet.engine` would choose, among eager and ``kinds``, and its time."""
    model = asked.network()
    if not kinds or pick().type != "cpu":
        return Raced(Eager.kind, kinds, _timed(Eager(model, threads=asked.threads), asked.batch))
    eager = Eager(model, "cpu", threads=asked.threads)
    ways: dict[tuple[str, str], Callable[[], Engine]] = {(Eager.kind, FLOAT32): lambda: eager}
    for kind in kinds:
        ways[kind, FLOAT32] = partial(asked.filed, kind, model)
    question = Question.now(asked.batch, None, FLOAT32, asked.threads)
    found, winner = hold(ways, eager, question, noise(asked.batch, model.preprocess.size, eager))
    close = CLOSE * found.contestants[0].seconds
    near = tuple(one.kind for one in found.contestants if one.kind in PACKAGES and one.seconds <= close)
    return Raced(winner.kind, near, _timed(winner, asked.batch))


def again(asked: Asked, kind: str) -> Timing:
    """The time of the engine called ``kind``, which is opened alone."""
    engine = asked.filed(kind) if kind in FILES else Eager(asked.network(), threads=asked.threads)
    return _timed(engine, asked.batch)


def _timed(engine: Engine, batch: int) -> Timing:
    pictures = noise(batch, engine.contract.preprocess.size, engine)
    engine.prepare(batch)
    return contest({"": partial(engine.run, pictures)}, CALLS_MOST, WARM_UP, seconds=SECONDS)[""]


def _differ(times: list[Timing]) -> bool:
    seconds = [time.seconds for time in times]
    return max(seconds) > (1 + ALIKE) * min(seconds)


def latency(threads: int | None = None, batch: int = 1, classes: int = 1000, channels: int = 3) -> Latency:
    """A cost for ``effnet.fit``: the seconds that an arch takes on this machine for ``batch`` pictures at once.

    ``effnet.fit("b0", costs=[(effnet.latency(threads=2), 0.020)])`` is the largest network on B0's line that takes
    20 ms at most. It is measured in float32 in the engine that `effnet predict` would use, on so many ``threads`` (one
    a core if None), and again each time that it is called: for the same arch at the earliest 45 seconds later.
    Raises ``ValueError`` for less than one thread or picture.
    """
    return Latency(threads, batch, classes, channels)
