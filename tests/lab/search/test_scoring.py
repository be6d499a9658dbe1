from __future__ import annotations

from dataclasses import replace
from math import log
from random import Random

import pytest
import torch
from scipy.stats import spearmanr

from effnet.arch import count
from effnet.lab.search.proxy_training import BASE_ARCH
from effnet.lab.search.scoring import CostFunction, mnasnet_reward, rank_correlation, synflow_score
from effnet.net import create


def test_twice_the_cost_is_worth_five_percent_more_accuracy() -> None:
    # MnasNet, section 3: the exponent is chosen for that
    assert mnasnet_reward(0.75, 4e6, 4e6) == 0.75
    assert mnasnet_reward(0.75 * 1.05, 8e6, 4e6) == pytest.approx(0.75, rel=0.001)
    assert mnasnet_reward(0.5, 1e6, 4e6) == pytest.approx(0.5 * 4**0.07)


def test_a_cost_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        mnasnet_reward(0.5, 1e6, 0)
    with pytest.raises(ValueError, match="cost"):
        mnasnet_reward(0.5, 0, 1e6)


def test_costs_are_counted_with_the_classes_there_are() -> None:
    counted = count(BASE_ARCH, classes=10)
    assert CostFunction("macs", 10)(BASE_ARCH) == counted.macs
    assert CostFunction("params", 10)(BASE_ARCH) == counted.params
    with pytest.raises(ValueError, match="macs, params"):
        CostFunction("flops", 10)


TINY = replace(BASE_ARCH, resolution=8)


def test_synflow_is_what_each_tensor_adds_to_the_outputs() -> None:
    # theta dR/dtheta, summed over a tensor, is how R grows as the whole tensor does: here by finite differences
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create(TINY, classes=3).double().eval()
    ones = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    total = 0.0
    with torch.no_grad():
        for value in model.parameters():
            value.abs_()
        for value in model.parameters():
            kept, step = value.clone(), 1e-6
            ways = []
            for sign in (1, -1):
                value.mul_(1 + sign * step)
                ways.append(float(model(ones).sum()))
                value.copy_(kept)
            total += (ways[0] - ways[1]) / (2 * step)
    assert synflow_score(TINY, 3) == pytest.approx(log(total), abs=1e-4)
    assert synflow_score(TINY, 3) == synflow_score(TINY, 3)


def test_the_correlation_is_spearmans_and_its_interval_shrinks() -> None:
    drawn = Random(3)
    scores = [drawn.random() for _ in range(200)]
    accuracies = [0.6 * score + 0.4 * drawn.random() for score in scores]
    few, many = rank_correlation(scores[:30], accuracies[:30]), rank_correlation(scores, accuracies)
    assert many.value == pytest.approx(spearmanr(scores, accuracies).statistic)
    assert many.value is not None
    assert -1 < many.low < many.value < many.high < 1
    assert many.high - many.low < few.high - few.low
    assert many.is_clear
    assert not rank_correlation(scores, accuracies[::-1]).is_clear
    assert "200 networks" in many.in_words()


def test_of_few_networks_nothing_is_known() -> None:
    few = rank_correlation([1, 2, 3], [1, 2, 3])
    assert (few.value, few.is_clear) == (None, False)
    assert few.in_words() == "not known yet (3 networks)"
    assert rank_correlation([1] * 30, list(range(30))).value is None
    assert not rank_correlation(list(range(10)), list(range(10))).is_clear  # perfect, and still too few
