"""Plots of speed: who takes how long, where the time goes, and how far that is from the machine's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effnet.draw.figure import INK, UNIT, Drawing, bare, drawing, drawn

OURS, THEIRS = "#3b7dd8", "#8b919c"  # blue, grey
TIME, WORK = "#d9772b", "#8b919c"  # orange, grey
# After Okabe and Ito, whose colours those who are colour-blind can tell apart; the last ones are greys
GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5d636e", "#a3a9b3", "#c9cdd3")
ROW = 24  # units that a bar takes
WIDE = 560


@dataclass(frozen=True)
class Bar:
    """A contestant's milliseconds: the median, and what one call in ten and one in a hundred stay within."""

    name: str
    median: float
    p10: float
    p99: float
    ours: bool


def race(panels: Sequence[tuple[str, Sequence[Bar]]], title: str) -> Drawing:
    """A panel for each contest, with its heading, and a bar for each contestant, the fastest first."""
    sorted_ = [(heading, sorted(bars, key=lambda bar: bar.median)) for heading, bars in panels]
    rows = sum(len(bars) for _, bars in sorted_)
    tall = ROW * rows + 44 * len(sorted_) + 24
    with drawing() as figure_class:
        figure = figure_class(figsize=(WIDE / UNIT, tall / UNIT), layout="constrained")
        heights = [len(bars) for _, bars in sorted_]
        all_axes = figure.subplots(len(sorted_), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (heading, bars) in zip(all_axes, sorted_, strict=True):
            bare(axes)
            axes.spines["bottom"].set_visible(False)
            places = range(len(bars))
            axes.barh(places, [b.median for b in bars], 0.66, color=[OURS if b.ours else THEIRS for b in bars])
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
        return drawn(figure, title, ("race", title, panels))


def shares(rows: Sequence[tuple[str, float, float]], title: str) -> Drawing:
    """A pair of bars for each (name, share of the time, share of the MACs), both as fractions, in their order."""
    with drawing() as figure_class:
        from matplotlib.ticker import PercentFormatter

        figure = figure_class(figsize=(WIDE / UNIT, (32 * len(rows) + 70) / UNIT), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        for offset, which, colour, label in ((-0.19, 1, TIME, "of the time"), (0.19, 2, WORK, "of the MACs")):
            places = [index + offset for index in range(len(rows))]
            axes.barh(places, [row[which] for row in rows], 0.36, color=colour, label=label)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=1)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.0, borderpad=0)
        return drawn(figure, title, ("shares", title, rows))


@dataclass(frozen=True)
class Point:
    """A step: what kind it is, its MACs a byte, its GMAC/s, and its share of the time."""

    group: str
    intensity: float
    speed: float
    time: float


def roofline(points: Sequence[Point], peak: float, bandwidths: Sequence[tuple[str, float]], title: str) -> Drawing:
    """Each step under the machine's limits: ``peak`` in GMAC/s, and (name, GB/s) of its bandwidths, the widest first.

    A point's area is its share of the time. Both axes are logarithmic; steps without MACs have no place on them.
    """
    with drawing() as figure_class:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        figure = figure_class(figsize=(WIDE / UNIT, 380 / UNIT), layout="constrained")
        axes = figure.subplots()
        bare(axes)
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
        for colour, group in zip(GROUPS, dict.fromkeys(point.group for point in points), strict=False):
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
        return drawn(figure, title, ("roofline", title, points, peak, bandwidths))
