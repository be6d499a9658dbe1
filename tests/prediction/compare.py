"""Comparing predictions of one network by two runtimes."""

from __future__ import annotations

import pytest

from effnet import Prediction


def assert_same_prediction(got: Prediction, expected: Prediction, tolerance: float = 1e-4) -> None:
    """Labels, probabilities and values agree; labels may swap places if their probabilities differ by less."""
    assert set(got.labels) == set(expected.labels)
    assert tuple(got.values) == tuple(expected.values)
    assert got.probabilities == pytest.approx(expected.probabilities, abs=tolerance)
    by_label = dict(zip(expected.labels, expected.probabilities, strict=True))
    assert got.probabilities == pytest.approx([by_label[label] for label in got.labels], abs=tolerance)
    assert list(got.values.values()) == pytest.approx(list(expected.values.values()), rel=1e-3, abs=1e-3)
