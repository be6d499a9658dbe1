"""Accuracies over seeds, and whether one network is better than another: paired differences with their interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

CONFIDENCE_LEVEL = 0.95


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
class PairedDifference:
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


def paired_difference(ours: Sequence[float], theirs: Sequence[float], comparisons: int = 1) -> PairedDifference:
    """``ours`` − ``theirs``, a pair a seed, by Student's t.

    Where the best of several is chosen by the same trainings, ``among`` says of how many: the interval is then as wide
    as it must be for those of all of them to hold together (Bonferroni's). Raises ``ValueError`` where they are not
    pairs.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"paired accuracies come in pairs: {len(ours)} and {len(theirs)}")
    apart = [one - other for one, other in zip(ours, theirs, strict=True)]
    if len(apart) < 2:
        return PairedDifference(apart[0], -1.0, 1.0, 1)
    from scipy.stats import t

    half = (
        float(t.ppf(1 - (1 - CONFIDENCE_LEVEL) / (2 * comparisons), len(apart) - 1)) * stdev(apart) / sqrt(len(apart))
    )
    return PairedDifference(mean(apart), mean(apart) - half, mean(apart) + half, len(apart))


# Whether a search's pictures suffice for a verdict: said before hours are spent on it, and with the verdict.


MIN_TEST_IMAGES = 100


WORST_CASE_ACCURACY = 0.5  # where chance moves an accuracy most


Z_95 = 1.96  # 95 % of a normal distribution


def chance_difference(images: int, accuracy: float = WORST_CASE_ACCURACY) -> float:
    """The difference of two networks' top-1 (fractions) below which so many judged ``pictures`` may mislead.

    Drawn anew, n pictures give an accuracy p with the standard error √(p(1−p)/n), and the difference of two with √2
    times that; 95 of 100 draws stay within 1.96 of these. That is cautious: the networks are judged on the same
    pictures, and mostly fail on the same ones.
    """
    return Z_95 * sqrt(2 * accuracy * (1 - accuracy) / images)


def detectable_difference(images: int) -> float:
    """What `by_chance` says of so many ``pictures``. Raises ``ValueError`` below 100, which are too few."""
    if images < MIN_TEST_IMAGES:
        raise ValueError(
            f"{images:,} pictures to compare networks by are too few for a verdict, since chance alone would move an "
            f"accuracy by {100 * Z_95 * sqrt(0.25 / max(images, 1)):.0f} points: give at least {MIN_TEST_IMAGES}, "
            "better 1,000"
        )
    return chance_difference(images)


@dataclass(frozen=True)
class HeldOutImages:
    """How many pictures networks were finally judged by, and whether nothing had been chosen by these."""

    images: int
    unseen: bool = True

    def caution(self, difference: float) -> str:
        """What a verdict on such a ``difference`` (a fraction) must say besides, as sentences; "" where nothing."""
        told = []
        if not self.unseen:
            told.append("They were judged by the pictures that they were chosen by, which flatters what was chosen.")
        if 0 < abs(difference) < (apart := chance_difference(self.images)):
            told.append(
                f"The interval is over seeds: another draw of {self.images:,} pictures to judge by might move the "
                f"difference by {100 * apart:.1f} points."
            )
        return " ".join(told)
