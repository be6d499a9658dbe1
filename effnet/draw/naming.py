"""Names beside the points of a plot: each where it covers no other name, no point and no line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from effnet.draw.figure import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

SMALL = 8.5
NEAR = 6  # points; a name that stands further from its point has a line to it
STEPS = 40  # of a line, from corner to corner
# Where a name may stand beside its point, the best first: x and y in points, and which end of it is nearest
PLACES = (
    *((6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top")),
    *((5, 5, "left", "bottom"), (5, -5, "left", "top"), (-5, 5, "right", "bottom"), (-5, -5, "right", "top")),
    *((9, 10, "left", "bottom"), (9, -10, "left", "top"), (-9, 10, "right", "bottom"), (-9, -10, "right", "top")),
    *((0, 16, "center", "bottom"), (0, -16, "center", "top"), (9, 20, "left", "bottom"), (9, -20, "left", "top")),
)

At = tuple[float, float]  # in the axes' data


def named(axes: Axes, name: str, at: At, colour: str = INK, bold: bool = False, size: float = SMALL) -> Annotation:
    """``name`` for the point at ``at``; where it stands is found by `placed`."""
    note = axes.annotate(
        name,
        at,
        xytext=(6, 0),
        textcoords="offset points",
        fontsize=size,
        fontweight="bold" if bold else "normal",
        color=colour,
        arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.45, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4},
    )
    note.set_in_layout(False)
    return note


def placed(axes: Axes, names: Sequence[Annotation], points: Sequence[At], line: Sequence[At] = ()) -> None:
    """Moves each of ``names`` to the first place beside its point where it covers nothing; the first go first.

    All else must be laid out before. ``line``: the corners of a line through the plot.
    """
    from matplotlib.transforms import Bbox

    to_pixels = axes.transData.transform
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in map(to_pixels, points)]
    taken += [Bbox.from_extents(x - 1, y - 1, x + 1, y + 1) for x, y in _along([tuple(to_pixels(one)) for one in line])]
    inside = axes.get_window_extent()
    for note in names:
        best, fewest = PLACES[0], None
        for place in PLACES:
            box = _at(note, place)
            over = sum(box.overlaps(other) for other in taken)
            over += 3 * (box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1)
            if fewest is None or over < fewest:
                best, fewest = place, over
            if not over:
                break
        taken.append(_at(note, best))
        assert note.arrow_patch
        note.arrow_patch.set_visible(max(map(abs, best[:2])) > NEAR)


def _along(corners: Sequence[At]) -> Iterator[At]:
    for (x0, y0), (x1, y1) in pairwise(corners):
        for step in range(STEPS + 1):
            yield x0 + (x1 - x0) * step / STEPS, y0 + (y1 - y0) * step / STEPS


def _at(note: Annotation, place: tuple[int, int, str, str]) -> Bbox:
    """The pixels that ``note`` covers at ``place``, where it then stands."""
    from matplotlib.text import Text

    x, y, across, upright = place
    note.set_position((x, y))
    note.set(ha=across, va=upright)
    return Text.get_window_extent(note)  # without the line to its point
