"""A study of the paper's central claim: grown to equal MACs, is a network better for growing in all dimensions?

Section 3 and Figures 3 and 8 of arXiv:1905.11946: a base grown in depth, width or resolution alone, and in all three;
all trained alike from several seeds, and tested on images that no choice was made on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from math import log, sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from effnet.arch import Arch, count, rounding_rules, serde
from effnet.draw import plotting, search_plots
from effnet.lab.compare import published_numbers
from effnet.lab.compare.comparison_table import Column, Table, TableRow, TableValue, quoted_value
from effnet.lab.search import grid_search, job_store, proxy_task, statistics

COMPOUND, DEPTH, WIDTH, RESOLUTION = SCALING_METHODS = ("compound", "depth", "width", "resolution")
OTHER_METHODS = (DEPTH, WIDTH, RESOLUTION)
MACS_FACTORS = (2.0, 4.0, 8.0)
CLOSE_MACS = 0.02  # relative: near enough to the target
REPORTED_MACS_ERROR = 0.05  # relative: larger ones get a note
PHI_WINDOW, PHI_STEPS = 0.3, 20  # around φ, within which the rounding of the compound network is chosen; on either side
UPSAMPLING_THRESHOLD = 1.1  # times the images' own pixels; less needs no warning
SEEDS, EPOCHS = 3, 24  # deep networks learn slowest: in 5 epochs those with eight times the layers trail the base
# Half the channels, since there are 39 trainings of up to eight times its MACs; and 12 pixels, so that eight times the
# MACs by resolution alone need just one pixel more than CIFAR-10's images have
SMALL_BASE = replace(proxy_task.BASE_ARCH, name="nano_12_w0.5", width=0.5, resolution=12, divisor=1)

STUDY_TITLE = "Accuracy of a network scaled in one dimension, or in all (Figures 3 and 8, Table 7)"
STUDY_COLUMNS = (
    *(Column(name, name, "×", ("computed",)) for name in ("depth", "width", "resolution")),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "M", ("computed", "quoted")),
    Column("times", "MACs / base's", "×", ("computed",)),
    Column("top1", "top-1", "%", ("measured", "quoted")),
    Column("spread", "± sd", "%", ("measured",)),
    Column("lead", "lead of compound", kinds=("measured",)),
)

MacsFunction = Callable[[Arch], int]


@dataclass(frozen=True)
class ScaledNetwork:
    """A network of the study; ``target_macs`` are common to all methods of one factor."""

    method: str  # "base" or one of `SCALING_METHODS`
    macs_factor: float
    arch: Arch
    macs: int
    target_macs: int

    @property
    def macs_error(self) -> float:
        """Relative deviation from the target."""
        return self.macs / self.target_macs - 1

    @property
    def title(self) -> str:
        """Return "base", or "depth ×4"."""
        return self.method if self.method == "base" else f"{self.method} ×{self.macs_factor:g}"


def scale_in_each_way(
    base: Arch,
    macs_factors: Sequence[float] = MACS_FACTORS,
    coefficients: grid_search.CompoundCoefficients = grid_search.PAPER_COEFFICIENTS,
    classes: int = 1000,
) -> tuple[ScaledNetwork, ...]:
    """Return ``base`` and, for each factor, four networks of equal MACs, one per scaling method.

    Resolution has the coarsest steps, so the network scaled by resolution that comes nearest to the factor sets the
    target for all. Depth gets as near as one layer more or less in a single stage allows, width as single channels
    allow. The compound network rounds layers and pixels, and its width makes up for what they miss: of all such
    roundings nearby, the one whose width stays closest to the compound line. Raises ``ValueError`` if nothing grows.
    """
    if coefficients.growth <= 1:
        raise ValueError("α, β and γ of 1 grow nothing: choose other coefficients")

    def macs(arch: Arch) -> int:
        return count(arch, classes=classes).macs

    base_macs = macs(base)
    networks = [ScaledNetwork("base", 1.0, base, base_macs, base_macs)]
    for factor in macs_factors:
        by_resolution = _find_nearest(
            lambda by: grid_search.grow(base, 1, 1, by), factor * base_macs, 1, 2 * sqrt(factor), macs
        )
        target = macs(by_resolution)
        scaled = {
            COMPOUND: _scale_compound(base, coefficients, target, macs),
            DEPTH: _scale_depth(base, target, 3 * factor, macs),
            WIDTH: _find_nearest(lambda by: grid_search.grow(base, 1, by, 1), target, 1, 2 * sqrt(factor), macs),
            RESOLUTION: by_resolution,
        }
        for method, arch in scaled.items():
            named = replace(arch, name=f"{base.name}_{method}_x{factor:g}")
            networks.append(ScaledNetwork(method, float(factor), named, macs(named), target))
    return tuple(networks)


def _find_nearest(build: Callable[[float], Arch], target: float, low: float, high: float, macs: MacsFunction) -> Arch:
    """Return the network nearest to ``target`` MACs, built from a number between ``low`` and ``high``."""
    for _ in range(40):  # far finer than a channel
        middle = (low + high) / 2
        low, high = (low, middle) if macs(build(middle)) > target else (middle, high)
    return min((build(low), build(high)), key=lambda arch: abs(log(macs(arch) / target)))


def _scale_depth(base: Arch, target: float, max_depth: float, macs: MacsFunction) -> Arch:
    """Scale depth alone. If proportional layers miss the target, try one more in a stage, one less, or both."""
    proportional = _find_nearest(lambda by: grid_search.grow(base, by, 1, 1), target, 1, max_depth, macs)
    if abs(log(macs(proportional) / target)) <= CLOSE_MACS:
        return proportional
    minimum, depths = (
        [stage.layers for stage in arch.stages] for arch in (grid_search.grow(base, 1, 1, 1), proportional)
    )
    scalable = range(len(depths)) if base.scale_ends else range(1, len(depths) - 1)
    tried = [proportional]
    for more, less in product((None, *scalable), repeat=2):
        changed = [layers + (index == more) - (index == less) for index, layers in enumerate(depths)]
        if all(layers >= least for layers, least in zip(changed, minimum, strict=True)):
            stages = zip(proportional.stages, changed, strict=True)
            tried.append(replace(proportional, stages=tuple(stage.with_layers(each) for stage, each in stages)))
    return min(tried, key=lambda arch: abs(log(macs(arch) / target)))


def _scale_compound(
    base: Arch, coefficients: grid_search.CompoundCoefficients, target: int, macs: MacsFunction
) -> Arch:
    alpha, beta, gamma = coefficients.triple
    center = log(target / macs(base)) / log(alpha * beta**2 * gamma**2)
    if beta == 1:  # the width must stay
        return _find_nearest(lambda by: grid_search.grow(base, alpha**by, 1, gamma**by), target, 0, 2 * center, macs)
    by_rounding: dict[tuple[object, ...], tuple[float, Arch]] = {}
    for step in range(-PHI_STEPS, PHI_STEPS + 1):
        phi = max(0.0, center + PHI_WINDOW * step / PHI_STEPS)
        depth, width, resolution = alpha**phi, beta**phi, gamma**phi
        rounded = grid_search.grow(base, depth, 1, resolution)
        key = (rounded.resolution, tuple(stage.layers for stage in rounded.stages))
        if key not in by_rounding:
            build = lambda by, alpha=depth, gamma=resolution: grid_search.grow(base, alpha, by, gamma)  # noqa: E731
            arch = _find_nearest(build, target, 1, 4 * width, macs)
            by_rounding[key] = abs(log(arch.width / base.width / width)), arch
    return min(by_rounding.values(), key=lambda each: each[0])[1]


@dataclass(frozen=True)
class ScalingStudy:
    """A study, and the rule of its jobs: each network is trained for ``epochs`` from seeds 0 to ``seeds`` − 1.

    All jobs are wanted at once: seed after seed, so that what is done is comparable, and the largest networks first, so
    that no process ends up with a long one alone.
    """

    base: Arch = SMALL_BASE
    classes: int = 10
    epochs: int = EPOCHS
    seeds: int = SEEDS
    macs_factors: tuple[float, ...] = MACS_FACTORS
    coefficients: grid_search.CompoundCoefficients = grid_search.PAPER_COEFFICIENTS

    def __post_init__(self) -> None:
        serde.check_int("epochs", self.epochs, 1)
        serde.check_int("seeds", self.seeds, 1)

    @cached_property
    def networks(self) -> tuple[ScaledNetwork, ...]:
        """All networks, the base first. Raises ``ValueError`` as `scale_in_each_way`."""
        return scale_in_each_way(self.base, self.macs_factors, self.coefficients, self.classes)

    @property
    def max_image_size(self) -> int:
        """The largest input resolution of a network."""
        return max(network.arch.resolution for network in self.networks)

    @property
    def jobs(self) -> tuple[job_store.TrainingJob, ...]:
        """All trainings."""
        ordered = sorted(self.networks, key=lambda network: -network.macs)
        return tuple(
            job_store.TrainingJob(each.arch, self.epochs, seed) for seed in range(self.seeds) for each in ordered
        )

    def __call__(self, results: Mapping[str, job_store.TrainingResult]) -> Sequence[job_store.TrainingJob]:
        """Return all jobs."""
        return self.jobs

    @property
    def identity(self) -> dict[str, Any]:
        """The study as plain data, by which a store is recognized; without the seeds, so that more can be added."""
        return {
            "search": "scaling",
            "base": self.base.to_dict(),
            "networks": [replace(each.arch, name=job_store.ANONYMOUS_NAME).to_dict() for each in self.networks],
            "epochs": self.epochs,
        }


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, its test accuracies, and the mean seconds of one training."""

    network: ScaledNetwork
    accuracies: statistics.Accuracies
    seconds: float


@dataclass(frozen=True)
class ScalingStudyResult:
    """All networks, and the leads of compound scaling over each other method, from pairs of equal seeds.

    ``leads``: by method and factor. ``overall``: by method, of the means over all factors.
    """

    study: ScalingStudy
    trained: tuple[TrainedNetwork, ...]
    leads: Mapping[tuple[str, float], statistics.PairedDifference]
    overall: Mapping[str, statistics.PairedDifference]

    def verdict(self) -> str:
        """Return what the study shows about the paper's claim on these images."""
        if self.study.seeds < 2:
            return "A single seed shows no spread and allows no verdict on the paper's claim: use 2, better 3."
        better = [method for method, lead in self.overall.items() if lead.low > 0]
        worse = [method for method, lead in self.overall.items() if lead.high < 0]
        unclear = [method for method in self.overall if method not in (*better, *worse)]
        relations = {"better than": better, "worse than": worse, "not significantly different from": unclear}
        parts = [f"{relation} {self._describe_leads(methods)}" for relation, methods in relations.items() if methods]
        if len(better) == len(self.overall):
            claim = "The paper's claim holds here"
        elif worse:
            claim = "The paper's claim does not hold here"
        elif better:
            claim = "The paper's claim holds in part here"
        else:
            claim = "Whether the paper's claim holds here remains open, since the differences are within the noise"
        basis = f"its lead in points of top-1, mean of all sizes, with 95 % intervals over {self.study.seeds} seeds"
        return f"{claim}: compound scaling is {', '.join(parts)} ({basis})."

    def _describe_leads(self, methods: Sequence[str]) -> str:
        leads = [
            f"{method} ({format_points(lead.mean)}, {format_points(lead.low)} to {format_points(lead.high)})"
            for method, lead in self.overall.items()
            if method in methods
        ]
        return " and ".join(filter(None, (", ".join(leads[:-1]), leads[-1])))

    def to_dict(self, images: Mapping[str, int]) -> dict[str, Any]:
        """Return plain data: settings, every accuracy, leads with their intervals, the verdict; see `study_table`."""
        study = self.study
        return {
            "base": study.base.to_dict(),
            "coefficients": list(study.coefficients.triple),
            "epochs": study.epochs,
            "seeds": study.seeds,
            "images": dict(images),
            "detectable_difference": statistics.detectable_difference(images["test"]),
            "networks": [
                {name: getattr(each.network, name) for name in ("method", "macs_factor", "macs")}
                | {"accuracies": list(each.accuracies), "seconds": each.seconds, "arch": each.network.arch.to_dict()}
                for each in self.trained
            ],
            "leads": [
                {"over": method, "macs_factor": factor} | asdict(lead) for (method, factor), lead in self.leads.items()
            ],
            "overall": [{"over": method} | asdict(lead) for method, lead in self.overall.items()],
            "verdict": self.verdict(),
            "core_seconds": sum(each.seconds * len(each.accuracies) for each in self.trained),
        }


def run_study(
    study: ScalingStudy,
    dataset: proxy_task.SearchDataset,
    store: str | Path,
    processes: int | None = None,
    on_progress: job_store.ProgressCallback = lambda results, jobs: None,
) -> ScalingStudyResult:
    """Run what ``store`` does not contain yet of ``study``; see `effnet.lab.search.job_store.run_jobs`."""
    results = job_store.run_jobs(store, study.identity, study, dataset, processes=processes, on_progress=on_progress)
    return summarize_study(study, results)


def summarize_study(study: ScalingStudy, results: Mapping[str, job_store.TrainingResult]) -> ScalingStudyResult:
    """Compare the networks by the results of the whole study."""
    trained = []
    for network in study.networks:
        runs = [results[job_store.TrainingJob(network.arch, study.epochs, seed).key] for seed in range(study.seeds)]
        accuracies = statistics.Accuracies(run["test_accuracy"] for run in runs)
        trained.append(TrainedNetwork(network, accuracies, mean(run["seconds"] for run in runs)))
    accuracy = {(each.network.method, each.network.macs_factor): each.accuracies for each in trained}
    factors = sorted({network.macs_factor for network in study.networks if network.method == COMPOUND})
    leads = {
        (method, factor): statistics.paired_difference(accuracy[COMPOUND, factor], accuracy[method, factor])
        for method in OTHER_METHODS
        for factor in factors
    }
    means = {
        method: [mean(each) for each in zip(*(accuracy[method, factor] for factor in factors), strict=True)]
        for method in SCALING_METHODS
    }
    overall = {method: statistics.paired_difference(means[COMPOUND], means[method]) for method in OTHER_METHODS}
    return ScalingStudyResult(study, tuple(trained), leads, overall)


def upsampling_warning(study: ScalingStudy, image_size: int) -> str:
    """Return a warning if a network sees more pixels than images of ``image_size`` have; "" otherwise."""
    resolutions = {network.arch.resolution for network in study.networks}
    beyond = sorted(each for each in resolutions if each > UPSAMPLING_THRESHOLD * image_size)
    if not beyond:
        return ""
    return (
        f"resolutions of {' and '.join(map(str, beyond))} px exceed the images' own {image_size} px: upsampling adds "
        "no information, to the disadvantage of scaling by resolution; a smaller --image-size avoids it"
    )


def format_points(difference: float) -> str:
    """Format a difference of accuracies, fractions, in points: "+1.2", "−0.3"."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def study_table(result: ScalingStudyResult, images: Mapping[str, int], environment: Mapping[str, Any]) -> Table:
    """Return the result beside the paper's own figures; ``images``: number of "train" and "test", "size" in pixels."""
    study = result.study
    chance = statistics.detectable_difference(images["test"])
    alpha, beta, gamma = study.coefficients.describe().split(" / ")
    notes = (
        result.verdict(),
        f"{images['train']:,} training images, {study.epochs} epochs, {study.seeds} seeds; tested on "
        f"{images['test']:,} images that no choice was made on. Other test images could move the difference of two "
        f"networks by up to {100 * chance:.1f} points, which intervals over seeds do not show.",
        *filter(None, [upsampling_warning(study, images["size"])]),
        f"Compound: α = {alpha}, β = {beta}, γ = {gamma}. All are trained alike; only the network's size differs. "
        "Depth is layers over the base's, as built; sizes are named by the factor asked for, and all four of one size "
        "have the MACs that whole pixels allow.",
        "The paper's rows are B0 scaled to four times its MACs, on ImageNet: they compare with each other, not with "
        "ours.",
    )
    rows = [_study_row(result, each) for each in result.trained]
    for row in published_numbers.TABLE7:
        factors = (row.depth, row.width, row.resolution)
        compound = "" if 1 in factors else " (" + " / ".join(f"{each:g}" for each in factors) + ")"
        values = {"macs": quoted_value(row.macs), "top1": quoted_value(row.top1)}
        rows.append(TableRow(f"paper: {row.title}{compound}", values))
    content = {**environment, "study": result.to_dict(images)}
    source = f"{published_numbers.PAPER_V5}, Table 7"
    return Table("scaling", STUDY_TITLE, source, STUDY_COLUMNS, tuple(rows), notes, content)


def _study_row(result: ScalingStudyResult, trained: TrainedNetwork) -> TableRow:
    network, base, note = trained.network, result.trained[0].network, ""
    arch, accuracies = network.arch, trained.accuracies
    if abs(network.macs_error) > REPORTED_MACS_ERROR:
        note = f"{network.macs_error:+.1%} off the MACs of its size: layers and channels are integers"
    values = {
        "depth": TableValue(sum(rounding_rules.stage_depths(arch)) / sum(rounding_rules.stage_depths(base.arch))),
        "width": TableValue(arch.width / base.arch.width),
        "resolution": TableValue(arch.resolution / base.arch.resolution),
        "size": TableValue(arch.resolution),
        "params": TableValue(count(arch, classes=result.study.classes).params),
        "macs": TableValue(network.macs, note=note.replace("-", "−")),
        "times": TableValue(network.macs / base.macs),
        "top1": TableValue(measured=accuracies.mean),
        "spread": TableValue(measured=accuracies.spread if len(accuracies) > 1 else None),
    }
    if lead := result.leads.get((network.method, network.macs_factor)):
        interval = f" ({format_points(lead.low)} to {format_points(lead.high)})" if lead.pairs > 1 else ""
        values["lead"] = TableValue(measured=format_points(lead.mean) + interval)
    return TableRow(network.title, values)


def plot_study(result: ScalingStudyResult) -> plotting.RenderedPlot:
    """Plot accuracy against MACs: a curve for each scaling method, with the spread over seeds as error bars."""
    unit, unit_name = (1e9, "billion") if result.trained[-1].network.macs >= 1e9 else (1e6, "million")
    points: dict[str, list[search_plots.ScalingPoint]] = {method: [] for method in ("base", *SCALING_METHODS)}
    for each in result.trained:
        point = search_plots.ScalingPoint(each.network.macs / unit, each.accuracies.mean, each.accuracies.spread)
        points[each.network.method].append(point)
    curves = {method: [*points["base"], *points[method]] for method in SCALING_METHODS}
    seeds = result.study.seeds
    label = f"top-1, mean of {seeds} seeds ± standard deviation" if seeds > 1 else "top-1, one seed"
    return search_plots.plot_scaling(curves, f"{unit_name} MACs per image", label, STUDY_TITLE)
