"""Grid search for the compound coefficients α, β, γ: the paper's first step (section 3.3), on your own images.

Every point of the grid grows a small base to about twice its MACs. The networks that differ are trained briefly from
several seeds, the better ones longer, and the best fully, along with the paper's own triple, and tested on images that
no choice was made on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import combinations, product
from math import floor, log, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from effnet.arch import Arch, count, rounding_rules
from effnet.lab.search import job_store, proxy_task, scoring, search_space, statistics, successive_halving

MACS_GROWTH = 2.0  # α·β²·γ² ≈ 2: one step of φ doubles the MACs
MAX_TICKS = 100  # values of one coefficient
SURFACE_TERMS = 6
SURFACE_STEPS = 200  # per side, to find the surface's maximum


def _parse_fraction(text: str) -> Fraction:
    try:
        size = abs(float(text))
        if size == 0 or 1e-9 < size < 1e9:
            return Fraction(text) if size else Fraction(0)  # it would write out all digits of 1e-999999999
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a decimal number such as 0.05")


@dataclass(frozen=True, order=True)
class CompoundCoefficients:
    """One triple: the growth of depth (α), width (β) and resolution (γ)."""

    alpha: Fraction
    beta: Fraction
    gamma: Fraction

    @classmethod
    def parse(cls, alpha: float | str, beta: float | str, gamma: float | str) -> "CompoundCoefficients":
        """Read decimals exactly: 1.15 is 23/20. Raises ``ValueError`` for anything else."""
        return cls(*(_parse_fraction(str(each)) for each in (alpha, beta, gamma)))

    @property
    def growth(self) -> Fraction:
        """The growth of the MACs before rounding: α·β²·γ²."""
        return self.alpha * self.beta**2 * self.gamma**2

    @property
    def triple(self) -> tuple[float, float, float]:
        """α, β, γ as floats."""
        return float(self.alpha), float(self.beta), float(self.gamma)

    def describe(self) -> str:
        """Return "1.2 / 1.1 / 1.15"."""
        return " / ".join(f"{each:g}" for each in self.triple)


PAPER_COEFFICIENTS = CompoundCoefficients.parse("1.2", "1.1", "1.15")  # section 3.3 of arXiv:1905.11946, step 1


def coefficient_grid(step: str = "0.05", tolerance: str = "0.1") -> tuple[CompoundCoefficients, ...]:
    """Return all (α, β, γ) from 1 to 2 with |α·β²·γ² − 2| < ``tolerance``: 108 with the paper's numbers.

    Fractions: floats would decide by chance about points on the border. Raises ``ValueError`` for none or too many.
    """
    tick, allowed = map(_parse_fraction, (step, tolerance))
    if tick <= 0 or allowed <= 0:
        raise ValueError(f"the step and the tolerance of the grid must be above 0, got {step} and {tolerance}")
    if allowed >= 1:
        raise ValueError(f"the tolerance must be below 1, got {tolerance}: α·β²·γ² = 1 is no growth")
    if 1 / tick > MAX_TICKS:
        raise ValueError(f"a step of {step} gives more than {MAX_TICKS} values of each coefficient: use a larger one")
    ticks = [1 + tick * index for index in range(floor(1 / tick) + 1)]
    points = (CompoundCoefficients(*triple) for triple in product(ticks, repeat=3))
    grid = tuple(point for point in points if abs(point.growth - Fraction(MACS_GROWTH)) < allowed)
    if not grid:
        raise ValueError(
            f"no α, β, γ from 1 to 2 in steps of {step} has α·β²·γ² within {tolerance} of 2: use a smaller "
            "step or a larger tolerance"
        )
    return grid


def grow(base: Arch, alpha: float, beta: float, gamma: float) -> Arch:
    """Grow ``base`` as finely as possible: by single channels, single pixels and single layers.

    `effnet.scale` rounds as the paper does, which for a small base makes one network of many points of the grid and
    moves MACs by half. Here layers are α times the base's, rounded; the stages that lack most get them first.
    """
    fixed = {0, len(base.stages) - 1} if not base.scale_ends else set()
    layers_before = enumerate(rounding_rules.stage_depths(base))
    exact = [layers if index in fixed else layers * alpha for index, layers in layers_before]
    depths = [floor(layers + 1e-9) for layers in exact]
    missing = floor(sum(exact) - sum(depths) + 0.5)
    for index in sorted(range(len(exact)), key=lambda index: (depths[index] - exact[index], index))[:missing]:
        depths[index] += 1
    return replace(
        base,
        name=f"{base.name}_d{alpha:g}_w{beta:g}_r{gamma:g}",
        stages=tuple(stage.with_layers(layers) for stage, layers in zip(base.stages, depths, strict=True)),
        depth=1.0,
        width=base.width * beta,
        resolution=floor(base.resolution * gamma + 0.5),
        divisor=1,
    )


def growth_fractions(point: CompoundCoefficients) -> tuple[float, float, float]:
    """Return the parts of the growth due to depth, width and resolution: ln α, 2 ln β, 2 ln γ over their sum."""
    logs = [log(point.alpha), 2 * log(point.beta), 2 * log(point.gamma)]
    depth, width, resolution = (each / sum(logs) for each in logs)
    return depth, width, resolution


@dataclass(frozen=True)
class ResponseSurface:
    """Accuracy as a quadratic in the three growth fractions, which sum to 1 (Scheffé's mixture polynomial, 1958).

    ``p_value``: how often values without any pattern would reach this R² (F-test against a constant).
    """

    terms: tuple[float, ...]
    r_squared: float
    p_value: float

    def predict(self, depth: float, width: float, resolution: float) -> float:
        """Return the surface's value at these fractions."""
        return float(np.dot(self.terms, _surface_row((depth, width, resolution))))

    def maximum(self) -> tuple[float, float, float]:
        """Return the fractions at which it is highest."""
        fractions = (
            (depth / SURFACE_STEPS, width / SURFACE_STEPS, 1 - (depth + width) / SURFACE_STEPS)
            for depth in range(SURFACE_STEPS + 1)
            for width in range(SURFACE_STEPS + 1 - depth)
        )
        return max(fractions, key=lambda each: self.predict(*each))


def fit_surface(points: Sequence[CompoundCoefficients], values: Sequence[float]) -> ResponseSurface | None:
    """Fit a surface by least squares; None for so few points that it would fit anything."""
    if len(points) <= SURFACE_TERMS + 1:
        return None
    from scipy.stats import f

    target = np.array(values)
    rows = np.array([_surface_row(growth_fractions(point)) for point in points])
    terms, _, rank, _ = np.linalg.lstsq(rows, target, rcond=None)
    residual, total = float(((target - rows @ terms) ** 2).sum()), float(((target - target.mean()) ** 2).sum())
    if not total or rank < SURFACE_TERMS:
        return None
    freedom = len(points) - SURFACE_TERMS
    ratio = ((total - residual) / (SURFACE_TERMS - 1)) / (residual / freedom) if residual else float("inf")
    p_value = float(f.sf(ratio, SURFACE_TERMS - 1, freedom))
    return ResponseSurface(tuple(map(float, terms)), 1 - residual / total, p_value)


def _surface_row(fractions: tuple[float, float, float]) -> list[float]:
    return [*fractions, *(one * other for one, other in combinations(fractions, 2))]


@dataclass(frozen=True)
class GridSearch:
    """The points of a search, the network of each (repeated where points build the same), and the trainings."""

    base: Arch
    coefficients: tuple[CompoundCoefficients, ...]
    networks: tuple[Arch, ...]
    halving: successive_halving.SuccessiveHalving
    classes: int

    @classmethod
    def create(
        cls,
        base: Arch = proxy_task.BASE_ARCH,
        coefficients: Sequence[CompoundCoefficients] | None = None,
        classes: int = 10,
        epochs: Sequence[int] = (1, 3, 9),
        seeds: int = 3,
        finalists: int = 3,
        final_epochs: int = 27,
        final_seeds: int = 5,
        seed: int = 0,
    ) -> "GridSearch":
        """Set up a search over ``coefficients`` (default: the paper's grid); each rung keeps a third, and the paper's.

        Raises ``ValueError`` for a number below 1.
        """
        points = tuple(dict.fromkeys((*(coefficients or coefficient_grid()), PAPER_COEFFICIENTS)))
        built: dict[tuple[object, ...], Arch] = {}

        def network(point: CompoundCoefficients) -> Arch:
            arch = grow(base, *point.triple)
            return built.setdefault(search_space.layers_key(arch), arch)

        paper = network(PAPER_COEFFICIENTS)
        networks = tuple(map(network, points))
        candidates = tuple(dict.fromkeys(networks))
        final = successive_halving.Rung(finalists, final_epochs, final_seeds)
        rungs = successive_halving.rungs_of_thirds(len(candidates), epochs, seeds, final)
        # Ranked at equal MACs, since rounding gives some networks more than others
        value = scoring.Reward(MACS_GROWTH * count(base, classes=classes).macs, scoring.CostFunction("macs", classes))
        halving = successive_halving.SuccessiveHalving(candidates, rungs, value, (paper,), seed)
        return cls(base, points, networks, halving, classes)

    @property
    def identity(self) -> dict[str, Any]:
        """The search as plain data, by which a store is recognized."""
        return {
            "search": "coefficients",
            "base": self.base.to_dict(),
            "points": [point.describe() for point in self.coefficients],
            "rungs": [list(rung) for rung in self.halving.rungs],
            "seed": self.halving.seed,
        }

    def coefficients_of(self, arch: Arch) -> tuple[CompoundCoefficients, ...]:
        """Return the points that build ``arch``."""
        return tuple(point for point, built in zip(self.coefficients, self.networks, strict=True) if built == arch)


@dataclass(frozen=True)
class GridSearchStanding:
    """A network's outcome in the last rung that it took part in; accuracies are fractions, one per seed."""

    arch: Arch
    coefficients: tuple[CompoundCoefficients, ...]
    rung: int
    epochs: int
    accuracies: statistics.Accuracies
    macs: int
    equal_macs_accuracy: float

    @property
    def representative(self) -> CompoundCoefficients:
        """The triple that stands for all that build this network: the paper's, or else the middle one."""
        return PAPER_COEFFICIENTS if PAPER_COEFFICIENTS in self.coefficients else middle_coefficients(self.coefficients)

    def label(self) -> str:
        """Return "1.2 / 1.1 / 1.15 + 2": the representative triple, and how many others there are."""
        others = len(self.coefficients) - 1
        return self.representative.describe() + (f" + {others}" if others else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(replace(self, coefficients=())) | {
            "arch": self.arch.to_dict(),
            "coefficients": [list(one.triple) for one in self.coefficients],
            "mean": self.accuracies.mean,
            "spread": self.accuracies.spread,
        }


@dataclass(frozen=True)
class GridSearchResult:
    """The outcome of a grid search.

    ``standings``: every network, those that came furthest first, best first. ``first_round``: each one's value in the
    first rung; ``noise``: the spread over seeds there. ``finalists``: test accuracies in the last rung, and the lead
    over the paper's triple at equal MACs, with intervals that hold together, since the best is chosen.
    """

    search: GridSearch
    standings: tuple[GridSearchStanding, ...]
    first_round: dict[Arch, float]
    surface: ResponseSurface | None
    noise: float
    finalists: tuple[tuple[GridSearchStanding, statistics.PairedDifference | None], ...]
    held_out: statistics.HeldOutImages

    @property
    def best(self) -> GridSearchStanding:
        """The winner."""
        return self.standings[0]

    @property
    def lead(self) -> statistics.PairedDifference | None:
        """The lead of the best over the paper's triple; None if that is the best."""
        return next(difference for standing, difference in self.finalists if standing.arch == self.best.arch)

    @property
    def recommended(self) -> CompoundCoefficients:
        """The triple to use: the best if it is significantly better, else the paper's."""
        return self.best.representative if self.lead and self.lead.low > 0 else PAPER_COEFFICIENTS

    def verdict(self) -> str:
        """Return what the search shows, with its caveats."""
        best, paper, lead = self.best.representative.describe(), PAPER_COEFFICIENTS.describe(), self.lead
        if lead is None:
            return f"The paper's own triple, {paper}, came out best."
        difference = f"{lead.describe()}, at equal MACs"
        if lead.low > 0:
            verdict = f"{best} is better than the paper's {paper}: {difference}."
        elif lead.high < 0:
            verdict = f"{best} was selected, and is worse than the paper's {paper}: {difference}. Keep the paper's."
        else:
            verdict = (
                f"{best} was selected, but does not differ significantly from the paper's {paper}: {difference}. "
                "The difference is within the noise; more images, epochs or seeds may show one. Until then keep the "
                "paper's."
            )
        return " ".join(filter(None, (verdict, self.held_out.caution(lead.mean))))

    def notes(self) -> list[str]:
        """Return remarks on the figures, the verdict among them."""
        search = self.search
        notes = [
            f"{len(search.coefficients)} triples grow {search.base.name} to {len(search.halving.candidates)} different "
            "networks: “1.2 / 1.1 / 1.15 + 2” stands for three that rounding makes equal. At equal MACs: "
            "accuracy × (MACs / twice the base's)^−.07.",
            f"Seeds of one network differ by {100 * self.noise:.2f} points (standard deviation, first round).",
        ]
        if self.surface:
            depth, width, resolution = self.surface.maximum()
            notes.append(
                f"A smooth surface explains {self.surface.r_squared:.0%} of the variance between networks in the first "
                f"round (p = {self.surface.p_value:.1g}); its maximum gives depth {depth:.0%}, width {width:.0%} and "
                f"resolution {resolution:.0%} of the growth: α, β, γ = {MACS_GROWTH**depth:.2f}, "
                f"{MACS_GROWTH ** (width / 2):.2f}, {MACS_GROWTH ** (resolution / 2):.2f}."
            )
        alpha, beta, gamma = (f"{each:g}" for each in self.recommended.triple)
        return [
            *notes,
            self.verdict(),
            f"To use it: effnet scale NETWORK --phi 1 --alpha {alpha} --beta {beta} --gamma {gamma}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as in ``coefficients.json``."""
        return {
            **self.search.identity,
            "networks": [standing.to_dict() for standing in self.standings],
            "finals": [
                standing.to_dict() | {"against_paper": difference and asdict(difference)}
                for standing, difference in self.finalists
            ],
            "noise": self.noise,
            "surface": self.surface and asdict(self.surface) | {"maximum": self.surface.maximum()},
            "test": asdict(self.held_out),
            "verdict": self.verdict(),
        }


def run_grid_search(
    search: GridSearch,
    dataset: proxy_task.SearchDataset,
    store: str | Path,
    processes: int | None = None,
    on_progress: job_store.ProgressCallback = lambda results, jobs: None,
) -> GridSearchResult:
    """Run what ``store`` does not contain yet of ``search``; see `effnet.lab.search.job_store.run_jobs`."""
    results = job_store.run_jobs(
        store, search.identity, search.halving, dataset, processes=processes, on_progress=on_progress
    )
    return summarize_grid_search(search, results, statistics.HeldOutImages(len(dataset.test), dataset.has_test))


def summarize_grid_search(
    search: GridSearch, results: Mapping[str, job_store.TrainingResult], held_out: statistics.HeldOutImages
) -> GridSearchResult:
    """Rank the networks by the results of the whole search."""
    halving = search.halving
    standings: dict[Arch, GridSearchStanding] = {}
    for index in reversed(range(len(halving.rungs))):
        participants = halving.participants(index, results)
        assert participants is not None
        rung = [
            GridSearchStanding(
                arch,
                search.coefficients_of(arch),
                index,
                halving.rungs[index].epochs,
                statistics.Accuracies(halving.accuracies(index, arch, results)),
                count(arch, classes=search.classes).macs,
                halving.mean_value(index, arch, results),
            )
            for arch in participants
            if arch not in standings
        ]
        standings |= {each.arch: each for each in sorted(rung, key=lambda each: -each.equal_macs_accuracy)}
    seeds = [halving.accuracies(0, arch, results) for arch in halving.participants(0, results) or ()]
    noise = sqrt(mean(stdev(accuracies) ** 2 for accuracies in seeds)) if halving.rungs[0].seeds > 1 else 0.0
    first_round = {arch: halving.mean_value(0, arch, results) for arch in halving.candidates}  # all took part
    last, paper = len(halving.rungs) - 1, halving.always_include[0]
    final = [standing for standing in standings.values() if standing.rung == last]
    tested = {each.arch: halving.accuracies(last, each.arch, results, "test_accuracy") for each in final}
    values = {arch: [halving.value(arch, accuracy) for accuracy in each] for arch, each in tested.items()}

    def finalist(standing: GridSearchStanding) -> tuple[GridSearchStanding, statistics.PairedDifference | None]:
        arch = standing.arch
        lead = None if arch == paper else statistics.paired_difference(values[arch], values[paper], len(final) - 1)
        accuracies = statistics.Accuracies(tested[arch])
        return replace(standing, accuracies=accuracies, equal_macs_accuracy=mean(values[arch])), lead

    points = [middle_coefficients(search.coefficients_of(arch)) for arch in first_round]
    surface = fit_surface(points, list(first_round.values()))
    finalists = tuple(map(finalist, final))
    return GridSearchResult(search, tuple(standings.values()), first_round, surface, noise, finalists, held_out)


def middle_coefficients(points: Sequence[CompoundCoefficients]) -> CompoundCoefficients:
    """Return the middle one of several points that build the same network."""
    return sorted(points)[len(points) // 2]
