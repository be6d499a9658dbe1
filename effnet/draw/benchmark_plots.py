"""Accuracy against what networks cost: a line for a family, points for its rivals, each with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.draw.figure import (
    INK,
    POINTS_PER_INCH,
    RenderedPlot,
    add_label,
    matplotlib_figure,
    place_labels,
    render_figure,
    set_accuracy_axis,
    set_cost_axis,
    style_axes,
    style_axes_with_grid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

FAMILY_COLOR, OTHERS_COLOR = "#3b7dd8", "#d9772b"  # blue, orange


ACCURACY_WIDTH, ACCURACY_HEIGHT = 820, 430


@dataclass(frozen=True)
class AccuracyPoint:
    """A point: its cost, its accuracy as a fraction, and whether it is of the family.

    ``counted``: whether the cost was computed; where it is only quoted, the point is hollow.
    """

    name: str
    cost: float
    accuracy: float
    ours: bool
    counted: bool = True


def plot_accuracy(panels: Sequence[tuple[str, float, Sequence[AccuracyPoint]]], title: str) -> RenderedPlot:
    """A panel for each (label of the x axis, what its unit is worth, networks), side by side; costs are logarithmic.

    ``title`` is for those who cannot see. No name stands upon another, upon a point or upon the family's line.
    """
    with matplotlib_figure() as figure_class:
        figure = figure_class(
            figsize=(ACCURACY_WIDTH / POINTS_PER_INCH, ACCURACY_HEIGHT / POINTS_PER_INCH), layout="constrained"
        )
        all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        names: list[list[Annotation]] = []
        for axes, (label, unit, networks) in zip(all_axes, panels, strict=True):
            style_axes_with_grid(axes)
            set_cost_axis(axes, label)
            set_accuracy_axis(axes, "ImageNet top-1, quoted" if axes is all_axes[0] else "")
            names.append(_plot_networks(axes, unit, networks))
        handles = _legend_handles(any(not one.counted for _, _, networks in panels for one in networks))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=1.6, borderpad=0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        for axes, (_, unit, networks), found in zip(all_axes, panels, names, strict=True):
            place_labels(
                axes, found, [(one.cost / unit, one.accuracy) for one in networks], _family_line(networks, unit)
            )
        return render_figure(
            figure, title, ("accuracy", title, [(label, list(networks)) for label, _, networks in panels])
        )


def _plot_networks(axes: Axes, unit: float, networks: Sequence[AccuracyPoint]) -> list[Annotation]:
    line = _family_line(networks, unit)
    axes.plot([cost for cost, _ in line], [share for _, share in line], color=FAMILY_COLOR, linewidth=2)
    made = []
    for one in sorted(networks, key=lambda each: (not each.ours, -each.accuracy)):
        colour = FAMILY_COLOR if one.ours else OTHERS_COLOR
        face = colour if one.counted else "none"
        at = (one.cost / unit, one.accuracy)
        axes.scatter([at[0]], [at[1]], s=26, linewidth=1.3, zorder=3, facecolor=face, edgecolor=colour)
        made.append(add_label(axes, one.name, at, colour if one.ours else INK, bold=one.ours))
    axes.margins(x=0.1, y=0.08)
    return made


def _family_line(networks: Sequence[AccuracyPoint], unit: float) -> list[tuple[float, float]]:
    """The corners of the family's line."""
    return sorted((one.cost / unit, one.accuracy) for one in networks if one.ours)


def _legend_handles(hollow: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    ours = Line2D((), (), color=FAMILY_COLOR, linewidth=2, marker="o", markersize=5, label="EfficientNet")
    theirs = Line2D(
        (), (), color=OTHERS_COLOR, linewidth=0, marker="o", markersize=5, label="the networks it was compared with"
    )
    only = Line2D(
        (), (), color=OTHERS_COLOR, linewidth=0, marker="o", markersize=5, fillstyle="none", label="cost quoted only"
    )
    return [ours, theirs, *([only] if hollow else [])]


# Plots of speed: who takes how long, where the time goes, and how far that is from the machine's limits.


OUR_BAR_COLOR, OTHER_BAR_COLOR = "#3b7dd8", "#8b919c"  # blue, grey


TIME_COLOR, MACS_COLOR = "#d9772b", "#8b919c"  # orange, grey


# After Okabe and Ito, whose colours those who are colour-blind can tell apart; the last ones are greys
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5d636e", "#a3a9b3", "#c9cdd3")


BAR_HEIGHT = 24  # units that a bar takes


SPEED_WIDTH = 560


@dataclass(frozen=True)
class LatencyBar:
    """A contestant's milliseconds: the median, and what one call in ten and one in a hundred stay within."""

    name: str
    median: float
    p10: float
    p99: float
    ours: bool


def plot_latency(panels: Sequence[tuple[str, Sequence[LatencyBar]]], title: str) -> RenderedPlot:
    """A panel for each contest, with its heading, and a bar for each contestant, the fastest first."""
    sorted_ = [(heading, sorted(bars, key=lambda bar: bar.median)) for heading, bars in panels]
    rows = sum(len(bars) for _, bars in sorted_)
    tall = BAR_HEIGHT * rows + 44 * len(sorted_) + 24
    with matplotlib_figure() as figure_class:
        figure = figure_class(figsize=(SPEED_WIDTH / POINTS_PER_INCH, tall / POINTS_PER_INCH), layout="constrained")
        heights = [len(bars) for _, bars in sorted_]
        all_axes = figure.subplots(len(sorted_), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (heading, bars) in zip(all_axes, sorted_, strict=True):
            style_axes(axes)
            axes.spines["bottom"].set_visible(False)
            places = range(len(bars))
            axes.barh(
                places,
                [b.median for b in bars],
                0.66,
                color=[OUR_BAR_COLOR if b.ours else OTHER_BAR_COLOR for b in bars],
            )
            furthest = max(bar.median for bar in bars)
            for place, bar in zip(places, bars, strict=True):
                slow = min(bar.p99, 1.25 * furthest)  # a call that was interrupted would flatten all others
                axes.plot((bar.p10, slow), (place, place), color=INK, alpha=0.45, linewidth=1, solid_capstyle="butt")
                end = max(slow, bar.median)
                axes.annotate(
                    f"{bar.median:.3g} ms", (end, place), xytext=(5, 0), textcoords="offset points", va="center"
                )
            axes.set_yticks(list(places), [bar.name for bar in bars])
            axes.set_ylim(len(bars) - 0.55, -0.45)
            axes.set_xlim(0, 1.5 * furthest)
            axes.set_xticks([])
            axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", color=INK)
        figure.supxlabel("median; the line goes from p10 to p99", fontsize=10, alpha=0.75)
        return render_figure(figure, title, ("race", title, panels))


def plot_time_shares(rows: Sequence[tuple[str, float, float]], title: str) -> RenderedPlot:
    """A pair of bars for each (name, share of the time, share of the MACs), both as fractions, in their order."""
    with matplotlib_figure() as figure_class:
        from matplotlib.ticker import PercentFormatter

        figure = figure_class(
            figsize=(SPEED_WIDTH / POINTS_PER_INCH, (32 * len(rows) + 70) / POINTS_PER_INCH), layout="constrained"
        )
        axes = figure.subplots()
        style_axes(axes)
        for offset, which, colour, label in (
            (-0.19, 1, TIME_COLOR, "of the time"),
            (0.19, 2, MACS_COLOR, "of the MACs"),
        ):
            places = [index + offset for index in range(len(rows))]
            axes.barh(places, [row[which] for row in rows], 0.36, color=colour, label=label)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=1)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.0, borderpad=0)
        return render_figure(figure, title, ("shares", title, rows))


@dataclass(frozen=True)
class RooflinePoint:
    """A step: what kind it is, its MACs a byte, its GMAC/s, and its share of the time."""

    group: str
    intensity: float
    speed: float
    time: float


def plot_roofline(
    points: Sequence[RooflinePoint], peak: float, bandwidths: Sequence[tuple[str, float]], title: str
) -> RenderedPlot:
    """Each step under the machine's limits: ``peak`` in GMAC/s, and (name, GB/s) of its bandwidths, the widest first.

    A point's area is its share of the time. Both axes are logarithmic; steps without MACs have no place on them.
    """
    with matplotlib_figure() as figure_class:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        figure = figure_class(figsize=(SPEED_WIDTH / POINTS_PER_INCH, 380 / POINTS_PER_INCH), layout="constrained")
        axes = figure.subplots()
        style_axes(axes)
        axes.spines["left"].set_visible(True)
        axes.spines["left"].set(color=INK, alpha=0.35)
        left = min((point.intensity for point in points), default=0.1) / 1.8
        right = max([*(point.intensity for point in points), *(2 * peak / width for _, width in bandwidths)]) * 1.8
        low = min((point.speed for point in points), default=1.0) / 2
        for index, (name, width) in enumerate(bandwidths):
            ridge = peak / width
            begin = max(left, low / width)
            style = "-" if index == 0 else (0, (4, 3))
            end = right if index == 0 else ridge
            axes.plot(
                (begin, ridge, end),
                (begin * width, peak, peak),
                color=INK,
                alpha=0.55,
                linewidth=1.3,
                linestyle=style,
                label=f"{width:.0f} GB/s {name}",
            )
        axes.annotate(
            f"{peak:.0f} GMAC/s", (right, peak), xytext=(0, 4), textcoords="offset points",
            ha="right", va="bottom", fontsize=9, alpha=0.8,
        )  # fmt: skip
        for colour, group in zip(GROUP_COLORS, dict.fromkeys(point.group for point in points), strict=False):
            of = [point for point in points if point.group == group]
            axes.scatter(
                [point.intensity for point in of],
                [point.speed for point in of],
                [12 + 1600 * point.time for point in of],
                color=colour,
                alpha=0.7,
                linewidth=0,
            )
            axes.plot([], [], "o", color=colour, label=group)  # for the legend, where all dots are of one size
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(left, right)
        axes.set_ylim(low, 1.6 * max([1.4 * peak, *(point.speed for point in points)]))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
        axes.grid(color=INK, alpha=0.1, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel("MACs a byte")
        axes.set_ylabel("GMAC/s")
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=4,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.2,
            borderpad=0,
            fontsize=10,
        )
        return render_figure(figure, title, ("roofline", title, points, peak, bandwidths))
