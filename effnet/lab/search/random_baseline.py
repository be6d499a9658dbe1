"""Whether a search was worth it: its answer against the best of random networks that cost the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

from effnet.arch import Arch, count
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.nas import NASConfig
from effnet.lab.search.scheduler import TrainingJob, run_jobs
from effnet.lab.search.search_space import SearchSpace, layers_key
from effnet.lab.search.statistics import HeldOutImages, PairedDifference, paired_difference
from effnet.lab.search.store import TrainingResult

MACS_TOLERANCE = 0.05  # of the answer's MACs
MAX_DRAWS = 200_000
FINAL_SEEDS = 5
FIRST_FINAL_SEED = 2000  # beyond those of the search and of its finals


def random_networks(space: SearchSpace, to: Arch, number: int, classes: int, seed: int = 0) -> tuple[Arch, ...]:
    """Random networks of ``space`` with the MACs of ``to`` within 5 %: ``many`` that differ, or all that are found."""
    drawn, macs = Random(f"chance {seed}"), count(to, classes=classes).macs
    found: dict[object, Arch] = {layers_key(to): to}
    for _ in range(MAX_DRAWS):
        if len(found) > number:
            break
        arch = space.arch(space.random_choices(drawn), f"random_{len(found)}")
        if abs(count(arch, classes=classes).macs - macs) <= MACS_TOLERANCE * macs:
            found.setdefault(layers_key(arch), arch)
    return tuple(list(found.values())[1:])


@dataclass(frozen=True)
class RandomBaselineJobs:
    """The rule: all ``others`` for ``epochs``, then the best of them and ``ours`` for ``full``, from five seeds."""

    ours: Arch
    others: tuple[Arch, ...]
    epochs: int
    final_epochs: int
    seed: int

    def __call__(self, results: Mapping[str, TrainingResult]) -> Sequence[TrainingJob]:
        """All trainings up to those that are not done."""
        best = self.best(results)
        return [*self.selection_jobs(), *(self.final_jobs(self.ours) + self.final_jobs(best) if best else ())]

    def selection_jobs(self) -> list[TrainingJob]:
        """The trainings that the best is found by: as a candidate's, but always from random weights."""
        return [TrainingJob(arch, self.epochs, self.seed) for arch in self.others]

    def final_jobs(self, arch: Arch) -> list[TrainingJob]:
        """The trainings that are compared."""
        return [
            TrainingJob(arch, self.final_epochs, FIRST_FINAL_SEED + self.seed + number) for number in range(FINAL_SEEDS)
        ]

    def best(self, results: Mapping[str, TrainingResult]) -> Arch | None:
        """The best of the others, once all are trained."""
        jobs = self.selection_jobs()
        if any(job.key not in results for job in jobs):
            return None
        return max(jobs, key=lambda job: (results[job.key]["selected"], -results[job.key]["loss"])).arch


@dataclass(frozen=True)
class RandomComparison:
    """How the answer did against the best of a ``field`` of random networks.

    The field: each with its accuracy after the short training. ``ours`` and ``theirs`` are accuracies as
    ``judges`` have judged, a seed each. All as fractions.
    """

    random_networks: tuple[tuple[Arch, float], ...]
    best: Arch
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    difference: PairedDifference
    held_out: HeldOutImages

    def verdict(self) -> str:
        """What can honestly be said."""
        return " ".join(filter(None, (self._verdict(), self.held_out.caution(self.difference.mean))))

    def _verdict(self) -> str:
        against = f"the best of {len(self.random_networks)} random networks of the same MACs ({mean(self.theirs):.1%})"
        told = self.difference.in_words()
        if self.difference.low > 0:
            return f"The answer ({mean(self.ours):.1%}) is better than {against}: {told}."
        if self.difference.high < 0:
            return f"The answer ({mean(self.ours):.1%}) is worse than {against}: {told}. Take that one."
        return (
            f"The answer ({mean(self.ours):.1%}) cannot be told from {against}: {told}. The search was not worth it on "
            "these pictures, or they are too few to show it."
        )


def compare_with_random(
    config: NASConfig,
    answer: Arch,
    dataset: SearchDataset,
    store: str,
    number: int,
    epochs: int,
    processes: int | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> RandomComparison:
    """``answer`` of the search ``plan`` against the best of ``many`` random networks of its MACs.

    The random networks are trained as a candidate is, from random weights; the best of them and the answer then for
    ``epochs``, from five seeds. All is kept in ``store``, which must be the search's own. Raises ``ValueError`` where
    no other network costs the same.
    """
    others = random_networks(config.space, answer, number, len(dataset.class_names), config.seed)
    if not others:
        raise ValueError(
            f"no other network of the space has the answer's MACs within {MACS_TOLERANCE:.0%}: nothing to compare"
        )
    contest = RandomBaselineJobs(answer, others, config.epochs, epochs, config.seed)
    total = len(others) + 2 * FINAL_SEEDS

    def heard(results: Mapping[str, TrainingResult], _: Sequence[TrainingJob]) -> None:
        on_progress(sum(job.key in results for job in contest(results)), total)

    results = run_jobs(store, config.identity, contest, dataset, processes=processes, on_progress=heard)
    best = contest.best(results)
    assert best is not None
    ours, theirs = (
        tuple(float(results[job.key]["judged"]) for job in contest.final_jobs(arch)) for arch in (answer, best)
    )
    field = tuple((job.arch, float(results[job.key]["selected"])) for job in contest.selection_jobs())
    judges = HeldOutImages(len(dataset.test), dataset.has_test)
    return RandomComparison(
        field, replace(best, name="best_random"), ours, theirs, paired_difference(ours, theirs), judges
    )
