from __future__ import annotations

from dataclasses import replace
from math import log
from random import Random

import pytest
import torch
from scipy.stats import spearmanr

from effnet.net import create
from effnet.search.proxy import BASE
from effnet.search.score import correlation, synflow

TINY = replace(BASE, resolution=8)


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
    assert synflow(TINY, 3) == pytest.approx(log(total), abs=1e-4)
    assert synflow(TINY, 3) == synflow(TINY, 3)


def test_the_correlation_is_spearmans_and_its_interval_shrinks() -> None:
    drawn = Random(3)
    scores = [drawn.random() for _ in range(200)]
    accuracies = [0.6 * score + 0.4 * drawn.random() for score in scores]
    few, many = correlation(scores[:30], accuracies[:30]), correlation(scores, accuracies)
    assert many.value == pytest.approx(spearmanr(scores, accuracies).statistic)
    assert many.value is not None
    assert -1 < many.low < many.value < many.high < 1
    assert many.high - many.low < few.high - few.low
    assert many.clear
    assert not correlation(scores, accuracies[::-1]).clear
    assert "200 networks" in many.in_words()


def test_of_few_networks_nothing_is_known() -> None:
    few = correlation([1, 2, 3], [1, 2, 3])
    assert (few.value, few.clear) == (None, False)
    assert few.in_words() == "not known yet (3 networks)"
    assert correlation([1] * 30, list(range(30))).value is None
    assert not correlation(list(range(10)), list(range(10))).clear  # perfect, and still too few
