"""A scene as SVG text, in the colour and the font of the page around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import BytesIO
from itertools import pairwise
from math import cos, pi, sin, sqrt
from typing import TYPE_CHECKING

from effnet.draw.font import load_font
from effnet.draw.scene import BLACK, INK, Box, Group, Item, Line, Points, Rect, Scene, Shape, Text, arrowhead

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_DASH_ATTRIBUTE = ' stroke-dasharray="4 3"'


def render_svg(scene: Scene, standalone: bool = False) -> str:
    """One ``<svg>`` without ids, scripts or links: for a page, as wide as there is room, up to 1.4 times.

    ``alone``: as a file, on white and with a size and a font of its own, in attributes that every program reads.
    """
    inside = "\n".join(_svg_item(item) for item in scene.items)
    wide, high = _format_number(scene.width), _format_number(scene.height)
    if standalone:
        looks = f'width="{wide}" height="{high}" color="{BLACK}" font-family="DejaVu Sans, Verdana, sans-serif"'
        inside = f'<rect width="{wide}" height="{high}" fill="white"/>\n{inside}'
    else:
        looks = f'style="width: 100%; height: auto; max-width: {1.4 * scene.width:.0f}px"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" '
        f'aria-label="{escape(scene.title)}" {looks} fill="currentColor" font-size="11">\n{inside}\n</svg>\n'
    )


def _svg_item(item: Item) -> str:
    if isinstance(item, Group):
        inside = "\n".join(_svg_item(each) for each in item.items)
        return f"<g><title>{escape(item.title)}</title>\n{inside}\n</g>"
    if isinstance(item, Text):
        return _svg_text(item)
    if isinstance(item, Line):
        return _svg_line(item)
    if isinstance(item, Shape):
        return f'<path d="{_svg_path(item.points)}Z"{_svg_fill(item.fill, item.opacity)}{_svg_edge(item)}/>'
    box = item.box
    round_ = f' rx="{_format_number(item.radius)}"' if item.radius else ""
    return (
        f'<rect x="{_format_number(box.x)}" y="{_format_number(box.y)}" width="{_format_number(box.width)}" height="{_format_number(box.height)}"{round_}'
        f"{_svg_fill(item.fill, item.opacity)}{_svg_edge(item)}/>"
    )


def _svg_text(item: Text) -> str:
    size = f' font-size="{_format_number(item.size)}"' if item.size != 11 else ""
    anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
    bold = ' font-weight="bold"' if item.bold else ""
    faint = f' opacity="{_format_number(item.opacity)}"' if item.opacity != 1 else ""
    return f'<text x="{_format_number(item.x)}" y="{_format_number(item.y)}"{size}{anchor}{bold}{faint}>{escape(item.text)}</text>'


def _svg_line(item: Line) -> str:
    points, head = arrowhead(item.points, item.width) if item.arrow else (item.points, None)
    colour, dashes = _svg_color(item.color), _DASH_ATTRIBUTE if item.dashed else ""
    faint = f' opacity="{_format_number(item.opacity)}"' if item.opacity != 1 else ""
    drawn = f'<path d="{_svg_path(points)}" fill="none" stroke="{colour}" stroke-width="{_format_number(item.width)}"{dashes}'
    if head is None:
        return f"{drawn}{faint}/>"
    return f'<g{faint}>{drawn}/><path d="{_svg_path(head)}Z"{_svg_fill(item.color, 1)}/></g>'


def _svg_fill(colour: str, opacity: float) -> str:
    fill = f' fill="{colour}"' if colour != INK else ""  # the page's is the whole drawing's
    return fill + (f' fill-opacity="{_format_number(opacity)}"' if opacity != 1 else "")


def _svg_edge(item: Rect | Shape) -> str:
    if not item.edge:
        return ""
    dashes = _DASH_ATTRIBUTE if isinstance(item, Rect) and item.dashed else ""
    return f' stroke="{_svg_color(item.fill)}" stroke-opacity="{_format_number(item.edge)}"{dashes}'


def _svg_color(colour: str) -> str:
    return "currentColor" if colour == INK else colour


def _svg_path(points: Points) -> str:
    return "M" + "L".join(f"{_format_number(x)} {_format_number(y)}" for x, y in points)


def _format_number(number: float) -> str:
    """A number in as few letters as two decimals need."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


# A scene as a PNG on white, drawn by PIL.


_BACKGROUND = (255, 255, 255)


_PIXELS_PER_UNIT = 2.0  # pixels a unit


_SUPERSAMPLING = 2  # shapes are drawn so many times larger, then averaged: PIL's own have jagged edges


_MAX_PIXELS = 12e6


def render_png(scene: Scene) -> bytes:
    """Two pixels a unit; fewer where the picture would pass 12 megapixels."""
    from PIL import Image, ImageDraw

    sharp = min(_PIXELS_PER_UNIT, sqrt(_MAX_PIXELS / (scene.width * scene.height)))
    wide, high = round(scene.width * sharp), round(scene.height * sharp)
    large = Image.new("RGB", (wide * _SUPERSAMPLING, high * _SUPERSAMPLING), _BACKGROUND)
    pen = ImageDraw.Draw(large, "RGBA")
    for item in scene.primitives():
        if isinstance(item, (Rect, Shape)):
            _draw_filled(pen, item, sharp * _SUPERSAMPLING)
        elif isinstance(item, Line):
            _draw_line(pen, item, sharp * _SUPERSAMPLING)
    picture = large.reduce(_SUPERSAMPLING)
    pen = ImageDraw.Draw(picture)
    for text in scene.texts():
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
        letters = load_font(max(1, round(text.size * sharp)), text.bold)
        pen.text((text.x * sharp, text.y * sharp), text.text, _blend(INK, text.opacity), letters, anchor)
    out = BytesIO()
    picture.save(out, "PNG", compress_level=3, dpi=(72 * sharp, 72 * sharp))
    return out.getvalue()


def _draw_filled(pen: ImageDraw, item: Rect | Shape, scale: float) -> None:
    points = _rounded_corners(item.box, item.radius) if isinstance(item, Rect) else item.points
    corners = [(x * scale, y * scale) for x, y in points]
    if item.opacity:
        pen.polygon(corners, (*_parse_color(item.fill), round(255 * item.opacity)))
    if item.edge:
        dashed = isinstance(item, Rect) and item.dashed
        _draw_line(pen, Line((*points, points[0]), item.fill, item.edge, 1.0, dashed=dashed), scale)


def _draw_line(pen: ImageDraw, item: Line, scale: float) -> None:
    points, head = arrowhead(item.points, item.width) if item.arrow else (item.points, None)
    colour = _blend(item.color, item.opacity)
    wide = max(1, round(item.width * scale))
    for run in _split_dashes(points) if item.dashed else [points]:
        pen.line([(x * scale, y * scale) for x, y in run], colour, wide, joint="curve")
    if head:
        pen.polygon([(x * scale, y * scale) for x, y in head], colour)


def _split_dashes(points: Points, on: float = 4.0, off: float = 3.0) -> list[Points]:
    found: list[Points] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        length, at = sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2), 0.0
        while at < length:
            begin, end = at / length, min(at + on, length) / length
            found.append(tuple((x0 + (x1 - x0) * share, y0 + (y1 - y0) * share) for share in (begin, end)))
            at += on + off
    return found


def _rounded_corners(box: Box, radius: float) -> Points:
    """The outline of a rectangle with rounded corners."""
    radius = min(radius, box.width / 2, box.height / 2)
    if not radius:
        return ((box.x, box.y), (box.right, box.y), (box.right, box.bottom), (box.x, box.bottom))
    centres = (
        (box.right - radius, box.bottom - radius),
        (box.x + radius, box.bottom - radius),
        (box.x + radius, box.y + radius),
        (box.right - radius, box.y + radius),
    )
    return tuple(
        (x + radius * cos(angle), y + radius * sin(angle))
        for quarter, (x, y) in enumerate(centres)
        for angle in ((quarter + step / 6) * pi / 2 for step in range(7))
    )


def _parse_color(colour: str) -> tuple[int, ...]:
    colour = BLACK if colour == INK else colour
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _blend(colour: str, opacity: float) -> tuple[int, ...]:
    """As it looks on white: lines that cross themselves would darken where they do."""
    return tuple(round(part * opacity + 255 * (1 - opacity)) for part in _parse_color(colour))


# A diagram: a scene in the forms in which it is handed out.


@dataclass(frozen=True)
class Diagram:
    """As `effnet.draw.figure.Drawing`, each form made when it is asked for: ``svg``, ``alone``, ``png``."""

    scene: Scene

    @cached_property
    def svg(self) -> str:
        """To put into a page: in its colour and font."""
        return render_svg(self.scene)

    @property
    def standalone_svg(self) -> str:
        """The SVG as a file of its own: on white, with a size and a font."""
        return render_svg(self.scene, standalone=True)

    @cached_property
    def png(self) -> bytes:
        """A PNG on white, two pixels a unit."""
        return render_png(self.scene)
