"""Successive halving: all candidates trained shortly, the better ones longer, the best few fully."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from effnet.arch import Arch
from effnet.arch.record import whole
from effnet.search.jobs import Job
from effnet.search.ledger import Result

Value = Callable[[Arch, float], float]  # a network and its accuracy -> what it is chosen by


class Rung(NamedTuple):
    """So many candidates trained for so many epochs, each from so many seeds."""

    keep: int
    epochs: int
    seeds: int


@dataclass(frozen=True)
class Halving:
    """The rule of a search by successive halving (arXiv:1502.07943): `effnet.search.jobs.Wanted`.

    Every rung trains the ``keep`` best of the one before from random weights, for its epochs, and ``always`` besides:
    candidates that are to be compared with whatever wins. Candidates are chosen by the mean over seeds of ``value``;
    equals in the order given. The last rung draws seeds of its own, so that luck in being chosen does not count again.
    """

    candidates: tuple[Arch, ...]
    rungs: tuple[Rung, ...]
    value: Value
    always: tuple[Arch, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for rung in self.rungs:
            for name, number in rung._asdict().items():
                whole(name, number, 1)

    def __call__(self, results: Mapping[str, Result]) -> list[Job]:
        """All trainings up to the first rung that is not done."""
        jobs: list[Job] = []
        for place in range(len(self.rungs)):
            taking = self.taking(place, results)
            if taking is None:
                return jobs
            jobs += self.jobs(place, taking)
        return jobs

    def expected(self) -> list[Job]:
        """As many trainings as there will be, with candidates evenly spread where the best are not known yet."""
        jobs: list[Job] = []
        others = [arch for arch in self.candidates if arch not in self.always]
        for place, rung in enumerate(self.rungs):
            many = min(rung.keep, len(others))
            jobs += self.jobs(place, [*self.always, *(others[index * len(others) // many] for index in range(many))])
        return jobs

    def jobs(self, place: int, taking: Sequence[Arch]) -> list[Job]:
        """The trainings of rung ``place`` for the candidates ``taking`` part: one seed of all, then the next."""
        rung = self.rungs[place]
        first = self.seed + (1000 if place == len(self.rungs) - 1 and place else 0)
        return [Job(arch, rung.epochs, first + number) for number in range(rung.seeds) for arch in taking]

    def taking(self, place: int, results: Mapping[str, Result]) -> list[Arch] | None:
        """Who takes part in rung ``place``, the best of the one before first; None while that is not done."""
        if place == 0:
            return _distinct([*self.candidates[: self.rungs[0].keep], *self.always])
        before = self.taking(place - 1, results)
        if before is None or any(job.key not in results for job in self.jobs(place - 1, before)):
            return None
        ranked = sorted(before, key=lambda arch: -self.mean(place - 1, arch, results))
        return _distinct([*ranked[: self.rungs[place].keep], *self.always])

    def accuracies(self, place: int, arch: Arch, results: Mapping[str, Result], kind: str = "selected") -> list[float]:
        """What ``arch`` reached in rung ``place``, a seed each, as fractions; empty where it took no part."""
        return [results[job.key][kind] for job in self.jobs(place, [arch]) if job.key in results]

    def mean(self, place: int, arch: Arch, results: Mapping[str, Result]) -> float:
        """The mean value of ``arch`` in rung ``place``."""
        return mean(self.value(arch, found) for found in self.accuracies(place, arch, results))


def _distinct(candidates: Sequence[Arch]) -> list[Arch]:
    return list(dict.fromkeys(candidates))
