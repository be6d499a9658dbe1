"""The exponential moving average of the weights."""

from __future__ import annotations

import pytest
import torch

from effnet.arch import ARCHS
from effnet.net import create
from effnet.training.dry_run import simulate_recipe
from effnet.training.ema import ExponentialMovingAverage, ema_decay_at
from effnet.training.recipes import PAPER_RECIPES


def test_ema_of_weights_and_batch_norm_statistics() -> None:
    model = create("nano", 5)
    average = ExponentialMovingAverage(model, decay=0.5)
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


def test_ema_decay_equals_the_official_code_at_every_step() -> None:
    """``tf.train.ExponentialMovingAverage`` with ``num_updates``: of a dry run of the paper's, which grows old."""
    rehearsal = simulate_recipe(PAPER_RECIPES[0], ARCHS["b0"])

    def official(step: int) -> float:
        return min(0.9999, (1 + step) / (10 + step))

    steps = rehearsal.steps_per_epoch * len(rehearsal.epochs)
    assert official(1) == 2 / 11 < official(steps) == 0.9999
    for step in range(1, steps + 1):
        assert ema_decay_at(PAPER_RECIPES[0].ema_decay, step) == official(step), step
    for one in rehearsal.epochs:
        assert one.ema_decay == official(one.step + rehearsal.steps_per_epoch), one.epoch


def test_ema_applies_the_decay_of_every_step() -> None:
    model = torch.nn.Linear(1, 1).double()
    average = ExponentialMovingAverage(model, decay=0.99)  # type: ignore[arg-type]
    expected = model.weight.item()
    for step in range(1, 1001):
        with torch.no_grad():
            model.weight += 1
        average.update(model)  # type: ignore[arg-type]
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.item()
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-12), step  # type: ignore[operator]
