"""Seconds since a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import median
from time import perf_counter, sleep

from effnet.arch.serde import check_float, check_int


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was made."""
        return perf_counter() - self._start


# What was measured of a contestant, and how two of them compare.


BOOTSTRAP_RESAMPLES = 2000


BOOTSTRAP_SEED = 0  # the same times give the same interval


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: in each round, those of its consecutive calls."""

    rounds: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.rounds or not all(self.rounds):
            raise ValueError("a timing needs at least one round of at least one call")

    @cached_property
    def _calls(self) -> list[float]:
        return sorted(seconds for one in self.rounds for seconds in one)

    def quantile(self, share: float) -> float:
        """Seconds that ``share`` of the calls stay within, between two calls in proportion."""
        place = share * (len(self._calls) - 1)
        below = int(place)
        above = min(below + 1, len(self._calls) - 1)
        return self._calls[below] + (place - below) * (self._calls[above] - self._calls[below])

    @property
    def seconds(self) -> float:
        """The median of all calls."""
        return self.quantile(0.5)

    @property
    def p10(self) -> float:
        """One call in ten is as fast as this."""
        return self.quantile(0.1)

    @property
    def p90(self) -> float:
        """One call in ten is as slow as this."""
        return self.quantile(0.9)

    @property
    def p99(self) -> float:
        """One call in a hundred is as slow as this; of fewer calls, nearly the slowest."""
        return self.quantile(0.99)

    @property
    def fastest(self) -> float:
        """The fastest call."""
        return self._calls[0]

    @property
    def slowest(self) -> float:
        """The slowest call."""
        return self._calls[-1]

    @property
    def runs(self) -> int:
        """How many calls were timed."""
        return len(self._calls)

    @property
    def spread(self) -> float:
        """The middle half of the calls, from its fastest to its slowest, as a share of the median."""
        return (self.quantile(0.75) - self.quantile(0.25)) / self.seconds


@dataclass(frozen=True)
class TimeRatio:
    """How many times as long one contestant takes as another, and the interval that holds it with ``confidence``."""

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.2f}× ({self.low:.2f}–{self.high:.2f})"


def time_ratio(numerator: Timing, denominator: Timing, confidence: float = 0.95) -> TimeRatio:
    """How many times as long ``of`` takes as ``to``: the ratio of their medians over rounds.

    The interval is the percentile bootstrap's over rounds. Both contestants' rounds are drawn together, since what
    disturbed the machine in a round disturbed both: only what is left between them widens the interval.
    Raises ``ValueError`` where the two did not run in the same rounds.
    """
    if len(numerator.rounds) != len(denominator.rounds):
        raise ValueError(
            f"only rounds of one contest compare: there are {len(numerator.rounds)} of one, {len(denominator.rounds)} of the other"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    ours, theirs = ([median(one) for one in timing.rounds] for timing in (numerator, denominator))
    drawn, count = Random(BOOTSTRAP_SEED), len(ours)
    found = []
    for _ in range(BOOTSTRAP_RESAMPLES):
        which = drawn.choices(range(count), k=count)
        found.append(_median_ratio(ours, theirs, which))
    found.sort()
    tail = round((1 - confidence) / 2 * (BOOTSTRAP_RESAMPLES - 1))
    return TimeRatio(_median_ratio(ours, theirs, range(count)), found[tail], found[-1 - tail], confidence)


def _median_ratio(ours: Sequence[float], theirs: Sequence[float], which: Sequence[int]) -> float:
    return median(ours[index] for index in which) / median(theirs[index] for index in which)


# Contestants that take turns, so that what disturbs the machine disturbs them alike.


# Seconds. Measured on B0 with two threads, as processor time after the last call has returned: onnxruntime's pool spins
# for 40 ms, torch's OpenMP for 8, OpenVINO's hardly at all.
THREAD_POOL_PAUSE = 0.05


MIN_ROUNDS = 3  # rounds


LONG_CALL_PAUSES = 10  # pauses: what is left of a pool's spinning does not matter to a call that takes longer


TimedCall = Callable[[], object]


def time_interleaved(
    calls: Mapping[str, TimedCall],
    runs: int = 20,
    warmup_runs: int = 3,
    calls_per_round: int = 1,
    pause: float = 0.0,
    seconds: float = float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Times all ``contestants`` in turn: the name of each, and what it took.

    Each is called ``warm_up`` times unmeasured, then ``runs`` rounds call every one, in alternating order.

    Thread pools go on spinning when their work is done, onnxruntime's and OpenMP's among them, and take the next
    contestant's cores. So in a round each contestant may wait for ``pause`` seconds, make one call that is not
    timed (unless its calls are `LONG`), and then ``consecutive`` ones that are; with ``pause=0`` every call is timed.
    `PAUSE` is long enough for them all.

    Past ``seconds`` of measuring no further round begins, `LEAST` of them aside. ``progress`` hears
    how many rounds are done, and of how many.
    Raises ``ValueError`` for no runs, or a negative pause.
    """
    check_int("runs", runs, 1)
    check_int("warm_up", warmup_runs, 0)
    check_int("consecutive", calls_per_round, 1)
    check_float("pause", pause, 0)
    quick: dict[str, bool] = {}
    for name, call in calls.items():
        for _ in range(warmup_runs):
            quick[name] = _time_call(call) < LONG_CALL_PAUSES * pause
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    begun = perf_counter()
    for turn in range(runs):
        if turn >= MIN_ROUNDS and perf_counter() - begun > seconds:
            break
        order = list(calls.items())
        for name, call in order if turn % 2 == 0 else reversed(order):
            if pause:
                sleep(pause)
                if quick.get(name, True):
                    call()
            rounds[name].append(tuple(_time_call(call) for _ in range(calls_per_round)))
        progress(turn + 1, runs)
    return {name: Timing(tuple(taken)) for name, taken in rounds.items()}


def _time_call(call: TimedCall) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
