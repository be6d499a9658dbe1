"""Estimated durations: against arithmetic on made-up times, and once for real."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from effnet.arch import Arch, count
from effnet.lab.search import proxy_task
from effnet.lab.search.cost_estimate import estimate_seconds
from effnet.lab.search.job_store import TrainingJob
from effnet.lab.search.proxy_task import ProxyResult, SearchDataset


@pytest.fixture
def timed_archs(monkeypatch: pytest.MonkeyPatch) -> list[Arch]:
    """Make a training take 1 second, plus 1 µs × (MACs + 2) per image and epoch; return the networks timed."""
    archs: list[Arch] = []

    def train(arch: Arch, dataset: SearchDataset, epochs: int, *_: Any) -> tuple[ProxyResult, None]:
        archs.append(arch)
        macs = count(arch, classes=3).macs
        return ProxyResult(0, 0, 0, 1.0 + 1e-6 * (macs + 2) * epochs * len(dataset.train)), None

    monkeypatch.setattr(proxy_task, "train_proxy", train)
    return archs


def test_it_is_the_sum_over_images_and_epochs(timed_archs: list[Arch], striped: SearchDataset, tiny: Arch) -> None:
    nets = [replace(tiny, width=width, divisor=1) for width in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)]
    jobs = [TrainingJob(arch, 5, seed) for arch in nets for seed in (0, 1)]
    images = 5 * 192 + (60 + 120) / 3
    expected = 2 * sum(1e-6 * (count(arch, classes=3).macs + 2) * images for arch in nets)
    assert estimate_seconds(jobs, striped, processes=2) == pytest.approx(expected / 2, rel=1e-3)
    assert len(set(timed_archs)) == 5
    assert nets[0] in timed_archs
    assert nets[-1] in timed_archs


def test_it_is_at_least_the_longest_training(timed_archs: list[Arch], striped: SearchDataset, tiny: Arch) -> None:
    alone = estimate_seconds([TrainingJob(tiny, 5, 0)], striped, processes=1)
    assert estimate_seconds([TrainingJob(tiny, 5, 0)], striped, processes=8) == alone
    assert alone == pytest.approx(1e-6 * (count(tiny, classes=3).macs + 2) * (5 * 192 + 60), rel=1e-3)
    assert estimate_seconds([], striped) == 0
    assert timed_archs


def test_for_real(striped: SearchDataset, tiny: Arch) -> None:
    threads = torch.get_num_threads()
    jobs = [TrainingJob(replace(tiny, width=width), 1, 0) for width in (1.0, 2.0)]
    assert 1e-3 < estimate_seconds(jobs, striped, processes=1) < 60
    assert torch.get_num_threads() == threads
