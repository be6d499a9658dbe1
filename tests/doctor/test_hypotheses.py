"""Hypotheses, label orders, and the significance of gains."""

from __future__ import annotations

import numpy as np
import pytest

from effnet.doctor.diagnosis import Configuration
from effnet.doctor.hypotheses import (
    LikelihoodScore,
    compare_scores,
    label_order_hypotheses,
    list_hypotheses,
    match_label_order,
    score_logits,
)
from effnet.net import EfficientNet
from tests.squares import CLASSES, PREPROCESS, trained_on_squares


@pytest.fixture(scope="module")
def sound() -> EfficientNet:
    return trained_on_squares()


def test_label_order_hypotheses(sound: EfficientNet) -> None:
    configuration = Configuration(PREPROCESS, sound.numerics, label_order=tuple(range(6)))
    found = {
        change.description: change.configuration.label_order
        for change in label_order_hypotheses(configuration, CLASSES, 6)
    }
    assert found["each label for the output after its own"] == (1, 2, 3, 4, 5, 0)
    assert found["labels sorted as text"] == (0, 1, 2, 4, 3, 5)  # "C" comes before "b"
    assert found["labels sorted by their numbers"] == (2, 0, 1, 4, 3, 5)
    assert "labels sorted as text, ignoring case" not in found  # as they are


def test_matched_order_is_scored_on_other_images() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    assert match_label_order(rng.normal(size=(9, 3)), labels[:9], (0, 1, 2)) is None
    chance = match_label_order(rng.normal(size=(60, 3)), labels, (0, 1, 2))
    assert chance is not None
    assert chance[1].top1 < 0.6
    clear = match_label_order(5 * np.eye(4)[(labels + 1) % 3] + rng.normal(size=(60, 4)), labels, (0, 1, 2))
    assert clear is not None
    assert clear[0] == (1, 2, 0)
    assert clear[1].top1 == 1


def test_gains_are_paired_and_ignore_temperature() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 300)
    logits = 2 * np.eye(5)[targets] + rng.normal(size=(300, 5))
    sure, unsure = score_logits(logits, targets), score_logits(logits * 7, targets)
    assert compare_scores(sure, unsure).likelihood == pytest.approx(0, abs=1e-9)
    assert not compare_scores(unsure, sure).is_significant()
    better = score_logits(logits + 0.5 * np.eye(5)[targets], targets)
    assert compare_scores(better, sure).is_significant()
    first, better_first = (LikelihoodScore(each.right[:40], each.likelihood[:40]) for each in (sure, better))
    assert compare_scores(better, first) == compare_scores(better_first, sure)
    worse = compare_scores(sure, better)
    assert worse.likelihood == pytest.approx(-compare_scores(better, sure).likelihood)
    assert not worse.is_significant()


def test_hypotheses_are_distinct(sound: EfficientNet) -> None:
    configuration = Configuration(PREPROCESS, sound.numerics)
    found = list(list_hypotheses(configuration, sound.arch))
    assert all(change.configuration != configuration for change in found)
    assert len({change.configuration for change in found}) == len(found)
    assert {change.code for change in found} >= {
        *("mean-std", "channel-order", "rescaled-twice", "size", "crop", "interpolation", "resampling"),
        *("epsilon", "padding", "statistics"),
    }
