"""Matplotlib figures without a screen: style, axes, labels that do not overlap, and rendering as SVG and PNG."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from html import escape
from io import BytesIO, StringIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from effnet.arch.serde import import_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.ticker import Formatter
    from matplotlib.transforms import Bbox

INK = "#010203"  # placeholder for the page's text color until the SVG is written
BLUE, ORANGE, GREY, GREEN, PURPLE = "#3b7dd8", "#d9772b", "#8b919c", "#2f9e63", "#a06cd5"  # legible on light and dark
POINTS_PER_INCH = 72  # matplotlib's points, which become the SVG's units
FONT_SIZE, LABEL_FONT_SIZE = 11.0, 8.5

LEADER_LINE_DISTANCE = 6  # points; a label farther than this from its point gets a line to it
LINE_SAMPLES = 40  # points of a line segment that labels avoid
# Positions of a label relative to its point, best first: x and y in points, and the alignment of the text
LABEL_POSITIONS = (
    *((6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top")),
    *((5, 5, "left", "bottom"), (5, -5, "left", "top"), (-5, 5, "right", "bottom"), (-5, -5, "right", "top")),
    *((9, 10, "left", "bottom"), (9, -10, "left", "top"), (-9, 10, "right", "bottom"), (-9, -10, "right", "top")),
    *((0, 16, "center", "bottom"), (0, -16, "center", "top"), (9, 20, "left", "bottom"), (9, -20, "left", "top")),
)

DataPoint = tuple[float, float]  # in data coordinates


@contextmanager
def new_figure(width: float, height: float, layout: str = "constrained") -> Iterator["Figure"]:
    """Yield a matplotlib figure of that size in SVG units, with our style inside the context whatever the user's is."""
    with _style():
        from matplotlib.figure import Figure

        size = (width / POINTS_PER_INCH, height / POINTS_PER_INCH)
        yield Figure(figsize=size, layout=layout)  # type: ignore[arg-type]


@contextmanager
def _style() -> Iterator[None]:
    matplotlib = import_extra("matplotlib", "plots", "plots require")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page's font has it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": FONT_SIZE})
        matplotlib.rcParams["text.parse_math"] = False  # a class may be called $x$
        matplotlib.rcParams.update(dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK))
        yield


@dataclass(frozen=True)
class RenderedPlot:
    """A plot: ``svg`` to embed in a page, ``standalone_svg`` and ``png`` as files of their own, on white."""

    svg: str
    _figure: "Figure" = field(repr=False, compare=False)

    def __html__(self) -> str:  # Jinja inserts it without escaping
        return self.svg

    @property
    def standalone_svg(self) -> str:
        """The SVG as a file of its own: on white, with a font."""
        return self.svg.replace('style="', 'style="background: white; color: #1b1e23; font-family: sans-serif; ', 1)

    @cached_property
    def png(self) -> bytes:
        """A PNG on white, two pixels per SVG unit."""
        with _style():
            bitmap = BytesIO()
            self._figure.savefig(bitmap, format="png", dpi=2 * POINTS_PER_INCH, facecolor="white")
            return bitmap.getvalue()


def render_figure(figure: "Figure", title: str, numbers: object) -> RenderedPlot:
    """Render a figure of `new_figure`. ``title`` is read aloud; from ``numbers``, its content, come its ids."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = sha256(repr(numbers).encode("utf-8", "replace")).hexdigest()
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    _, _, content = out.getvalue().partition("<svg")
    _, _, content = content.partition(">")
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", content, flags=re.DOTALL)
    content = re.sub(r"<[^>]*>", lambda tag: _clean_tag(tag[0]), content)  # tags only: class names stay as they are
    width, height = (side * POINTS_PER_INCH for side in figure.get_size_inches())
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="stroke-linejoin: round; width: 100%; height: auto; '
        f'min-width: {0.7 * width:.0f}px; max-width: {1.4 * width:.0f}px">{content.strip()}'
    )
    return RenderedPlot(svg, figure)


def _clean_tag(tag: str) -> str:
    tag = re.sub(r"\s+", " ", tag)
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)  # figure_1 occurs in every plot, and nothing refers to it
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)  # as written by matplotlib before 3.11
    return tag.replace(INK, "currentColor").replace("xlink:href", "href")


def style_axes(axes: "Axes", grid: str = "", alpha: float = 0.12) -> None:
    """Remove all lines but the bottom spine, and draw a faint grid along ``grid``: "x", "y", "both" or none."""
    for name, spine in axes.spines.items():
        spine.set(visible=name == "bottom", color=INK, alpha=0.35)
    axes.tick_params(length=0, pad=5)
    if grid:
        axes.grid(axis=grid, color=INK, alpha=alpha, linewidth=1)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def set_cost_accuracy_axes(axes: "Axes", cost: str, accuracy: str) -> None:
    """Make x a logarithmic axis of costs with round numbers, and y one of accuracies, with a grid."""
    from matplotlib.ticker import LogLocator

    style_axes(axes, grid="both", alpha=0.1)
    axes.set(xscale="log", xlabel=cost, ylabel=accuracy)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    set_plain_ticks(axes, "x")
    axes.yaxis.set_major_formatter(percent_formatter())


def add_legend(figure: "Figure", columns: int, handlelength: float = 1.4, **options: Any) -> None:
    """Add a legend without a frame above the axes; ``options`` are matplotlib's."""
    options = {"borderpad": 0, "handlelength": handlelength, **options}
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, **options)


def set_plain_ticks(axes: "Axes", *names: str) -> None:
    """Write the major ticks of these logarithmic axes ("x", "y") as plain numbers, and hide the minor ones."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def percent_formatter() -> "Formatter":
    """Return a formatter of fractions as percent with as few digits as needed: 45%, 43.5%."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.6g}%")


def annotate(axes: "Axes", text: str, point: DataPoint, offset: DataPoint, **options: Any) -> "Annotation":
    """Write a text ``offset`` points from a data point; ``options`` are matplotlib's."""
    return axes.annotate(text, point, xytext=offset, textcoords="offset points", **options)


def add_label(
    axes: "Axes", name: str, point: DataPoint, color: str = INK, bold: bool = False, size: float = LABEL_FONT_SIZE
) -> "Annotation":
    """Add a label for a point; `place_labels` moves it to a free position."""
    leader = {"arrowstyle": "-", "color": INK, "alpha": 0.45, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
    weight = "bold" if bold else "normal"
    label = annotate(axes, name, point, (6, 0), fontsize=size, fontweight=weight, color=color, arrowprops=leader)
    label.set_in_layout(False)
    return label


def place_labels(
    axes: "Axes", labels: Sequence["Annotation"], points: Sequence[DataPoint], line: Sequence[DataPoint] = ()
) -> None:
    """Move each label to the first position next to its point where it covers no other label, point or line.

    The first labels, the most important, are placed first. The layout of the figure becomes final. (adjustText moves
    labels by simulated forces instead, differently with every version.) ``line``: corners of a line through the plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    to_pixels = axes.transData.transform
    occupied = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in map(to_pixels, points)]
    samples = _sample_line([tuple(to_pixels(corner)) for corner in line])
    occupied += [Bbox.from_extents(x - 1, y - 1, x + 1, y + 1) for x, y in samples]
    inside = axes.get_window_extent()
    for label in labels:
        best, fewest = LABEL_POSITIONS[0], None
        for position in LABEL_POSITIONS:
            box = _move_label(label, position)
            overlaps = sum(box.overlaps(other) for other in occupied)
            overlaps += 3 * (box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1)
            if fewest is None or overlaps < fewest:
                best, fewest = position, overlaps
            if not overlaps:
                break
        occupied.append(_move_label(label, best))
        assert label.arrow_patch
        label.arrow_patch.set_visible(max(map(abs, best[:2])) > LEADER_LINE_DISTANCE)


def _sample_line(corners: Sequence[DataPoint]) -> Iterator[DataPoint]:
    for (x0, y0), (x1, y1) in pairwise(corners):
        for step in range(LINE_SAMPLES + 1):
            yield x0 + (x1 - x0) * step / LINE_SAMPLES, y0 + (y1 - y0) * step / LINE_SAMPLES


def _move_label(label: "Annotation", position: tuple[int, int, str, str]) -> "Bbox":
    """Move a label and return the pixels that its text covers."""
    from matplotlib.text import Text

    x, y, horizontal, vertical = position
    label.set_position((x, y))
    label.set(ha=horizontal, va=vertical)
    return Text.get_window_extent(label)  # without the line to its point
