"""Losses by kind of label, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from effnet.data.dataset import ImageDataset, Item
from effnet.metadata import Labels
from effnet.training.losses import TrainingLoss, class_weights
from effnet.training.recipes import Recipe
from effnet.training.validation import Targets

CPU = torch.device("cpu")
BLANK = np.zeros((2, 2, 3), np.uint8)


def recipe(**settings: object) -> Recipe:
    return Recipe(name="test", epochs=1, **{"label_smoothing": 0.0, **settings})  # type: ignore[arg-type]


def images(kind: str, *labels: object, weights: tuple[float, ...] = ()) -> ImageDataset:
    names = ("a", "b", "c") if kind != "regression" else ("height",)
    image_weights = weights or (1.0,) * len(labels)
    items = (
        Item(BLANK, label, str(n), weight=weight)  # type: ignore[arg-type]
        for n, (label, weight) in enumerate(zip(labels, image_weights, strict=True))
    )
    return ImageDataset(tuple(items), Labels(names, kind))


def loss(objective: TrainingLoss, logits: torch.Tensor) -> float:
    indices = torch.arange(len(logits))
    return objective(logits, objective.targets(indices), indices, torch.zeros(len(logits), 2, 2, 3)).item()


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0], [0.3, 0.3, 0.1], [1.0, 4.0, -1.0]])


def test_classification() -> None:
    dataset = images("classification", 0, 1, 2, 0)
    targets = torch.tensor([0, 1, 2, 0])
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(LOGITS, targets, label_smoothing=smoothing, reduction="sum").item()
        assert loss(TrainingLoss(dataset, recipe(label_smoothing=smoothing), CPU), LOGITS) == pytest.approx(expected)
    soft = TrainingLoss(dataset, recipe(), CPU).soft_targets(torch.arange(4))
    assert torch.equal(soft, F.one_hot(targets).float())


def test_multilabel() -> None:
    dataset = images("multilabel", (0, 2), (), (1,), (0, 1, 2))
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1.0]])
    expected = F.binary_cross_entropy_with_logits(LOGITS, targets, reduction="none").mean(1).sum().item()
    assert loss(TrainingLoss(dataset, recipe(), CPU), LOGITS) == pytest.approx(expected)
    assert Targets.from_dataset(dataset).losses(LOGITS.double().numpy()).sum() == pytest.approx(expected)
    assert Targets.from_dataset(dataset).metric(LOGITS.numpy()) == pytest.approx(7 / 12)


def test_regression_in_standard_deviations() -> None:
    dataset = images("regression", (1.0,), (3.0,), (5.0,), (11.0,))
    logits = torch.tensor([[1.0], [4.0], [5.0], [9.0]])
    objective = TrainingLoss(dataset, recipe(), CPU)
    assert loss(objective, objective.target_scaler.standardize(logits)) == pytest.approx(5 / 14)
    head = torch.nn.Linear(2, 1)
    before = head(torch.ones(1, 2))
    objective.target_scaler.standardize_head(head)
    assert torch.allclose(head(torch.ones(1, 2)), objective.target_scaler.standardize(before), atol=1e-6)
    objective.target_scaler.unstandardize_head(head)
    assert torch.allclose(head(torch.ones(1, 2)), before, atol=1e-5)
    assert Targets.from_dataset(dataset).metric(logits.double().numpy()) == pytest.approx(1 - 5 / 56)


def test_image_weights_and_rare_classes() -> None:
    even, weighted = (images("classification", 0, 0, 0, 1), images("classification", 0, 0, 0, 1, weights=(1, 1, 1, 3)))
    each = F.cross_entropy(LOGITS, torch.tensor([0, 0, 0, 1]), reduction="none")
    expected = (each * torch.tensor([1, 1, 1, 3]) / 1.5).sum().item()
    assert loss(TrainingLoss(weighted, recipe(), CPU), LOGITS) == pytest.approx(expected)
    assert class_weights(even).tolist() == pytest.approx([4 / 9] * 3 + [4 / 3])
    balanced = TrainingLoss(even, recipe(balance="loss"), CPU)
    assert loss(balanced, LOGITS) == pytest.approx((each * torch.tensor([2 / 3] * 3 + [2.0])).sum().item())


def test_distillation() -> None:
    dataset = images("classification", 0, 1, 2, 0)
    settings = recipe(distill_weight=1.0, distill_temperature=2.0)
    assert loss(TrainingLoss(dataset, settings, CPU, lambda _: LOGITS), LOGITS) == pytest.approx(0, abs=1e-6)
    other = LOGITS.flip(0)
    ours, theirs = (F.log_softmax(each / 2, 1) for each in (LOGITS, other))
    expected = 4 * (theirs.exp() * (theirs - ours)).sum().item()
    assert loss(TrainingLoss(dataset, settings, CPU, lambda _: other), LOGITS) == pytest.approx(expected)
    half = TrainingLoss(dataset, replace(settings, distill_weight=0.5), CPU, lambda _: other)
    plain = loss(TrainingLoss(dataset, recipe(), CPU), LOGITS)
    assert loss(half, LOGITS) == pytest.approx((expected + plain) / 2)
