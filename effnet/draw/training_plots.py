"""Plots of plain numbers, as SVG text to put into a page: a function each, drawn by matplotlib without a screen.

Lines and texts take the colour and the font of the page around them; what has a colour of its own can be read on light
and on dark. The same numbers give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Literal, TypedDict
from unicodedata import category, east_asian_width

from effnet.draw.figure import FONT_SIZE, INK, POINTS_PER_INCH, figure_to_svg, matplotlib_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#8b919c", "#3b7dd8", "#d9772b")  # grey, blue, orange


CORRECT_COLOR, WRONG_COLOR = COLORS[1:]


_MAX_LABEL_LETTERS = 18  # of a class's name beside the matrix


def plot_curves(
    lines: Mapping[str, Sequence[float]], title: str, percent: bool = False, marked: tuple[int, str] | None = None
) -> str:
    """``lines`` by their names, one value an epoch, from epoch 1: 380 × 240 units.

    ``title`` is for those who cannot see. ``marked`` is an epoch and the word to write at it.
    Values that are not finite leave a gap.
    """
    with matplotlib_figure() as figure_class:
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = figure_class(figsize=(380 / POINTS_PER_INCH, 240 / POINTS_PER_INCH), layout="constrained")
        axes = figure.subplots()
        style_axes(axes)
        colours = COLORS if len(lines) > 1 else (CORRECT_COLOR,)
        for index, (name, values) in enumerate(lines.items()):
            shown = [value if isfinite(value) else nan for value in values]
            axes.plot(
                range(1, len(shown) + 1),
                shown,
                color=colours[index % len(colours)],
                label=name,
                linewidth=2,
                marker="o" if len(shown) <= 25 else "",
                markersize=4,
                clip_on=False,
            )
        if marked:
            axes.axvline(marked[0], color=INK, alpha=0.35, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            late = marked[0] > 0.6 * max(map(len, lines.values()))
            axes.annotate(
                marked[1],
                (marked[0], 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-5 if late else 5, 0),
                textcoords="offset points",
                ha="right" if late else "left",
                alpha=0.75,
            )
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        last = max(map(len, lines.values()))
        axes.set_xlim((1, last) if last > 1 else (0.5, 1.5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
        figure.legend(
            loc="outside upper left", ncols=len(lines), frameon=False, handlelength=1.4, borderpad=0.8, borderaxespad=0
        )
        return figure_to_svg(figure, title, ("curves", title, dict(lines), percent, marked))


def plot_confusion_matrix(table: Sequence[Sequence[int]], names: Sequence[str], title: str) -> str:
    """``table[true][predicted]``, in pictures, as a matrix: blue is right, orange is wrong.

    The fuller a cell, the larger its share of its row. Long ``names`` are cut; beyond some 30 classes it cannot be
    read. ``title`` is for those who cannot see.
    """
    classes = len(names)
    cell = 36.0 if classes <= 12 else 24.0
    short = [_shorten_name(name) for name in names]
    if len(set(short)) < len(set(names)):  # they begin alike
        short = [_shorten_name(name, end=True) for name in names]
    longest = max(map(_name_width, short))
    turned = longest > cell - 4
    left = 22 + longest + (max(0.0, 0.71 * longest - 22 - longest - cell / 2) if turned else 0)
    below = 26 + (0.71 * longest + 8 if turned else FONT_SIZE + 4)
    side = cell * classes
    wide, tall = left + side + 2, below + side + 2
    with matplotlib_figure() as figure_class:
        from matplotlib.patches import Rectangle

        figure = figure_class(figsize=(wide / POINTS_PER_INCH, tall / POINTS_PER_INCH))
        axes = figure.add_axes((left / wide, below / tall, side / wide, side / tall))
        style_axes(axes)
        axes.spines["bottom"].set_visible(False)
        for row, counts in enumerate(table):
            of = max(sum(counts), 1)
            for column, count in enumerate(counts):
                colour, strength = (CORRECT_COLOR, 0.6) if row == column else (WRONG_COLOR, 0.75)
                if count:
                    # The page shines through, so that a number on it keeps its contrast on light and on dark.
                    shade, alpha = colour, 0.1 + strength * sqrt(count / of)
                else:
                    shade, alpha = INK, 0.04
                axes.add_patch(
                    Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, color=shade, alpha=alpha, linewidth=0)
                )
                if count:
                    size = min(FONT_SIZE, 1.5 * (cell - 4) / len(str(count)))
                    axes.text(column + 0.5, row + 0.53, str(count), ha="center", va="center", fontsize=size)
        middles = [index + 0.5 for index in range(classes)]
        axes.set_xticks(middles, short)
        if turned:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, short)
        axes.set_xlim(0, classes)
        axes.set_ylim(classes, 0)
        figure.text((left + side / 2) / wide, 4 / tall, "predicted", ha="center", va="bottom", alpha=0.7)
        figure.text(4 / wide, (below + side / 2) / tall, "true", ha="left", va="center", rotation=90, alpha=0.7)
        return figure_to_svg(figure, title, ("confusion", title, [list(row) for row in table], list(names)))


def _shorten_name(name: str, end: bool = False) -> str:
    """The beginning of a long name, or its end."""
    name = " ".join(name.split())
    name = "".join("?" if category(letter) in ("Cc", "Cs") else letter for letter in name)  # broken names of files
    if len(name) <= _MAX_LABEL_LETTERS:
        return name
    return "…" + name[1 - _MAX_LABEL_LETTERS :].lstrip() if end else name[: _MAX_LABEL_LETTERS - 1].rstrip() + "…"


def _name_width(name: str) -> float:
    """About the units that ``name`` takes in most fonts."""
    return sum(FONT_SIZE * (1.05 if east_asian_width(letter) in "WF" else 0.6) for letter in name)


# Plots of how far answers agree with the truth: a reliability diagram, and values predicted against true ones.
#
# As in `effnet.draw.training_plots`: SVG text in the page's colour and font; the same numbers give the same text.


class LineStyle(TypedDict):
    """How a line is drawn, in matplotlib's words."""

    color: str
    linewidth: float
    solid_capstyle: Literal["butt"]


CONFIDENCE_STYLE: LineStyle = {"color": WRONG_COLOR, "linewidth": 2.5, "solid_capstyle": "butt"}


def plot_reliability(bins: Sequence[tuple[int, float, float]], title: str) -> str:
    """The reliability diagram (arXiv:1706.04599) of equal bins: (pictures, mean confidence, share that is right) each.

    A blue bar: the share of a bin that is right; the orange line across it: how sure the predictions were on average.
    Below, how many there are. 420 × 360 units. ``title`` is for those who cannot see.
    """
    with matplotlib_figure() as figure_class:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        from matplotlib.ticker import PercentFormatter

        figure = figure_class(figsize=(420 / POINTS_PER_INCH, 360 / POINTS_PER_INCH), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        width = 1 / len(bins)
        for axes in (above, below):
            style_axes(axes)
        for place, (pictures, confidence, right) in enumerate(bins):
            if not pictures:
                continue
            middle = (place + 0.5) * width
            above.bar(middle, right, 0.86 * width, color=CORRECT_COLOR, alpha=0.55, linewidth=0)
            above.plot((middle - 0.43 * width, middle + 0.43 * width), (confidence,) * 2, **CONFIDENCE_STYLE)
            below.bar(middle, pictures, 0.86 * width, color=INK, alpha=0.3, linewidth=0)
            below.annotate(
                _short_count(pictures),
                (middle, pictures),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                alpha=0.85,
            )
        _draw_diagonal(above, 0, 1)
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
        handles = [Patch(color=CORRECT_COLOR, alpha=0.55), Line2D((), (), **CONFIDENCE_STYLE)]
        figure.legend(handles, ["right", "sure"], loc="outside upper left", ncols=2, frameon=False, handlelength=1.2)
        return figure_to_svg(figure, title, ("reliability", title, [list(one) for one in bins]))


def plot_true_vs_predicted(pairs: Sequence[tuple[float, float]], title: str) -> str:
    """(true, predicted) values, both axes alike, with the line on which they are equal: 380 × 380 units.

    ``title`` is for those who cannot see.
    """
    assert pairs
    true, predicted = zip(*pairs, strict=True)
    low, high = min(*true, *predicted), max(*true, *predicted)
    room = 0.04 * (high - low) or 1.0
    with matplotlib_figure() as figure_class:
        figure = figure_class(figsize=(380 / POINTS_PER_INCH, 380 / POINTS_PER_INCH), layout="constrained")
        axes = figure.subplots()
        style_axes(axes)
        _draw_diagonal(axes, low - room, high + room)
        axes.plot(true, predicted, "o", color=CORRECT_COLOR, alpha=0.5, markersize=4, markeredgewidth=0)
        axes.set_xlim(low - room, high + room)
        axes.set_ylim(low - room, high + room)
        axes.set_aspect("equal")
        axes.locator_params(nbins=5)
        axes.grid(color=INK, alpha=0.12, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")
        return figure_to_svg(figure, title, ("scatter", title, [list(pair) for pair in pairs]))


def _draw_diagonal(axes: Axes, low: float, high: float) -> None:
    """The line on which both are the same."""
    axes.plot((low, high), (low, high), color=INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))


def _short_count(number: int) -> str:
    """1234 as 1.2k: short enough for a narrow bar."""
    return str(number) if number < 1000 else f"{number / 1000:.2g}k" if number < 99_500 else f"{number / 1000:.0f}k"


# The loss over a rising learning rate, as SVG text.


SMOOTHED_LOSS_COLOR, LOSS_COLOR = "#3b7dd8", "#8b919c"


def plot_lr_finder(
    learning_rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], title: str, suggestion: float
) -> str:
    """``losses`` as dots and ``smooth`` as a line over ``rates``, with a line at the rate ``marked``: 480 × 280 units.

    Losses far above the others are cut off at the top.
    """
    with matplotlib_figure() as figure_class:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        figure = figure_class(figsize=(480 / POINTS_PER_INCH, 280 / POINTS_PER_INCH), layout="constrained")
        axes = figure.subplots()
        style_axes(axes)
        axes.scatter(learning_rates, losses, 9, color=LOSS_COLOR, alpha=0.6, linewidth=0)
        axes.plot(learning_rates, smoothed, color=SMOOTHED_LOSS_COLOR, linewidth=2)
        axes.axvline(suggestion, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate(
            f"{suggestion:.2g}", (suggestion, 1), xycoords=("data", "axes fraction"),
            xytext=(5, 0), textcoords="offset points", va="top",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, start = min(*losses, *smoothed), max(smoothed[0], losses[0])
        axes.set_ylim(low - 0.05 * (start - low), start + 0.6 * (start - low))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        return figure_to_svg(
            figure, title, ("rates", title, list(learning_rates), list(losses), list(smoothed), suggestion)
        )


# A training run's learning rate over its epochs, and what changes beside it, as SVG text.


LEARNING_RATE_COLOR, SETTING_COLOR = "#3b7dd8", "#d9772b"


def plot_lr_schedule(
    learning_rates: Sequence[tuple[float, float]], settings: Mapping[str, Sequence[float]], title: str
) -> str:
    """``rates``: (epochs passed, learning rate); ``changing``: by its name, one value an epoch. 640 units wide."""
    with matplotlib_figure() as figure_class:
        rows = 1 + len(settings)
        figure = figure_class(
            figsize=(640 / POINTS_PER_INCH, (150 + 90 * rows) / POINTS_PER_INCH), layout="constrained"
        )
        heights = [2.2, *(1 for _ in settings)]
        every = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        every[0].plot(*zip(*learning_rates, strict=True), color=LEARNING_RATE_COLOR, linewidth=1.6)
        every[0].set_ylabel("learning rate")
        every[0].set_ylim(bottom=0)
        for axes, (name, values) in zip(every[1:], settings.items(), strict=True):
            axes.step(range(len(values) + 1), [*values, values[-1]], where="post", color=SETTING_COLOR, linewidth=1.6)
            axes.set_ylabel(name)
        for axes in every:
            style_axes(axes)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        every[-1].set_xlabel("epoch")
        every[0].set_title(title, loc="left")
        return figure_to_svg(figure, title, ("schedule", title, learning_rates, dict(settings)))
