"""Plots of searches: Pareto front, history, scaling curves, and the surface over α and γ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from effnet.draw import plotting
from effnet.draw.plotting import BLUE, GREEN, GREY, INK, ORANGE, RenderedPlot, add_label, new_figure, render_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

CandidateKind = Literal["candidate", "answer", "base"]
CandidateStyle = tuple[str, float, str, str]  # color, area in square points, marker, label in the legend

STYLES: dict[str, CandidateStyle] = {  # the last is drawn on top
    "candidate": (GREY, 14, "o", "candidate"),
    "front": (BLUE, 24, "o", "Pareto front"),
    "base": (INK, 40, "s", "base"),
    "answer": (ORANGE, 80, "*", "result"),
}
CURVE_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (plotting.PURPLE, "D"))  # the first curve is emphasized
MARKER_OFFSET = 0.012  # of the x axis, between the markers of two curves, so that their error bars do not overlap

COEFFICIENT_PRODUCT = 2.0  # α·β²·γ², from which β follows for given α and γ
SURFACE_SAMPLES = 161  # of α and of γ
CONTOUR_LEVELS = 9
HALF_GRID_STEP = 0.025  # of the paper's grid
SHADE_RANGE = (0.06, 0.78)  # opacity of blue for the lowest and highest value, so that text is legible on both
BETAS = (1.0, 1.1, 1.2, 1.3)


@dataclass(frozen=True)
class PlottedCandidate:
    """A network of a search: its cost, its accuracy as a fraction, and its role."""

    cost: float
    accuracy: float
    kind: CandidateKind = "candidate"
    on_front: bool = False

    @property
    def style(self) -> CandidateStyle:
        """How its point is drawn."""
        return STYLES["front" if self.on_front and self.kind == "candidate" else self.kind]


def pareto_front(candidates: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto front among (cost, accuracy) pairs, the cheapest first; of equals the first."""
    front: list[int] = []
    for index in sorted(range(len(candidates)), key=lambda i: (candidates[i][0], -candidates[i][1], i)):
        if not front or candidates[index][1] > candidates[front[-1]][1]:
            front.append(index)
    return front


def plot_pareto_front(
    candidates: Sequence[PlottedCandidate], label: str, title: str, accuracy: str = "top-1"
) -> RenderedPlot:
    """Plot candidates as points, and the `pareto_front` as a step line; ``label`` and ``accuracy`` name the axes."""
    with new_figure(560, 380) as figure:
        axes = figure.subplots()
        plotting.set_cost_accuracy_axes(axes, label, accuracy)
        labels: list[Annotation] = []
        styles = [style for style in STYLES.values() if any(candidate.style == style for candidate in candidates)]
        for level, style in enumerate(styles):
            color, area, marker, words = style
            members = [candidate for candidate in candidates if candidate.style == style]
            x, y = [candidate.cost for candidate in members], [candidate.accuracy for candidate in members]
            axes.scatter(x, y, area, color=color, marker=marker, linewidth=0, label=words, zorder=3 + level)
            for one in members:
                if one.kind in ("base", "answer"):
                    labels.append(add_label(axes, words, (one.cost, one.accuracy), bold=one.kind == "answer"))
        line = _front_steps(sorted((one.cost, one.accuracy) for one in candidates if one.on_front))
        axes.plot([cost for cost, _ in line], [value for _, value in line], color=BLUE, linewidth=1.6)
        axes.margins(x=0.08, y=0.08)
        plotting.add_legend(figure, len(styles), 1, columnspacing=1.4)
        plotting.place_labels(axes, list(reversed(labels)), [(one.cost, one.accuracy) for one in candidates], line)
        return render_figure(figure, title, ("front", title, label, accuracy, list(candidates)))


def _front_steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the best accuracy for each cost as a step line that rises at each network of the front."""
    line = list(corners[:1])
    for (_, before), (cost, accuracy) in pairwise(corners):
        line += [(cost, before), (cost, accuracy)]
    return line


@dataclass(frozen=True)
class ScalingPoint:
    """One network: its cost, and mean and standard deviation of its accuracies, as fractions."""

    cost: float
    mean: float
    spread: float


def plot_scaling(curves: Mapping[str, Sequence[ScalingPoint]], cost: str, accuracy: str, title: str) -> RenderedPlot:
    """Plot at most four curves of accuracy against cost, slightly offset, with error bars of one standard deviation."""
    all_points = [point for points in curves.values() for point in points]
    common = {point for point in all_points if all(point in points for points in curves.values())}
    with new_figure(560, 380) as figure:
        axes = figure.subplots()
        plotting.set_cost_accuracy_axes(axes, cost, accuracy)
        costs = [point.cost for point in all_points]
        offset = (max(costs) / min(costs)) ** MARKER_OFFSET
        for index, ((name, points), (color, marker)) in enumerate(zip(curves.items(), CURVE_STYLES, strict=False)):
            factor = offset ** (index - (len(curves) - 1) / 2)
            x = [point.cost * (1 if point in common else factor) for point in points]
            means, spreads = [point.mean for point in points], [point.spread for point in points]
            axes.plot(x, means, color=color, linewidth=1.4 if index else 2.4, zorder=3 - index / 10)
            own = [i for i, point in enumerate(points) if point not in common]
            costs, accuracies, errors = ([values[i] for i in own] for values in (x, means, spreads))
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5 if index else 6, "linestyle": ""}
            look |= {"elinewidth": 1.2, "capsize": 2.5, "label": name}
            axes.errorbar(costs, accuracies, errors, **look, zorder=4 - index / 10)
        for point in sorted(common, key=lambda point: point.cost):
            x, y, error = [point.cost], [point.mean], [point.spread]
            axes.errorbar(x, y, error, color=INK, marker="o", markersize=5, capsize=2.5, zorder=5)
        axes.margins(x=0.08, y=0.08)
        plotting.add_legend(figure, len(curves), 1.6, columnspacing=1.4)
        return render_figure(figure, title, ("scaling", title, cost, accuracy, dict(curves)))


def plot_search_history(values: Sequence[float], label: str, title: str, percent: bool = True) -> RenderedPlot:
    """Plot each candidate's value, or a gap if it is not finite, and the best so far; ``percent``: of fractions."""
    order = range(1, len(values) + 1)
    running_max = accumulate((value if isfinite(value) else -inf for value in values), max)
    best = [value if isfinite(value) else nan for value in running_max]
    with new_figure(560, 300) as figure:
        from matplotlib.ticker import MaxNLocator, ScalarFormatter

        axes = figure.subplots()
        plotting.style_axes(axes, grid="y", alpha=0.1)
        shown = [value if isfinite(value) else nan for value in values]
        axes.scatter(order, shown, s=16, color=GREY, alpha=0.8, linewidth=0, label="candidate", clip_on=False, zorder=2)
        axes.plot(order, best, color=BLUE, linewidth=2, drawstyle="steps-post", label="best so far", zorder=3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        limits = (1, len(values)) if len(values) > 1 else (0.5, 1.5)
        axes.set(xlabel="candidates evaluated", xlim=limits, ylabel=label)
        axes.yaxis.set_major_formatter(plotting.percent_formatter() if percent else ScalarFormatter())
        plotting.add_legend(figure, 2)
        return render_figure(figure, title, ("history", title, label, list(values), percent))


@dataclass(frozen=True)
class CoefficientPoint:
    """A point of the grid search: its α and γ, its accuracy as a fraction, and its label, if any."""

    alpha: float
    gamma: float
    accuracy: float
    name: str = ""


def plot_coefficient_surface(
    points: Sequence[CoefficientPoint],
    title: str,
    height: Callable[[float, float, float], float] | None = None,
    accuracy: str = "top-1",
) -> RenderedPlot:
    """Plot the accuracy over α and γ: as colored squares, or as the fitted surface ``height`` behind small dots.

    Thin lines are those of equal β, from α·β²·γ² = 2. Of points with equal α and γ the most accurate one is shown;
    named points are marked with a star. ``height`` is a function of (α, β, γ).
    """
    shown = {(one.alpha, one.gamma): one for one in sorted(points, key=lambda one: (bool(one.name), one.accuracy))}
    with new_figure(600, 420) as figure:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
        from matplotlib.patches import Polygon, Rectangle

        axes = figure.subplots()
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.set(xlabel="α: depth", ylabel="γ: resolution")
        blues = LinearSegmentedColormap.from_list("blues", [(*to_rgb(BLUE), alpha) for alpha in SHADE_RANGE])
        alphas, gammas, heights = _sample_surface(points, height)
        values = [one.accuracy for one in shown.values()] if height is None else heights.ravel().tolist()
        low, high = min(values), max(values)
        normalize = Normalize(low, high if high > low else low + 1e-3)
        if height is None:
            half = 0.92 * HALF_GRID_STEP
            for one in shown.values():
                corner, color = (one.alpha - half, one.gamma - half), blues(normalize(one.accuracy))
                axes.add_patch(Rectangle(corner, 2 * half, 2 * half, facecolor=color, linewidth=0))
        else:
            levels = np.linspace(normalize.vmin or 0.0, normalize.vmax or 1.0, CONTOUR_LEVELS + 1)
            contours = axes.contourf(alphas, gammas, heights, levels, cmap=blues, norm=normalize, antialiased=False)
            border = [(float(alpha), sqrt(COEFFICIENT_PRODUCT / alpha)) for alpha in alphas]  # where β is 1
            corners = [(alphas[0], gammas[0]), *border, (alphas[-1], gammas[0])]
            contours.set_clip_path(Polygon(corners, transform=axes.transData))
            plain = [one for one in shown.values() if not one.name]
            x, y = [one.alpha for one in plain], [one.gamma for one in plain]
            axes.scatter(x, y, 7, color=INK, alpha=0.5, linewidth=0, zorder=3)
        sides = ([one.alpha for one in points], [one.gamma for one in points])
        margin = 1.5 * HALF_GRID_STEP
        limits = [(min(values) - margin, max(values) + margin) for values in sides]
        axes.set(xlim=limits[0], ylim=limits[1])
        _draw_beta_lines(axes)

        bar = figure.colorbar(ScalarMappable(normalize, blues), ax=axes, pad=0.03, aspect=30, drawedges=False)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, pad=5)
        bar.ax.yaxis.set_major_formatter(plotting.percent_formatter())
        bar.set_label(accuracy if height is None else f"{accuracy}, fitted", color=INK)
        named = [one for one in shown.values() if one.name]
        for one in named:
            axes.scatter([one.alpha], [one.gamma], 62, marker="*", color=ORANGE, linewidth=0, zorder=5)
        size = plotting.FONT_SIZE - 1
        labels = [add_label(axes, one.name, (one.alpha, one.gamma), bold=True, size=size) for one in named]
        plotting.place_labels(axes, labels, [(one.alpha, one.gamma) for one in named])
        sampled = [round(float(value), 9) for value in heights.flat] if height else []
        return render_figure(figure, title, ("surface", title, accuracy, list(points), sampled))


def _sample_surface(
    points: Sequence[CoefficientPoint], height: Callable[[float, float, float], float] | None
) -> tuple[np.ndarray, ...]:
    """Return α (columns), γ (rows) and the height at each; beyond the border at β = 1, which is clipped, that of it."""
    alphas, gammas = (
        np.linspace(min(values), max(values) + HALF_GRID_STEP, SURFACE_SAMPLES)
        for values in ([one.alpha for one in points], [one.gamma for one in points])
    )
    heights = np.full((SURFACE_SAMPLES, SURFACE_SAMPLES), np.nan)
    if height:
        for row, gamma in enumerate(gammas):
            for column, alpha in enumerate(alphas):
                inside = min(float(gamma), sqrt(COEFFICIENT_PRODUCT / alpha))
                beta = max(1.0, sqrt(COEFFICIENT_PRODUCT / alpha) / inside)
                heights[row, column] = height(float(alpha), beta, inside)
    return alphas, gammas, heights


def _draw_beta_lines(axes: "Axes") -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for beta in BETAS:
        alphas = np.linspace(max(left, 1.0), right, 200)
        gammas = np.sqrt(COEFFICIENT_PRODUCT / alphas) / beta
        inside = (gammas <= high) & (gammas >= max(low, 1.0))
        if not inside.any():
            continue
        axes.plot(alphas[inside], gammas[inside], color=INK, alpha=0.35, linewidth=0.8, linestyle=(0, (3, 3)), zorder=2)
        start = (alphas[inside][0], gammas[inside][0])
        plotting.annotate(axes, f"β = {beta:g}", start, (4, 2), fontsize=plotting.LABEL_FONT_SIZE, alpha=0.75)
