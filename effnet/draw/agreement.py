"""Plots of how far answers agree with the truth: a reliability diagram, and values predicted against true ones.

As in `effnet.draw.plots`: SVG text in the page's colour and font; the same numbers give the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from effnet.draw.figure import INK, UNIT, as_svg, bare, drawing
from effnet.draw.plots import RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LineStyle(TypedDict):
    """How a line is drawn, in matplotlib's words."""

    color: str
    linewidth: float
    solid_capstyle: Literal["butt"]


SURE: LineStyle = {"color": WRONG, "linewidth": 2.5, "solid_capstyle": "butt"}


def reliability(bins: Sequence[tuple[int, float, float]], title: str) -> str:
    """The reliability diagram (arXiv:1706.04599) of equal bins: (pictures, mean confidence, share that is right) each.

    A blue bar: the share of a bin that is right; the orange line across it: how sure the predictions were on average.
    Below, how many there are. 420 × 360 units. ``title`` is for those who cannot see.
    """
    with drawing() as figure_class:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        from matplotlib.ticker import PercentFormatter

        figure = figure_class(figsize=(420 / UNIT, 360 / UNIT), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        width = 1 / len(bins)
        for axes in (above, below):
            bare(axes)
        for place, (pictures, confidence, right) in enumerate(bins):
            if not pictures:
                continue
            middle = (place + 0.5) * width
            above.bar(middle, right, 0.86 * width, color=RIGHT, alpha=0.55, linewidth=0)
            above.plot((middle - 0.43 * width, middle + 0.43 * width), (confidence,) * 2, **SURE)
            below.bar(middle, pictures, 0.86 * width, color=INK, alpha=0.3, linewidth=0)
            below.annotate(
                _count(pictures),
                (middle, pictures),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                alpha=0.85,
            )
        _diagonal(above, 0, 1)
        above.set_ylim(0, 1)
        above.set_ylabel("right")
        above.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        above.set_axisbelow(True)
        above.yaxis.set_major_formatter(PercentFormatter(1.0))
        below.set_xlim(0, 1)
        below.set_ylim(0, 1.25 * max(1, *(pictures for pictures, _, _ in bins)))
        below.set_yticks([])
        below.set_ylabel("how many")
        below.set_xlabel("sure")
        below.xaxis.set_major_formatter(PercentFormatter(1.0))
        handles = [Patch(color=RIGHT, alpha=0.55), Line2D((), (), **SURE)]
        figure.legend(handles, ["right", "sure"], loc="outside upper left", ncols=2, frameon=False, handlelength=1.2)
        return as_svg(figure, title, ("reliability", title, [list(one) for one in bins]))


def scatter(pairs: Sequence[tuple[float, float]], title: str) -> str:
    """(true, predicted) values, both axes alike, with the line on which they are equal: 380 × 380 units.

    ``title`` is for those who cannot see.
    """
    assert pairs
    true, predicted = zip(*pairs, strict=True)
    low, high = min(*true, *predicted), max(*true, *predicted)
    room = 0.04 * (high - low) or 1.0
    with drawing() as figure_class:
        figure = figure_class(figsize=(380 / UNIT, 380 / UNIT), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        _diagonal(axes, low - room, high + room)
        axes.plot(true, predicted, "o", color=RIGHT, alpha=0.5, markersize=4, markeredgewidth=0)
        axes.set_xlim(low - room, high + room)
        axes.set_ylim(low - room, high + room)
        axes.set_aspect("equal")
        axes.locator_params(nbins=5)
        axes.grid(color=INK, alpha=0.12, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")
        return as_svg(figure, title, ("scatter", title, [list(pair) for pair in pairs]))


def _diagonal(axes: Axes, low: float, high: float) -> None:
    """The line on which both are the same."""
    axes.plot((low, high), (low, high), color=INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))


def _count(number: int) -> str:
    """1234 as 1.2k: short enough for a narrow bar."""
    return str(number) if number < 1000 else f"{number / 1000:.2g}k" if number < 99_500 else f"{number / 1000:.0f}k"
