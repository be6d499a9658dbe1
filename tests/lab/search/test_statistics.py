"""Paired differences against scipy's own test."""

import pytest
from scipy.stats import ttest_rel

from effnet.lab.search.statistics import paired_difference


def test_the_interval_is_students() -> None:
    ours, theirs = [0.71, 0.70, 0.735, 0.72, 0.705], [0.70, 0.695, 0.71, 0.722, 0.69]
    found = paired_difference(ours, theirs)
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(sum(ours) / 5 - sum(theirs) / 5)
    assert found.in_words() == f"+{100 * found.mean:.2f} points (95 % interval −{-100 * found.low:.2f} to " + (
        f"+{100 * found.high:.2f}, 5 seeds)"
    )


def test_several_hold_together() -> None:
    ours, theirs = [0.71, 0.70, 0.735, 0.72, 0.705], [0.70, 0.695, 0.71, 0.722, 0.69]
    found = paired_difference(ours, theirs, comparisons=3)
    expected = ttest_rel(ours, theirs).confidence_interval(1 - 0.05 / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_pair_tells_nothing_and_none_is_refused() -> None:
    assert (paired_difference([0.7], [0.5]).low, paired_difference([0.7], [0.5]).high) == (-1, 1)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([0.7], [])
