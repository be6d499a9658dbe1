"""What is between two classes, and the bins of the reliability diagram."""

from __future__ import annotations

import numpy as np
import pytest

from effnet.evaluation import Bin, calibration_bins, calibration_error, score
from effnet.evaluation.one import UNCERTAIN_MOST


def test_bins_by_hand() -> None:
    # .2 is the border between the third and the fourth bin of fifteen; 1 belongs to the last
    found = calibration_bins(np.array([0.21, 0.25, 0.93, 0.95, 1.0, 0.0]), np.array([1, 0, 0, 1, 1, 0], bool))
    assert len(found) == 15
    assert found[3] == Bin(2, pytest.approx(0.23), 0.5)
    assert found[13] == Bin(1, pytest.approx(0.93), 0.0)
    assert found[14] == Bin(2, pytest.approx(0.975), 1.0)
    assert found[0] == Bin(1, 0.0, 0.0)
    assert sum(one.pictures for one in found) == 6
    assert all(one == Bin(0, 0.0, 0.0) for place, one in enumerate(found) if place not in (0, 3, 13, 14))


def test_bins_give_the_calibration_error() -> None:
    dice = np.random.default_rng(0)
    confidence = dice.random(500)
    right = dice.random(500) < confidence**2
    bins = calibration_bins(confidence, right)
    gap = sum(one.pictures * abs(one.accuracy - one.confidence) for one in bins) / 500
    assert gap == pytest.approx(calibration_error(confidence, right))


def test_the_nearest_to_a_tie_first() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.46, 0.44], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]])
    found = score(np.log(shares), np.array([0, 2, 1, 0]), ["a", "b", "c"], ["w", "x", "y", "z"])
    assert [one.picture for one in found.uncertain] == ["z", "x", "w", "y"]
    second = found.uncertain[1]
    assert (second.label, second.predicted, second.other) == ("c", "b", "c")
    assert (second.probability, second.other_probability) == (pytest.approx(0.46), pytest.approx(0.44))
    assert (found.uncertain[2].predicted, found.uncertain[2].other) == ("a", "b")  # right, and listed all the same


def test_few_are_kept() -> None:
    dice = np.random.default_rng(0)
    many = score(dice.normal(0, 1, (100, 4)), dice.integers(0, 4, 100), list("abcd"), [str(n) for n in range(100)])
    assert len(many.uncertain) == UNCERTAIN_MOST
    gaps = [one.probability - one.other_probability for one in many.uncertain]
    assert gaps == sorted(gaps)
    assert min(gaps) >= 0
