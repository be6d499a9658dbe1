"""The colours of diagrams: a thing has the same one in all of them. Each can be seen on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from effnet.draw.font import ASCENT, DESCENT, fit_font_size, text_width

BLUE, ORANGE, GREY, GREEN, PINK, VIOLET = "#3b7dd8", "#d9772b", "#8b919c", "#2a9d6f", "#c05299", "#8a63d2"


BLACK = "#1b1e23"  # of texts and lines where there is no page around


LAYER_COLORS = MappingProxyType({"mbconv": BLUE, "fused": ORANGE, "stem": GREY, "head": GREY, "classifier": GREY})


LAYER_NAMES = MappingProxyType({"mbconv": "MBConv", "fused": "Fused-MBConv", "stem": "Conv and Linear"})


OPERATION_COLORS = MappingProxyType(
    {
        "expand": BLUE,
        "depthwise": GREEN,
        "fused": ORANGE,
        "reduce": PINK,
        "excite": PINK,
        "project": VIOLET,
        "stem": GREY,
        "head": GREY,
        "classifier": GREY,
    }
)


CHANGED_COLOR = ORANGE  # behind what differs between two networks


# A drawing as data: primitives with known places, so that one can ask whether texts overlap before anything is drawn.
#
# Units are those of the SVG; x goes to the right and y downwards.


INK = "ink"  # the page's text colour


@dataclass(frozen=True)
class Box:
    """A place: the upper left corner and the sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """x of its centre."""
        return self.x + self.width / 2

    def contains(self, other: Box, slack: float = 0.0) -> bool:
        """Whether ``other`` is inside, or outside by no more than ``slack``."""
        across = self.x - slack <= other.x and other.right <= self.right + slack
        return across and self.y - slack <= other.y and other.bottom <= self.bottom + slack


Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Rect:
    """A filled rectangle; ``edge`` is the opacity of its outline, in the colour of its fill."""

    box: Box
    fill: str
    opacity: float = 1.0
    edge: float = 0.0
    radius: float = 0.0
    dashed: bool = False


@dataclass(frozen=True)
class Shape:
    """A filled polygon; ``edge`` as a rectangle's."""

    points: Points
    fill: str
    opacity: float = 1.0
    edge: float = 0.0


@dataclass(frozen=True)
class Line:
    """A run of straight lines, with an arrowhead at its end if wanted."""

    points: Points
    color: str = INK
    opacity: float = 0.55
    width: float = 1.2
    arrow: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text on the baseline ``y``; ``anchor``: what of it stands at ``x``, "start", "middle" or "end".

    ``inside``: the box that it belongs to and must not leave, if there is one.
    """

    x: float
    y: float
    text: str
    size: float = 11.0
    anchor: str = "start"
    bold: bool = False
    opacity: float = 1.0
    bounds: Box | None = None

    @property
    def box(self) -> Box:
        """What it covers."""
        wide = text_width(self.text, self.size, self.bold)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return Box(left, self.y - ASCENT * self.size, wide, (ASCENT + DESCENT) * self.size)


@dataclass(frozen=True)
class Group:
    """What belongs together; its title is shown where the pointer rests on it, and read aloud."""

    title: str
    items: tuple[Item, ...]


Item = Rect | Shape | Line | Text | Group


@dataclass(frozen=True)
class Scene:
    """A whole drawing; ``title`` is for those who cannot see it."""

    width: float
    height: float
    title: str
    items: tuple[Item, ...]

    def primitives(self) -> Iterator[Rect | Shape | Line | Text]:
        """Every primitive, in the order in which they are drawn."""
        yield from _flatten(self.items)

    def texts(self) -> list[Text]:
        """Every text."""
        return [item for item in self.primitives() if isinstance(item, Text)]


def _flatten(items: tuple[Item, ...]) -> Iterator[Rect | Shape | Line | Text]:
    for item in items:
        if isinstance(item, Group):
            yield from _flatten(item.items)
        else:
            yield item


def centered_text(box: Box, text: str, size: float = 11.0, bold: bool = False, opacity: float = 1.0) -> Text:
    """``text`` in the middle of ``box``, smaller where it would leave it."""
    size = fit_font_size(text, box.width, size, bold)
    baseline = box.y + box.height / 2 + 0.36 * size  # half a capital's height below the middle
    return Text(box.middle, baseline, text, size, "middle", bold, opacity, box)


def shrink_to_width(text: Text, most: float) -> Text:
    """The same, in letters so small that it takes no more than ``most`` units."""
    return replace(text, size=fit_font_size(text.text, most, text.size, text.bold))


def right_edge(item: Item) -> float:
    """The right end of what an item covers."""
    if isinstance(item, (Rect, Text)):
        return item.box.right
    if isinstance(item, (Line, Shape)):
        return max(x for x, _ in item.points)
    return max(right_edge(each) for each in item.items)


def arrowhead(points: Points, width: float) -> tuple[Points, Points]:
    """The line shortened to the arrowhead's base, and the arrowhead's three corners."""
    (x0, y0), (x1, y1) = points[-2:]
    length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
    along = ((x1 - x0) / length, (y1 - y0) / length)
    long, half = min(4.0 + 2.5 * width, length), 2.0 + 1.2 * width
    base = (x1 - along[0] * long, y1 - along[1] * long)
    left = (base[0] - along[1] * half, base[1] + along[0] * half)
    right = (base[0] + along[1] * half, base[1] - along[0] * half)
    return (*points[:-1], base), ((x1, y1), left, right)
