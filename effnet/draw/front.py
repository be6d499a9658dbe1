"""What a search found: the accuracy of every candidate against its cost, and the front that none of them beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from effnet.draw.figure import INK, UNIT, Drawing, drawing, drawn
from effnet.draw.naming import named, placed
from effnet.draw.plane import accuracy_upwards, cost_across, ruled

if TYPE_CHECKING:
    from matplotlib.text import Annotation

Kind = Literal["candidate", "random", "answer", "base"]

WIDE, TALL = 560, 380
# colour, area in square points, mark, words of the legend
STYLES: dict[Kind, tuple[str, float, str, str]] = {
    "candidate": ("#8b919c", 14, "o", "a candidate"),
    "random": ("#2f9e63", 18, "x", "drawn at random"),
    "base": (INK, 40, "s", "the base"),
    "answer": ("#d9772b", 80, "*", "the answer"),
}


FRONT = ("#3b7dd8", 24, "o", "the front")
ORDER = (STYLES["candidate"], STYLES["random"], FRONT, STYLES["base"], STYLES["answer"])  # the last on top


@dataclass(frozen=True)
class Candidate:
    """A network: its cost, its accuracy as a fraction, what it is in the search, and the name to write beside it.

    Whatever it is, it may be ``on_front``: no other is as cheap and as accurate.
    """

    cost: float
    accuracy: float
    kind: Kind = "candidate"
    name: str = ""
    on_front: bool = False

    @property
    def style(self) -> tuple[str, float, str, str]:
        """How its point is drawn."""
        return FRONT if self.on_front and self.kind == "candidate" else STYLES[self.kind]


def best(candidates: Sequence[tuple[float, float]]) -> list[int]:
    """The places of those (cost, accuracy) that no other beats: none is as cheap and as accurate, and better in one.

    From the cheapest to the dearest; of equals the first.
    """
    found: list[int] = []
    for place in sorted(range(len(candidates)), key=lambda one: (candidates[one][0], -candidates[one][1], one)):
        if not found or candidates[place][1] > candidates[found[-1]][1]:
            found.append(place)
    return found


def front(candidates: Sequence[Candidate], label: str, title: str, accuracy: str = "top-1") -> Drawing:
    """Every candidate as a point of its kind, and a line of steps through the front.

    ``label`` and ``accuracy`` name the axes; costs are logarithmic. ``title`` is for those who cannot see. Which are
    the front is for the caller to say: see `best`. Base and answer are named by their kind where they have no name.
    """
    with drawing() as figure_class:
        figure = figure_class(figsize=(WIDE / UNIT, TALL / UNIT), layout="constrained")
        axes = figure.subplots()
        ruled(axes)
        cost_across(axes, label)
        accuracy_upwards(axes, accuracy)
        names: list[Annotation] = []
        used = [style for style in ORDER if any(one.style == style for one in candidates)]
        for level, style in enumerate(used):
            colour, area, mark, words = style
            of = [one for one in candidates if one.style == style]
            axes.scatter(
                [one.cost for one in of],
                [one.accuracy for one in of],
                area,
                color=colour,
                marker=mark,
                linewidth=1.2 if mark == "x" else 0,
                label=words,
                zorder=3 + level,
            )
            for one in of:
                if name := one.name or (words if one.kind in ("base", "answer") else ""):
                    names.append(named(axes, name, (one.cost, one.accuracy), bold=one.kind == "answer"))
        line = _steps(sorted((one.cost, one.accuracy) for one in candidates if one.on_front))
        axes.plot([cost for cost, _ in line], [share for _, share in line], color=FRONT[0], linewidth=1.6)
        axes.margins(x=0.08, y=0.08)
        figure.legend(
            loc="outside upper left", ncols=len(used), frameon=False, handlelength=1, borderpad=0, columnspacing=1.4
        )
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are placed in what it has laid out
        placed(axes, list(reversed(names)), [(one.cost, one.accuracy) for one in candidates], line)
        return drawn(figure, title, ("front", title, label, accuracy, list(candidates)))


def _steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is reached for each cost: it rises where a network of the front stands."""
    line = list(corners[:1])
    for (_, before), (cost, share) in pairwise(corners):
        line += [(cost, before), (cost, share)]
    return line
