from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from effnet.training.lr_finder import find_learning_rate, smooth_losses


def make_bowl(noise: float, seed: int = 0, edge: float = 0.1) -> tuple[list[float], Callable[[float], float]]:
    """A loss that falls from 2.3 while the rate rises, is lowest at ``edge``, and explodes beyond it."""
    rng = np.random.default_rng(seed)
    tried_rates: list[float] = []

    def step(rate: float) -> float:
        tried_rates.append(rate)
        fallen = 1.5 / (1 + (edge / 20 / rate) ** 1.5)
        return float(2.3 - fallen + (rate / edge) ** 3 * 0.2 + noise * rng.normal())

    return tried_rates, step


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_suggests_a_tenth_of_where_the_loss_is_lowest(noise: float) -> None:
    for seed in range(5):
        tried_rates, step = make_bowl(noise, seed)
        sweep = find_learning_rate(step, 1e-5, 10)
        assert 0.002 < sweep.suggested < 0.012  # lowest near 0.06
        assert sweep.learning_rates == tuple(tried_rates[: len(sweep.learning_rates)])
        assert len(sweep.losses) == len(sweep.learning_rates) < 100  # it stopped where the loss diverged
        ratios = np.diff(np.log(sweep.learning_rates))
        assert np.allclose(ratios, ratios[0])
        assert sweep.learning_rates[0] == pytest.approx(1e-5)


def test_on_least_squares() -> None:
    """Least squares by gradient descent: beyond 2 / (largest curvature) it diverges."""
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = x @ torch.randn(8)
    weight = torch.zeros(8, requires_grad=True)

    def step(rate: float) -> float:
        loss = ((x @ weight - y) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight.sub_(rate * gradient)
        return loss.item()

    edge = 2 / torch.linalg.eigvalsh(2 * x.T @ x / 64).max().item()
    sweep = find_learning_rate(step, 1e-5, 100)
    assert 0.02 * edge < sweep.suggested < edge
    again = torch.zeros(8, requires_grad=True)
    weight.data = again.data
    assert step(sweep.suggested) > step(sweep.suggested) > step(sweep.suggested)


def test_nan_ends_the_sweep() -> None:
    _, step = make_bowl(0.05, edge=0.1)
    sweep = find_learning_rate(lambda rate: step(rate) if rate < 0.3 else float("nan"), 1e-5, 10)
    assert sweep.learning_rates[-1] < 0.3
    assert 0.002 < sweep.suggested < 0.012


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda rate: float("nan"), "the loss diverged after 0 batches, at a learning rate near 1e-06: start lower"),
        (lambda rate: 2.3, "clearly lowered the loss.*larger batches"),
        (lambda rate: 1 + rate, "clearly lowered the loss"),
        (lambda rate: 2.3 - 2 * rate / (1 + rate), "still falling at a learning rate of 1: sweep to a higher one"),
    ],
)
def test_inconclusive_sweeps_raise_one_sentence(step: Callable[[float], float], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        find_learning_rate(step)
    assert "\n" not in str(raised.value)


def test_noise_suggests_nothing() -> None:
    refused = 0
    for seed in range(40):
        noise = iter(np.random.default_rng(seed).normal(2.3, 0.2, 100).tolist())
        try:
            find_learning_rate(lambda _, noise=noise: next(noise))  # type: ignore[misc]
        except ValueError:
            refused += 1
    assert refused >= 34


def test_smoothing_shifts_nothing() -> None:
    line = tuple(float(value) for value in range(100))
    assert np.allclose(smooth_losses(line)[15:-15], line[15:-15], atol=1e-3)
    peak = np.zeros(100)
    peak[40] = 1
    assert smooth_losses(tuple(peak.tolist())).argmax() == 40


def test_svg() -> None:
    _, step = make_bowl(0.05)
    sweep = find_learning_rate(step, 1e-5, 10)
    root = ElementTree.fromstring(sweep.to_svg())
    assert root.tag.endswith("svg")
    texts = ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]
    assert {"learning rate", "loss", "0.001", "0.1"} <= set(texts)
    assert f"{sweep.suggested:.2g}" in texts
    assert sweep.to_svg() == sweep.to_svg()
