"""Successive halving: all candidates trained shortly, the better ones longer, the best few fully."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from effnet.arch import Arch
from effnet.arch.serde import check_int
from effnet.lab.search.scheduler import TrainingJob
from effnet.lab.search.store import TrainingResult

ValueFunction = Callable[[Arch, float], float]  # a network and its accuracy -> what it is chosen by


class Rung(NamedTuple):
    """So many candidates trained for so many epochs, each from so many seeds."""

    keep: int
    epochs: int
    seeds: int


@dataclass(frozen=True)
class SuccessiveHalving:
    """The rule of a search by successive halving (arXiv:1502.07943): `effnet.lab.search.scheduler.Wanted`.

    Every rung trains the ``keep`` best of the one before from random weights, for its epochs, and ``always`` besides:
    candidates that are to be compared with whatever wins. Candidates are chosen by the mean over seeds of ``value``;
    equals in the order given. The last rung draws seeds of its own, so that luck in being chosen does not count again.
    """

    candidates: tuple[Arch, ...]
    rungs: tuple[Rung, ...]
    value: ValueFunction
    always_include: tuple[Arch, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for rung in self.rungs:
            for name, number in rung._asdict().items():
                check_int(name, number, 1)

    def __call__(self, results: Mapping[str, TrainingResult]) -> list[TrainingJob]:
        """All trainings up to the first rung that is not done."""
        jobs: list[TrainingJob] = []
        for place in range(len(self.rungs)):
            taking = self.participants(place, results)
            if taking is None:
                return jobs
            jobs += self.rung_jobs(place, taking)
        return jobs

    def expected_jobs(self) -> list[TrainingJob]:
        """As many trainings as there will be, with candidates evenly spread where the best are not known yet."""
        jobs: list[TrainingJob] = []
        others = [arch for arch in self.candidates if arch not in self.always_include]
        for place, rung in enumerate(self.rungs):
            many = min(rung.keep, len(others))
            jobs += self.rung_jobs(
                place, [*self.always_include, *(others[index * len(others) // many] for index in range(many))]
            )
        return jobs

    def rung_jobs(self, rung_index: int, participants: Sequence[Arch]) -> list[TrainingJob]:
        """The trainings of rung ``place`` for the candidates ``taking`` part: one seed of all, then the next."""
        rung = self.rungs[rung_index]
        first = self.seed + (1000 if rung_index == len(self.rungs) - 1 and rung_index else 0)
        return [TrainingJob(arch, rung.epochs, first + number) for number in range(rung.seeds) for arch in participants]

    def participants(self, rung_index: int, results: Mapping[str, TrainingResult]) -> list[Arch] | None:
        """Who takes part in rung ``place``, the best of the one before first; None while that is not done."""
        if rung_index == 0:
            return _distinct([*self.candidates[: self.rungs[0].keep], *self.always_include])
        before = self.participants(rung_index - 1, results)
        if before is None or any(job.key not in results for job in self.rung_jobs(rung_index - 1, before)):
            return None
        ranked = sorted(before, key=lambda arch: -self.mean_value(rung_index - 1, arch, results))
        return _distinct([*ranked[: self.rungs[rung_index].keep], *self.always_include])

    def accuracies(
        self, rung_index: int, arch: Arch, results: Mapping[str, TrainingResult], kind: str = "selected"
    ) -> list[float]:
        """What ``arch`` reached in rung ``place``, a seed each, as fractions; empty where it took no part."""
        return [results[job.key][kind] for job in self.rung_jobs(rung_index, [arch]) if job.key in results]

    def mean_value(self, rung_index: int, arch: Arch, results: Mapping[str, TrainingResult]) -> float:
        """The mean value of ``arch`` in rung ``place``."""
        return mean(self.value(arch, found) for found in self.accuracies(rung_index, arch, results))


def _distinct(candidates: Sequence[Arch]) -> list[Arch]:
    return list(dict.fromkeys(candidates))
