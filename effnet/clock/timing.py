"""What was measured of a contestant, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import median

RESAMPLES = 2000
SEED = 0  # the same times give the same interval


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
class Ratio:
    """How many times as long one contestant takes as another, and the interval that holds it with ``confidence``."""

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.2f}× ({self.low:.2f}–{self.high:.2f})"


def ratio(of: Timing, to: Timing, confidence: float = 0.95) -> Ratio:
    """How many times as long ``of`` takes as ``to``: the ratio of their medians over rounds.

    The interval is the percentile bootstrap's over rounds. Both contestants' rounds are drawn together, since what
    disturbed the machine in a round disturbed both: only what is left between them widens the interval.
    Raises ``ValueError`` where the two did not run in the same rounds.
    """
    if len(of.rounds) != len(to.rounds):
        raise ValueError(
            f"only rounds of one contest compare: there are {len(of.rounds)} of one, {len(to.rounds)} of the other"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    ours, theirs = ([median(one) for one in timing.rounds] for timing in (of, to))
    drawn, count = Random(SEED), len(ours)
    found = []
    for _ in range(RESAMPLES):
        which = drawn.choices(range(count), k=count)
        found.append(_over(ours, theirs, which))
    found.sort()
    tail = round((1 - confidence) / 2 * (RESAMPLES - 1))
    return Ratio(_over(ours, theirs, range(count)), found[tail], found[-1 - tail], confidence)


def _over(ours: Sequence[float], theirs: Sequence[float], which: Sequence[int]) -> float:
    return median(ours[index] for index in which) / median(theirs[index] for index in which)
