"""Accuracy against what networks cost: a line for a family, points for its rivals, each with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.draw.figure import INK, UNIT, Drawing, drawing, drawn
from effnet.draw.naming import named, placed
from effnet.draw.plane import accuracy_upwards, cost_across, ruled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

OURS, THEIRS = "#3b7dd8", "#d9772b"  # blue, orange
WIDE, TALL = 820, 430


@dataclass(frozen=True)
class Network:
    """A point: its cost, its accuracy as a fraction, and whether it is of the family.

    ``counted``: whether the cost was computed; where it is only quoted, the point is hollow.
    """

    name: str
    cost: float
    accuracy: float
    ours: bool
    counted: bool = True


def accuracy(panels: Sequence[tuple[str, float, Sequence[Network]]], title: str) -> Drawing:
    """A panel for each (label of the x axis, what its unit is worth, networks), side by side; costs are logarithmic.

    ``title`` is for those who cannot see. No name stands upon another, upon a point or upon the family's line.
    """
    with drawing() as figure_class:
        figure = figure_class(figsize=(WIDE / UNIT, TALL / UNIT), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        names: list[list[Annotation]] = []
        for axes, (label, unit, networks) in zip(all_axes, panels, strict=True):
            ruled(axes)
            cost_across(axes, label)
            accuracy_upwards(axes, "ImageNet top-1, quoted" if axes is all_axes[0] else "")
            names.append(_points(axes, unit, networks))
        handles = _handles(any(not one.counted for _, _, networks in panels for one in networks))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=1.6, borderpad=0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        for axes, (_, unit, networks), found in zip(all_axes, panels, names, strict=True):
            placed(axes, found, [(one.cost / unit, one.accuracy) for one in networks], _family(networks, unit))
        return drawn(figure, title, ("accuracy", title, [(label, list(networks)) for label, _, networks in panels]))


def _points(axes: Axes, unit: float, networks: Sequence[Network]) -> list[Annotation]:
    line = _family(networks, unit)
    axes.plot([cost for cost, _ in line], [share for _, share in line], color=OURS, linewidth=2)
    made = []
    for one in sorted(networks, key=lambda each: (not each.ours, -each.accuracy)):
        colour = OURS if one.ours else THEIRS
        face = colour if one.counted else "none"
        at = (one.cost / unit, one.accuracy)
        axes.scatter([at[0]], [at[1]], s=26, linewidth=1.3, zorder=3, facecolor=face, edgecolor=colour)
        made.append(named(axes, one.name, at, colour if one.ours else INK, bold=one.ours))
    axes.margins(x=0.1, y=0.08)
    return made


def _family(networks: Sequence[Network], unit: float) -> list[tuple[float, float]]:
    """The corners of the family's line."""
    return sorted((one.cost / unit, one.accuracy) for one in networks if one.ours)


def _handles(hollow: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    ours = Line2D((), (), color=OURS, linewidth=2, marker="o", markersize=5, label="EfficientNet")
    theirs = Line2D(
        (), (), color=THEIRS, linewidth=0, marker="o", markersize=5, label="the networks it was compared with"
    )
    only = Line2D(
        (), (), color=THEIRS, linewidth=0, marker="o", markersize=5, fillstyle="none", label="cost quoted only"
    )
    return [ours, theirs, *([only] if hollow else [])]
