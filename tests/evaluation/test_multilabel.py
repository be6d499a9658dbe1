"""Multi-label metrics and evaluations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
    precision_score,
    recall_score,
)

import effnet
from effnet import EfficientNet, Labels, evaluate
from effnet.data import ImageDataset, Item
from effnet.evaluation import MultiLabelEvaluation, read_evaluation
from effnet.evaluation.evaluator import class_columns
from effnet.evaluation.metrics import calibration_error, score_multilabel
from effnet.tasks import sigmoid


def logit(*shares: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    p = np.array(shares)
    return np.log(p / (1 - p))


def test_small_example() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0]], bool)
    found = score_multilabel(logit((0.9, 0.2, 0.1), (0.4, 0.8, 0.7)), targets, ("a", "b", "c"), ("1", "2"))
    assert (found.images, found.task) == (2, "multilabel")
    assert found.label_accuracy == pytest.approx(4 / 6)
    assert found.exact_match == 0.5
    assert found.loss == pytest.approx(-np.log([0.9, 0.8, 0.9, 0.4, 0.8, 0.3]).mean())
    a, b, c = found.labels
    assert (a.name, a.images, a.precision, a.recall, a.average_precision) == ("a", 2, 1, 0.5, 1)
    assert (b.f1, b.average_precision) == (1, 1)
    assert (c.images, c.precision, c.average_precision) == (0, 0, None)
    assert found.mean_average_precision == 1  # over a and b
    assert found.primary_metric == ("mean average precision", 1)
    assert [(one.image, one.label, one.missed) for one in found.mistakes] == [("2", "c", False), ("2", "a", True)]
    assert [one.probability for one in found.mistakes] == pytest.approx([0.7, 0.4])
    assert found.summary() == "mean average precision 100.0%, label accuracy 66.7%, exact match 50.0%"


@pytest.mark.filterwarnings("error")
def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    values, targets = rng.normal(size=(300, 8)), rng.random((300, 8)) < 0.3
    targets[:, 7] = False
    found = score_multilabel(values, targets, [str(c) for c in range(8)], [str(n) for n in range(300)])
    told, shares = values >= 0, sigmoid(values)
    assert found.label_accuracy == pytest.approx(1 - hamming_loss(targets, told))
    assert found.exact_match == accuracy_score(targets, told)
    assert found.loss == pytest.approx(
        np.mean([log_loss(targets[:, c], shares[:, c], labels=[0, 1]) for c in range(8)])
    )
    options = {"average": None, "zero_division": 0.0}
    for name, measure in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert [getattr(row, name) for row in found.labels] == pytest.approx(measure(targets, told, **options))
    precisions = average_precision_score(targets[:, :7], values[:, :7], average=None)
    assert [row.average_precision for row in found.labels[:7]] == pytest.approx(precisions)
    assert found.mean_average_precision == pytest.approx(precisions.mean())
    assert found.calibration_error == calibration_error(shares.ravel(), targets.ravel())
    assert sum(one.images for one in found.bins) == 2400
    assert round(2400 * (1 - found.label_accuracy)) > len(found.mistakes) == 1000
    assert all(one.missed == (one.probability < 0.5) for one in found.mistakes)
    back = read_evaluation(json.loads(found.to_json()))
    assert isinstance(back, MultiLabelEvaluation)
    assert back == found


def test_single_label_that_no_image_has() -> None:
    found = score_multilabel(np.array([[-2.0], [3.0]]), np.zeros((2, 1), bool), ("a",), ("1", "2"))
    assert (found.label_accuracy, found.mean_average_precision) == (0.5, 0)
    assert [one.image for one in found.mistakes] == ["2"]


def test_confident_mistakes_have_a_finite_loss() -> None:
    found = score_multilabel(np.array([[1e4, -1e4]]), np.array([[False, True]]), ("a", "b"), ("x",))
    assert found.loss == pytest.approx(1e4)
    assert [one.probability for one in found.mistakes] == [1, 0]


# Models


def network(task: str, names: tuple[str, ...] = ("cat", "dog", "owl")) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = effnet.create("nano", classes=len(names))
    made.labels = Labels(names, task)
    return made.eval()


def make_dataset(task: str, names: tuple[str, ...], labels: list[tuple[float, ...]]) -> ImageDataset:
    rng = np.random.default_rng(1)
    items = (Item(rng.integers(0, 256, (32, 32, 3), np.uint8), label, f"{n}") for n, label in enumerate(labels))
    return ImageDataset(tuple(items), Labels(names, task))


def test_only_labels_of_the_data_are_scored() -> None:
    model, given = network("multilabel"), make_dataset("multilabel", ("owl", "cat"), [(0,), (), (0, 1), (1,)])
    found = evaluate(model, given, batch_size=3)
    assert isinstance(found, MultiLabelEvaluation)
    assert [(row.name, row.images) for row in found.labels] == [("owl", 2), ("cat", 2)]
    said = [set(one.labels) for one in effnet.Predictor(model)([item.image for item in given.items])]
    truth = [{"owl"}, set(), {"owl", "cat"}, {"cat"}]
    right = [
        (name in told) == (name in real) for told, real in zip(said, truth, strict=True) for name in ("owl", "cat")
    ]
    assert found.label_accuracy == np.mean(right)


LABELS = {"classification": [0, 1], "multilabel": [(0,), (0, 1)], "regression": [(1.0, 2.0), (3.0, 4.0)]}


@pytest.mark.parametrize(("models", "given"), [(a, b) for a in LABELS for b in LABELS if a != b])
def test_other_task(models: str, given: str) -> None:
    with pytest.raises(ValueError, match=f"the labels of the data are for {given} .*, the model is for {models} "):
        evaluate(network(models), make_dataset(given, ("cat", "dog"), LABELS[given]))  # type: ignore[arg-type]


def test_unknown_label() -> None:
    with pytest.raises(ValueError, match="does not know the class 'eel'"):
        evaluate(network("multilabel"), make_dataset("multilabel", ("cat", "eel"), [(0,), (1,)]))
    assert class_columns(Labels((), "multilabel"), 2, Labels(("x", "y"), "multilabel")) == [0, 1]


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_exported_files(suffix: str, tmp_path: object) -> None:
    model, given = network("multilabel"), make_dataset("multilabel", ("cat", "dog", "owl"), [(0,), (), (0, 1), (2, 1)])
    path = effnet.export(model, f"{tmp_path}/m{suffix}").path
    found, expected = evaluate(path, given), evaluate(model, given)
    assert isinstance(found, MultiLabelEvaluation)
    assert isinstance(expected, MultiLabelEvaluation)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.mean_average_precision == pytest.approx(expected.mean_average_precision)


def test_invalid_records() -> None:
    with pytest.raises(ValueError, match="task must be one of classification, multilabel, regression"):
        read_evaluation({"task": "some"})
    with pytest.raises(ValueError, match="expected an object"):
        read_evaluation([])
