"""Successive halving: which networks advance, their seeds, and the expected jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import ARCHS, Arch
from effnet.lab.search.job_store import TrainingResult
from effnet.lab.search.successive_halving import Rung, SuccessiveHalving

ARCHES = tuple(replace(ARCHS["nano"], name=f"n{number}", resolution=16 + number) for number in range(6))


def accuracy_value(arch: Arch, accuracy: float) -> float:
    return accuracy


def search(*rungs: Rung, always: tuple[Arch, ...] = ()) -> SuccessiveHalving:
    return SuccessiveHalving(ARCHES, rungs, accuracy_value, always, seed=5)


def finish(halving: SuccessiveHalving, results: dict[str, TrainingResult]) -> None:
    """Finish all wanted jobs; accuracy grows with the resolution and the epochs."""
    for job in halving(results):
        accuracy = job.arch.resolution / 100 + job.epochs / 100 - job.seed % 2 / 1000
        results.setdefault(job.key, {"selection_accuracy": accuracy, "test_accuracy": accuracy / 2})


def test_the_best_advance() -> None:
    halving = search(Rung(6, 1, 2), Rung(2, 3, 2), Rung(1, 9, 3), always=(ARCHES[0],))
    results: dict[str, TrainingResult] = {}
    first = halving(results)
    assert [(job.arch, job.epochs, job.seed) for job in first] == [
        (arch, 1, seed) for seed in (5, 6) for arch in ARCHES
    ]
    finish(halving, results)
    second = halving(results)
    assert second[:12] == first
    assert [(job.arch, job.epochs, job.seed) for job in second[12:]] == [
        (arch, 3, seed) for seed in (5, 6) for arch in (ARCHES[5], ARCHES[4], ARCHES[0])
    ]
    assert halving.participants(2, results) is None
    finish(halving, results)
    assert halving.participants(2, results) == [ARCHES[5], ARCHES[0]]
    third = halving(results)[18:]
    assert [(job.epochs, job.seed) for job in third] == [(9, 1005)] * 2 + [(9, 1006)] * 2 + [(9, 1007)] * 2
    finish(halving, results)
    assert halving(results) == [*second, *third]
    assert len(halving.expected_jobs()) == len(results) == 24
    assert halving.accuracies(2, ARCHES[5], results, "test_accuracy") == pytest.approx([0.1495, 0.15, 0.1495])
    assert halving.accuracies(2, ARCHES[3], results) == []


def test_an_unfinished_rung_selects_nothing() -> None:
    halving = search(Rung(6, 1, 2), Rung(2, 3, 2))
    results: dict[str, TrainingResult] = {}
    finish(halving, results)
    results.pop(halving({})[-1].key)
    assert len(halving(results)) == 12


def test_ties_keep_their_order() -> None:
    halving = search(Rung(6, 1, 1), Rung(3, 2, 1))
    results: dict[str, TrainingResult] = {job.key: {"selection_accuracy": 0.5} for job in halving({})}
    assert halving.participants(1, results) == list(ARCHES[:3])


def test_a_single_round_keeps_its_seeds() -> None:
    assert [job.seed for job in search(Rung(6, 1, 2))({})][::6] == [5, 6]


@pytest.mark.parametrize("wrong", [Rung(0, 1, 1), Rung(1, 0, 1), Rung(1, 1, 0)])
def test_numbers_below_one_are_refused(wrong: Rung) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        search(wrong)
