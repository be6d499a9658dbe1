"""Stopwatch, timings of repeated and interleaved calls, and ratios of timings with confidence intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import median
from time import perf_counter, sleep

from effnet.arch.serde import check_float, check_int

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # the same times give the same interval

# Seconds. Measured on B0 with two threads, as CPU time after the last call has returned: onnxruntime's pool spins for
# 40 ms, torch's OpenMP for 8, OpenVINO's hardly at all.
THREAD_POOL_PAUSE = 0.05
MIN_ROUNDS = 3
LONG_CALL_PAUSES = 10  # a call that takes more pauses than this is not affected by another pool's spinning

TimedCall = Callable[[], object]


class Stopwatch:
    """Measures the seconds since its creation."""

    def __init__(self) -> None:
        self._start = perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was created."""
        return perf_counter() - self._start


@dataclass(frozen=True)
class Timing:
    """Seconds of one timed function: for each round, those of its consecutive calls."""

    rounds: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.rounds or not all(self.rounds):
            raise ValueError("a timing needs at least one round of at least one call")

    @cached_property
    def _calls(self) -> list[float]:
        return sorted(seconds for calls in self.rounds for seconds in calls)

    def quantile(self, q: float) -> float:
        """Return the ``q`` quantile of all calls, linearly interpolated, in seconds."""
        position = q * (len(self._calls) - 1)
        below = int(position)
        above = min(below + 1, len(self._calls) - 1)
        return self._calls[below] + (position - below) * (self._calls[above] - self._calls[below])

    @property
    def seconds(self) -> float:
        """The median of all calls."""
        return self.quantile(0.5)

    @property
    def p10(self) -> float:
        """The 10th percentile."""
        return self.quantile(0.1)

    @property
    def p90(self) -> float:
        """The 90th percentile."""
        return self.quantile(0.9)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return self.quantile(0.99)

    @property
    def fastest(self) -> float:
        """The fastest call."""
        return self._calls[0]

    @property
    def runs(self) -> int:
        """The number of timed calls."""
        return len(self._calls)

    @property
    def spread(self) -> float:
        """The interquartile range as a fraction of the median."""
        return (self.quantile(0.75) - self.quantile(0.25)) / self.seconds


def time_interleaved(
    calls: Mapping[str, TimedCall],
    runs: int = 20,
    warmup_runs: int = 3,
    calls_per_round: int = 1,
    pause: float = 0.0,
    seconds: float = float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Time several functions in alternation, so that disturbances of the machine affect all of them alike.

    Thread pools keep spinning when their work is done, onnxruntime's and OpenMP's among them, and take cores from the
    function that is timed next. Hence the ``pause``: before its timed calls in a round, each function waits that long
    and makes one untimed call (unless its calls are long). `THREAD_POOL_PAUSE` suffices for all pools.

    Args:
        calls: The functions by name.
        runs: Number of rounds; each calls every function, in alternating order.
        warmup_runs: Untimed calls of each function at the start.
        calls_per_round: Timed calls of each function per round.
        pause: Seconds to wait before each function; 0 times every call.
        seconds: No further round starts after this time, except for the first `MIN_ROUNDS`.
        progress: Called with the number of rounds done and in total.

    Raises ``ValueError`` if there are no runs, or the pause is negative.
    """
    check_int("runs", runs, 1)
    check_int("warmup_runs", warmup_runs, 0)
    check_int("calls_per_round", calls_per_round, 1)
    check_float("pause", pause, 0)
    is_short: dict[str, bool] = {}
    for name, call in calls.items():
        for _ in range(warmup_runs):
            is_short[name] = _time_call(call) < LONG_CALL_PAUSES * pause
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    start = perf_counter()
    for index in range(runs):
        if index >= MIN_ROUNDS and perf_counter() - start > seconds:
            break
        order = list(calls.items())
        for name, call in order if index % 2 == 0 else reversed(order):
            if pause:
                sleep(pause)
                if is_short.get(name, True):
                    call()
            rounds[name].append(tuple(_time_call(call) for _ in range(calls_per_round)))
        progress(index + 1, runs)
    return {name: Timing(tuple(times)) for name, times in rounds.items()}


def _time_call(call: TimedCall) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


@dataclass(frozen=True)
class TimeRatio:
    """Ratio of two timings, and the interval that contains it with probability ``confidence``."""

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.2f}× ({self.low:.2f}–{self.high:.2f})"


def time_ratio(numerator: Timing, denominator: Timing, confidence: float = 0.95) -> TimeRatio:
    """Return the ratio of the medians over rounds of two timings from the same `time_interleaved`.

    The interval is the percentile bootstrap's over rounds. Both timings are resampled with the same rounds, since what
    disturbed the machine in a round disturbed both: only their differences widen the interval. Raises ``ValueError`` if
    the two have different numbers of rounds, or ``confidence`` is not in (0, 1).
    """
    if len(numerator.rounds) != len(denominator.rounds):
        rounds = f"there are {len(numerator.rounds)} rounds of one and {len(denominator.rounds)} of the other"
        raise ValueError(f"only timings of the same rounds can be compared: {rounds}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    ours, theirs = ([median(calls) for calls in timing.rounds] for timing in (numerator, denominator))
    random, count = Random(BOOTSTRAP_SEED), len(ours)
    samples = (random.choices(range(count), k=count) for _ in range(BOOTSTRAP_RESAMPLES))
    resampled = sorted(_median_ratio(ours, theirs, sample) for sample in samples)
    tail = round((1 - confidence) / 2 * (BOOTSTRAP_RESAMPLES - 1))
    return TimeRatio(_median_ratio(ours, theirs, range(count)), resampled[tail], resampled[-1 - tail], confidence)


def _median_ratio(ours: Sequence[float], theirs: Sequence[float], rounds: Sequence[int]) -> float:
    return median(ours[index] for index in rounds) / median(theirs[index] for index in rounds)
