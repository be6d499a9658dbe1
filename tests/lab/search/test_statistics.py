"""Paired differences against scipy's test, the images that a verdict needs, and rank correlation."""

from random import Random

import pytest
from scipy.stats import spearmanr, ttest_rel

from effnet.lab.search.statistics import HeldOutImages, detectable_difference, paired_difference, rank_correlation

OURS, THEIRS = [0.71, 0.70, 0.735, 0.72, 0.705], [0.70, 0.695, 0.71, 0.722, 0.69]


def test_the_interval_is_students() -> None:
    found = paired_difference(OURS, THEIRS)
    expected = ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(sum(OURS) / 5 - sum(THEIRS) / 5)
    assert found.describe() == (
        f"+{100 * found.mean:.2f} points (95 % interval −{-100 * found.low:.2f} to +{100 * found.high:.2f}, 5 seeds)"
    )


def test_intervals_of_several_comparisons_hold_together() -> None:
    found = paired_difference(OURS, THEIRS, comparisons=3)
    expected = ttest_rel(OURS, THEIRS).confidence_interval(1 - 0.05 / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_single_pair_has_no_interval() -> None:
    assert (paired_difference([0.7], [0.5]).low, paired_difference([0.7], [0.5]).high) == (-1, 1)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([0.7], [])


def test_too_few_images_for_a_verdict() -> None:
    assert detectable_difference(10_000) == pytest.approx(1.96 * (2 * 0.25 / 10_000) ** 0.5)
    with pytest.raises(ValueError, match="99 images are too few"):
        detectable_difference(99)


def test_cautions() -> None:
    assert HeldOutImages(10_000).caution(0.02) == ""
    assert "2,000 other test images might move the difference by 3.1 points" in HeldOutImages(2000).caution(-0.02)
    assert HeldOutImages(10_000, unseen=False).caution(0.02).endswith("which favors the selected.")


def test_rank_correlation_is_spearmans_and_its_interval_shrinks() -> None:
    random = Random(3)
    scores = [random.random() for _ in range(200)]
    accuracies = [0.6 * score + 0.4 * random.random() for score in scores]
    few, many = rank_correlation(scores[:30], accuracies[:30]), rank_correlation(scores, accuracies)
    assert many.value == pytest.approx(spearmanr(scores, accuracies).statistic)
    assert many.value is not None
    assert -1 < many.low < many.value < many.high < 1
    assert many.high - many.low < few.high - few.low
    assert many.is_clear
    assert not rank_correlation(scores, accuracies[::-1]).is_clear
    assert "200 networks" in many.describe()


def test_few_networks_have_no_rank_correlation() -> None:
    few = rank_correlation([1, 2, 3], [1, 2, 3])
    assert (few.value, few.is_clear) == (None, False)
    assert few.describe() == "not known yet (3 networks)"
    assert rank_correlation([1] * 30, list(range(30))).value is None
    assert not rank_correlation(list(range(10)), list(range(10))).is_clear  # perfect, but too few
