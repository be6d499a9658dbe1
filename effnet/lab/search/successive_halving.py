"""Successive halving: train all candidates briefly, the better ones longer, the best few fully."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from effnet.arch import Arch, serde
from effnet.lab.search.job_store import TrainingJob, TrainingResult

FINAL_SEED_OFFSET = 1000  # so that luck in being selected does not count again in the last rung
ValueFunction = Callable[[Arch, float], float]  # a network and its accuracy -> what it is ranked by


class Rung(NamedTuple):
    """A round: ``keep`` candidates trained for ``epochs``, each from several ``seeds``."""

    keep: int
    epochs: int
    seeds: int


def rungs_of_thirds(candidates: int, epochs: Iterable[int], seeds: int, final: Rung) -> tuple[Rung, ...]:
    """Return one rung per number of ``epochs``, each keeping a third of the one before, and the ``final`` one."""
    rungs: list[Rung] = []
    keep = candidates
    for each in epochs:
        rungs.append(Rung(keep, each, seeds))
        keep = max(final.keep, round(keep / 3))
    return (*rungs, final)


@dataclass(frozen=True)
class SuccessiveHalving:
    """Successive halving (arXiv:1502.07943) as a `effnet.lab.search.job_store.JobRule`.

    Each rung trains the ``keep`` best of the rung before from random weights, and ``always_include``. Candidates are
    ranked by their mean ``value`` over seeds, ties by their order. The last rung has seeds of its own.
    """

    candidates: tuple[Arch, ...]
    rungs: tuple[Rung, ...]
    value: ValueFunction
    always_include: tuple[Arch, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for rung in self.rungs:
            for name, number in rung._asdict().items():
                serde.check_int(name, number, 1)

    def __call__(self, results: Mapping[str, TrainingResult]) -> list[TrainingJob]:
        """Return all jobs up to the first rung that is not done."""
        jobs: list[TrainingJob] = []
        for index in range(len(self.rungs)):
            participants = self.participants(index, results)
            if participants is None:
                break
            jobs += self.rung_jobs(index, participants)
        return jobs

    def expected_jobs(self) -> list[TrainingJob]:
        """Return as many jobs as there will be, with evenly spread candidates where the best are not known yet."""
        jobs: list[TrainingJob] = []
        others = [arch for arch in self.candidates if arch not in self.always_include]
        for index, rung in enumerate(self.rungs):
            kept = min(rung.keep, len(others))
            spread = [others[position * len(others) // kept] for position in range(kept)]
            jobs += self.rung_jobs(index, [*self.always_include, *spread])
        return jobs

    def rung_jobs(self, rung_index: int, participants: Sequence[Arch]) -> list[TrainingJob]:
        """Return the jobs of a rung: the first seed of all participants, then the next."""
        rung = self.rungs[rung_index]
        first = self.seed + (FINAL_SEED_OFFSET if rung_index == len(self.rungs) - 1 and rung_index else 0)
        return [TrainingJob(arch, rung.epochs, first + number) for number in range(rung.seeds) for arch in participants]

    def participants(self, rung_index: int, results: Mapping[str, TrainingResult]) -> list[Arch] | None:
        """Return the networks of a rung, the best of the rung before first; None while that is not done."""
        if rung_index == 0:
            kept = list(self.candidates)
        else:
            before = self.participants(rung_index - 1, results)
            if before is None or any(job.key not in results for job in self.rung_jobs(rung_index - 1, before)):
                return None
            kept = sorted(before, key=lambda arch: -self.mean_value(rung_index - 1, arch, results))
        return list(dict.fromkeys([*kept[: self.rungs[rung_index].keep], *self.always_include]))

    def accuracies(
        self, rung_index: int, arch: Arch, results: Mapping[str, TrainingResult], kind: str = "selection_accuracy"
    ) -> list[float]:
        """Return the accuracies of ``arch`` in a rung as fractions, one per seed; empty if it did not take part."""
        return [results[job.key][kind] for job in self.rung_jobs(rung_index, [arch]) if job.key in results]

    def mean_value(self, rung_index: int, arch: Arch, results: Mapping[str, TrainingResult]) -> float:
        """Return the mean value of ``arch`` in a rung."""
        return mean(self.value(arch, accuracy) for accuracy in self.accuracies(rung_index, arch, results))
