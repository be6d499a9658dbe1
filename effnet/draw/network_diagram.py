"""A run of maps as a cuboid to scale: its height and depth are the map's, its length the channels of all its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from effnet.arch import Arch, Count, count
from effnet.arch.counting import Size
from effnet.draw.font import text_width
from effnet.draw.formatting import arch_title, format_percent, format_shape, format_si, format_size
from effnet.draw.layer_diagram import layers_scene, operations_scene
from effnet.draw.layer_diagram import modules_scene as modules_scene
from effnet.draw.network_summary import NetworkPart, draw_header, draw_legend, input_part, network_parts, summarize
from effnet.draw.rendering import Diagram
from effnet.draw.scene import (
    CHANGED_COLOR,
    GREY,
    INK,
    LAYER_COLORS,
    Box,
    Group,
    Item,
    Line,
    Rect,
    Scene,
    Shape,
    Text,
    centered_text,
    shrink_to_width,
)

STRIP_NOTE = "Height and depth of a block: its map; length: channels × layers, a slab a layer. To scale."


_SLANT = (0.32, 0.2)  # to the right and up, for each unit of a map's width


_MIN_THICKNESS = 1.6


_MIN_SLAB_SPACING = 2.4  # slabs thinner than this are not told apart


@dataclass(frozen=True)
class DrawingScale:
    """Units a pixel of a map's side, and units a channel."""

    side: float
    channel: float


@dataclass(frozen=True)
class Cuboid:
    """``layers`` maps of ``size`` (height, width) and ``channels`` one behind the other."""

    size: tuple[int, int]
    channels: int
    layers: int
    color: str

    def length(self, scale: DrawingScale) -> float:
        """Along x, without the slanted depth."""
        return max(_MIN_THICKNESS, scale.channel * self.channels * self.layers)

    def slant(self, scale: DrawingScale) -> tuple[float, float]:
        """How far the back stands to the right of the front, and above it."""
        across = self.size[1] * scale.side
        return across * _SLANT[0], across * _SLANT[1]

    def width(self, scale: DrawingScale) -> float:
        """Along x in all."""
        return self.length(scale) + self.slant(scale)[0]

    def height(self, scale: DrawingScale) -> float:
        """Along y in all."""
        return self._front(scale) + self.slant(scale)[1]

    def _front(self, scale: DrawingScale) -> float:
        return max(_MIN_THICKNESS, self.size[0] * scale.side)

    def items(self, x: float, base: float, scale: DrawingScale) -> tuple[Item, ...]:
        """Standing on ``base`` with its left edge at ``x``. Its three faces shine through: they share only edges."""
        long, (across, up), front = self.length(scale), self.slant(scale), self._front(scale)
        top = base - front

        def face(points: tuple[tuple[float, float], ...], opacity: float) -> Shape:
            faint = 0.45 if self.color == INK else 1.0  # which is stronger than any of the colours
            return Shape(points, self.color, opacity * faint, 0.75 * faint)

        drawn: list[Item] = [
            face(((x, base), (x + long, base), (x + long, top), (x, top)), 0.6),
            face(((x, top), (x + long, top), (x + long + across, top - up), (x + across, top - up)), 0.32),
            face(
                ((x + long, base), (x + long + across, base - up), (x + long + across, top - up), (x + long, top)), 0.45
            ),
        ]
        step = long / self.layers
        if step >= _MIN_SLAB_SPACING:
            for layer in range(1, self.layers):
                at = x + layer * step
                edge = ((at, base), (at, top), (at + across, top - up))
                drawn.append(Line(edge, self.color, 0.9, 0.8))
        return tuple(drawn)


def cuboid_of(part: NetworkPart) -> Cuboid:
    """The maps that leave the layers of a part of a network."""
    size = (1, 1) if part.kind == "classifier" else part.size_out
    return Cuboid(size, part.channels, part.layers, LAYER_COLORS.get(part.kind, INK))


# The table under a strip: a row a fact, a column a part of the network; of two networks, what differs is marked.


TABLE_FONT_SIZE = 10.5


_TABLE_LINE_HEIGHT, _TABLE_CHART_HEIGHT = 17.0, 34.0  # of a text, and of a chart of bars below it


HEADING_WIDTH, TAG_WIDTH = 98.0, 36.0  # units that the rows' names take, and those of networks beside them


def _if_block(part: NetworkPart, text: str) -> str:
    return text if part.kind in ("mbconv", "fused") else ""


# Name of a row, and what it says of a part
TEXT_ROWS: tuple[tuple[str, Callable[[NetworkPart], str]], ...] = (
    ("operator", lambda part: part.operator),
    ("kernel", lambda part: part.kernel),
    ("squeeze-excite", lambda part: _if_block(part, f"{part.squeeze:g}" if part.squeeze else "–")),
    ("stride", lambda part: str(part.stride) if part.kernel else ""),
    ("layers", lambda part: _if_block(part, f"× {part.layers}")),
    ("map", lambda part: "" if part.kind == "classifier" else format_size(part.size_out)),
    ("channels", lambda part: str(part.channels)),
)


COST_ROWS: tuple[tuple[str, Callable[[NetworkPart], int]], ...] = (
    ("params", lambda part: part.params),
    ("MACs", lambda part: part.macs),
)


@dataclass(frozen=True)
class StripColumn:
    """A place along the strip, and the part that each network has there."""

    name: str
    parts: tuple[NetworkPart | None, ...]
    x: float = 0.0
    width: float = 0.0

    @property
    def middle(self) -> float:
        """x of its centre."""
        return self.x + self.width / 2


def column_text_width(column: StripColumn) -> float:
    """Units that the column's widest text takes."""
    shown = [tell(part) for part in column.parts if part for _, tell in TEXT_ROWS]
    shown += [format_si(tell(part)) for part in column.parts if part for _, tell in COST_ROWS]
    return max([text_width(column.name, TABLE_FONT_SIZE, True), *(text_width(text, TABLE_FONT_SIZE) for text in shown)])


def differs(column: StripColumn, tell: Callable[[NetworkPart], object]) -> bool:
    """Whether two networks say different things here."""
    return len({None if part is None else tell(part) for part in column.parts}) > 1


def draw_table(
    columns: Sequence[StripColumn], names: Sequence[str], left: float, top: float
) -> tuple[list[Item], float]:
    """The table from ``top`` on, and where it ends. ``names`` are the networks'."""
    items: list[Item] = []
    right = columns[-1].x + columns[-1].width
    for column in columns:
        items.append(
            centered_text(Box(column.x, top, column.width, _TABLE_LINE_HEIGHT), column.name, TABLE_FONT_SIZE, bold=True)
        )
    at = top + _TABLE_LINE_HEIGHT + 2
    for name, tell in TEXT_ROWS:
        several = len(names) > 1 and any(differs(column, tell) for column in columns)
        high = _TABLE_LINE_HEIGHT * (len(names) if several else 1)
        items += _table_row(name, names if several else (), Box(left, at, right - left, high))
        for column in columns:
            items += _table_cells(column, tell, Box(column.x, at, column.width, high), several)
        at += high
    for name, amount in COST_ROWS:
        high = _TABLE_LINE_HEIGHT * len(names)
        items += _table_row(name, names if len(names) > 1 else (), Box(left, at, right - left, high))
        items += _cost_bars(columns, amount, name, at)
        at += high + _TABLE_CHART_HEIGHT
    return items, at


def _table_row(name: str, names: Sequence[str], box: Box) -> list[Item]:
    """A row's rule, its name, and which line is which network's."""
    rule = Line(((box.x, box.y), (box.right, box.y)), INK, 0.13, 0.8)
    heading = Text(
        box.x,
        box.y + 12,
        name,
        TABLE_FONT_SIZE,
        opacity=0.7,
        bounds=Box(box.x, box.y, HEADING_WIDTH - 12, _TABLE_LINE_HEIGHT),
    )
    tag_end = box.x + HEADING_WIDTH + TAG_WIDTH - 12
    step = box.height / max(len(names), 1)
    tags = (Text(tag_end, box.y + index * step + 12, each, 9.0, "end", opacity=0.7) for index, each in enumerate(names))
    return [rule, heading, *tags]


def _table_cells(column: StripColumn, tell: Callable[[NetworkPart], str], box: Box, several: bool) -> list[Item]:
    """What each network says: once where all say the same, else one below the other, the second marked."""
    shown = [tell(part) if part else "–" for part in column.parts]
    if not differs(column, tell):
        return [centered_text(box, shown[0], TABLE_FONT_SIZE, opacity=0.6 if several else 1.0)] if shown[0] else []
    step = box.height / len(shown)
    items: list[Item] = []
    for index, text in enumerate(shown):
        cell = Box(box.x, box.y + index * step, box.width, step)
        items += [mark_difference(cell, text)] if index else []
        items.append(centered_text(cell, text or "–", TABLE_FONT_SIZE))
    return items


def mark_difference(cell: Box, text: str, size: float = TABLE_FONT_SIZE) -> Rect:
    """What stands behind a text that differs."""
    wide = text_width(text, size) + 8
    return Rect(Box(cell.middle - wide / 2, cell.y + 1.5, wide, cell.height - 3), CHANGED_COLOR, 0.32, radius=4)


def _cost_bars(
    columns: Sequence[StripColumn], amount: Callable[[NetworkPart], int], name: str, top: float
) -> list[Item]:
    """A number for each part and network, and below them bars to scale: all of them on one scale."""
    largest = max(amount(part) for column in columns for part in column.parts if part)
    networks = len(columns[0].parts)
    totals = [sum(amount(part) for c in columns if (part := c.parts[index])) for index in range(networks)]
    wide, base = 26.0 / networks, top + networks * _TABLE_LINE_HEIGHT + _TABLE_CHART_HEIGHT - 4
    items: list[Item] = []
    for column in columns:
        for index, part in enumerate(column.parts):
            if part and part.kind == "picture":
                continue
            line = Box(column.x, top + index * _TABLE_LINE_HEIGHT, column.width, _TABLE_LINE_HEIGHT)
            if part is None:
                items.append(centered_text(line, "–", TABLE_FONT_SIZE))
                continue
            value = amount(part)
            bar = max(0.6, (_TABLE_CHART_HEIGHT - 8) * value / largest)
            place = Box(column.middle + (index - networks / 2) * wide, base - bar, wide - 1, bar)
            opacity = 0.85 if index + 1 == networks else 0.45
            items.append(
                Group(
                    f"{part.name}: {value:,} {name}, {format_percent(value / totals[index])} of the network's",
                    (
                        centered_text(line, format_si(value), TABLE_FONT_SIZE),
                        Rect(place, LAYER_COLORS.get(part.kind, GREY), opacity),
                    ),
                )
            )
    return items


# A network as a strip of its stages to scale, or two of them one above the other with what differs marked.


_STRIP_MARGIN, _STRIP_GAP = 24.0, 12.0


_MAX_STRIP_WIDTH = 1056.0  # that the strip may become by its cuboids; wider texts may make it wider


_MAX_IMAGE_HEIGHT = 160.0  # of the largest picture


_MAX_CHANNEL_LENGTH = 0.14  # units a channel


def strip_scene(networks: Sequence[Count], beside: Count | None = None) -> Scene:
    """The networks, one or two, on one scale: the largest on which they, and ``beside``, have room."""
    scaled = [*networks, beside] if beside else networks
    largest = max(max(counted.size) for counted in scaled)
    left = _STRIP_MARGIN + HEADING_WIDTH + (TAG_WIDTH if len(networks) > 1 else 0)
    placed, scale = _fit_columns(_strip_columns(scaled), _MAX_IMAGE_HEIGHT / largest, left)
    found = [column for each in placed if any((column := replace(each, parts=each.parts[: len(networks)])).parts)]
    right = found[-1].x + found[-1].width
    at = 20.0
    items: list[Item] = []
    names = [arch_title(counted.arch) for counted in networks]
    tags = _table_tags(names)
    for index, counted in enumerate(networks):
        after = found[1].x + 8  # the picture, which is the tallest: what follows is mostly lower
        other = networks[0] if index else None
        lines, end = draw_header(
            counted, other, after, at, right, "" if len(networks) == 1 or tags == names else f"{tags[index]}: "
        )
        items += lines
        tall = [cuboid_of(part).height(scale) if (part := column.parts[index]) else 0.0 for column in found]
        base = max(at + tall[0], end + max(tall[1:])) + 8
        items += _draw_cuboids(found, index, base, scale)
        at = base + (26 if index + 1 < len(networks) else 10)
    cells, at = draw_table(found, tags, _STRIP_MARGIN, at)
    kinds = {part.kind for column in found for part in column.parts if part}
    marked = f" Marked: what differs from {tags[0]}." if len(networks) > 1 else ""
    notes, at = draw_legend(kinds, STRIP_NOTE + marked, _STRIP_MARGIN, at + 12, right)
    wide = right + _STRIP_MARGIN
    return Scene(wide, at + 12, " against ".join(map(summarize, networks)), (*items, *cells, *notes))


def _table_tags(names: Sequence[str]) -> list[str]:
    """Names short enough to stand beside each line of the table, or letters in their place."""
    short = len(set(names)) == len(names) and all(text_width(name, 9.0) < TAG_WIDTH for name in names)
    return list(names) if short else ["A", "B"][: len(names)]


def _strip_columns(networks: Sequence[Count]) -> list[StripColumn]:
    """Parts of the same name under each other; a network that lacks one has None there."""
    each = [{part.name: part for part in (input_part(counted), *network_parts(counted))} for counted in networks]
    names = list(dict.fromkeys(name for have in each for name in have))
    names.sort(key=lambda name: {"picture": 0, "stem": 1, "head": 3, "classifier": 4}.get(name, 2))  # stages stay
    return [StripColumn(name, tuple(have.get(name) for have in each)) for name in names]


def _fit_columns(found: list[StripColumn], side: float, left: float) -> tuple[list[StripColumn], DrawingScale]:
    """The columns at their places, with the largest scale of channels at which the strip is not too wide."""
    low, high, tried = 0.0, _MAX_CHANNEL_LENGTH, _MAX_CHANNEL_LENGTH
    for _ in range(12):
        placed = _place_columns(found, DrawingScale(side, tried), left)
        if placed[-1].x + placed[-1].width <= _MAX_STRIP_WIDTH:
            low = tried
        else:
            high = tried
        if low == high:
            break
        tried = (low + high) / 2
    return _place_columns(found, DrawingScale(side, low), left), DrawingScale(side, low)


def _place_columns(found: list[StripColumn], scale: DrawingScale, left: float) -> list[StripColumn]:
    placed = []
    for column in found:
        cuboids = [cuboid_of(part).width(scale) for part in column.parts if part]
        wide = max(column_text_width(column), *cuboids)
        placed.append(replace(column, x=left, width=wide))
        left += wide + _STRIP_GAP
    return placed


def _draw_cuboids(found: Sequence[StripColumn], index: int, base: float, scale: DrawingScale) -> list[Item]:
    """One network's parts, each in the middle of its column, standing on a line."""
    right = found[-1].x + found[-1].width
    items: list[Item] = [Line(((found[0].x, base), (right, base)), INK, 0.25, 0.8)]
    for column in found:
        part = column.parts[index]
        if part is not None:
            cuboid = cuboid_of(part)
            x = column.x + (column.width - cuboid.width(scale)) / 2
            items.append(Group(_describe_part(part), cuboid.items(x, base, scale)))
    return items


def _describe_part(part: NetworkPart) -> str:
    """A part in a sentence, for the pointer that rests on it."""
    if part.kind == "picture":
        return f"picture: {format_shape(part.size_out, part.channels)}"
    many = f"{part.layers} × " if part.layers > 1 else ""
    into = f"{format_shape(part.size_in, part.inputs)} → {format_shape(part.size_out, part.channels)}"
    return f"{part.name}: {many}{part.operator} {part.kernel}, {into}"


# The strip turned upright, for a telephone: the network runs downwards, and every text can be read at 360 pixels.


VERTICAL_WIDTH = 360.0


_VERTICAL_MARGIN, _VERTICAL_ROW_HEIGHT = 12.0, 64.0


_VERTICAL_MAX_SIDE, _VERTICAL_MAX_LENGTH = (
    45.0,
    88.0,
)  # units of the largest map's side, and of the most channels × layers


_VERTICAL_TEXT_X = _VERTICAL_MARGIN + _VERTICAL_MAX_LENGTH + 14


def vertical_strip_scene(counted: Count, beside: Count | None = None) -> Scene:
    """The network on the largest scale on which it, and ``beside``, have room."""
    rows = (input_part(counted), *network_parts(counted))
    scaled = (*rows, *(network_parts(beside) if beside else ()))
    side = max([*counted.size, *(beside.size if beside else ())])
    scale = DrawingScale(
        _VERTICAL_MAX_SIDE / side, _VERTICAL_MAX_LENGTH / 1.1 / max(row.channels * row.layers for row in scaled)
    )
    items, at = draw_header(counted, None, _VERTICAL_MARGIN, 10, VERTICAL_WIDTH - _VERTICAL_MARGIN)
    at += 6
    params, macs = (max(getattr(row, name) for row in rows) for name in ("params", "macs"))
    for row in rows:
        items.append(Line(((_VERTICAL_MARGIN, at), (VERTICAL_WIDTH - _VERTICAL_MARGIN, at)), INK, 0.13, 0.8))
        cuboid = cuboid_of(row)
        x, base = (
            _VERTICAL_MARGIN + (_VERTICAL_MAX_LENGTH - cuboid.width(scale)) / 2,
            at + (_VERTICAL_ROW_HEIGHT + cuboid.height(scale)) / 2,
        )
        items += cuboid.items(x, base, scale)
        top = at + (22 if row.kind == "picture" else 5)
        items += _vertical_row_items(row, top, params, macs)
        at += _VERTICAL_ROW_HEIGHT
    notes, at = draw_legend(
        {row.kind for row in rows}, STRIP_NOTE, _VERTICAL_MARGIN, at + 8, VERTICAL_WIDTH - _VERTICAL_MARGIN
    )
    return Scene(VERTICAL_WIDTH, at + 8, summarize(counted), (*items, *notes))


def _vertical_row_items(row: NetworkPart, top: float, params: int, macs: int) -> list[Item]:
    """Three lines: what it is, what leaves it, what it costs."""
    many = f" × {row.layers}" if row.layers > 1 else ""
    made = ", ".join(filter(None, (f"{row.operator} {row.kernel}".strip() + many, "SE" if row.squeeze else "")))
    out = str(row.channels) if row.kind == "classifier" else format_shape(row.size_out, row.channels)
    heading = Text(_VERTICAL_TEXT_X, top + 12, row.name, 12.5, bold=True)
    items: list[Item] = [heading]
    if row.kind == "picture":
        return [*items, Text(VERTICAL_WIDTH - _VERTICAL_MARGIN, top + 12, out, 12, "end")]
    room = VERTICAL_WIDTH - _VERTICAL_MARGIN - heading.box.right - 10
    items.append(shrink_to_width(Text(VERTICAL_WIDTH - _VERTICAL_MARGIN, top + 12, made, 12, "end"), room))
    items.append(Text(_VERTICAL_TEXT_X, top + 29, out, 12, opacity=0.85))
    half = (VERTICAL_WIDTH - _VERTICAL_MARGIN - _VERTICAL_TEXT_X - 10) / 2
    for index, (name, value, largest) in enumerate((("params", row.params, params), ("MACs", row.macs, macs))):
        x = _VERTICAL_TEXT_X + index * (half + 10)
        bar = Rect(Box(x, top + 49, max(0.6, half * value / largest), 4), LAYER_COLORS.get(row.kind, GREY), 0.85)
        items.append(Group(f"{row.name}: {value:,} {name}", (Text(x, top + 45, f"{format_si(value)} {name}", 11), bar)))
    return items


# A network as a diagram, from the arch alone: its stages to scale, its layers, its operations, what repeats in it.


DETAILS = ("stages", "layers", "operations")


def draw_network(
    arch: str | Arch,
    size: Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
    narrow: bool = False,
    scale_with: str | Arch | None = None,
) -> Diagram:
    """The network for a picture of ``size`` pixels (its own resolution if None), down to the ``detail`` wanted.

    "stages": a strip to scale, on which a map's height and depth are its sides in pixels and its length the channels
    of all layers of the stage; with the paper's table below. "layers": each stage opened into its layers. "operations":
    each layer opened into its convolutions and linear maps, equal neighbours together.

    ``narrow``: the stages downwards, 360 units wide, for a telephone. ``beside``: a network, at its own resolution,
    that would have room on the same scale, so that drawings of several can be compared; of the stages only.
    Raises ``ValueError`` for a detail that there is none of, for ``narrow`` or ``beside`` with another than the
    stages, and for a size below one pixel.
    """
    if check_detail(detail) != "stages" and (narrow or scale_with):
        raise ValueError(f"narrow and beside are for the detail stages, not for {detail}")
    counted = count(arch, size, classes, channels)
    if detail == "layers":
        return Diagram(layers_scene(counted))
    if detail == "operations":
        return Diagram(operations_scene(counted))
    scale = count(scale_with, None, classes, channels) if scale_with else None
    return Diagram(vertical_strip_scene(counted, scale) if narrow else strip_scene([counted], scale))


def check_detail(detail: str) -> str:
    """``detail`` itself. Raises ``ValueError`` where none is called so."""
    if detail not in DETAILS:
        raise ValueError(f"no detail is called {detail!r}: there are {', '.join(DETAILS)}")
    return detail


def draw_modules(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> Diagram:
    """The network by what repeats in it: stages of sub-blocks, which have one colour where they are alike."""
    return Diagram(modules_scene(count(arch, size, classes, channels)))


def draw_comparison(first: Count, second: Count) -> Diagram:
    """Two counted networks on one scale, one above the other, and a table in which is marked what differs."""
    return Diagram(strip_scene([first, second]))
