"""A base grown in depth, width or resolution alone, or in all three, to the same MACs: as in Figures 3 and 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log, sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from effnet.arch import Arch, count
from effnet.arch.spec import stage_depths
from effnet.draw.figure import RenderedPlot
from effnet.draw.search_plots import ScalingCurve, ScalingPoint, plot_scaling
from effnet.lab.compare import paper_figures as paper
from effnet.lab.compare.table import Column, Table, TableRow, TableValue, quoted_value
from effnet.lab.search.coefficients import PAPER_COEFFICIENTS, CompoundCoefficients, grow
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import BASE_ARCH
from effnet.lab.search.scheduler import TrainingJob, run_jobs
from effnet.lab.search.statistics import Accuracies, PairedDifference, detectable_difference, paired_difference
from effnet.lab.search.store import TrainingResult

COMPOUND, DEPTH, WIDTH, RESOLUTION = SCALING_METHODS = ("compound", "depth", "width", "resolution")


CLOSE_MACS = 0.02  # of the MACs wanted: near enough


BISECTION_STEPS = 40  # halvings of an interval: far finer than a channel


PHI_WINDOW = 0.3  # of φ, on either side, within which the compound network's rounding is chosen


MAX_MACS_FACTOR = 16.0  # times the MACs: beyond, nothing here was ever tried


ArchBuilder = Callable[[float], Arch]


@dataclass(frozen=True)
class ScaledNetwork:
    """One network of the study: which way it was grown, how many times the base's MACs were wanted, and its own."""

    method: str  # "base" or one of `WAYS`
    macs_factor: float
    arch: Arch
    macs: int
    target_macs: int  # the MACs that the ways of this size have in common

    @property
    def macs_error(self) -> float:
        """How far its MACs are from those wanted, as a share."""
        return self.macs / self.target_macs - 1


def scale_in_each_way(
    base: Arch,
    macs_factors: Sequence[float] = (2, 4, 8),
    coefficients: CompoundCoefficients = PAPER_COEFFICIENTS,
    classes: int = 1000,
) -> tuple[ScaledNetwork, ...]:
    """``base``, and for each of ``times`` its four networks of equal MACs; ``point``: α, β, γ of the compound one.

    Pixels come in the coarsest steps, all the more where maps are halved. So the network of more resolution that comes
    nearest to ``times`` the MACs sets the goal for all four. Depth comes as near as a layer more or less in a single
    stage lets it, width by single channels. In the compound network layers and pixels are rounded, and the width makes
    up for what they miss: of all roundings nearby the one whose width stays closest to the line.
    Raises ``ValueError`` for sizes that are not above 1 and at most 16, or not in order, and for a triple that grows
    nothing.
    """
    if (
        not macs_factors
        or list(macs_factors) != sorted(set(macs_factors))
        or macs_factors[0] <= 1
        or macs_factors[-1] > MAX_MACS_FACTOR
    ):
        raise ValueError(
            f"sizes are times the base's MACs, above 1 to {MAX_MACS_FACTOR:g} in rising order, got {list(macs_factors)}"
        )
    if coefficients.growth <= 1:
        raise ValueError("α, β and γ of 1 grow nothing: give another triple")

    def macs(arch: Arch) -> int:
        return count(arch, classes=classes).macs

    own = macs(base)
    found = [ScaledNetwork("base", 1.0, base, own, own)]
    alpha, beta, gamma = coefficients.triple
    for each in macs_factors:
        largest = _find_nearest(lambda by: grow(base, 1, 1, by), each * own, 1, 2 * sqrt(each), macs)
        goal = macs(largest)
        made = {
            COMPOUND: _scale_compound(base, alpha, beta, gamma, goal, macs),
            DEPTH: _scale_depth(base, goal, 3 * each, macs),
            WIDTH: _find_nearest(lambda by: grow(base, 1, by, 1), goal, 1, 2 * sqrt(each), macs),
            RESOLUTION: largest,
        }
        for way, arch in made.items():
            named = replace(arch, name=f"{base.name}_{way}_x{each:g}")
            found.append(ScaledNetwork(way, float(each), named, macs(named), goal))
    return tuple(found)


def _find_nearest(build: ArchBuilder, goal: float, low: float, high: float, macs: Callable[[Arch], int]) -> Arch:
    """Of the networks that ``build`` makes of numbers from ``low`` to ``high``, the nearest to ``goal`` MACs."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(build(middle)) > goal else (middle, high)
    return min((build(low), build(high)), key=lambda arch: abs(log(macs(arch) / goal)))


def _scale_depth(base: Arch, goal: float, most: float, macs: Callable[[Arch], int]) -> Arch:
    """Depth alone: where layers in proportion miss ``goal``, a single stage has one more or less, or gives one away."""
    near = _find_nearest(lambda by: grow(base, by, 1, 1), goal, 1, most, macs)
    if abs(log(macs(near) / goal)) <= CLOSE_MACS:
        return near
    least, here = ([stage.layers for stage in arch.stages] for arch in (grow(base, 1, 1, 1), near))
    places = range(len(here)) if base.scale_ends else range(1, len(here) - 1)
    tried = [near]
    for one, other in product((None, *places), repeat=2):
        layers = list(here)
        if one is not None:
            layers[one] += 1
        if other is not None:
            layers[other] -= 1
        if all(each >= first for each, first in zip(layers, least, strict=True)):
            stages = zip(near.stages, layers, strict=True)
            tried.append(replace(near, stages=tuple(replace(stage, layers=each) for stage, each in stages)))
    return min(tried, key=lambda arch: abs(log(macs(arch) / goal)))


def _scale_compound(
    base: Arch, alpha: float, beta: float, gamma: float, goal: int, macs: Callable[[Arch], int]
) -> Arch:
    phi = log(goal / macs(base)) / log(alpha * beta**2 * gamma**2)
    if beta == 1:  # the width must stay
        return _find_nearest(lambda by: grow(base, alpha**by, 1, gamma**by), goal, 0, 2 * phi, macs)
    best: tuple[float, Arch] | None = None
    seen: set[tuple[object, ...]] = set()
    for step in range(-20, 21):
        at = max(0.0, phi + PHI_WINDOW * step / 20)
        rounded = grow(base, alpha**at, 1, gamma**at)
        key = (rounded.resolution, tuple(stage.layers for stage in rounded.stages))
        if key in seen:
            continue
        seen.add(key)
        arch = _find_nearest(lambda by, at=at: grow(base, alpha**at, by, gamma**at), goal, 1, 4 * beta**at, macs)  # type: ignore[misc]
        off = abs(log(arch.width / base.width / beta**at))
        if best is None or off < best[0]:
            best = off, arch
    assert best
    return best[1]


# The paper's central claim, tried out: grown to equal MACs, is a network better for growing in all dimensions?
#
# Section 3 and Figures 3 and 8 of arXiv:1905.11946: a base grown in depth, width or resolution alone, and in all three;
# each trained alike from several seeds, and judged on pictures that nothing was chosen by.


UPSAMPLING_THRESHOLD = 1.1  # times the pictures' own pixels; less is not worth a remark


MACS_FACTORS = (2.0, 4.0, 8.0)


SEEDS, EPOCHS = 3, 24  # the deep ones learn slowest: in 5 epochs eight times the layers are worse than the base


# Half of its channels, since there are 39 trainings of up to eight times its MACs; and 12 pixels, so that eight times
# the MACs by resolution alone are no more pixels than CIFAR-10's pictures have, but one
SMALL_BASE = replace(BASE_ARCH, name="nano_12_w0.5", width=0.5, resolution=12, divisor=1)


@dataclass(frozen=True)
class ScalingStudy:
    """The networks, each to be trained for so many ``epochs`` from seeds 0 to ``seeds`` − 1.

    Called with the results so far it is the rule that `effnet.lab.search.scheduler.perform` asks: all, seed after seed, so that
    what is done at any time is comparable, and the largest first, so that no process ends up with a long one alone.
    """

    base: Arch
    coefficients: CompoundCoefficients
    networks: tuple[ScaledNetwork, ...]
    epochs: int
    seeds: int
    classes: int

    @classmethod
    def create(
        cls,
        base: Arch = SMALL_BASE,
        classes: int = 10,
        epochs: int = EPOCHS,
        seeds: int = SEEDS,
        macs_factors: Sequence[float] = MACS_FACTORS,
        coefficients: CompoundCoefficients = PAPER_COEFFICIENTS,
    ) -> ScalingStudy:
        """The study of ``base`` grown to ``times`` its MACs; ``point``: α, β, γ of the compound networks.

        Raises ``ValueError`` for what cannot be grown (see `directions`), and for less than one epoch or seed.
        """
        for name, value in (("epochs", epochs), ("seeds", seeds)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        return cls(
            base, coefficients, scale_in_each_way(base, macs_factors, coefficients, classes), epochs, seeds, classes
        )

    @property
    def max_image_size(self) -> int:
        """Pixels a side of the largest pictures that a network sees."""
        return max(one.arch.resolution for one in self.networks)

    @property
    def jobs(self) -> tuple[TrainingJob, ...]:
        """Every training."""
        ordered = sorted(self.networks, key=lambda one: -one.macs)
        return tuple(TrainingJob(one.arch, self.epochs, seed) for seed in range(self.seeds) for one in ordered)

    def __call__(self, results: Mapping[str, TrainingResult]) -> Sequence[TrainingJob]:
        """All trainings are wanted from the beginning."""
        return self.jobs

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this study from another. Not the seeds: of a study that is done more can be asked for."""
        return {
            "search": "scaling",
            "base": self.base.to_dict(),
            "networks": [replace(one.arch, name="network").to_dict() for one in self.networks],
            "epochs": self.epochs,
        }


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, what it reached, and what that took."""

    network: ScaledNetwork
    accuracies: Accuracies
    seconds: float  # of one training, the mean


@dataclass(frozen=True)
class ScalingStudyResult:
    """What came of a study: its networks in their order, and compound scaling's lead over each other way.

    ``leads``: by way and times, from pairs of equal seeds. ``overall``: by way, the mean over all sizes, from pairs of
    equal seeds too, since the sizes differ by more than luck.
    """

    study: ScalingStudy
    trained: tuple[TrainedNetwork, ...]
    leads: Mapping[tuple[str, float], PairedDifference]
    overall: Mapping[str, PairedDifference]

    @property
    def seconds(self) -> float:
        """Of one core, for all trainings."""
        return sum(one.seconds * len(one.accuracies) for one in self.trained)

    def verdict(self) -> str:
        """What can honestly be said about the claim, on these pictures."""
        if self.study.seeds < 2:
            return "One seed shows no spread, so that nothing can be said of the paper's claim: give 2, better 3."
        better = [way for way, lead in self.overall.items() if lead.low > 0]
        worse = [way for way, lead in self.overall.items() if lead.high < 0]
        near = [way for way in self.overall if way not in (*better, *worse)]
        said = {"better than": better, "worse than": worse, "not to be told from": near}
        parts = [
            f"{words} {_join_names([self._describe_lead(way) for way in ways])}" for words, ways in said.items() if ways
        ]
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

    def _describe_lead(self, way: str) -> str:
        lead = self.overall[way]
        mean_, low, high = map(format_points, (lead.mean, lead.low, lead.high))
        return f"{way} ({mean_}, {low} to {high})"


def run_study(
    study: ScalingStudy,
    dataset: SearchDataset,
    store: str | Path,
    processes: int | None = None,
    on_progress: Callable[[Mapping[str, TrainingResult], Sequence[TrainingJob]], None] = lambda results, jobs: None,
) -> ScalingStudyResult:
    """Does what of ``study`` is not yet in ``store``; see `effnet.lab.search.scheduler.perform`."""
    return summarize_study(
        study, run_jobs(store, study.identity, study, dataset, processes=processes, on_progress=on_progress)
    )


def summarize_study(study: ScalingStudy, results: Mapping[str, TrainingResult]) -> ScalingStudyResult:
    """What the ``results`` of the whole study say."""
    scored = []
    for one in study.networks:
        rows = [results[TrainingJob(one.arch, study.epochs, seed).key] for seed in range(study.seeds)]
        accuracies = Accuracies(float(row["judged"]) for row in rows)
        scored.append(TrainedNetwork(one, accuracies, mean(float(row["seconds"]) for row in rows)))
    at = {(one.grown.way, one.grown.times): one.accuracies for one in scored}
    sizes = sorted({one.macs_factor for one in study.networks if one.method == COMPOUND})
    others = [way for way in SCALING_METHODS if way != COMPOUND]
    leads = {(way, times): paired_difference(at[COMPOUND, times], at[way, times]) for way in others for times in sizes}
    means = {
        way: [mean(each) for each in zip(*(at[way, times] for times in sizes), strict=True)] for way in SCALING_METHODS
    }
    overall = {way: paired_difference(means[COMPOUND], means[way]) for way in others}
    return ScalingStudyResult(study, tuple(scored), leads, overall)


def upsampling_warning(study: ScalingStudy, image_size: int) -> str:
    """What to know where a network sees more pixels than pictures ``side`` pixels a side hold; "" where none does."""
    beyond = sorted(
        {one.arch.resolution for one in study.networks if one.arch.resolution > UPSAMPLING_THRESHOLD * image_size}
    )
    if not beyond:
        return ""
    sizes = " and ".join(map(str, beyond))
    return (
        f"sizes of {sizes} px are beyond the pictures' own {image_size}: these are enlarged there and hold nothing new, to "
        "the disadvantage of scaling by resolution; a smaller --size avoids it"
    )


def format_points(difference: float) -> str:
    """A difference of accuracies, fractions, in points: "+1.2", "−0.3"."""
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# The study of scaling as a table beside the paper's own figures, and as a plot like its Figure 8.


STUDY_NAME = "scaling"


STUDY_TITLE = "Accuracy of a network grown in one dimension, or in all (Figures 3 and 8, Table 7)"


MACS_TOLERANCE = 0.05  # of the common MACs: what is farther off is said


STUDY_COLUMNS = (
    Column("depth", "depth", "×", ("computed",)),
    Column("width", "width", "×", ("computed",)),
    Column("resolution", "resolution", "×", ("computed",)),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "M", ("computed", "quoted")),
    Column("times", "MACs / base's", "×", ("computed",)),
    Column("top1", "top-1", "%", ("measured", "quoted")),
    Column("spread", "± sd", "%", ("measured",)),
    Column("lead", "compound leads by", kinds=("measured",)),
)


def study_table(result: ScalingStudyResult, images: Mapping[str, int], about: Mapping[str, Any]) -> Table:
    """``found`` as a table. ``pictures``: how many to learn from ("fit") and judge by ("judge"), and their "side"."""
    study = result.study
    chance = detectable_difference(images["judge"])
    rows = [_study_row(result, one) for one in result.trained]
    rows += [
        TableRow(_paper_row_name(line), {"macs": quoted_value(line.macs), "top1": quoted_value(line.top1)})
        for line in paper.TABLE7
    ]
    alpha, beta, gamma = study.coefficients.in_words().split(" / ")
    notes = (
        result.verdict(),
        f"{images['fit']:,} pictures to learn from, {study.epochs} epochs, {study.seeds} seeds; judged by "
        f"{images['judge']:,} pictures that nothing was chosen by. Another draw of as many could move the difference "
        f"of two networks by {100 * chance:.1f} points at most, which intervals over seeds do not show.",
        *filter(None, [upsampling_warning(study, images["side"])]),
        f"Compound: α = {alpha}, β = {beta}, γ = {gamma}. All are trained alike; only the network's size differs. "
        "Depth is layers over the base's, as built; a size is named by what was asked, and all four of it go for the "
        "MACs that whole pixels allow.",
        "The paper's lines are B0 and its scalings to four times the MACs, on ImageNet: they compare with each other, "
        "not with ours.",
    )
    return Table(
        STUDY_NAME,
        STUDY_TITLE,
        f"{paper.PAPER_V5}, Table 7",
        STUDY_COLUMNS,
        tuple(rows),
        notes,
        {**about, "study": study_to_dict(result, images)},
    )


def _paper_row_name(line: paper.ScaledRow) -> str:
    factors = (line.depth, line.width, line.resolution)
    several = " (" + " / ".join(f"{each:g}" for each in factors) + ")" if 1 not in factors else ""
    return f"paper: {line.title}{several}"


def _study_row(found: ScalingStudyResult, one: TrainedNetwork) -> TableRow:
    grown, base = one.network, found.trained[0].network
    arch, own = grown.arch, base.arch
    note = (
        ""
        if abs(grown.macs_error) <= MACS_TOLERANCE
        else f"{grown.macs_error:+.1%} off the MACs of its size: layers and channels come whole"
    )
    lead = found.leads.get((grown.method, grown.macs_factor))
    values = {
        "depth": TableValue(sum(stage_depths(arch)) / sum(stage_depths(own))),
        "width": TableValue(arch.width / own.width),
        "resolution": TableValue(arch.resolution / own.resolution),
        "size": TableValue(arch.resolution),
        "params": TableValue(count(arch, classes=found.study.classes).params),
        "macs": TableValue(grown.macs, note=note.replace("-", "−")),
        "times": TableValue(grown.macs / base.macs),
        "top1": TableValue(measured=one.accuracies.mean),
        "spread": TableValue(measured=one.accuracies.spread if len(one.accuracies) > 1 else None),
    }
    if lead:
        interval = f" ({format_points(lead.low)} to {format_points(lead.high)})" if lead.pairs > 1 else ""
        values["lead"] = TableValue(measured=format_points(lead.mean) + interval)
    return TableRow(grown.method if grown.method == "base" else f"{grown.method} ×{grown.macs_factor:g}", values)


def study_to_dict(found: ScalingStudyResult, images: Mapping[str, int]) -> dict[str, Any]:
    """The study as plain data: settings, each accuracy of each seed, the leads with their intervals, the verdict."""
    study = found.study

    def lead(of: Any) -> dict[str, float | int]:
        return {"mean": of.mean, "low": of.low, "high": of.high, "pairs": of.pairs}

    return {
        "base": study.base.to_dict(),
        "alpha_beta_gamma": list(study.coefficients.triple),
        "epochs": study.epochs,
        "seeds": study.seeds,
        "pictures": dict(images),
        "difference_told": detectable_difference(images["judge"]),
        "networks": [
            {
                "way": one.network.method,
                "times": one.network.macs_factor,
                "macs": one.network.macs,
                "accuracies": list(one.accuracies),
                "seconds": one.seconds,
                "arch": one.network.arch.to_dict(),
            }
            for one in found.trained
        ],
        "leads": [{"over": way, "times": times, **lead(of)} for (way, times), of in found.leads.items()],
        "overall": [{"over": way, **lead(of)} for way, of in found.overall.items()],
        "verdict": found.verdict(),
        "core_seconds": found.seconds,
    }


def plot_study(result: ScalingStudyResult) -> RenderedPlot:
    """Accuracy against MACs: a line for each way of growing, from the base, with the spread over seeds as bars."""
    unit, word = (1e9, "billions") if result.trained[-1].network.macs >= 1e9 else (1e6, "millions")

    def mark(one: TrainedNetwork) -> ScalingPoint:
        return ScalingPoint(one.network.macs / unit, one.accuracies.mean, one.accuracies.spread)

    first = mark(result.trained[0])
    ways = [
        ScalingCurve(way, (first, *(mark(one) for one in result.trained if one.network.method == way)))
        for way in SCALING_METHODS
    ]
    assert ways[0].name == COMPOUND
    seeds = result.study.seeds
    label = f"top-1, mean of {seeds} seeds ± standard deviation" if seeds > 1 else "top-1, one seed"
    return plot_scaling(ways, f"{word} of MACs for one picture", label, STUDY_TITLE)
