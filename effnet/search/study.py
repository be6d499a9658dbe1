"""The paper's central claim, tried out: grown to equal MACs, is a network better for growing in all dimensions?

Section 3 and Figures 3 and 8 of arXiv:1905.11946: a base grown in depth, width or resolution alone, and in all three;
each trained alike from several seeds, and judged on pictures that nothing was chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from effnet.arch import Arch
from effnet.search.difference import Accuracies, Difference, paired
from effnet.search.directions import COMPOUND, WAYS, Grown, directions
from effnet.search.examples import Examples
from effnet.search.grid import PAPER, Point
from effnet.search.jobs import Job, perform
from effnet.search.ledger import Result
from effnet.search.proxy import BASE

ENLARGED = 1.1  # times the pictures' own pixels; less is not worth a remark
TIMES = (2.0, 4.0, 8.0)
SEEDS, EPOCHS = 3, 24  # the deep ones learn slowest: in 5 epochs eight times the layers are worse than the base
# Half of its channels, since there are 39 trainings of up to eight times its MACs; and 12 pixels, so that eight times
# the MACs by resolution alone are no more pixels than CIFAR-10's pictures have, but one
SMALL = replace(BASE, name="nano_12_w0.5", width=0.5, resolution=12, divisor=1)


@dataclass(frozen=True)
class Study:
    """The networks, each to be trained for so many ``epochs`` from seeds 0 to ``seeds`` − 1.

    Called with the results so far it is the rule that `effnet.search.jobs.perform` asks: all, seed after seed, so that
    what is done at any time is comparable, and the largest first, so that no process ends up with a long one alone.
    """

    base: Arch
    point: Point
    networks: tuple[Grown, ...]
    epochs: int
    seeds: int
    classes: int

    @classmethod
    def of(
        cls,
        base: Arch = SMALL,
        classes: int = 10,
        epochs: int = EPOCHS,
        seeds: int = SEEDS,
        times: Sequence[float] = TIMES,
        point: Point = PAPER,
    ) -> Study:
        """The study of ``base`` grown to ``times`` its MACs; ``point``: α, β, γ of the compound networks.

        Raises ``ValueError`` for what cannot be grown (see `directions`), and for less than one epoch or seed.
        """
        for name, value in (("epochs", epochs), ("seeds", seeds)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        return cls(base, point, directions(base, times, point, classes), epochs, seeds, classes)

    @property
    def side(self) -> int:
        """Pixels a side of the largest pictures that a network sees."""
        return max(one.arch.resolution for one in self.networks)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every training."""
        ordered = sorted(self.networks, key=lambda one: -one.macs)
        return tuple(Job(one.arch, self.epochs, seed) for seed in range(self.seeds) for one in ordered)

    def __call__(self, results: Mapping[str, Result]) -> Sequence[Job]:
        """All trainings are wanted from the beginning."""
        return self.jobs

    @property
    def about(self) -> dict[str, Any]:
        """What tells this study from another. Not the seeds: of a study that is done more can be asked for."""
        return {
            "search": "scaling",
            "base": self.base.to_dict(),
            "networks": [replace(one.arch, name="network").to_dict() for one in self.networks],
            "epochs": self.epochs,
        }


@dataclass(frozen=True)
class Scored:
    """A network, what it reached, and what that took."""

    grown: Grown
    accuracies: Accuracies
    seconds: float  # of one training, the mean


@dataclass(frozen=True)
class Outcome:
    """What came of a study: its networks in their order, and compound scaling's lead over each other way.

    ``leads``: by way and times, from pairs of equal seeds. ``overall``: by way, the mean over all sizes, from pairs of
    equal seeds too, since the sizes differ by more than luck.
    """

    study: Study
    scored: tuple[Scored, ...]
    leads: Mapping[tuple[str, float], Difference]
    overall: Mapping[str, Difference]

    @property
    def seconds(self) -> float:
        """Of one core, for all trainings."""
        return sum(one.seconds * len(one.accuracies) for one in self.scored)

    def verdict(self) -> str:
        """What can honestly be said about the claim, on these pictures."""
        if self.study.seeds < 2:
            return "One seed shows no spread, so that nothing can be said of the paper's claim: give 2, better 3."
        better = [way for way, lead in self.overall.items() if lead.low > 0]
        worse = [way for way, lead in self.overall.items() if lead.high < 0]
        near = [way for way in self.overall if way not in (*better, *worse)]
        said = {"better than": better, "worse than": worse, "not to be told from": near}
        parts = [f"{words} {_listed([self._named(way) for way in ways])}" for words, ways in said.items() if ways]
        if len(better) == len(self.overall):
            claim = "The paper's claim holds here"
        elif worse:
            claim = "The paper's claim does not hold here"
        elif better:
            claim = "The paper's claim is shown in part here"
        else:
            claim = "Whether the paper's claim holds here cannot be told, since the differences lie within the noise"
        basis = f"its lead in points of top-1, the mean of all sizes, with 95 % intervals over {self.study.seeds} seeds"
        return f"{claim}: compound scaling is {', '.join(parts)} ({basis})."

    def _named(self, way: str) -> str:
        lead = self.overall[way]
        mean_, low, high = map(points, (lead.mean, lead.low, lead.high))
        return f"{way} ({mean_}, {low} to {high})"


def run(
    study: Study,
    examples: Examples,
    store: str | Path,
    processes: int | None = None,
    told: Callable[[Mapping[str, Result], Sequence[Job]], None] = lambda results, jobs: None,
) -> Outcome:
    """Does what of ``study`` is not yet in ``store``; see `effnet.search.jobs.perform`."""
    return outcome(study, perform(store, study.about, study, examples, processes=processes, told=told))


def outcome(study: Study, results: Mapping[str, Result]) -> Outcome:
    """What the ``results`` of the whole study say."""
    scored = []
    for one in study.networks:
        rows = [results[Job(one.arch, study.epochs, seed).key] for seed in range(study.seeds)]
        accuracies = Accuracies(float(row["judged"]) for row in rows)
        scored.append(Scored(one, accuracies, mean(float(row["seconds"]) for row in rows)))
    at = {(one.grown.way, one.grown.times): one.accuracies for one in scored}
    sizes = sorted({one.times for one in study.networks if one.way == COMPOUND})
    others = [way for way in WAYS if way != COMPOUND]
    leads = {(way, times): paired(at[COMPOUND, times], at[way, times]) for way in others for times in sizes}
    means = {way: [mean(each) for each in zip(*(at[way, times] for times in sizes), strict=True)] for way in WAYS}
    overall = {way: paired(means[COMPOUND], means[way]) for way in others}
    return Outcome(study, tuple(scored), leads, overall)


def enlarged(study: Study, side: int) -> str:
    """What to know where a network sees more pixels than pictures ``side`` pixels a side hold; "" where none does."""
    beyond = sorted({one.arch.resolution for one in study.networks if one.arch.resolution > ENLARGED * side})
    if not beyond:
        return ""
    sizes = " and ".join(map(str, beyond))
    return (
        f"sizes of {sizes} px are beyond the pictures' own {side}: these are enlarged there and hold nothing new, to "
        "the disadvantage of scaling by resolution; a smaller --size avoids it"
    )


def points(difference: float) -> str:
    """A difference of accuracies, fractions, in points: "+1.2", "−0.3"."""
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
