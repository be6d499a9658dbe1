"""Plots of plain numbers, as SVG text to put into a page: a function each, drawn by matplotlib without a screen.

Lines and texts take the colour and the font of the page around them; what has a colour of its own can be read on light
and on dark. The same numbers give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan, sqrt
from unicodedata import category, east_asian_width

from effnet.draw.figure import FONT, INK, UNIT, as_svg, bare, drawing

COLOURS = ("#8b919c", "#3b7dd8", "#d9772b")  # grey, blue, orange
RIGHT, WRONG = COLOURS[1:]
_LETTERS_MOST = 18  # of a class's name beside the matrix


def curves(
    lines: Mapping[str, Sequence[float]], title: str, percent: bool = False, marked: tuple[int, str] | None = None
) -> str:
    """``lines`` by their names, one value an epoch, from epoch 1: 380 × 240 units.

    ``title`` is for those who cannot see. ``marked`` is an epoch and the word to write at it.
    Values that are not finite leave a gap.
    """
    with drawing() as figure_class:
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = figure_class(figsize=(380 / UNIT, 240 / UNIT), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        colours = COLOURS if len(lines) > 1 else (RIGHT,)
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
        return as_svg(figure, title, ("curves", title, dict(lines), percent, marked))


def confusion(table: Sequence[Sequence[int]], names: Sequence[str], title: str) -> str:
    """``table[true][predicted]``, in pictures, as a matrix: blue is right, orange is wrong.

    The fuller a cell, the larger its share of its row. Long ``names`` are cut; beyond some 30 classes it cannot be
    read. ``title`` is for those who cannot see.
    """
    classes = len(names)
    cell = 36.0 if classes <= 12 else 24.0
    short = [_cut(name) for name in names]
    if len(set(short)) < len(set(names)):  # they begin alike
        short = [_cut(name, end=True) for name in names]
    longest = max(map(_length, short))
    turned = longest > cell - 4
    left = 22 + longest + (max(0.0, 0.71 * longest - 22 - longest - cell / 2) if turned else 0)
    below = 26 + (0.71 * longest + 8 if turned else FONT + 4)
    side = cell * classes
    wide, tall = left + side + 2, below + side + 2
    with drawing() as figure_class:
        from matplotlib.patches import Rectangle

        figure = figure_class(figsize=(wide / UNIT, tall / UNIT))
        axes = figure.add_axes((left / wide, below / tall, side / wide, side / tall))
        bare(axes)
        axes.spines["bottom"].set_visible(False)
        for row, counts in enumerate(table):
            of = max(sum(counts), 1)
            for column, count in enumerate(counts):
                colour, strength = (RIGHT, 0.6) if row == column else (WRONG, 0.75)
                if count:
                    # The page shines through, so that a number on it keeps its contrast on light and on dark.
                    shade, alpha = colour, 0.1 + strength * sqrt(count / of)
                else:
                    shade, alpha = INK, 0.04
                axes.add_patch(
                    Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, color=shade, alpha=alpha, linewidth=0)
                )
                if count:
                    size = min(FONT, 1.5 * (cell - 4) / len(str(count)))
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
        return as_svg(figure, title, ("confusion", title, [list(row) for row in table], list(names)))


def _cut(name: str, end: bool = False) -> str:
    """The beginning of a long name, or its end."""
    name = " ".join(name.split())
    name = "".join("?" if category(letter) in ("Cc", "Cs") else letter for letter in name)  # broken names of files
    if len(name) <= _LETTERS_MOST:
        return name
    return "…" + name[1 - _LETTERS_MOST :].lstrip() if end else name[: _LETTERS_MOST - 1].rstrip() + "…"


def _length(name: str) -> float:
    """About the units that ``name`` takes in most fonts."""
    return sum(FONT * (1.05 if east_asian_width(letter) in "WF" else 0.6) for letter in name)
