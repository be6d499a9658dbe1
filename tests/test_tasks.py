"""The three tasks: activations and their inverses, losses in numpy and torch, metrics, formatting."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from effnet.metadata import TASKS
from effnet.tasks import sigmoid, softmax, task_of

LOGITS = np.random.default_rng(0).normal(0, 3, (50, 4)).astype(np.float32)
TARGETS: dict[str, NDArray[np.generic]] = {
    "classification": np.random.default_rng(1).integers(0, 4, 50),
    "multilabel": np.random.default_rng(1).integers(0, 2, (50, 4)).astype(np.float32),
    "regression": np.random.default_rng(1).normal(0, 3, (50, 4)).astype(np.float32),
}


def target_matrix(task: str) -> NDArray[np.float64]:
    return np.eye(4)[TARGETS[task]] if task == "classification" else TARGETS[task].astype(np.float64)


def test_softmax_and_sigmoid() -> None:
    expected = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert softmax(np.array([[0.0, np.log(3)], [1000.0, 1000.0]])) == pytest.approx(expected)
    with np.errstate(all="raise", under="ignore"):
        probabilities = sigmoid(np.array([-1e4, -700, -40, 0, 40, 1e4], np.float32))
    assert probabilities[[0, 3, 5]].tolist() == [0, 0.5, 1]
    assert probabilities[1:3] == pytest.approx(np.exp([-700, -40]))


@pytest.mark.parametrize("name", TASKS)
def test_activation(name: str) -> None:
    task = task_of(name)
    scores = task.activate(LOGITS)
    assert task.torch_activate(torch.from_numpy(LOGITS)).numpy() == pytest.approx(scores, abs=1e-6)
    assert task.activate(task.invert(scores.astype(np.float32))) == pytest.approx(scores, abs=1e-6)
    assert task.max_difference(scores.astype(np.float32), LOGITS) < 1e-4
    other = LOGITS.copy()
    other[7, 2] += 0.5
    assert task.max_difference(scores.astype(np.float32), other) > 0.05
    assert task.has_probabilities == (name != "regression") == (task.output == "probabilities")


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_inverse_of_certain_probabilities_is_finite(name: str) -> None:
    scores = np.array([[0, 1, 1 - 2**-24]], np.float32)
    assert np.isfinite(task_of(name).invert(scores)).all()


@pytest.mark.parametrize("name", TASKS)
def test_losses(name: str) -> None:
    task, targets = task_of(name), TARGETS[name]
    losses = task.losses(LOGITS, targets)
    assert losses.shape == (50,)
    scores = task.activate(LOGITS)
    assert task.term_losses(task.loss_terms(scores, target_matrix(name))) == pytest.approx(losses, rel=1e-5)
    std = torch.from_numpy(target_matrix(name).std(0)).float() if name == "regression" else torch.ones(4)
    logits, expected = torch.from_numpy(LOGITS), torch.from_numpy(targets)
    scaled = expected / std if name == "regression" else expected
    assert task.torch_losses(logits / std, scaled).numpy() == pytest.approx(losses, rel=1e-4)
    smooth = task.torch_losses(logits / std, scaled, label_smoothing=0.1)
    assert torch.equal(smooth, task.torch_losses(logits / std, scaled)) == (name == "regression")


def test_mixed_terms_are_terms_of_mixed_scores() -> None:
    other = LOGITS[::-1]
    for name in TASKS:
        task, matrix = task_of(name), target_matrix(name)
        first, second = task.activate(LOGITS), task.activate(other)
        mixed = 0.3 * task.loss_terms(first, matrix) + 0.7 * task.loss_terms(second, matrix)
        assert task.loss_terms(0.3 * first + 0.7 * second, matrix) == pytest.approx(mixed)


@pytest.mark.parametrize("name", TASKS)
def test_distillation(name: str) -> None:
    task, teacher = task_of(name), torch.from_numpy(LOGITS)
    own = task.torch_distillation_losses(teacher, teacher, 2.0)
    other = task.torch_distillation_losses(teacher.flip(0), teacher, 2.0)
    assert own.shape == (50,)
    assert (other >= own - 1e-5).all()
    if name == "classification":
        expected = F.kl_div((teacher.flip(0) / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="none").sum(1)
        assert torch.allclose(other, 4 * expected, atol=1e-4)


def test_predictions_and_metrics() -> None:
    classification, multilabel, regression = map(task_of, TASKS)
    assert classification.score(LOGITS, LOGITS.argmax(1)) == 1
    assert multilabel.score(LOGITS, LOGITS >= 0) == 1
    assert regression.score(LOGITS, LOGITS) == 1
    assert regression.score(np.zeros((2, 1)), np.array([[-1.0], [1.0]])) == 0  # as good as the mean
    for task in (classification, multilabel):
        assert task.count_equal_rows(LOGITS, LOGITS * 2) == 50
        assert task.count_equal_rows(LOGITS, -LOGITS) < 10
        assert 0 < task.score(LOGITS, TARGETS[task.name]) < 1


def test_score_metrics() -> None:
    names = {
        name: list(task_of(name).score_metrics(task_of(name).activate(LOGITS), target_matrix(name))) for name in TASKS
    }
    assert names == {
        "classification": ["top1", "loss"],
        "multilabel": ["mean_average_precision", "label_accuracy", "loss"],
        "regression": ["rmse", "r2"],
    }


def test_top_k() -> None:
    scores = np.array([[0.1, 0.7, 0.7, 0.2]])
    assert task_of("classification").top_k(scores, 3)[0].tolist() == [[1, 2, 3], [0.7, 0.7, 0.2]]
    assert task_of("multilabel").top_k(scores, 9)[0, 0].tolist() == [1, 2, 3, 0]
    assert task_of("regression").top_k(scores, 1)[0].tolist() == [[0, 1, 2, 3], [0.1, 0.7, 0.7, 0.2]]
    best = np.array([0.7, 0.5, 0.2])
    assert [task_of(name).count_predicted(best) for name in TASKS] == [3, 2, 0]


def test_formatting() -> None:
    assert [task_of(name).format_metric(0.9123) for name in TASKS] == [
        "top-1 91.2%",
        "label accuracy 91.2%",
        "R² 0.912",
    ]
    assert [task_of(name).format_score(0.9123) for name in TASKS] == ["91.2%", "91.2%", "0.9123"]


def test_import_needs_numpy_only() -> None:
    code = "import sys, effnet.tasks; print({'torch', 'sklearn', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
