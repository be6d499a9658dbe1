"""Accuracy against cost of networks that grow, each trained several times: a line a way of growing, error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effnet.draw.figure import INK, UNIT, Drawing, drawing, drawn
from effnet.draw.plane import accuracy_upwards, cost_across, ruled

WIDE, TALL = 560, 380
# The first way is drawn strongest; a colour and a mark each: blue, orange, green, purple
STYLES = (("#3b7dd8", "o"), ("#d9772b", "s"), ("#2f9e63", "^"), ("#a06cd5", "D"))
APART = 0.012  # of the x axis between the marks of two ways, so that bars at one cost do not hide each other


@dataclass(frozen=True)
class Mark:
    """One network: its cost, and the mean and the spread of its accuracies, as fractions."""

    cost: float
    mean: float
    spread: float


@dataclass(frozen=True)
class Way:
    """One way of growing, from the smallest network to the largest; the first may be common to all ways."""

    name: str
    marks: tuple[Mark, ...]


def growth(ways: Sequence[Way], cost: str, accuracy: str, title: str) -> Drawing:
    """A line for each of at most four ``ways``; ``cost`` and ``accuracy`` are the labels of the axes.

    Bars go a spread up and down. Marks of different ways are drawn a little to the side of each other.
    ``title`` is for those who cannot see.
    """
    common = {one for way in ways for one in way.marks if all(one in other.marks for other in ways)}
    with drawing() as figure_class:
        figure = figure_class(figsize=(WIDE / UNIT, TALL / UNIT), layout="constrained")
        axes = figure.subplots()
        ruled(axes)
        cost_across(axes, cost)
        accuracy_upwards(axes, accuracy)
        costs = [one.cost for way in ways for one in way.marks]
        apart = (max(costs) / min(costs)) ** APART
        for index, (way, (colour, shape)) in enumerate(zip(ways, STYLES, strict=False)):
            aside = apart ** (index - (len(ways) - 1) / 2)
            at = [one.cost * (1 if one in common else aside) for one in way.marks]
            means = [one.mean for one in way.marks]
            axes.plot(at, means, color=colour, linewidth=1.4 if index else 2.4, zorder=3 - index / 10)
            own = [place for place, one in enumerate(way.marks) if one not in common]
            axes.errorbar(
                [at[place] for place in own],
                [means[place] for place in own],
                [way.marks[place].spread for place in own],
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
            loc="outside upper left", ncols=len(ways), frameon=False, handlelength=1.6, borderpad=0, columnspacing=1.4
        )
        return drawn(figure, title, ("growth", title, cost, accuracy, list(ways)))
