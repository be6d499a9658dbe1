"""Whether probabilities mean what they say, as a diagram and in words."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.draw.agreement import reliability
from effnet.evaluation import Bin


def calibration(bins: Sequence[Bin], error: float, what: str, words: str) -> str:
    """The reliability diagram of ``bins``, the calibration ``error``, and ``words`` on how to read it.

    ``what`` the bins count: pictures, or labels. Empty where there are no numbers.
    """
    total = sum(one.pictures for one in bins)
    if not total:
        return ""
    plot = reliability(
        [(one.pictures, one.confidence, one.accuracy) for one in bins],
        f"reliability diagram: the share that is right by how sure, in {len(bins)} bins",
    )
    over = sum(one.pictures * (one.confidence - one.accuracy) for one in bins) / total
    verdict = "On average it is as sure as it is right."
    if abs(over) >= 0.005:
        verdict = (
            f"On average it is {100 * abs(over):.1f} points {'surer' if over > 0 else 'less sure'} than it is right."
        )
    return (
        f"<figure>{plot}</figure><p>{verdict} {words}. The orange lines are how sure it was; the mean gap between bar "
        f"and line, by the number of {what}, is the calibration error, {error:.3f}. Bins of few {what} say little.</p>"
    )
