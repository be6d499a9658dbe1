"""Accuracies over seeds, and whether one network is better than another: paired differences with their interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

LEVEL = 0.95


class Accuracies(tuple[float, ...]):
    """What one network reached, as fractions, a seed each."""

    @property
    def mean(self) -> float:
        """Their mean."""
        return mean(self)

    @property
    def spread(self) -> float:
        """Their standard deviation; 0 of a single one."""
        return stdev(self) if len(self) > 1 else 0.0


@dataclass(frozen=True)
class Difference:
    """The mean difference of two accuracies over ``pairs`` of equal seeds, and its 95 % interval; fractions.

    From a single pair there is no interval: it reaches from −1 to 1.
    """

    mean: float
    low: float
    high: float
    pairs: int

    def in_words(self) -> str:
        """ "+0.52 points (95 % interval −0.31 to +1.35, 5 seeds)"."""
        mean, low, high = (f"{100 * value:+.2f}".replace("-", "−") for value in (self.mean, self.low, self.high))
        return f"{mean} points (95 % interval {low} to {high}, {self.pairs} seeds)"


def paired(ours: Sequence[float], theirs: Sequence[float], among: int = 1) -> Difference:
    """``ours`` − ``theirs``, a pair a seed, by Student's t.

    Where the best of several is chosen by the same trainings, ``among`` says of how many: the interval is then as wide
    as it must be for those of all of them to hold together (Bonferroni's). Raises ``ValueError`` where they are not
    pairs.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"paired accuracies come in pairs: {len(ours)} and {len(theirs)}")
    apart = [one - other for one, other in zip(ours, theirs, strict=True)]
    if len(apart) < 2:
        return Difference(apart[0], -1.0, 1.0, 1)
    from scipy.stats import t

    half = float(t.ppf(1 - (1 - LEVEL) / (2 * among), len(apart) - 1)) * stdev(apart) / sqrt(len(apart))
    return Difference(mean(apart), mean(apart) - half, mean(apart) + half, len(apart))
