"""What a search found: the accuracy of every candidate against its cost, and the front that none of them beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np

from effnet.draw.figure import (
    FONT_SIZE,
    INK,
    LABEL_FONT_SIZE,
    POINTS_PER_INCH,
    RenderedPlot,
    add_label,
    matplotlib_figure,
    percent_formatter,
    place_labels,
    render_figure,
    set_accuracy_axis,
    set_cost_axis,
    style_axes_with_grid,
)
from effnet.draw.training_plots import COLORS, CORRECT_COLOR, WRONG_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

CandidateKind = Literal["candidate", "random", "answer", "base"]


FRONT_WIDTH, FRONT_HEIGHT = 560, 380


# colour, area in square points, mark, words of the legend
CANDIDATE_STYLES: dict[CandidateKind, tuple[str, float, str, str]] = {
    "candidate": ("#8b919c", 14, "o", "a candidate"),
    "random": ("#2f9e63", 18, "x", "drawn at random"),
    "base": (INK, 40, "s", "the base"),
    "answer": ("#d9772b", 80, "*", "the answer"),
}


FRONT_STYLE = ("#3b7dd8", 24, "o", "the front")


DRAW_ORDER = (
    CANDIDATE_STYLES["candidate"],
    CANDIDATE_STYLES["random"],
    FRONT_STYLE,
    CANDIDATE_STYLES["base"],
    CANDIDATE_STYLES["answer"],
)  # the last on top


@dataclass(frozen=True)
class PlottedCandidate:
    """A network: its cost, its accuracy as a fraction, what it is in the search, and the name to write beside it.

    Whatever it is, it may be ``on_front``: no other is as cheap and as accurate.
    """

    cost: float
    accuracy: float
    kind: CandidateKind = "candidate"
    name: str = ""
    on_front: bool = False

    @property
    def style(self) -> tuple[str, float, str, str]:
        """How its point is drawn."""
        return FRONT_STYLE if self.on_front and self.kind == "candidate" else CANDIDATE_STYLES[self.kind]


def pareto_front(candidates: Sequence[tuple[float, float]]) -> list[int]:
    """The places of those (cost, accuracy) that no other beats: none is as cheap and as accurate, and better in one.

    From the cheapest to the dearest; of equals the first.
    """
    found: list[int] = []
    for place in sorted(range(len(candidates)), key=lambda one: (candidates[one][0], -candidates[one][1], one)):
        if not found or candidates[place][1] > candidates[found[-1]][1]:
            found.append(place)
    return found


def plot_pareto_front(
    candidates: Sequence[PlottedCandidate], label: str, title: str, accuracy: str = "top-1"
) -> RenderedPlot:
    """Every candidate as a point of its kind, and a line of steps through the front.

    ``label`` and ``accuracy`` name the axes; costs are logarithmic. ``title`` is for those who cannot see. Which are
    the front is for the caller to say: see `best`. Base and answer are named by their kind where they have no name.
    """
    with matplotlib_figure() as figure_class:
        figure = figure_class(
            figsize=(FRONT_WIDTH / POINTS_PER_INCH, FRONT_HEIGHT / POINTS_PER_INCH), layout="constrained"
        )
        axes = figure.subplots()
        style_axes_with_grid(axes)
        set_cost_axis(axes, label)
        set_accuracy_axis(axes, accuracy)
        names: list[Annotation] = []
        used = [style for style in DRAW_ORDER if any(one.style == style for one in candidates)]
        for level, style in enumerate(used):
            colour, area, mark, words = style
            of = [one for one in candidates if one.style == style]
            axes.scatter(
                [one.cost for one in of],
                [one.accuracy for one in of],
                area,
                color=colour,
                marker=mark,
                linewidth=1.2 if mark == "x" else 0,
                label=words,
                zorder=3 + level,
            )
            for one in of:
                if name := one.name or (words if one.kind in ("base", "answer") else ""):
                    names.append(add_label(axes, name, (one.cost, one.accuracy), bold=one.kind == "answer"))
        line = _front_steps(sorted((one.cost, one.accuracy) for one in candidates if one.on_front))
        axes.plot([cost for cost, _ in line], [share for _, share in line], color=FRONT_STYLE[0], linewidth=1.6)
        axes.margins(x=0.08, y=0.08)
        figure.legend(
            loc="outside upper left", ncols=len(used), frameon=False, handlelength=1, borderpad=0, columnspacing=1.4
        )
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        place_labels(axes, list(reversed(names)), [(one.cost, one.accuracy) for one in candidates], line)
        return render_figure(figure, title, ("front", title, label, accuracy, list(candidates)))


def _front_steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is reached for each cost: it rises where a network of the front stands."""
    line = list(corners[:1])
    for (_, before), (cost, share) in pairwise(corners):
        line += [(cost, before), (cost, share)]
    return line


# The history of a search: what came of each candidate, one after the other, and the best so far.


HISTORY_WIDTH, HISTORY_HEIGHT = 560, 300


def plot_search_history(values: Sequence[float], label: str, title: str, percent: bool = True) -> RenderedPlot:
    """A dot for each of ``values`` in the order in which they were found, and a line that is the largest so far.

    ``label`` names the y axis; ``percent``: whether values are fractions. One that is not finite leaves a gap.
    ``title`` is for those who cannot see.
    """
    order = range(1, len(values) + 1)
    best = [value if isfinite(value) else nan for value in accumulate(map(_finite_or_minus_inf, values), max)]
    with matplotlib_figure() as figure_class:
        from matplotlib.ticker import MaxNLocator

        figure = figure_class(
            figsize=(HISTORY_WIDTH / POINTS_PER_INCH, HISTORY_HEIGHT / POINTS_PER_INCH), layout="constrained"
        )
        axes = figure.subplots()
        style_axes_with_grid(axes)
        axes.scatter(
            order,
            [value if isfinite(value) else nan for value in values],
            s=16,
            color=COLORS[0],
            alpha=0.8,
            linewidth=0,
            label="a candidate",
            clip_on=False,
            zorder=2,
        )
        axes.plot(
            order, best, color=CORRECT_COLOR, linewidth=2, drawstyle="steps-post", label="the best so far", zorder=3
        )
        axes.set_xlabel("candidates, as they were done")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlim((1, len(values)) if len(values) > 1 else (0.5, 1.5))
        axes.grid(axis="x", visible=False)
        set_accuracy_axis(axes, label)
        if not percent:
            from matplotlib.ticker import ScalarFormatter

            axes.yaxis.set_major_formatter(ScalarFormatter())
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.4, borderpad=0)
        return render_figure(figure, title, ("history", title, label, list(values), percent))


def _finite_or_minus_inf(value: float) -> float:
    return value if isfinite(value) else -inf


# Accuracy against cost of networks that grow, each trained several times: a line a way of growing, error bars.


SCALING_WIDTH, SCALING_HEIGHT = 560, 380


# The first way is drawn strongest; a colour and a mark each: blue, orange, green, purple
CURVE_STYLES = (("#3b7dd8", "o"), ("#d9772b", "s"), ("#2f9e63", "^"), ("#a06cd5", "D"))


MARKER_OFFSET = 0.012  # of the x axis between the marks of two ways, so that bars at one cost do not hide each other


@dataclass(frozen=True)
class ScalingPoint:
    """One network: its cost, and the mean and the spread of its accuracies, as fractions."""

    cost: float
    mean: float
    spread: float


@dataclass(frozen=True)
class ScalingCurve:
    """One way of growing, from the smallest network to the largest; the first may be common to all ways."""

    name: str
    points: tuple[ScalingPoint, ...]


def plot_scaling(curves: Sequence[ScalingCurve], cost: str, accuracy: str, title: str) -> RenderedPlot:
    """A line for each of at most four ``ways``; ``cost`` and ``accuracy`` are the labels of the axes.

    Bars go a spread up and down. Marks of different ways are drawn a little to the side of each other.
    ``title`` is for those who cannot see.
    """
    common = {one for way in curves for one in way.points if all(one in other.points for other in curves)}
    with matplotlib_figure() as figure_class:
        figure = figure_class(
            figsize=(SCALING_WIDTH / POINTS_PER_INCH, SCALING_HEIGHT / POINTS_PER_INCH), layout="constrained"
        )
        axes = figure.subplots()
        style_axes_with_grid(axes)
        set_cost_axis(axes, cost)
        set_accuracy_axis(axes, accuracy)
        costs = [one.cost for way in curves for one in way.points]
        apart = (max(costs) / min(costs)) ** MARKER_OFFSET
        for index, (way, (colour, shape)) in enumerate(zip(curves, CURVE_STYLES, strict=False)):
            aside = apart ** (index - (len(curves) - 1) / 2)
            at = [one.cost * (1 if one in common else aside) for one in way.points]
            means = [one.mean for one in way.points]
            axes.plot(at, means, color=colour, linewidth=1.4 if index else 2.4, zorder=3 - index / 10)
            own = [place for place, one in enumerate(way.points) if one not in common]
            axes.errorbar(
                [at[place] for place in own],
                [means[place] for place in own],
                [way.points[place].spread for place in own],
                color=colour,
                marker=shape,
                markersize=5 if index else 6,
                linestyle="",
                elinewidth=1.2,
                capsize=2.5,
                label=way.name,
                zorder=4 - index / 10,
            )
        for one in sorted(common, key=lambda each: each.cost):
            axes.errorbar(
                [one.cost], [one.mean], [one.spread], color=INK, marker="o", markersize=5, capsize=2.5, zorder=5
            )
        axes.margins(x=0.08, y=0.08)
        figure.legend(
            loc="outside upper left", ncols=len(curves), frameon=False, handlelength=1.6, borderpad=0, columnspacing=1.4
        )
        return render_figure(figure, title, ("growth", title, cost, accuracy, list(curves)))


# The coefficients that a search tried, as a map: α across, γ upwards, β by what is left of the doubling.


SURFACE_WIDTH, SURFACE_HEIGHT = 600, 420


COEFFICIENT_PRODUCT = 2.0  # α·β²·γ², by which β follows from α and γ


SURFACE_SAMPLES = 161  # samples of the surface a side


CONTOUR_LEVELS = 9


HALF_GRID_STEP = 0.025  # half a step of the paper's grid


SHADE_RANGE = (
    0.06,
    0.78,
)  # of blue, for the lowest and the highest; the page shines through, so that ink reads on both


BETAS = (1.0, 1.1, 1.2, 1.3)


@dataclass(frozen=True)
class CoefficientPoint:
    """A point of the grid, and its accuracy as a fraction. ``name``: where it shall have one, as "the best"."""

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
    """The grid's points as squares, the bluer the better; with ``height`` of (α, β, γ) the surface behind small points.

    Thin lines are of equal β, at α·β²·γ² = 2. Of two points of the same α and γ the more accurate one is shown.
    ``accuracy`` names the scale; ``title`` is for those who cannot see.
    """
    shown = {(one.alpha, one.gamma): one for one in sorted(points, key=lambda one: (bool(one.name), one.accuracy))}
    with matplotlib_figure() as figure_class:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
        from matplotlib.patches import Polygon

        figure = figure_class(
            figsize=(SURFACE_WIDTH / POINTS_PER_INCH, SURFACE_HEIGHT / POINTS_PER_INCH), layout="constrained"
        )
        axes = figure.subplots()
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.set(xlabel="α: depth", ylabel="γ: resolution")
        blues = LinearSegmentedColormap.from_list("blues", [(*to_rgb(CORRECT_COLOR), alpha) for alpha in SHADE_RANGE])
        alphas, gammas, heights = _sample_surface(points, height)
        seen = [one.accuracy for one in shown.values()] if height is None else heights.ravel().tolist()
        low, high = min(seen), max(seen)
        of = Normalize(low, high if high > low else low + 1e-3)
        if height is None:
            _draw_squares(axes, list(shown.values()), lambda value: blues(of(value)))
        else:
            levels = np.linspace(of.vmin or 0.0, of.vmax or 1.0, CONTOUR_LEVELS + 1)
            map_ = axes.contourf(alphas, gammas, heights, levels, cmap=blues, norm=of, antialiased=False)
            curve = [(float(alpha), sqrt(COEFFICIENT_PRODUCT / alpha)) for alpha in alphas]  # where β is 1
            map_.set_clip_path(
                Polygon([(alphas[0], gammas[0]), *curve, (alphas[-1], gammas[0])], transform=axes.transData)
            )
            plain = [one for one in shown.values() if not one.name]
            axes.scatter(
                [one.alpha for one in plain],
                [one.gamma for one in plain],
                7,
                color=INK,
                alpha=0.5,
                linewidth=0,
                zorder=3,
            )
        _set_limits(axes, points)
        _draw_beta_lines(axes)

        bar = figure.colorbar(ScalarMappable(of, blues), ax=axes, pad=0.03, aspect=30, drawedges=False)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, pad=5)
        bar.ax.yaxis.set_major_formatter(percent_formatter())
        bar.set_label(accuracy if height is None else f"{accuracy}, fitted", color=INK)
        marked = [one for one in shown.values() if one.name]
        for one in marked:
            axes.scatter([one.alpha], [one.gamma], 62, marker="*", color=WRONG_COLOR, linewidth=0, zorder=5)
        notes = [add_label(axes, one.name, (one.alpha, one.gamma), bold=True, size=FONT_SIZE - 1) for one in marked]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        place_labels(axes, notes, [(one.alpha, one.gamma) for one in marked])
        sampled = [round(float(each), 9) for each in heights.flat] if height else []
        return render_figure(figure, title, ("surface", title, accuracy, list(points), sampled))


def _sample_surface(
    spots: Sequence[CoefficientPoint], height: Callable[[float, float, float], float] | None
) -> tuple[np.ndarray, ...]:
    """α (columns), γ (rows), and the height at each; beyond the curve of β = 1, which is cut off, as it is there."""
    alphas, gammas = (
        np.linspace(min(every), max(every) + HALF_GRID_STEP, SURFACE_SAMPLES)
        for every in ([one.alpha for one in spots], [one.gamma for one in spots])
    )
    heights = np.full((SURFACE_SAMPLES, SURFACE_SAMPLES), np.nan)
    if height:
        for row, gamma in enumerate(gammas):
            for column, alpha in enumerate(alphas):
                within = min(float(gamma), sqrt(COEFFICIENT_PRODUCT / alpha))
                heights[row, column] = height(
                    float(alpha), max(1.0, sqrt(COEFFICIENT_PRODUCT / alpha) / within), within
                )
    return alphas, gammas, heights


def _draw_squares(axes: Axes, spots: Sequence[CoefficientPoint], colour: Callable[[float], object]) -> None:
    from matplotlib.patches import Rectangle

    for one in spots:
        corner = (one.alpha - 0.92 * HALF_GRID_STEP, one.gamma - 0.92 * HALF_GRID_STEP)
        axes.add_patch(
            Rectangle(corner, 1.84 * HALF_GRID_STEP, 1.84 * HALF_GRID_STEP, facecolor=colour(one.accuracy), linewidth=0)
        )


def _set_limits(axes: Axes, spots: Sequence[CoefficientPoint]) -> None:
    margin = 1.5 * HALF_GRID_STEP
    axes.set_xlim(min(one.alpha for one in spots) - margin, max(one.alpha for one in spots) + margin)
    axes.set_ylim(min(one.gamma for one in spots) - margin, max(one.gamma for one in spots) + margin)


def _draw_beta_lines(axes: Axes) -> None:
    """Lines of equal β, each with its number where it leaves the map."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for beta in BETAS:
        alphas = np.linspace(max(left, 1.0), right, 200)
        gammas = np.sqrt(COEFFICIENT_PRODUCT / alphas) / beta
        inside = (gammas <= high) & (gammas >= max(low, 1.0))
        if not inside.any():
            continue
        axes.plot(alphas[inside], gammas[inside], color=INK, alpha=0.35, linewidth=0.8, linestyle=(0, (3, 3)), zorder=2)
        axes.annotate(
            f"β = {beta:g}",
            (alphas[inside][0], gammas[inside][0]),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=LABEL_FONT_SIZE,
            alpha=0.75,
        )
