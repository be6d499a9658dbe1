"""Accuracy as a smooth function of how a doubling of MACs is divided among depth, width and resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import log, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from effnet.arch import Arch, count
from effnet.arch.serde import check_int
from effnet.lab.search.coefficients import PAPER_COEFFICIENTS, CompoundCoefficients, coefficient_grid, grow
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import BASE_ARCH
from effnet.lab.search.scheduler import TrainingJob, run_jobs
from effnet.lab.search.scoring import mnasnet_reward
from effnet.lab.search.search_space import layers_key
from effnet.lab.search.statistics import Accuracies, HeldOutImages, PairedDifference, paired_difference
from effnet.lab.search.store import TrainingResult
from effnet.lab.search.successive_halving import Rung, SuccessiveHalving

SURFACE_TERMS = 6


SURFACE_STEPS = 200  # steps a side in which the surface's top is looked for


def growth_fractions(point: CompoundCoefficients) -> tuple[float, float, float]:
    """The parts of the growth that depth, width and resolution have, of one: ln α, 2 ln β, 2 ln γ over their sum."""
    parts = [log(point.alpha), 2 * log(point.beta), 2 * log(point.gamma)]
    depth, width, resolution = (part / sum(parts) for part in parts)
    return depth, width, resolution


@dataclass(frozen=True)
class ResponseSurface:
    """A quadratic in the three shares, which sum to one: a term for each, and one for each two of them.

    (The mixture polynomial of Scheffé, 1958.) ``explained``: R², the part of the values' variance that it explains;
    ``chance``: how often values without any pattern would let it explain as much (the F-test against a constant).
    """

    terms: tuple[float, ...]
    r_squared: float
    p_value: float

    def predict(self, depth: float, width: float, resolution: float) -> float:
        """Its height at these shares."""
        return float(np.dot(self.terms, _surface_row((depth, width, resolution))))

    def maximum(self) -> tuple[float, float, float]:
        """The shares at which it is highest."""
        every = (
            (depth / SURFACE_STEPS, width / SURFACE_STEPS, 1 - (depth + width) / SURFACE_STEPS)
            for depth in range(SURFACE_STEPS + 1)
            for width in range(SURFACE_STEPS + 1 - depth)
        )
        return max(every, key=lambda at: self.predict(*at))


def fit_surface(points: Sequence[CompoundCoefficients], values: Sequence[float]) -> ResponseSurface | None:
    """The surface that fits ``values`` at ``points`` best, by least squares; None of so few that it fits anything."""
    if len(points) <= SURFACE_TERMS + 1:
        return None
    from scipy.stats import f

    wanted = np.array(values)
    rows = np.array([_surface_row(growth_fractions(point)) for point in points])
    terms, _, rank, _ = np.linalg.lstsq(rows, wanted, rcond=None)
    left, whole = float(((wanted - rows @ terms) ** 2).sum()), float(((wanted - wanted.mean()) ** 2).sum())
    if not whole or rank < SURFACE_TERMS:
        return None
    freedom = len(points) - SURFACE_TERMS
    ratio = ((whole - left) / (SURFACE_TERMS - 1)) / (left / freedom) if left else float("inf")
    return ResponseSurface(tuple(map(float, terms)), 1 - left / whole, float(f.sf(ratio, SURFACE_TERMS - 1, freedom)))


def _surface_row(parts: tuple[float, float, float]) -> list[float]:
    return [*parts, *(one * other for one, other in combinations(parts, 2))]


# The paper's step 1 on one's own pictures: which α, β, γ make the best of twice the MACs (section 3.3).
#
# Every point of the grid grows a small base. The networks that differ are trained shortly from several seeds, the better
# ones longer, and the best are at last trained fully beside the paper's own triple, judged on pictures that nothing was
# chosen by.


SEEDS = 3


RUNG_EPOCHS = (1, 3, 9)  # of the rungs; each keeps a third of the one before


FINALISTS, FINAL_EPOCHS, FINAL_SEEDS = 3, 27, 5


MACS_GROWTH = 2.0  # α·β²·γ²


@dataclass(frozen=True)
class EqualMacsAccuracy:
    """What a grown network is chosen by: its accuracy at the cost of exactly ``target`` MACs.

    Rounding gives some networks more MACs than others, and more MACs more accuracy; the exchange rate is that of the
    search that found B0, ACC × (MACs / target)^−.07.
    """

    target: float
    classes: int

    def __call__(self, arch: Arch, accuracy: float) -> float:
        """The worth of ``arch``, which has this accuracy (a fraction)."""
        return mnasnet_reward(accuracy, count(arch, classes=self.classes).macs, self.target)


@dataclass(frozen=True)
class GridSearch:
    """The search as a rule: the points, the network of each, and who is trained how long.

    Networks that differ in name alone are one: ``networks`` has as many entries as ``points``, with repetitions.
    """

    base: Arch
    coefficients: tuple[CompoundCoefficients, ...]
    networks: tuple[Arch, ...]
    halving: SuccessiveHalving
    classes: int

    @classmethod
    def create(
        cls,
        base: Arch = BASE_ARCH,
        coefficients: Sequence[CompoundCoefficients] | None = None,
        classes: int = 10,
        epochs: Sequence[int] = RUNG_EPOCHS,
        seeds: int = SEEDS,
        finalists: int = FINALISTS,
        final_epochs: int = FINAL_EPOCHS,
        final_seeds: int = FINAL_SEEDS,
        seed: int = 0,
    ) -> GridSearch:
        """The search over ``points`` (the paper's grid if None), with a rung of each of ``epochs`` and a final one.

        The paper's own triple takes part in every rung. Raises ``ValueError`` for a number below 1.
        """
        check_int("final", finalists, 1)
        coefficients = tuple(dict.fromkeys((*(coefficients or coefficient_grid()), PAPER_COEFFICIENTS)))
        first: dict[tuple[object, ...], Arch] = {}

        def network(point: CompoundCoefficients) -> Arch:
            arch = grow(base, *point.triple)
            return first.setdefault(layers_key(arch), arch)

        always = (network(PAPER_COEFFICIENTS),)
        networks = tuple(map(network, coefficients))
        different = tuple(dict.fromkeys(networks))
        keep = len(different)
        rungs = []
        for each in epochs:
            rungs.append(Rung(keep, each, seeds))
            keep = max(finalists, round(keep / 3))
        rungs.append(Rung(finalists, final_epochs, final_seeds))
        worth = EqualMacsAccuracy(MACS_GROWTH * count(base, classes=classes).macs, classes)
        return cls(
            base, coefficients, networks, SuccessiveHalving(different, tuple(rungs), worth, always, seed), classes
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this search from another: its store takes no other."""
        halving = self.halving
        return {
            "search": "coefficients",
            "base": self.base.to_dict(),
            "points": [point.in_words() for point in self.coefficients],
            "rungs": [list(rung) for rung in halving.rungs],
            "seed": halving.seed,
        }

    def coefficients_of(self, arch: Arch) -> tuple[CompoundCoefficients, ...]:
        """The points that grow the base to ``arch``."""
        return tuple(point for point, one in zip(self.coefficients, self.networks, strict=True) if one == arch)


@dataclass(frozen=True)
class GridSearchStanding:
    """How a network did in the last rung that it took part in: accuracies as fractions, a seed each."""

    arch: Arch
    coefficients: tuple[CompoundCoefficients, ...]
    rung: int
    epochs: int
    accuracies: Accuracies
    macs: int
    equal_macs_accuracy: float

    @property
    def representative(self) -> CompoundCoefficients:
        """The triple that it is named by: the paper's, or else the one in the middle of all that grow this network."""
        return PAPER_COEFFICIENTS if PAPER_COEFFICIENTS in self.coefficients else middle_coefficients(self.coefficients)

    def label(self) -> str:
        """ "1.2 / 1.1 / 1.15 + 2": the triple that it is named by, and how many others there are."""
        return self.representative.in_words() + (
            f" + {len(self.coefficients) - 1}" if len(self.coefficients) > 1 else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """The network, the triples that grow it, and its figures."""
        triples = [list(one.triple) for one in self.coefficients]
        return asdict(replace(self, coefficients=())) | {
            "arch": self.arch.to_dict(),
            "points": triples,
            "mean": self.accuracies.mean,
            "spread": self.accuracies.spread,
        }


@dataclass(frozen=True)
class GridSearchResult:
    """The outcome. ``stands``: every network, those who came furthest first, among them the best first.

    ``first``: what each network was worth in the first round, which the surface is fitted to.
    ``noise``: the spread over seeds in the first rung, of all networks together. ``finals``: what the final rung's
    networks reach as judged by ``judges``, and by how much each leads the paper's triple, from the same seeds and at
    equal MACs; the intervals of all of them hold together, since the best is chosen among them.
    """

    search: GridSearch
    standings: tuple[GridSearchStanding, ...]
    first_round: dict[Arch, float]
    surface: ResponseSurface | None
    noise: float
    finalists: tuple[tuple[GridSearchStanding, PairedDifference | None], ...]
    held_out: HeldOutImages

    @property
    def best(self) -> GridSearchStanding:
        """The network that came out first."""
        return self.standings[0]

    @property
    def lead(self) -> PairedDifference | None:
        """By how much the best leads the paper's triple; None where that is the best."""
        return next(difference for stand, difference in self.finalists if stand.arch == self.best.arch)

    @property
    def recommended(self) -> CompoundCoefficients:
        """The triple to use: the best where it is clearly better, else the paper's."""
        return self.best.representative if self.lead and self.lead.low > 0 else PAPER_COEFFICIENTS

    def verdict(self) -> str:
        """What can honestly be said."""
        named, lead = self.best.representative.in_words(), self.lead
        if lead is None:
            return f"The paper's own triple, {PAPER_COEFFICIENTS.in_words()}, came out best."
        told = f"{lead.in_words()}, at equal MACs"
        if lead.low > 0:
            said = f"{named} is better than the paper's {PAPER_COEFFICIENTS.in_words()}: {told}."
        elif lead.high < 0:
            said = f"{named} was chosen, and is worse than the paper's {PAPER_COEFFICIENTS.in_words()}: {told}. Keep the paper's."
        else:
            said = (
                f"{named} was chosen, but from the paper's {PAPER_COEFFICIENTS.in_words()} it cannot be told: {told}. "
                "The difference lies within the noise; more pictures, epochs or seeds may show one. Until then keep "
                "the paper's."
            )
        return " ".join(filter(None, (said, self.held_out.caution(lead.mean))))

    def notes(self) -> list[str]:
        """What there is to say beside the figures, the verdict last."""
        search = self.search
        told = [
            f"{len(search.coefficients)} triples grow {search.base.name} to {len(search.halving.candidates)} different "
            "networks: “1.2 / 1.1 / 1.15 + 2” stands for three that rounding makes equal. At equal MACs: "
            "accuracy × (MACs / twice the base's)^−.07.",
            f"The seeds of one network differ by {100 * self.noise:.2f} points (standard deviation, first round).",
        ]
        if self.surface:
            depth, width, resolution = self.surface.maximum()
            told.append(
                f"A smooth surface explains {self.surface.r_squared:.0%} of what the networks differ by in the first "
                f"round (by chance as much in {self.surface.p_value:.1g} of cases); it is highest where depth has "
                f"{depth:.0%}, width {width:.0%} and resolution {resolution:.0%} of the growth: α, β, γ = "
                f"{MACS_GROWTH**depth:.2f}, {MACS_GROWTH ** (width / 2):.2f}, {MACS_GROWTH ** (resolution / 2):.2f}."
            )
        told.append(self.verdict())
        alpha, beta, gamma = (f"{each:g}" for each in self.recommended.triple)
        told.append(f"To use it: effnet scale NETWORK --phi 1 --alpha {alpha} --beta {beta} --gamma {gamma}")
        return told

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data: what ``coefficients.json`` holds."""
        search = self.search
        smooth = self.surface and asdict(self.surface) | {"top": self.surface.maximum()}
        return {
            **search.identity,
            "networks": [stand.to_dict() for stand in self.standings],
            "finals": [
                stand.to_dict() | {"against_paper": difference and asdict(difference)}
                for stand, difference in self.finalists
            ],
            "noise": self.noise,
            "surface": smooth,
            "judges": asdict(self.held_out),
            "verdict": self.verdict(),
        }


def run_grid_search(
    search: GridSearch,
    dataset: SearchDataset,
    store: str | Path,
    processes: int | None = None,
    on_progress: Callable[[Mapping[str, TrainingResult], Sequence[TrainingJob]], None] = lambda results, jobs: None,
) -> GridSearchResult:
    """Does what of ``search`` is not yet in ``store``; see `effnet.lab.search.scheduler.perform`."""
    results = run_jobs(store, search.identity, search.halving, dataset, processes=processes, on_progress=on_progress)
    return summarize_grid_search(search, results, HeldOutImages(len(dataset.test), dataset.has_test))


def summarize_grid_search(
    search: GridSearch, results: Mapping[str, TrainingResult], held_out: HeldOutImages
) -> GridSearchResult:
    """What the ``results`` of the whole search say, which were judged by ``judges``."""
    halving = search.halving
    stands: list[GridSearchStanding] = []
    for place in reversed(range(len(halving.rungs))):
        taking = halving.participants(place, results)
        assert taking is not None
        here = [_make_standing(search, place, arch, results) for arch in taking]
        before = {stand.arch for stand in stands}
        stands += sorted((one for one in here if one.arch not in before), key=lambda one: -one.equal_macs_accuracy)
    every = [halving.accuracies(0, arch, results) for arch in halving.participants(0, results) or ()]
    noise = sqrt(mean(stdev(some) ** 2 for some in every)) if halving.rungs[0].seeds > 1 else 0.0
    heights = {arch: halving.mean_value(0, arch, results) for arch in halving.candidates}  # all took part
    last = len(halving.rungs) - 1
    paper = halving.always_include[0]
    final = [stand for stand in stands if stand.rung == last]
    judged = {stand.arch: halving.accuracies(last, stand.arch, results, "judged") for stand in final}
    worth = {arch: [halving.value(arch, accuracy) for accuracy in each] for arch, each in judged.items()}
    finals = []
    for stand in final:
        own = replace(stand, accuracies=Accuracies(judged[stand.arch]), equal_macs_accuracy=mean(worth[stand.arch]))
        against = None if stand.arch == paper else paired_difference(worth[stand.arch], worth[paper], len(final) - 1)
        finals.append((own, against))
    smooth = fit_surface(
        [middle_coefficients(search.coefficients_of(arch)) for arch in heights], list(heights.values())
    )
    return GridSearchResult(search, tuple(stands), heights, smooth, noise, tuple(finals), held_out)


def _make_standing(
    search: GridSearch, place: int, arch: Arch, results: Mapping[str, TrainingResult]
) -> GridSearchStanding:
    halving = search.halving
    return GridSearchStanding(
        arch,
        search.coefficients_of(arch),
        place,
        halving.rungs[place].epochs,
        Accuracies(halving.accuracies(place, arch, results)),
        count(arch, classes=search.classes).macs,
        halving.mean_value(place, arch, results),
    )


def middle_coefficients(points: Sequence[CompoundCoefficients]) -> CompoundCoefficients:
    """Of several points that grow the same network the one in their middle."""
    return sorted(points)[len(points) // 2]
