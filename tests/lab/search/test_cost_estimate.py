"""How long trainings take, said beforehand: against arithmetic on times that are made up, and once in earnest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from effnet.arch import Arch, count
from effnet.lab.search import cost_estimate as module
from effnet.lab.search.cost_estimate import estimate_seconds
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import ProxyResult
from effnet.lab.search.scheduler import TrainingJob


@pytest.fixture
def ruled(monkeypatch: pytest.MonkeyPatch) -> list[Arch]:
    """Trainings that take 1 second, and for each picture of each epoch a microsecond a MAC and two more."""
    asked: list[Arch] = []

    def train(arch: Arch, examples: SearchDataset, epochs: int, *_: Any) -> tuple[ProxyResult, None]:
        asked.append(arch)
        macs = count(arch, classes=3).macs
        return ProxyResult(0, 0, 0, 1.0 + 1e-6 * (macs + 2) * epochs * len(examples.train)), None

    monkeypatch.setattr(module, "train", train)
    return asked


def test_it_is_the_sum_over_pictures_and_epochs(ruled: list[Arch], striped: SearchDataset, tiny: Arch) -> None:
    nets = [replace(tiny, width=width, divisor=1) for width in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)]
    jobs = [TrainingJob(arch, 5, seed) for arch in nets for seed in (0, 1)]
    pictures = 5 * 192 + (60 + 120) / 3
    wanted = 2 * sum(1e-6 * (count(arch, classes=3).macs + 2) * pictures for arch in nets)
    assert estimate_seconds(jobs, striped, processes=2) == pytest.approx(wanted / 2, rel=1e-3)
    assert len(set(ruled)) == 5
    assert nets[0] in ruled
    assert nets[-1] in ruled


def test_no_process_can_be_quicker_than_the_longest_training(
    ruled: list[Arch], striped: SearchDataset, tiny: Arch
) -> None:
    alone = estimate_seconds([TrainingJob(tiny, 5, 0)], striped, processes=1)
    assert estimate_seconds([TrainingJob(tiny, 5, 0)], striped, processes=8) == alone
    assert alone == pytest.approx(1e-6 * (count(tiny, classes=3).macs + 2) * (5 * 192 + 60), rel=1e-3)
    assert estimate_seconds([], striped) == 0
    assert ruled


def test_in_earnest(striped: SearchDataset, tiny: Arch) -> None:
    threads = torch.get_num_threads()
    jobs = [TrainingJob(replace(tiny, width=width), 1, 0) for width in (1.0, 2.0)]
    assert 1e-3 < estimate_seconds(jobs, striped, processes=1) < 60
    assert torch.get_num_threads() == threads
