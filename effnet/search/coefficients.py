"""The paper's step 1 on one's own pictures: which α, β, γ make the best of twice the MACs (section 3.3).

Every point of the grid grows a small base. The networks that differ are trained shortly from several seeds, the better
ones longer, and the best are at last trained fully beside the paper's own triple, judged on pictures that nothing was
chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from effnet.arch import Arch, count
from effnet.arch.record import whole
from effnet.search.difference import Accuracies, Difference, paired
from effnet.search.enough import Judges
from effnet.search.examples import Examples
from effnet.search.grid import PAPER, Point, grid, grown
from effnet.search.halving import Halving, Rung
from effnet.search.jobs import Job, perform
from effnet.search.ledger import Result
from effnet.search.proxy import BASE
from effnet.search.reward import reward
from effnet.search.space import same
from effnet.search.surface import Surface, surface

SEEDS = 3
EPOCHS = (1, 3, 9)  # of the rungs; each keeps a third of the one before
FINAL, FINAL_EPOCHS, FINAL_SEEDS = 3, 27, 5
GROWTH = 2.0  # α·β²·γ²


@dataclass(frozen=True)
class Worth:
    """What a grown network is chosen by: its accuracy at the cost of exactly ``target`` MACs.

    Rounding gives some networks more MACs than others, and more MACs more accuracy; the exchange rate is that of the
    search that found B0, ACC × (MACs / target)^−.07.
    """

    target: float
    classes: int

    def __call__(self, arch: Arch, accuracy: float) -> float:
        """The worth of ``arch``, which has this accuracy (a fraction)."""
        return reward(accuracy, count(arch, classes=self.classes).macs, self.target)


@dataclass(frozen=True)
class Coefficients:
    """The search as a rule: the points, the network of each, and who is trained how long.

    Networks that differ in name alone are one: ``networks`` has as many entries as ``points``, with repetitions.
    """

    base: Arch
    points: tuple[Point, ...]
    networks: tuple[Arch, ...]
    halving: Halving
    classes: int

    @classmethod
    def of(
        cls,
        base: Arch = BASE,
        points: Sequence[Point] | None = None,
        classes: int = 10,
        epochs: Sequence[int] = EPOCHS,
        seeds: int = SEEDS,
        final: int = FINAL,
        final_epochs: int = FINAL_EPOCHS,
        final_seeds: int = FINAL_SEEDS,
        seed: int = 0,
    ) -> Coefficients:
        """The search over ``points`` (the paper's grid if None), with a rung of each of ``epochs`` and a final one.

        The paper's own triple takes part in every rung. Raises ``ValueError`` for a number below 1.
        """
        whole("final", final, 1)
        points = tuple(dict.fromkeys((*(points or grid()), PAPER)))
        first: dict[tuple[object, ...], Arch] = {}

        def network(point: Point) -> Arch:
            arch = grown(base, *point.triple)
            return first.setdefault(same(arch), arch)

        always = (network(PAPER),)
        networks = tuple(map(network, points))
        different = tuple(dict.fromkeys(networks))
        keep = len(different)
        rungs = []
        for each in epochs:
            rungs.append(Rung(keep, each, seeds))
            keep = max(final, round(keep / 3))
        rungs.append(Rung(final, final_epochs, final_seeds))
        worth = Worth(GROWTH * count(base, classes=classes).macs, classes)
        return cls(base, points, networks, Halving(different, tuple(rungs), worth, always, seed), classes)

    @property
    def about(self) -> dict[str, Any]:
        """What tells this search from another: its store takes no other."""
        halving = self.halving
        return {
            "search": "coefficients",
            "base": self.base.to_dict(),
            "points": [point.in_words() for point in self.points],
            "rungs": [list(rung) for rung in halving.rungs],
            "seed": halving.seed,
        }

    def of_network(self, arch: Arch) -> tuple[Point, ...]:
        """The points that grow the base to ``arch``."""
        return tuple(point for point, one in zip(self.points, self.networks, strict=True) if one == arch)


@dataclass(frozen=True)
class Stand:
    """How a network did in the last rung that it took part in: accuracies as fractions, a seed each."""

    arch: Arch
    points: tuple[Point, ...]
    rung: int
    epochs: int
    accuracies: Accuracies
    macs: int
    worth: float

    @property
    def named(self) -> Point:
        """The triple that it is named by: the paper's, or else the one in the middle of all that grow this network."""
        return PAPER if PAPER in self.points else middle(self.points)

    def called(self) -> str:
        """ "1.2 / 1.1 / 1.15 + 2": the triple that it is named by, and how many others there are."""
        return self.named.in_words() + (f" + {len(self.points) - 1}" if len(self.points) > 1 else "")

    def to_dict(self) -> dict[str, Any]:
        """The network, the triples that grow it, and its figures."""
        triples = [list(one.triple) for one in self.points]
        return asdict(replace(self, points=())) | {
            "arch": self.arch.to_dict(),
            "points": triples,
            "mean": self.accuracies.mean,
            "spread": self.accuracies.spread,
        }


@dataclass(frozen=True)
class Found:
    """The outcome. ``stands``: every network, those who came furthest first, among them the best first.

    ``first``: what each network was worth in the first round, which the surface is fitted to.
    ``noise``: the spread over seeds in the first rung, of all networks together. ``finals``: what the final rung's
    networks reach as judged by ``judges``, and by how much each leads the paper's triple, from the same seeds and at
    equal MACs; the intervals of all of them hold together, since the best is chosen among them.
    """

    search: Coefficients
    stands: tuple[Stand, ...]
    first: dict[Arch, float]
    surface: Surface | None
    noise: float
    finals: tuple[tuple[Stand, Difference | None], ...]
    judges: Judges

    @property
    def best(self) -> Stand:
        """The network that came out first."""
        return self.stands[0]

    @property
    def lead(self) -> Difference | None:
        """By how much the best leads the paper's triple; None where that is the best."""
        return next(difference for stand, difference in self.finals if stand.arch == self.best.arch)

    @property
    def advice(self) -> Point:
        """The triple to use: the best where it is clearly better, else the paper's."""
        return self.best.named if self.lead and self.lead.low > 0 else PAPER

    def verdict(self) -> str:
        """What can honestly be said."""
        named, lead = self.best.named.in_words(), self.lead
        if lead is None:
            return f"The paper's own triple, {PAPER.in_words()}, came out best."
        told = f"{lead.in_words()}, at equal MACs"
        if lead.low > 0:
            said = f"{named} is better than the paper's {PAPER.in_words()}: {told}."
        elif lead.high < 0:
            said = f"{named} was chosen, and is worse than the paper's {PAPER.in_words()}: {told}. Keep the paper's."
        else:
            said = (
                f"{named} was chosen, but from the paper's {PAPER.in_words()} it cannot be told: {told}. "
                "The difference lies within the noise; more pictures, epochs or seeds may show one. Until then keep "
                "the paper's."
            )
        return " ".join(filter(None, (said, self.judges.caution(lead.mean))))

    def remarks(self) -> list[str]:
        """What there is to say beside the figures, the verdict last."""
        search = self.search
        told = [
            f"{len(search.points)} triples grow {search.base.name} to {len(search.halving.candidates)} different "
            "networks: “1.2 / 1.1 / 1.15 + 2” stands for three that rounding makes equal. At equal MACs: "
            "accuracy × (MACs / twice the base's)^−.07.",
            f"The seeds of one network differ by {100 * self.noise:.2f} points (standard deviation, first round).",
        ]
        if self.surface:
            depth, width, resolution = self.surface.top()
            told.append(
                f"A smooth surface explains {self.surface.explained:.0%} of what the networks differ by in the first "
                f"round (by chance as much in {self.surface.chance:.1g} of cases); it is highest where depth has "
                f"{depth:.0%}, width {width:.0%} and resolution {resolution:.0%} of the growth: α, β, γ = "
                f"{GROWTH**depth:.2f}, {GROWTH ** (width / 2):.2f}, {GROWTH ** (resolution / 2):.2f}."
            )
        told.append(self.verdict())
        alpha, beta, gamma = (f"{each:g}" for each in self.advice.triple)
        told.append(f"To use it: effnet scale NETWORK --phi 1 --alpha {alpha} --beta {beta} --gamma {gamma}")
        return told

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data: what ``coefficients.json`` holds."""
        search = self.search
        smooth = self.surface and asdict(self.surface) | {"top": self.surface.top()}
        return {
            **search.about,
            "networks": [stand.to_dict() for stand in self.stands],
            "finals": [
                stand.to_dict() | {"against_paper": difference and asdict(difference)}
                for stand, difference in self.finals
            ],
            "noise": self.noise,
            "surface": smooth,
            "judges": asdict(self.judges),
            "verdict": self.verdict(),
        }


def run(
    search: Coefficients,
    examples: Examples,
    store: str | Path,
    processes: int | None = None,
    told: Callable[[Mapping[str, Result], Sequence[Job]], None] = lambda results, jobs: None,
) -> Found:
    """Does what of ``search`` is not yet in ``store``; see `effnet.search.jobs.perform`."""
    results = perform(store, search.about, search.halving, examples, processes=processes, told=told)
    return found(search, results, Judges(len(examples.judge), examples.unseen))


def found(search: Coefficients, results: Mapping[str, Result], judges: Judges) -> Found:
    """What the ``results`` of the whole search say, which were judged by ``judges``."""
    halving = search.halving
    stands: list[Stand] = []
    for place in reversed(range(len(halving.rungs))):
        taking = halving.taking(place, results)
        assert taking is not None
        here = [_stand(search, place, arch, results) for arch in taking]
        before = {stand.arch for stand in stands}
        stands += sorted((one for one in here if one.arch not in before), key=lambda one: -one.worth)
    every = [halving.accuracies(0, arch, results) for arch in halving.taking(0, results) or ()]
    noise = sqrt(mean(stdev(some) ** 2 for some in every)) if halving.rungs[0].seeds > 1 else 0.0
    heights = {arch: halving.mean(0, arch, results) for arch in halving.candidates}  # all took part
    last = len(halving.rungs) - 1
    paper = halving.always[0]
    final = [stand for stand in stands if stand.rung == last]
    judged = {stand.arch: halving.accuracies(last, stand.arch, results, "judged") for stand in final}
    worth = {arch: [halving.value(arch, accuracy) for accuracy in each] for arch, each in judged.items()}
    finals = []
    for stand in final:
        own = replace(stand, accuracies=Accuracies(judged[stand.arch]), worth=mean(worth[stand.arch]))
        against = None if stand.arch == paper else paired(worth[stand.arch], worth[paper], len(final) - 1)
        finals.append((own, against))
    smooth = surface([middle(search.of_network(arch)) for arch in heights], list(heights.values()))
    return Found(search, tuple(stands), heights, smooth, noise, tuple(finals), judges)


def _stand(search: Coefficients, place: int, arch: Arch, results: Mapping[str, Result]) -> Stand:
    halving = search.halving
    return Stand(
        arch,
        search.of_network(arch),
        place,
        halving.rungs[place].epochs,
        Accuracies(halving.accuracies(place, arch, results)),
        count(arch, classes=search.classes).macs,
        halving.mean(place, arch, results),
    )


def middle(points: Sequence[Point]) -> Point:
    """Of several points that grow the same network the one in their middle."""
    return sorted(points)[len(points) // 2]
