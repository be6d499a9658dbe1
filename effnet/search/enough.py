"""Whether a search's pictures suffice for a verdict: said before hours are spent on it."""

from __future__ import annotations

from math import sqrt

PICTURES_LEAST = 100
ACCURACY = 0.5  # where chance moves an accuracy most
SIGMAS = 1.96  # 95 % of a normal distribution


def verdict_possible(pictures: int, accuracy: float = ACCURACY) -> float:
    """The difference of two networks' top-1 (fractions) below which so many judged ``pictures`` may mislead.

    Drawn anew, n pictures give an accuracy p with the standard error √(p(1−p)/n), and the difference of two with √2
    times that; 95 of 100 draws stay within 1.96 of these. That is cautious: the networks are judged on the same
    pictures, and mostly fail on the same ones. Raises ``ValueError`` below 100 pictures.
    """
    if pictures < PICTURES_LEAST:
        raise ValueError(
            f"{pictures:,} pictures to judge by are too few for a verdict, since chance alone would move an accuracy "
            f"by {100 * SIGMAS * sqrt(0.25 / max(pictures, 1)):.0f} points: give at least {PICTURES_LEAST}, better "
            "1,000"
        )
    return SIGMAS * sqrt(2 * accuracy * (1 - accuracy) / pictures)
