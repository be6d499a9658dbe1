"""Diagrams as data: boxes, lines and texts with known positions, rendered as SVG and PNG.

Since positions are known before anything is drawn, tests check that texts do not overlap. Units are those of the SVG;
x goes to the right and y downwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from io import BytesIO
from itertools import pairwise
from math import cos, hypot, pi, sin, sqrt
from typing import TYPE_CHECKING

from effnet.draw.text import ASCENT, DESCENT, fit_font_size, load_font, text_width

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

# A thing has the same color in all diagrams. Each is legible on light and on dark.
BLUE, ORANGE, GREY, GREEN, PINK, VIOLET = "#3b7dd8", "#d9772b", "#8b919c", "#2a9d6f", "#c05299", "#8a63d2"
INK = "ink"  # the page's text color
BLACK = "#1b1e23"  # INK without a page
CHANGED_COLOR = ORANGE  # behind differences between two networks
LAYER_COLORS = {"mbconv": BLUE, "fused": ORANGE, "stem": GREY, "head": GREY, "classifier": GREY}
LAYER_NAMES = {"mbconv": "MBConv", "fused": "Fused-MBConv", "stem": "Conv and Linear"}
OPERATION_COLORS = {"expand": BLUE, "depthwise": GREEN, "reduce": PINK, "excite": PINK, "project": VIOLET}
OPERATION_COLORS |= LAYER_COLORS

_DASH_ATTRIBUTE = ' stroke-dasharray="4 3"'
_SUPERSAMPLING = 2  # shapes are drawn larger and averaged, since PIL does not antialias them

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Box:
    """A rectangle: its upper left corner and its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """x of the center."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Rect:
    """A filled rectangle; ``edge`` is the opacity of its outline, which has the color of its fill."""

    box: Box
    fill: str
    opacity: float = 1.0
    edge: float = 0.0
    radius: float = 0.0
    dashed: bool = False


@dataclass(frozen=True)
class Shape:
    """A filled polygon; ``edge`` as in `Rect`."""

    points: Points
    fill: str
    opacity: float = 1.0
    edge: float = 0.0


@dataclass(frozen=True)
class Line:
    """A polyline, optionally with an arrowhead at its end."""

    points: Points
    color: str = INK
    opacity: float = 0.55
    width: float = 1.2
    arrow: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text with baseline ``y``; ``anchor`` is the part at ``x``: "start", "middle" or "end"."""

    x: float
    y: float
    text: str
    size: float = 11.0
    anchor: str = "start"
    bold: bool = False
    opacity: float = 1.0
    bounds: Box | None = None  # which it must not leave

    @property
    def box(self) -> Box:
        """The box that it covers."""
        width = text_width(self.text, self.size, self.bold)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return Box(left, self.y - ASCENT * self.size, width, (ASCENT + DESCENT) * self.size)


@dataclass(frozen=True)
class Group:
    """Items with a common title, which is the tooltip and is read aloud."""

    title: str
    items: tuple["Item", ...]


Item = Rect | Shape | Line | Text | Group


def centered_text(box: Box, text: str, size: float = 11.0, bold: bool = False, opacity: float = 1.0) -> Text:
    """Return ``text`` in the center of ``box``, in a smaller size if it would leave it."""
    size = fit_font_size(text, box.width, size, bold)
    baseline = box.y + box.height / 2 + 0.36 * size  # half a capital's height below the center
    return Text(box.middle, baseline, text, size, "middle", bold, opacity, box)


def labeled_box(
    box: Box, color: str, opacity: float, edge: float, radius: float, text: str, size: float = 11.0, bold: bool = False
) -> tuple[Rect, Text]:
    """Return a `Rect` with a text in its center."""
    return Rect(box, color, opacity, edge, radius), centered_text(box, text, size, bold)


def shrink_to_width(text: Text, max_width: float) -> Text:
    """Return the text in a size at which it takes at most ``max_width``."""
    return replace(text, size=fit_font_size(text.text, max_width, text.size, text.bold))


def right_edge(item: Item) -> float:
    """Return the right edge of an item."""
    if isinstance(item, (Rect, Text)):
        return item.box.right
    if isinstance(item, (Line, Shape)):
        return max(x for x, _ in item.points)
    return max(right_edge(member) for member in item.items)


def arrowhead(points: Points, width: float) -> tuple[Points, Points]:
    """Return the line shortened to the base of its arrowhead, and the corners of the arrowhead."""
    (x0, y0), (x1, y1) = points[-2:]
    length = max(hypot(x1 - x0, y1 - y0), 1e-9)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    long, half = min(4.0 + 2.5 * width, length), 2.0 + 1.2 * width
    base = (x1 - dx * long, y1 - dy * long)
    left = (base[0] - dy * half, base[1] + dx * half)
    right = (base[0] + dy * half, base[1] - dx * half)
    return (*points[:-1], base), ((x1, y1), left, right)


@dataclass(frozen=True)
class Diagram:
    """A drawing as data; ``title`` is its description for screen readers."""

    width: float
    height: float
    title: str
    items: tuple[Item, ...]

    def primitives(self) -> Iterator[Rect | Shape | Line | Text]:
        """Yield every primitive in drawing order."""
        stack = list(reversed(self.items))
        while stack:
            item = stack.pop()
            if isinstance(item, Group):
                stack += reversed(item.items)
            else:
                yield item

    def texts(self) -> list[Text]:
        """Return every text."""
        return [item for item in self.primitives() if isinstance(item, Text)]

    @cached_property
    def svg(self) -> str:
        """The SVG for a page, in the page's text color and font."""
        return _render_svg(self, standalone=False)

    @property
    def standalone_svg(self) -> str:
        """The SVG as a file of its own: on white, with a size and a font, in attributes that every program reads."""
        return _render_svg(self, standalone=True)

    @cached_property
    def png(self) -> bytes:
        """A PNG on white, two pixels per unit."""
        return _render_png(self)


def _render_svg(diagram: Diagram, standalone: bool) -> str:
    """Return one ``<svg>`` element without ids, scripts or links, scaled to the page's width up to 1.4 times."""
    content = "\n".join(_svg_item(item) for item in diagram.items)
    width, height = _format_number(diagram.width), _format_number(diagram.height)
    if standalone:
        attributes = f'width="{width}" height="{height}" color="{BLACK}" font-family="DejaVu Sans, Verdana, sans-serif"'
        content = f'<rect width="{width}" height="{height}" fill="white"/>\n{content}'
    else:
        attributes = f'style="width: 100%; height: auto; max-width: {1.4 * diagram.width:.0f}px"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(diagram.title)}" {attributes} fill="currentColor" font-size="11">\n{content}\n</svg>\n'
    )


def _svg_item(item: Item) -> str:
    if isinstance(item, Group):
        content = "\n".join(_svg_item(member) for member in item.items)
        return f"<g><title>{escape(item.title)}</title>\n{content}\n</g>"
    if isinstance(item, Text):
        return _svg_text(item)
    if isinstance(item, Line):
        return _svg_line(item)
    look = _svg_fill(item.fill, item.opacity)
    if item.edge:
        dashes = _DASH_ATTRIBUTE if isinstance(item, Rect) and item.dashed else ""
        look += f' stroke="{_svg_color(item.fill)}" stroke-opacity="{_format_number(item.edge)}"{dashes}'
    if isinstance(item, Shape):
        return f'<path d="{_svg_path(item.points)}Z"{look}/>'
    x, y, width, height = (_format_number(v) for v in (item.box.x, item.box.y, item.box.width, item.box.height))
    radius = f' rx="{_format_number(item.radius)}"' if item.radius else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}"{radius}{look}/>'


def _svg_text(item: Text) -> str:
    size = f' font-size="{_format_number(item.size)}"' if item.size != 11 else ""
    anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
    bold = ' font-weight="bold"' if item.bold else ""
    position = f'x="{_format_number(item.x)}" y="{_format_number(item.y)}"'
    return f"<text {position}{size}{anchor}{bold}{_svg_opacity(item.opacity)}>{escape(item.text)}</text>"


def _svg_line(item: Line) -> str:
    points, head = arrowhead(item.points, item.width) if item.arrow else (item.points, None)
    stroke = f'stroke="{_svg_color(item.color)}" stroke-width="{_format_number(item.width)}"'
    path = f'<path d="{_svg_path(points)}" fill="none" {stroke}{_DASH_ATTRIBUTE if item.dashed else ""}'
    opacity = _svg_opacity(item.opacity)
    if head is None:
        return f"{path}{opacity}/>"
    return f'<g{opacity}>{path}/><path d="{_svg_path(head)}Z"{_svg_fill(item.color, 1)}/></g>'


def _svg_opacity(opacity: float) -> str:
    return f' opacity="{_format_number(opacity)}"' if opacity != 1 else ""


def _svg_fill(color: str, opacity: float) -> str:
    fill = f' fill="{color}"' if color != INK else ""  # INK is inherited from the <svg>
    return fill + (f' fill-opacity="{_format_number(opacity)}"' if opacity != 1 else "")


def _svg_color(color: str) -> str:
    return "currentColor" if color == INK else color


def _svg_path(points: Points) -> str:
    return "M" + "L".join(f"{_format_number(x)} {_format_number(y)}" for x, y in points)


def _format_number(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _render_png(diagram: Diagram) -> bytes:
    """Render with two pixels per unit, fewer if it would exceed 12 megapixels."""
    from PIL import Image, ImageDraw

    scale = min(2.0, sqrt(12e6 / (diagram.width * diagram.height)))
    width, height = round(diagram.width * scale), round(diagram.height * scale)
    large = Image.new("RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), "white")
    draw = ImageDraw.Draw(large, "RGBA")
    for item in diagram.primitives():
        if isinstance(item, (Rect, Shape)):
            _draw_filled(draw, item, scale * _SUPERSAMPLING)
        elif isinstance(item, Line):
            _draw_line(draw, item, scale * _SUPERSAMPLING)
    image = large.reduce(_SUPERSAMPLING)
    draw = ImageDraw.Draw(image)
    for text in diagram.texts():
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
        font = load_font(max(1, round(text.size * scale)), text.bold)
        draw.text((text.x * scale, text.y * scale), text.text, _blend(INK, text.opacity), font, anchor)
    out = BytesIO()
    image.save(out, "PNG", compress_level=3, dpi=(72 * scale, 72 * scale))
    return out.getvalue()


def _draw_filled(draw: "ImageDraw", item: Rect | Shape, scale: float) -> None:
    points = _rounded_corners(item.box, item.radius) if isinstance(item, Rect) else item.points
    if item.opacity:
        draw.polygon([(x * scale, y * scale) for x, y in points], (*_parse_color(item.fill), round(255 * item.opacity)))
    if item.edge:
        dashed = isinstance(item, Rect) and item.dashed
        _draw_line(draw, Line((*points, points[0]), item.fill, item.edge, 1.0, dashed=dashed), scale)


def _draw_line(draw: "ImageDraw", item: Line, scale: float) -> None:
    points, head = arrowhead(item.points, item.width) if item.arrow else (item.points, None)
    color = _blend(item.color, item.opacity)
    width = max(1, round(item.width * scale))
    for part in _split_dashes(points) if item.dashed else [points]:
        draw.line([(x * scale, y * scale) for x, y in part], color, width, joint="curve")
    if head:
        draw.polygon([(x * scale, y * scale) for x, y in head], color)


def _split_dashes(points: Points) -> list[Points]:
    """Return dashes of 4 with gaps of 3, as `_DASH_ATTRIBUTE`."""
    dashes: list[Points] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        length, position = hypot(x1 - x0, y1 - y0), 0.0
        while position < length:
            ends = position / length, min(position + 4, length) / length
            dashes.append(tuple((x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in ends))
            position += 7
    return dashes


def _rounded_corners(box: Box, radius: float) -> Points:
    radius = min(radius, box.width / 2, box.height / 2)
    if not radius:
        return ((box.x, box.y), (box.right, box.y), (box.right, box.bottom), (box.x, box.bottom))
    left, top, right, bottom = box.x + radius, box.y + radius, box.right - radius, box.bottom - radius
    return tuple(
        (x + radius * cos(angle), y + radius * sin(angle))
        for quarter, (x, y) in enumerate(((right, bottom), (left, bottom), (left, top), (right, top)))
        for angle in ((quarter + step / 6) * pi / 2 for step in range(7))
    )


def _parse_color(color: str) -> tuple[int, ...]:
    color = BLACK if color == INK else color
    return tuple(int(color[start : start + 2], 16) for start in (1, 3, 5))


def _blend(color: str, opacity: float) -> tuple[int, ...]:
    """Return the color as it looks on white: a translucent line that crosses itself would be darker there."""
    return tuple(round(channel * opacity + 255 * (1 - opacity)) for channel in _parse_color(color))
