from __future__ import annotations

import pytest
import torch

from effnet.arch import ARCHS
from effnet.net import create
from effnet.training.optimise import Average, optimiser, set_rate, young
from effnet.training.recipe import Recipe
from effnet.training.recipes.paper import PAPER
from effnet.training.rehearsal import rehearse

RECIPE = Recipe(name="test", epochs=10, learning_rate=0.01, backbone_rate=0.1, weight_decay=0.05)


def test_every_parameter_once_and_no_decay_of_norms_and_biases() -> None:
    model = create("nano", 5)
    groups = optimiser(model, RECIPE).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_the_official_code_decays_all_but_batch_norm() -> None:
    model = create("nano", 5)
    groups = optimiser(model, Recipe(name="test", epochs=1, optimiser="rmsprop", weight_decay=1e-5)).param_groups
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (".norm." not in name), name


def test_backbone_has_its_own_rate() -> None:
    model = create("nano", 5)
    found = optimiser(model, RECIPE)
    set_rate(found, 0.02)
    rates = {id(parameter): group["lr"] for group in found.param_groups for parameter in group["params"]}
    assert rates[id(model.classifier.weight)] == 0.02
    assert rates[id(model.stem.conv.weight)] == pytest.approx(0.002)


def test_each_part_has_less_than_the_one_above_it() -> None:
    model = create("nano", 5)
    found = optimiser(model, Recipe(name="test", epochs=1, layer_rate=0.5))
    set_rate(found, 1.0)
    rates = {id(parameter): group["lr"] for group in found.param_groups for parameter in group["params"]}
    parts = [model.get_submodule(name) for name in (*model.parts(), "classifier")]
    assert [rates[id(next(part.parameters()))] for part in parts] == [
        0.5**index for index in reversed(range(len(parts)))
    ]


def test_average_by_hand_with_norm_statistics() -> None:
    model = create("nano", 5)
    average = Average(model, decay=0.5)
    before = average.model.stem.norm.running_mean.clone()
    with torch.no_grad():
        model.stem.norm.running_mean += 1
        model.classifier.bias += 2
    average.update(model)  # after the first step the decay is (1 + 1) / (10 + 1)
    assert torch.allclose(average.model.stem.norm.running_mean, before + 9 / 11)
    assert torch.allclose(average.model.classifier.bias, torch.full((5,), 18 / 11))
    for _ in range(100):
        average.update(model)
    assert torch.allclose(average.model.classifier.bias, torch.full((5,), 2.0))


def test_the_average_ages_as_the_official_code_has_it_at_every_step() -> None:
    """``tf.train.ExponentialMovingAverage`` with ``num_updates``: of a dry run of the paper's, which grows old."""
    rehearsal = rehearse(PAPER[0], ARCHS["b0"])

    def official(step: int) -> float:
        return min(0.9999, (1 + step) / (10 + step))

    steps = rehearsal.batches * len(rehearsal.epochs)
    assert official(1) == 2 / 11 < official(steps) == 0.9999
    for step in range(1, steps + 1):
        assert young(PAPER[0].average, step) == official(step), step
    for one in rehearsal.epochs:
        assert one.average == official(one.step + rehearsal.batches), one.epoch


def test_the_average_takes_its_age_at_every_step() -> None:
    model = torch.nn.Linear(1, 1).double()
    average = Average(model, decay=0.99)  # type: ignore[arg-type]
    expected = model.weight.item()
    for step in range(1, 1001):
        with torch.no_grad():
            model.weight += 1
        average.update(model)  # type: ignore[arg-type]
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.item()
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-12), step  # type: ignore[operator]
