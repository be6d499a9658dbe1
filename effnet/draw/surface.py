"""The coefficients that a search tried, as a map: α across, γ upwards, β by what is left of the doubling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from effnet.draw.figure import FONT, INK, UNIT, Drawing, drawing, drawn
from effnet.draw.naming import SMALL, named, placed
from effnet.draw.plane import percents
from effnet.draw.plots import RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, TALL = 600, 420
TOTAL = 2.0  # α·β²·γ², by which β follows from α and γ
FINE = 161  # samples of the surface a side
LEVELS = 9
CELL = 0.025  # half a step of the paper's grid
SHADES = (0.06, 0.78)  # of blue, for the lowest and the highest; the page shines through, so that ink reads on both
BETAS = (1.0, 1.1, 1.2, 1.3)


@dataclass(frozen=True)
class Spot:
    """A point of the grid, and its accuracy as a fraction. ``name``: where it shall have one, as "the best"."""

    alpha: float
    gamma: float
    accuracy: float
    name: str = ""


def surface(
    spots: Sequence[Spot],
    title: str,
    height: Callable[[float, float, float], float] | None = None,
    accuracy: str = "top-1",
) -> Drawing:
    """The grid's points as squares, the bluer the better; with ``height`` of (α, β, γ) the surface behind small points.

    Thin lines are of equal β, at α·β²·γ² = 2. Of two points of the same α and γ the more accurate one is shown.
    ``accuracy`` names the scale; ``title`` is for those who cannot see.
    """
    shown = {(one.alpha, one.gamma): one for one in sorted(spots, key=lambda one: (bool(one.name), one.accuracy))}
    with drawing() as figure_class:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
        from matplotlib.patches import Polygon

        figure = figure_class(figsize=(WIDE / UNIT, TALL / UNIT), layout="constrained")
        axes = figure.subplots()
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.set(xlabel="α: depth", ylabel="γ: resolution")
        blues = LinearSegmentedColormap.from_list("blues", [(*to_rgb(RIGHT), alpha) for alpha in SHADES])
        alphas, gammas, heights = _sampled(spots, height)
        seen = [one.accuracy for one in shown.values()] if height is None else heights.ravel().tolist()
        low, high = min(seen), max(seen)
        of = Normalize(low, high if high > low else low + 1e-3)
        if height is None:
            _squares(axes, list(shown.values()), lambda value: blues(of(value)))
        else:
            levels = np.linspace(of.vmin or 0.0, of.vmax or 1.0, LEVELS + 1)
            map_ = axes.contourf(alphas, gammas, heights, levels, cmap=blues, norm=of, antialiased=False)
            curve = [(float(alpha), sqrt(TOTAL / alpha)) for alpha in alphas]  # where β is 1
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
        _frame(axes, spots)
        _betas(axes)

        bar = figure.colorbar(ScalarMappable(of, blues), ax=axes, pad=0.03, aspect=30, drawedges=False)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, pad=5)
        bar.ax.yaxis.set_major_formatter(percents())
        bar.set_label(accuracy if height is None else f"{accuracy}, fitted", color=INK)
        marked = [one for one in shown.values() if one.name]
        for one in marked:
            axes.scatter([one.alpha], [one.gamma], 62, marker="*", color=WRONG, linewidth=0, zorder=5)
        notes = [named(axes, one.name, (one.alpha, one.gamma), bold=True, size=FONT - 1) for one in marked]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        placed(axes, notes, [(one.alpha, one.gamma) for one in marked])
        sampled = [round(float(each), 9) for each in heights.flat] if height else []
        return drawn(figure, title, ("surface", title, accuracy, list(spots), sampled))


def _sampled(spots: Sequence[Spot], height: Callable[[float, float, float], float] | None) -> tuple[np.ndarray, ...]:
    """α (columns), γ (rows), and the height at each; beyond the curve of β = 1, which is cut off, as it is there."""
    alphas, gammas = (
        np.linspace(min(every), max(every) + CELL, FINE)
        for every in ([one.alpha for one in spots], [one.gamma for one in spots])
    )
    heights = np.full((FINE, FINE), np.nan)
    if height:
        for row, gamma in enumerate(gammas):
            for column, alpha in enumerate(alphas):
                within = min(float(gamma), sqrt(TOTAL / alpha))
                heights[row, column] = height(float(alpha), max(1.0, sqrt(TOTAL / alpha) / within), within)
    return alphas, gammas, heights


def _squares(axes: Axes, spots: Sequence[Spot], colour: Callable[[float], object]) -> None:
    from matplotlib.patches import Rectangle

    for one in spots:
        corner = (one.alpha - 0.92 * CELL, one.gamma - 0.92 * CELL)
        axes.add_patch(Rectangle(corner, 1.84 * CELL, 1.84 * CELL, facecolor=colour(one.accuracy), linewidth=0))


def _frame(axes: Axes, spots: Sequence[Spot]) -> None:
    margin = 1.5 * CELL
    axes.set_xlim(min(one.alpha for one in spots) - margin, max(one.alpha for one in spots) + margin)
    axes.set_ylim(min(one.gamma for one in spots) - margin, max(one.gamma for one in spots) + margin)


def _betas(axes: Axes) -> None:
    """Lines of equal β, each with its number where it leaves the map."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for beta in BETAS:
        alphas = np.linspace(max(left, 1.0), right, 200)
        gammas = np.sqrt(TOTAL / alphas) / beta
        inside = (gammas <= high) & (gammas >= max(low, 1.0))
        if not inside.any():
            continue
        axes.plot(alphas[inside], gammas[inside], color=INK, alpha=0.35, linewidth=0.8, linestyle=(0, (3, 3)), zorder=2)
        axes.annotate(
            f"β = {beta:g}",
            (alphas[inside][0], gammas[inside][0]),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=SMALL,
            alpha=0.75,
        )
