"""RMSProp along a trajectory that TensorFlow's own optimizer took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.net import create
from effnet.training.optim import RMSProp, make_optimizer
from effnet.training.recipes import Recipe
from effnet.training.schedule import set_learning_rate

RECORDED = Path(__file__).with_name("rmsprop_tensorflow.json")


def test_rmsprop_equals_tensorflow_for_200_steps() -> None:
    """A quadratic with noise; weights, every 20 steps, as ``tf.compat.v1.train.RMSPropOptimizer`` had them.

    Recorded by ``scripts/record_rmsprop.py``.
    """
    recorded = json.loads(RECORDED.read_text())
    weight = torch.nn.Parameter(torch.tensor(recorded["start"], dtype=torch.float32))
    optimizer = RMSProp([weight], **recorded["settings"])
    rng = np.random.default_rng(recorded["seed"])
    curvature = torch.tensor(recorded["curvature"], dtype=torch.float32)
    computed = []
    for step in range(200):
        noise = torch.from_numpy(rng.standard_normal(len(weight)).astype(np.float32))
        weight.grad = curvature * weight.detach() + noise
        optimizer.step()
        if step % 20 == 19:
            computed.append(weight.detach().tolist())
    for ours, theirs in zip(computed, recorded["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def test_rmsprop_adds_l2_to_the_gradient() -> None:
    one, two = (torch.nn.Parameter(torch.tensor([3.0])) for _ in range(2))
    decayed, plain = RMSProp([one], lr=0.1, weight_decay=0.01), RMSProp([two], lr=0.1)
    one.grad, two.grad = torch.tensor([1.0]), torch.tensor([1.03])
    decayed.step()
    plain.step()
    assert one.item() == pytest.approx(two.item(), rel=1e-6)


def test_rmsprop_skips_parameters_without_gradient() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = RMSProp([weight], lr=0.1, weight_decay=0.01)
    optimizer.step()
    assert weight.item() == 3
    assert not optimizer.state[weight]


RECIPE = Recipe(name="test", epochs=10, learning_rate=0.01, backbone_lr_mult=0.1, weight_decay=0.05)


def test_adamw_groups() -> None:
    model = create("nano", 5)
    groups = make_optimizer(model, RECIPE).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_rmsprop_groups_decay_all_but_batch_norm() -> None:
    model = create("nano", 5)
    groups = make_optimizer(model, Recipe(name="test", epochs=1, optimizer="rmsprop", weight_decay=1e-5)).param_groups
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (".norm." not in name), name


def test_backbone_lr_mult() -> None:
    model = create("nano", 5)
    optimizer = make_optimizer(model, RECIPE)
    set_learning_rate(optimizer, 0.02)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates[id(model.classifier.weight)] == 0.02
    assert rates[id(model.stem.conv.weight)] == pytest.approx(0.002)


def test_layer_lr_decay() -> None:
    model = create("nano", 5)
    optimizer = make_optimizer(model, Recipe(name="test", epochs=1, layer_lr_decay=0.5))
    set_learning_rate(optimizer, 1.0)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    parts = [model.get_submodule(name) for name in (*model.feature_names(), "classifier")]
    assert [rates[id(next(part.parameters()))] for part in parts] == [
        0.5**index for index in reversed(range(len(parts)))
    ]
