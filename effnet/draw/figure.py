"""What plots have in common: matplotlib without a screen, and figures as SVG text in the page's colour and font."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO, StringIO
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.ticker import Formatter
    from matplotlib.transforms import Bbox

INK = "#010203"  # stands for the page's text colour until the SVG is written


POINTS_PER_INCH = 72  # matplotlib's points an inch, which become the SVG's units


FONT_SIZE = 11.0


@contextmanager
def matplotlib_figure() -> Iterator[type[Figure]]:
    """Matplotlib's `Figure`, with our settings in this block whatever the user's own are."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install matplotlib") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page's font draws it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "font.size": FONT_SIZE,
                "text.parse_math": False,  # a class may be called $x$
                "text.color": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
            }
        )
        yield Figure


def style_axes(axes: Axes) -> None:
    """Nothing drawn that carries no number."""
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set(color=INK, alpha=0.35)
    axes.tick_params(length=0, pad=5)


def figure_to_svg(figure: Figure, title: str, numbers: object) -> str:
    """The figure as one ``<svg>``: no size of its own beyond a limit, the page's ink and font, ids that are its own."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = sha256(repr(numbers).encode("utf-8", "replace")).hexdigest()
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    _, _, inside = out.getvalue().partition("<svg")
    _, _, inside = inside.partition(">")
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<[^>]*>", lambda tag: _clean_tag(tag[0]), inside)  # tags alone: names of classes stay as they are
    width, height = (side * POINTS_PER_INCH for side in figure.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="stroke-linejoin: round; width: 100%; height: auto; '
        f'min-width: {0.7 * width:.0f}px; max-width: {1.4 * width:.0f}px">{inside.strip()}'
    )


def _clean_tag(tag: str) -> str:
    tag = re.sub(r"\s+", " ", tag)
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)  # figure_1 is in every plot, and nothing refers to it
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)  # as matplotlib before 3.11 writes it
    return tag.replace(INK, "currentColor").replace("xlink:href", "href")


@dataclass(frozen=True)
class RenderedPlot:
    """A plot in both forms: ``svg`` to put into a page, ``png`` on white."""

    svg: str
    png: bytes

    @property
    def standalone_svg(self) -> str:
        """The SVG as a file of its own: on white, with a font."""
        return self.svg.replace('style="', 'style="background: white; color: #1b1e23; font-family: sans-serif; ', 1)


def render_figure(figure: Figure, title: str, numbers: object) -> RenderedPlot:
    """The figure in both forms; ``title`` is for those who cannot see, the same ``numbers`` give the same SVG."""
    bitmap = BytesIO()
    figure.savefig(bitmap, format="png", dpi=2 * POINTS_PER_INCH, facecolor="white")
    return RenderedPlot(figure_to_svg(figure, title, numbers), bitmap.getvalue())


# The plane of most plots of networks: what one costs across, in powers, and how accurate it is upwards.


def set_cost_axis(axes: Axes, label: str) -> None:
    """A logarithmic x axis with round numbers, under ``label``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(label)


def set_accuracy_axis(axes: Axes, label: str) -> None:
    """A y axis of fractions shown as percent, under ``label`` where it has one."""
    axes.yaxis.set_major_formatter(percent_formatter())
    if label:
        axes.set_ylabel(label)


def percent_formatter() -> Formatter:
    """Fractions as percent with as few digits as they need: 45%, 43.5%."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.6g}%")


def style_axes_with_grid(axes: Axes) -> None:
    """A bare frame with faint lines behind what is drawn."""
    style_axes(axes)
    axes.grid(color=INK, alpha=0.1, linewidth=1)
    axes.set_axisbelow(True)


# Names beside the points of a plot: each where it covers no other name, no point and no line.


LABEL_FONT_SIZE = 8.5


LEADER_LINE_DISTANCE = 6  # points; a name that stands further from its point has a line to it


LINE_SAMPLES = 40  # of a line, from corner to corner


# Where a name may stand beside its point, the best first: x and y in points, and which end of it is nearest
LABEL_POSITIONS = (
    *((6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top")),
    *((5, 5, "left", "bottom"), (5, -5, "left", "top"), (-5, 5, "right", "bottom"), (-5, -5, "right", "top")),
    *((9, 10, "left", "bottom"), (9, -10, "left", "top"), (-9, 10, "right", "bottom"), (-9, -10, "right", "top")),
    *((0, 16, "center", "bottom"), (0, -16, "center", "top"), (9, 20, "left", "bottom"), (9, -20, "left", "top")),
)


DataPoint = tuple[float, float]  # in the axes' data


def add_label(
    axes: Axes, name: str, at: DataPoint, colour: str = INK, bold: bool = False, size: float = LABEL_FONT_SIZE
) -> Annotation:
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


def place_labels(
    axes: Axes, names: Sequence[Annotation], points: Sequence[DataPoint], line: Sequence[DataPoint] = ()
) -> None:
    """Moves each of ``names`` to the first place beside its point where it covers nothing; the first go first.

    All else must be laid out before. ``line``: the corners of a line through the plot.
    """
    from matplotlib.transforms import Bbox

    to_pixels = axes.transData.transform
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in map(to_pixels, points)]
    taken += [
        Bbox.from_extents(x - 1, y - 1, x + 1, y + 1) for x, y in _sample_line([tuple(to_pixels(one)) for one in line])
    ]
    inside = axes.get_window_extent()
    for note in names:
        best, fewest = LABEL_POSITIONS[0], None
        for place in LABEL_POSITIONS:
            box = _move_label(note, place)
            over = sum(box.overlaps(other) for other in taken)
            over += 3 * (box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1)
            if fewest is None or over < fewest:
                best, fewest = place, over
            if not over:
                break
        taken.append(_move_label(note, best))
        assert note.arrow_patch
        note.arrow_patch.set_visible(max(map(abs, best[:2])) > LEADER_LINE_DISTANCE)


def _sample_line(corners: Sequence[DataPoint]) -> Iterator[DataPoint]:
    for (x0, y0), (x1, y1) in pairwise(corners):
        for step in range(LINE_SAMPLES + 1):
            yield x0 + (x1 - x0) * step / LINE_SAMPLES, y0 + (y1 - y0) * step / LINE_SAMPLES


def _move_label(note: Annotation, place: tuple[int, int, str, str]) -> Bbox:
    """The pixels that ``note`` covers at ``place``, where it then stands."""
    from matplotlib.text import Text

    x, y, across, upright = place
    note.set_position((x, y))
    note.set(ha=across, va=upright)
    return Text.get_window_extent(note)  # without the line to its point
