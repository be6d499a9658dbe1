"""Whether a search's pictures suffice for a verdict: said before hours are spent on it, and with the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

PICTURES_LEAST = 100
ACCURACY = 0.5  # where chance moves an accuracy most
SIGMAS = 1.96  # 95 % of a normal distribution


def by_chance(pictures: int, accuracy: float = ACCURACY) -> float:
    """The difference of two networks' top-1 (fractions) below which so many judged ``pictures`` may mislead.

    Drawn anew, n pictures give an accuracy p with the standard error √(p(1−p)/n), and the difference of two with √2
    times that; 95 of 100 draws stay within 1.96 of these. That is cautious: the networks are judged on the same
    pictures, and mostly fail on the same ones.
    """
    return SIGMAS * sqrt(2 * accuracy * (1 - accuracy) / pictures)


def verdict_possible(pictures: int) -> float:
    """What `by_chance` says of so many ``pictures``. Raises ``ValueError`` below 100, which are too few."""
    if pictures < PICTURES_LEAST:
        raise ValueError(
            f"{pictures:,} pictures to compare networks by are too few for a verdict, since chance alone would move an "
            f"accuracy by {100 * SIGMAS * sqrt(0.25 / max(pictures, 1)):.0f} points: give at least {PICTURES_LEAST}, "
            "better 1,000"
        )
    return by_chance(pictures)


@dataclass(frozen=True)
class Judges:
    """How many pictures networks were finally judged by, and whether nothing had been chosen by these."""

    pictures: int
    unseen: bool = True

    def caution(self, difference: float) -> str:
        """What a verdict on such a ``difference`` (a fraction) must say besides, as sentences; "" where nothing."""
        told = []
        if not self.unseen:
            told.append("They were judged by the pictures that they were chosen by, which flatters what was chosen.")
        if 0 < abs(difference) < (apart := by_chance(self.pictures)):
            told.append(
                f"The interval is over seeds: another draw of {self.pictures:,} pictures to judge by might move the "
                f"difference by {100 * apart:.1f} points."
            )
        return " ".join(told)
