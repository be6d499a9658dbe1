"""MnasNet's reward, cost functions, and SynFlow against finite differences."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from effnet.arch import count
from effnet.lab.search.proxy_task import BASE_ARCH
from effnet.lab.search.scoring import CostFunction, mnasnet_reward, synflow_score
from effnet.net import create


def test_twice_the_cost_is_worth_five_percent_more_accuracy() -> None:
    # MnasNet, section 3: the exponent was chosen so
    assert mnasnet_reward(0.75, 4e6, 4e6) == 0.75
    assert mnasnet_reward(0.75 * 1.05, 8e6, 4e6) == pytest.approx(0.75, rel=0.001)
    assert mnasnet_reward(0.5, 1e6, 4e6) == pytest.approx(0.5 * 4**0.07)


def test_costs_must_be_positive() -> None:
    with pytest.raises(ValueError, match="target"):
        mnasnet_reward(0.5, 1e6, 0)
    with pytest.raises(ValueError, match="cost"):
        mnasnet_reward(0.5, 0, 1e6)


def test_costs_depend_on_the_classes() -> None:
    counted = count(BASE_ARCH, classes=10)
    assert CostFunction("macs", 10)(BASE_ARCH) == counted.macs
    assert CostFunction("params", 10)(BASE_ARCH) == counted.params
    with pytest.raises(ValueError, match="macs, params"):
        CostFunction("flops", 10)


TINY = replace(BASE_ARCH, resolution=8)


def test_synflow_against_finite_differences() -> None:
    # θ · ∂R/∂θ, summed over a tensor, is the growth of R as the whole tensor grows
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create(TINY, classes=3).double().eval()
    ones = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    total = 0.0
    with torch.no_grad():
        for value in model.parameters():
            value.abs_()
        for value in model.parameters():
            before, step = value.clone(), 1e-6
            values = []
            for sign in (1, -1):
                value.mul_(1 + sign * step)
                values.append(float(model(ones).sum()))
                value.copy_(before)
            total += (values[0] - values[1]) / (2 * step)
    assert synflow_score(TINY, 3) == pytest.approx(log(total), abs=1e-4)
    assert synflow_score(TINY, 3) == synflow_score(TINY, 3)
