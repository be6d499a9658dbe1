from __future__ import annotations

import pytest
import torch

from effnet.net import create
from effnet.training.optimise import Average, optimiser, schedule, set_rate
from effnet.training.recipe import Recipe

RECIPE = Recipe(name="test", epochs=10, learning_rate=0.01, backbone_rate=0.1, weight_decay=0.05)


def test_every_parameter_once_and_no_decay_of_norms_and_biases() -> None:
    model = create("nano", 5)
    groups = optimiser(model, RECIPE).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_backbone_has_its_own_rate() -> None:
    model = create("nano", 5)
    found = optimiser(model, RECIPE)
    set_rate(found, 0.02)
    rates = {id(parameter): group["lr"] for group in found.param_groups for parameter in group["params"]}
    assert rates[id(model.classifier.weight)] == 0.02
    assert rates[id(model.stem.conv.weight)] == pytest.approx(0.002)


def test_frozen_parameters_are_left_alone() -> None:
    model = create("nano", 5)
    model.stem.requires_grad_(False)
    held = {id(parameter) for group in optimiser(model, RECIPE).param_groups for parameter in group["params"]}
    assert not held & {id(parameter) for parameter in model.stem.parameters()}


def test_schedule_rises_and_falls() -> None:
    assert schedule(0, 10, 2) == 0
    assert schedule(1, 10, 2) == 0.5
    assert schedule(2, 10, 2) == 1
    assert schedule(6, 10, 2) == pytest.approx(0.5)
    assert schedule(10, 10, 2) == pytest.approx(0)
    assert 0 < schedule(0.4, 1, 5) <= 1  # a warm-up longer than the run takes half of it
    assert schedule(0, 10, 0) == 1


def test_average_by_hand_with_norm_statistics() -> None:
    model = create("nano", 5)
    average = Average(model, decay=0.5)
    before = average.model.stem.norm.running_mean.clone()
    with torch.no_grad():
        model.stem.norm.running_mean += 1
        model.classifier.bias += 2
    average.update(model)  # the first update's decay is (1 + 0) / (10 + 0)
    assert torch.allclose(average.model.stem.norm.running_mean, before + 0.9)
    assert torch.allclose(average.model.classifier.bias, torch.full((5,), 1.8))
    for _ in range(100):
        average.update(model)
    assert torch.allclose(average.model.classifier.bias, torch.full((5,), 2.0))
