"""Random baseline of a network search: its answer against the best of random networks with the same MACs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from random import Random
from statistics import mean

from effnet.arch import Arch, count
from effnet.lab.search import job_store, nas, proxy_task, search_space, statistics

MACS_TOLERANCE = 0.05  # relative to the answer's MACs
MAX_DRAWS = 200_000
FINAL_SEEDS = 5
FIRST_FINAL_SEED = 2000  # beyond those of the search and its finals


def random_networks(
    space: search_space.SearchSpace, answer: Arch, number: int, classes: int, seed: int = 0
) -> tuple[Arch, ...]:
    """Draw ``number`` different networks with the MACs of ``answer`` within 5 %, or as many as can be found."""
    rng, macs = Random(f"chance {seed}"), count(answer, classes=classes).macs
    found: dict[object, Arch] = {search_space.layers_key(answer): answer}
    for _ in range(MAX_DRAWS):
        if len(found) > number:
            break
        arch = space.arch(space.random_choices(rng), f"random_{len(found)}")
        if abs(count(arch, classes=classes).macs - macs) <= MACS_TOLERANCE * macs:
            found.setdefault(search_space.layers_key(arch), arch)
    return tuple(list(found.values())[1:])


@dataclass(frozen=True)
class RandomBaselineJobs:
    """The job rule: all ``others`` for ``epochs``, then their best and ``ours`` for ``final_epochs``, five seeds."""

    ours: Arch
    others: tuple[Arch, ...]
    epochs: int
    final_epochs: int
    seed: int

    def __call__(self, results: Mapping[str, job_store.TrainingResult]) -> Sequence[job_store.TrainingJob]:
        """Return all jobs up to those that are not done."""
        best = self.best(results)
        return [*self.selection_jobs(), *(self.final_jobs(self.ours) + self.final_jobs(best) if best else ())]

    def selection_jobs(self) -> list[job_store.TrainingJob]:
        """Return the short trainings that select the best, always from random weights."""
        return [job_store.TrainingJob(arch, self.epochs, self.seed) for arch in self.others]

    def final_jobs(self, arch: Arch) -> list[job_store.TrainingJob]:
        """Return the trainings that are compared."""
        first = FIRST_FINAL_SEED + self.seed
        return [job_store.TrainingJob(arch, self.final_epochs, first + number) for number in range(FINAL_SEEDS)]

    def best(self, results: Mapping[str, job_store.TrainingResult]) -> Arch | None:
        """Return the best of the others; None until all are trained."""
        jobs = self.selection_jobs()
        if any(job.key not in results for job in jobs):
            return None
        return max(jobs, key=lambda job: (results[job.key]["selection_accuracy"], -results[job.key]["loss"])).arch


@dataclass(frozen=True)
class RandomComparison:
    """The answer against the best of ``random_networks``, which come with their accuracy after the short training."""

    random_networks: tuple[tuple[Arch, float], ...]
    best: Arch
    ours: tuple[float, ...]  # test accuracies, one per seed
    theirs: tuple[float, ...]
    difference: statistics.PairedDifference
    held_out: statistics.HeldOutImages

    def verdict(self) -> str:
        """Return what the comparison shows, with its caveats."""
        others = f"the best of {len(self.random_networks)} random networks of the same MACs ({mean(self.theirs):.1%})"
        answer, difference = f"The answer ({mean(self.ours):.1%})", self.difference.describe()
        if self.difference.low > 0:
            verdict = f"{answer} is better than {others}: {difference}."
        elif self.difference.high < 0:
            verdict = f"{answer} is worse than {others}: {difference}. Use that one."
        else:
            verdict = (
                f"{answer} does not differ significantly from {others}: {difference}. The search did not pay off on "
                "these images, or they are too few to show it."
            )
        return " ".join(filter(None, (verdict, self.held_out.caution(self.difference.mean))))

    def to_dict(self) -> dict[str, object]:
        """Return plain data, as in ``random.json``."""
        return {
            "random": [{"arch": arch.to_dict(), "accuracy": accuracy} for arch, accuracy in self.random_networks],
            "ours": self.ours,
            "theirs": self.theirs,
            "difference": dict(zip(("mean", "low", "high", "seeds"), astuple(self.difference), strict=True)),
            "best_random": self.best.to_dict(),
        }


def compare_with_random(
    config: nas.NASConfig,
    answer: Arch,
    dataset: proxy_task.SearchDataset,
    store: str,
    number: int,
    epochs: int,
    processes: int | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> RandomComparison:
    """Compare ``answer`` with the best of ``number`` random networks of its MACs, in the search's ``store``.

    They are trained like candidates, from random weights; the best of them and the answer then for ``epochs``, from
    five seeds. Raises ``ValueError`` if no other network has the same MACs.
    """
    others = random_networks(config.space, answer, number, len(dataset.class_names), config.seed)
    if not others:
        raise ValueError(f"no other network of the search space has the answer's MACs within {MACS_TOLERANCE:.0%}")
    rule = RandomBaselineJobs(answer, others, config.epochs, epochs, config.seed)
    total = len(others) + 2 * FINAL_SEEDS

    def report(results: Mapping[str, job_store.TrainingResult], jobs: Sequence[job_store.TrainingJob]) -> None:
        on_progress(sum(job.key in results for job in jobs), total)

    results = job_store.run_jobs(store, config.identity, rule, dataset, processes=processes, on_progress=report)
    best = rule.best(results)
    assert best is not None
    ours, theirs = (
        tuple(results[job.key]["test_accuracy"] for job in rule.final_jobs(arch)) for arch in (answer, best)
    )
    return RandomComparison(
        tuple((job.arch, results[job.key]["selection_accuracy"]) for job in rule.selection_jobs()),
        replace(best, name="best_random"),
        ours,
        theirs,
        statistics.paired_difference(ours, theirs),
        statistics.HeldOutImages(len(dataset.test), dataset.has_test),
    )
