"""Plots of comparisons and benchmarks: accuracy against cost, latency bars, shares of time, roofline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.draw import plotting
from effnet.draw.plotting import BLUE, GREY, INK, ORANGE, RenderedPlot, new_figure, render_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

BAR_HEIGHT = 24
PLOT_WIDTH = 560
# After Okabe and Ito, distinguishable by color-blind people; the last ones are grays
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5d636e", "#a3a9b3", "#c9cdd3")


@dataclass(frozen=True)
class AccuracyPoint:
    """A network: its cost, its accuracy as a fraction, and whether it belongs to the family."""

    name: str
    cost: float
    accuracy: float
    ours: bool


def plot_accuracy(panels: Sequence[tuple[str, float, Sequence[AccuracyPoint]]], title: str) -> RenderedPlot:
    """Plot accuracy against (logarithmic) cost. ``panels``, left to right: label of the x axis, its unit, networks."""
    with new_figure(820, 430) as figure:
        from matplotlib.lines import Line2D

        all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        panel_labels: list[list[Annotation]] = []
        for axes, (label, unit, networks) in zip(all_axes, panels, strict=True):
            plotting.set_cost_accuracy_axes(axes, label, "ImageNet top-1, quoted" if axes is all_axes[0] else "")
            panel_labels.append(_plot_networks(axes, unit, networks))
        handles = [
            Line2D((), (), color=color, linewidth=width, marker="o", markersize=5, label=name)
            for name, color, width in (("EfficientNet", BLUE, 2), ("other networks", ORANGE, 0))
        ]
        plotting.add_legend(figure, 3, 1.6, handles=handles)
        for axes, (_, unit, networks), labels in zip(all_axes, panels, panel_labels, strict=True):
            points = [(point.cost / unit, point.accuracy) for point in networks]
            plotting.place_labels(axes, labels, points, _family_line(networks, unit))
        numbers = ("accuracy", title, [(label, list(networks)) for label, _, networks in panels])
        return render_figure(figure, title, numbers)


def _plot_networks(axes: "Axes", unit: float, networks: Sequence[AccuracyPoint]) -> list["Annotation"]:
    line = _family_line(networks, unit)
    axes.plot([cost for cost, _ in line], [accuracy for _, accuracy in line], color=BLUE, linewidth=2)
    labels = []
    for network in sorted(networks, key=lambda network: (not network.ours, -network.accuracy)):
        color = BLUE if network.ours else ORANGE
        x, y = network.cost / unit, network.accuracy
        axes.scatter([x], [y], s=26, linewidth=1.3, zorder=3, facecolor=color, edgecolor=color)
        labels.append(plotting.add_label(axes, network.name, (x, y), color if network.ours else INK, bold=network.ours))
    axes.margins(x=0.1, y=0.08)
    return labels


def _family_line(networks: Sequence[AccuracyPoint], unit: float) -> list[tuple[float, float]]:
    return sorted((network.cost / unit, network.accuracy) for network in networks if network.ours)


@dataclass(frozen=True)
class LatencyBar:
    """Milliseconds per call: median, 10th and 99th percentile."""

    name: str
    median: float
    p10: float
    p99: float
    ours: bool


def plot_latency(panels: Sequence[tuple[str, Sequence[LatencyBar]]], title: str) -> RenderedPlot:
    """Plot a panel with a heading for each comparison, and in it a bar for each entry, the fastest first."""
    sorted_panels = [(heading, sorted(bars, key=lambda bar: bar.median)) for heading, bars in panels]
    rows = [len(bars) for _, bars in sorted_panels]
    with new_figure(PLOT_WIDTH, BAR_HEIGHT * sum(rows) + 44 * len(rows) + 24) as figure:
        all_axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
        for axes, (heading, bars) in zip(all_axes, sorted_panels, strict=True):
            style_axes(axes)
            axes.spines["bottom"].set_visible(False)
            positions = range(len(bars))
            axes.barh(positions, [bar.median for bar in bars], 0.66, color=[BLUE if bar.ours else GREY for bar in bars])
            longest = max(bar.median for bar in bars)
            for y, bar in zip(positions, bars, strict=True):
                slow = min(bar.p99, 1.25 * longest)  # an interrupted call would compress all others
                axes.plot((bar.p10, slow), (y, y), color=INK, alpha=0.45, linewidth=1, solid_capstyle="butt")
                plotting.annotate(axes, f"{bar.median:.3g} ms", (max(slow, bar.median), y), (5, 0), va="center")
            axes.set_yticks(list(positions), [bar.name for bar in bars])
            axes.set(xlim=(0, 1.5 * longest), xticks=[], ylim=(len(bars) - 0.55, -0.45))
            axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", color=INK)
        figure.supxlabel("median; lines from p10 to p99", fontsize=10, alpha=0.75)
        return render_figure(figure, title, ("latency", title, panels))


def plot_time_shares(rows: Sequence[tuple[str, float, float]], title: str) -> RenderedPlot:
    """Plot a pair of bars for each (name, share of the time, share of the MACs), as fractions, in the given order."""
    with new_figure(PLOT_WIDTH, 32 * len(rows) + 70) as figure:
        from matplotlib.ticker import PercentFormatter

        axes = figure.subplots()
        style_axes(axes, grid="x")
        for offset, column, color, label in ((-0.19, 1, ORANGE, "share of time"), (0.19, 2, GREY, "share of MACs")):
            positions = [index + offset for index in range(len(rows))]
            axes.barh(positions, [row[column] for row in rows], 0.36, color=color, label=label)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        plotting.add_legend(figure, 2, 1.0)
        return render_figure(figure, title, ("shares", title, rows))


@dataclass(frozen=True)
class RooflinePoint:
    """A step of a network: its kind, its MACs per byte, its GMAC/s, and its share of the time."""

    group: str
    intensity: float
    speed: float
    time: float


def plot_roofline(
    points: Sequence[RooflinePoint], peak: float, bandwidths: Sequence[tuple[str, float]], title: str
) -> RenderedPlot:
    """Plot steps under the machine's limits: ``peak`` in GMAC/s, and ``bandwidths`` (name, GB/s), the largest first."""
    with new_figure(PLOT_WIDTH, 380) as figure:
        axes = figure.subplots()
        style_axes(axes, grid="both", alpha=0.1)
        axes.spines["left"].set_visible(True)
        left = min((point.intensity for point in points), default=0.1) / 1.8
        right = max([*(point.intensity for point in points), *(2 * peak / width for _, width in bandwidths)]) * 1.8
        low = min((point.speed for point in points), default=1.0) / 2
        for index, (name, width) in enumerate(bandwidths):
            ridge, begin = peak / width, max(left, low / width)
            x, y = (begin, ridge, ridge if index else right), (begin * width, peak, peak)
            style, label = (0, (4, 3)) if index else "-", f"{width:.0f} GB/s {name}"
            axes.plot(x, y, color=INK, alpha=0.55, linewidth=1.3, linestyle=style, label=label)
        name = f"{peak:.0f} GMAC/s"
        plotting.annotate(axes, name, (right, peak), (0, 4), ha="right", va="bottom", fontsize=9, alpha=0.8)
        for color, group in zip(GROUP_COLORS, dict.fromkeys(point.group for point in points), strict=False):
            members = [point for point in points if point.group == group]
            dots = [(point.intensity, point.speed, 12 + 1600 * point.time) for point in members]
            axes.scatter(*zip(*dots, strict=True), color=color, alpha=0.7, linewidth=0)
            axes.plot([], [], "o", color=color, label=group)  # for the legend, where all dots have one size
        high = 1.6 * max([1.4 * peak, *(point.speed for point in points)])
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
        axes.set(xlabel="MACs per byte", ylabel="GMAC/s")
        plotting.set_plain_ticks(axes, "x", "y")
        plotting.add_legend(figure, 4, columnspacing=1.2, fontsize=10)
        return render_figure(figure, title, ("roofline", title, points, peak, bandwidths))
