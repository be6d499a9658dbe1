"""Whether a search was worth it: its answer against the best of random networks that cost the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

from effnet.arch import Arch, count
from effnet.search.candidates import Plan
from effnet.search.difference import Difference, paired
from effnet.search.enough import Judges
from effnet.search.examples import Examples
from effnet.search.jobs import Job, perform
from effnet.search.ledger import Result
from effnet.search.space import Space, same

NEAR = 0.05  # of the answer's MACs
DRAWS = 200_000
SEEDS = 5
FIRST_SEED = 2000  # beyond those of the search and of its finals


def alike(space: Space, to: Arch, many: int, classes: int, seed: int = 0) -> tuple[Arch, ...]:
    """Random networks of ``space`` with the MACs of ``to`` within 5 %: ``many`` that differ, or all that are found."""
    drawn, macs = Random(f"chance {seed}"), count(to, classes=classes).macs
    found: dict[object, Arch] = {same(to): to}
    for _ in range(DRAWS):
        if len(found) > many:
            break
        arch = space.arch(space.random(drawn), f"random_{len(found)}")
        if abs(count(arch, classes=classes).macs - macs) <= NEAR * macs:
            found.setdefault(same(arch), arch)
    return tuple(list(found.values())[1:])


@dataclass(frozen=True)
class Contest:
    """The rule: all ``others`` for ``epochs``, then the best of them and ``ours`` for ``full``, from five seeds."""

    ours: Arch
    others: tuple[Arch, ...]
    epochs: int
    full: int
    seed: int

    def __call__(self, results: Mapping[str, Result]) -> Sequence[Job]:
        """All trainings up to those that are not done."""
        best = self.best(results)
        return [*self.short(), *(self.long(self.ours) + self.long(best) if best else ())]

    def short(self) -> list[Job]:
        """The trainings that the best is found by: as a candidate's, but always from random weights."""
        return [Job(arch, self.epochs, self.seed) for arch in self.others]

    def long(self, arch: Arch) -> list[Job]:
        """The trainings that are compared."""
        return [Job(arch, self.full, FIRST_SEED + self.seed + number) for number in range(SEEDS)]

    def best(self, results: Mapping[str, Result]) -> Arch | None:
        """The best of the others, once all are trained."""
        jobs = self.short()
        if any(job.key not in results for job in jobs):
            return None
        return max(jobs, key=lambda job: (results[job.key]["selected"], -results[job.key]["loss"])).arch


@dataclass(frozen=True)
class Compared:
    """How the answer did against the best of a ``field`` of random networks.

    The field: each with its accuracy after the short training. ``ours`` and ``theirs`` are accuracies as
    ``judges`` have judged, a seed each. All as fractions.
    """

    field: tuple[tuple[Arch, float], ...]
    best: Arch
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    difference: Difference
    judges: Judges

    def verdict(self) -> str:
        """What can honestly be said."""
        return " ".join(filter(None, (self._verdict(), self.judges.caution(self.difference.mean))))

    def _verdict(self) -> str:
        against = f"the best of {len(self.field)} random networks of the same MACs ({mean(self.theirs):.1%})"
        told = self.difference.in_words()
        if self.difference.low > 0:
            return f"The answer ({mean(self.ours):.1%}) is better than {against}: {told}."
        if self.difference.high < 0:
            return f"The answer ({mean(self.ours):.1%}) is worse than {against}: {told}. Take that one."
        return (
            f"The answer ({mean(self.ours):.1%}) cannot be told from {against}: {told}. The search was not worth it on "
            "these pictures, or they are too few to show it."
        )


def against_random(
    plan: Plan,
    answer: Arch,
    examples: Examples,
    store: str,
    many: int,
    epochs: int,
    processes: int | None = None,
    told: Callable[[int, int], object] = lambda done, total: None,
) -> Compared:
    """``answer`` of the search ``plan`` against the best of ``many`` random networks of its MACs.

    The random networks are trained as a candidate is, from random weights; the best of them and the answer then for
    ``epochs``, from five seeds. All is kept in ``store``, which must be the search's own. Raises ``ValueError`` where
    no other network costs the same.
    """
    others = alike(plan.space, answer, many, len(examples.names), plan.seed)
    if not others:
        raise ValueError(f"no other network of the space has the answer's MACs within {NEAR:.0%}: nothing to compare")
    contest = Contest(answer, others, plan.epochs, epochs, plan.seed)
    total = len(others) + 2 * SEEDS

    def heard(results: Mapping[str, Result], _: Sequence[Job]) -> None:
        told(sum(job.key in results for job in contest(results)), total)

    results = perform(store, plan.about, contest, examples, processes=processes, told=heard)
    best = contest.best(results)
    assert best is not None
    ours, theirs = (tuple(float(results[job.key]["judged"]) for job in contest.long(arch)) for arch in (answer, best))
    field = tuple((job.arch, float(results[job.key]["selected"])) for job in contest.short())
    judges = Judges(len(examples.judge), examples.unseen)
    return Compared(field, replace(best, name="best_random"), ours, theirs, paired(ours, theirs), judges)
