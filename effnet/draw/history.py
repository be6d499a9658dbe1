"""The history of a search: what came of each candidate, one after the other, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf, isfinite, nan

from effnet.draw.figure import UNIT, Drawing, drawing, drawn
from effnet.draw.plane import accuracy_upwards, ruled
from effnet.draw.plots import COLOURS, RIGHT

WIDE, TALL = 560, 300


def history(values: Sequence[float], label: str, title: str, percent: bool = True) -> Drawing:
    """A dot for each of ``values`` in the order in which they were found, and a line that is the largest so far.

    ``label`` names the y axis; ``percent``: whether values are fractions. One that is not finite leaves a gap.
    ``title`` is for those who cannot see.
    """
    order = range(1, len(values) + 1)
    best = [value if isfinite(value) else nan for value in accumulate(map(_counting, values), max)]
    with drawing() as figure_class:
        from matplotlib.ticker import MaxNLocator

        figure = figure_class(figsize=(WIDE / UNIT, TALL / UNIT), layout="constrained")
        axes = figure.subplots()
        ruled(axes)
        axes.scatter(
            order,
            [value if isfinite(value) else nan for value in values],
            s=16,
            color=COLOURS[0],
            alpha=0.8,
            linewidth=0,
            label="a candidate",
            clip_on=False,
            zorder=2,
        )
        axes.plot(order, best, color=RIGHT, linewidth=2, drawstyle="steps-post", label="the best so far", zorder=3)
        axes.set_xlabel("candidates, as they were done")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlim((1, len(values)) if len(values) > 1 else (0.5, 1.5))
        axes.grid(axis="x", visible=False)
        accuracy_upwards(axes, label)
        if not percent:
            from matplotlib.ticker import ScalarFormatter

            axes.yaxis.set_major_formatter(ScalarFormatter())
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.4, borderpad=0)
        return drawn(figure, title, ("history", title, label, list(values), percent))


def _counting(value: float) -> float:
    return value if isfinite(value) else -inf
