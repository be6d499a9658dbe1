"""Regression metrics and evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

import effnet
from effnet import evaluate
from effnet.evaluation import RegressionEvaluation, read_evaluation
from effnet.evaluation.metrics import score_regression
from tests.evaluation.test_multilabel import make_dataset, network


@pytest.mark.filterwarnings("error")
def test_small_example() -> None:
    targets, got = np.array([[1.0, 100], [3, 300]]), np.array([[1.0, 200], [4, 300]])
    found = score_regression(got, targets, ("age", "weight"), ("a", "b"))
    assert (found.images, found.task) == (2, "regression")
    age, weight = found.values
    assert (age.name, age.rmse, age.mae, age.r2) == ("age", pytest.approx(np.sqrt(0.5)), 0.5, 0.5)
    assert (weight.rmse, weight.mae, weight.r2) == (pytest.approx(np.sqrt(5000)), 50, 0.5)
    assert age.pairs == ((1, 1), (3, 4))
    assert found.rmse == pytest.approx((age.rmse + weight.rmse) / 2)
    assert (found.mae, found.r2, found.primary_metric) == (25.25, 0.5, ("R²", 0.5))
    # In standard deviations both are equally large
    assert [(one.image, one.value, one.true, one.predicted) for one in found.mistakes[:2]] == [
        ("a", "weight", 100, 200),
        ("b", "age", 3, 4),
    ]
    assert found.summary() == "R² 0.500, RMSE 35.71, mean absolute error 25.25"


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(5, (1, 20), (3000, 2))
    got = targets + rng.normal(0, (0.5, 5), (3000, 2))
    found = score_regression(got, targets, ("a", "b"), [str(n) for n in range(3000)])
    assert found.r2 == pytest.approx(r2_score(targets, got))
    assert [one.rmse**2 for one in found.values] == pytest.approx(
        mean_squared_error(targets, got, multioutput="raw_values")
    )
    assert found.mae == pytest.approx(mean_absolute_error(targets, got))
    assert len(found.mistakes) == 100
    assert [len(one.pairs) for one in found.values] == [1500, 1500]
    apart = [abs(one.true - one.predicted) / targets[:, "ab".index(one.value)].std() for one in found.mistakes]
    assert apart == sorted(apart, reverse=True)
    back = read_evaluation(json.loads(found.to_json()))
    assert isinstance(back, RegressionEvaluation)
    assert back == found


@pytest.mark.filterwarnings("error")
def test_single_image_and_constant_values() -> None:
    one = np.array([[2.0]])
    assert score_regression(one, one, ("a",), ("x",)).r2 == 1
    assert score_regression(one + 1, one, ("a",), ("x",)).r2 == 0
    alike = score_regression(np.array([[1.0], [2.0]]), np.ones((2, 1)), ("a",), ("x", "y"))
    assert alike.r2 == 0
    assert alike.mistakes[0].image == "y"


@pytest.mark.parametrize("suffix", ["", ".onnx", ".tflite"])
def test_models_and_exported_files(suffix: str, tmp_path: Path) -> None:
    model = network("regression", ("age", "weight"))
    answers = effnet.Predictor(model)(
        [item.image for item in make_dataset("regression", ("weight",), [(0.0,)] * 4).items]
    )
    given = make_dataset("regression", ("weight",), [(one.values["weight"] + 0.5,) for one in answers])
    found = evaluate(effnet.export(model, tmp_path / f"m{suffix}").path if suffix else model, given)
    assert isinstance(found, RegressionEvaluation)
    (weight,) = found.values
    assert weight.name == "weight"
    assert weight.mae == pytest.approx(0.5, abs=1e-4)
    assert weight.rmse == pytest.approx(0.5, abs=1e-4)
