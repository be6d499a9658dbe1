"""Diagrams of whole networks: the stages as a strip of cuboids to scale, with a table; two networks compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from effnet.arch import Arch, Count, count, counting, spec
from effnet.draw import diagram
from effnet.draw.diagram import INK, LAYER_COLORS, Box, Diagram, Group, Item, Line, Rect, Text, centered_text
from effnet.draw.diagram_data import NetworkPart, draw_header, draw_legend, input_part, network_parts, summarize
from effnet.draw.layer_diagram import layers_diagram, operations_diagram
from effnet.draw.text import arch_title, format_output, format_percent, format_shape, format_si, format_size, text_width

DETAILS = ("stages", "layers", "operations")

# Cuboids
_SLANT = (0.32, 0.2)  # to the right and up, per unit of a map's width
_MIN_THICKNESS = 1.6
_MIN_SLAB_SPACING = 2.4  # thinner slabs are not drawn separately
_STRIP_NOTE = "A block's height and depth: its map; length: channels × layers, one slab per layer. To scale."

# The table below the strip
_FONT_SIZE = 10.5
_LINE_HEIGHT, _CHART_HEIGHT = 17.0, 34.0  # of a text, and of the bars below it
_HEADING_WIDTH, _TAG_WIDTH = 98.0, 36.0  # of the names of rows, and of networks next to them

# The strip
_STRIP_MARGIN, _STRIP_GAP = 24.0, 12.0
_MAX_STRIP_WIDTH = 1056.0  # for its cuboids; wide texts can exceed it
_MAX_IMAGE_HEIGHT = 160.0  # of the largest image
_MAX_CHANNEL_LENGTH = 0.14

# The vertical strip
_VERTICAL_WIDTH, _VERTICAL_MARGIN, _VERTICAL_ROW_HEIGHT = 360.0, 12.0, 64.0
_VERTICAL_MAX_SIDE, _VERTICAL_MAX_LENGTH = 45.0, 88.0  # of the largest map, and of the most channels × layers
_VERTICAL_TEXT_X = _VERTICAL_MARGIN + _VERTICAL_MAX_LENGTH + 14


def draw_network(
    arch: str | Arch,
    size: counting.Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
    narrow: bool = False,
    scale_with: str | Arch | None = None,
) -> Diagram:
    """Draw a network from its arch alone.

    Args:
        arch: A network or the name of a published one.
        size: Input size, a side or (height, width) in pixels. Default: the network's own resolution.
        classes, channels: Outputs of the classifier; input channels.
        detail: "stages": a strip to scale, in which a map's height and depth are its sides in pixels and its length
            the channels of all layers of the stage, above the paper's table. "layers": every layer. "operations":
            every convolution and linear layer, with equal consecutive layers together.
        narrow: Draw the stages from top to bottom, 360 units wide, for a phone.
        scale_with: Leave room for this network at its own resolution, so that diagrams of several can be compared.

    Raises ``ValueError`` for an unknown detail, or another than "stages" with ``narrow`` or ``scale_with``.
    """
    if check_detail(detail) != "stages" and (narrow or scale_with):
        raise ValueError(f"narrow and scale_with require detail='stages', got {detail!r}")
    counted = count(arch, size, classes, channels)
    if detail != "stages":
        return layers_diagram(counted) if detail == "layers" else operations_diagram(counted)
    other = count(scale_with, None, classes, channels) if scale_with else None
    return _vertical_strip_diagram(counted, other) if narrow else _strip_diagram([counted], other)


def check_detail(detail: str) -> str:
    """Return ``detail``. Raises ``ValueError`` if it is unknown."""
    if detail not in DETAILS:
        raise ValueError(f"unknown detail {detail!r}: use one of {', '.join(DETAILS)}")
    return detail


def draw_comparison(first: Count, second: Count) -> Diagram:
    """Draw two networks on one scale, one above the other, and a table in which differences are marked."""
    return _strip_diagram([first, second])


@dataclass(frozen=True)
class _Scale:
    """SVG units per pixel of a map's side, and per channel."""

    side: float
    channel: float


class _Cuboid:
    """The output maps of the layers of a part, one behind the other; ``slant``: how far right and up the back is."""

    def __init__(self, part: NetworkPart, scale: _Scale) -> None:
        height, depth = (scale.side * side for side in ((1, 1) if part.kind == "classifier" else part.size_out))
        self.layers, self.color = part.layers, LAYER_COLORS.get(part.kind, INK)
        self.length = max(_MIN_THICKNESS, scale.channel * part.channels * part.layers)
        self.front = max(_MIN_THICKNESS, height)
        self.slant = depth * _SLANT[0], depth * _SLANT[1]
        self.width, self.height = self.length + self.slant[0], self.front + self.slant[1]

    def items(self, x: float, base: float) -> tuple[Item, ...]:
        """Draw it standing on ``base`` with its left edge at ``x``. Its faces are translucent and share only edges."""
        (dx, dy), top, right = self.slant, base - self.front, x + self.length
        faces = (
            (((x, base), (right, base), (right, top), (x, top)), 0.6),
            (((x, top), (right, top), (right + dx, top - dy), (x + dx, top - dy)), 0.32),
            (((right, base), (right + dx, base - dy), (right + dx, top - dy), (right, top)), 0.45),
        )
        weight = 0.45 if self.color == INK else 1.0  # ink is stronger than any of the colors
        items: list[Item] = [
            diagram.Shape(points, self.color, opacity * weight, 0.75 * weight) for points, opacity in faces
        ]
        step = self.length / self.layers
        if step >= _MIN_SLAB_SPACING:
            for layer in range(1, self.layers):
                edge = x + layer * step
                items.append(Line(((edge, base), (edge, top), (edge + dx, top - dy)), self.color, 0.9, 0.8))
        return tuple(items)


def _if_block(part: NetworkPart, text: str) -> str:
    return text if part.kind in spec.BLOCK_KINDS else ""


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
class _Column:
    """A column of the strip, with the part that each network has there."""

    name: str
    parts: tuple[NetworkPart | None, ...]
    x: float = 0.0
    width: float = 0.0

    @property
    def middle(self) -> float:
        """x of the center."""
        return self.x + self.width / 2


def _column_text_width(column: _Column) -> float:
    texts = [text_of(part) for part in column.parts if part for _, text_of in TEXT_ROWS]
    texts += [format_si(cost_of(part)) for part in column.parts if part for _, cost_of in COST_ROWS]
    return max([text_width(column.name, _FONT_SIZE, True), *(text_width(text, _FONT_SIZE) for text in texts)])


def _differs(column: _Column, text_of: Callable[[NetworkPart], object]) -> bool:
    return len({None if part is None else text_of(part) for part in column.parts}) > 1


def _draw_table(columns: Sequence[_Column], names: Sequence[str], left: float, top: float) -> tuple[list[Item], float]:
    """Draw the table of the networks called ``names``; return its bottom too."""
    items: list[Item] = []
    width = columns[-1].x + columns[-1].width - left
    for column in columns:
        box = Box(column.x, top, column.width, _LINE_HEIGHT)
        items.append(centered_text(box, column.name, _FONT_SIZE, bold=True))
    y = top + _LINE_HEIGHT + 2
    for name, text_of in TEXT_ROWS:
        has_differences = len(names) > 1 and any(_differs(column, text_of) for column in columns)
        height = _LINE_HEIGHT * (len(names) if has_differences else 1)
        items += _table_row(name, names if has_differences else (), Box(left, y, width, height))
        for column in columns:
            items += _table_cells(column, text_of, Box(column.x, y, column.width, height), has_differences)
        y += height
    for name, cost_of in COST_ROWS:
        height = _LINE_HEIGHT * len(names)
        items += _table_row(name, names if len(names) > 1 else (), Box(left, y, width, height))
        items += _cost_bars(columns, cost_of, name, y)
        y += height + _CHART_HEIGHT
    return items, y


def _table_row(name: str, tags: Sequence[str], box: Box) -> list[Item]:
    rule = Line(((box.x, box.y), (box.right, box.y)), INK, 0.13, 0.8)
    bounds = Box(box.x, box.y, _HEADING_WIDTH - 12, _LINE_HEIGHT)
    items: list[Item] = [rule, Text(box.x, box.y + 12, name, _FONT_SIZE, opacity=0.7, bounds=bounds)]
    for index, tag in enumerate(tags):
        x, y = box.x + _HEADING_WIDTH + _TAG_WIDTH - 12, box.y + index * box.height / len(tags) + 12
        items.append(Text(x, y, tag, 9.0, "end", opacity=0.7))
    return items


def _table_cells(column: _Column, text_of: Callable[[NetworkPart], str], box: Box, has_differences: bool) -> list[Item]:
    """Draw the text of each network: once if they agree, else below each other, the second one marked."""
    texts = [text_of(part) if part else "–" for part in column.parts]
    if not _differs(column, text_of):
        opacity = 0.6 if has_differences else 1.0
        return [centered_text(box, texts[0], _FONT_SIZE, opacity=opacity)] if texts[0] else []
    step = box.height / len(texts)
    items: list[Item] = []
    for index, text in enumerate(texts):
        cell = Box(box.x, box.y + index * step, box.width, step)
        if index:
            width = text_width(text, _FONT_SIZE) + 8
            marked = Box(cell.middle - width / 2, cell.y + 1.5, width, cell.height - 3)
            items.append(Rect(marked, diagram.CHANGED_COLOR, 0.32, radius=4))
        items.append(centered_text(cell, text or "–", _FONT_SIZE))
    return items


def _cost_bars(columns: Sequence[_Column], cost_of: Callable[[NetworkPart], int], name: str, top: float) -> list[Item]:
    largest = max(cost_of(part) for column in columns for part in column.parts if part)
    networks = len(columns[0].parts)
    totals = [sum(cost_of(part) for c in columns if (part := c.parts[index])) for index in range(networks)]
    width, base = 26.0 / networks, top + networks * _LINE_HEIGHT + _CHART_HEIGHT - 4
    items: list[Item] = []
    for column in columns:
        for index, part in enumerate(column.parts):
            if part and part.kind == "image":
                continue
            line = Box(column.x, top + index * _LINE_HEIGHT, column.width, _LINE_HEIGHT)
            if part is None:
                items.append(centered_text(line, "–", _FONT_SIZE))
                continue
            cost = cost_of(part)
            height = max(0.6, (_CHART_HEIGHT - 8) * cost / largest)
            bar = Box(column.middle + (index - networks / 2) * width, base - height, width - 1, height)
            opacity = 0.85 if index + 1 == networks else 0.45
            title = f"{part.name}: {cost:,} {name}, {format_percent(cost / totals[index])} of the network"
            text = centered_text(line, format_si(cost), _FONT_SIZE)
            items.append(Group(title, (text, Rect(bar, LAYER_COLORS[part.kind], opacity))))
    return items


def _strip_diagram(networks: Sequence[Count], scale_with: Count | None = None) -> Diagram:
    """Lay out one or two networks on the largest scale on which they, and ``scale_with``, fit."""
    scaled = [*networks, scale_with] if scale_with else networks
    side = _MAX_IMAGE_HEIGHT / max(max(counted.size) for counted in scaled)
    left = _STRIP_MARGIN + _HEADING_WIDTH + (_TAG_WIDTH if len(networks) > 1 else 0)
    fitted, scale = _fit_columns(_strip_columns(scaled), side, left)
    columns = [replace(column, parts=column.parts[: len(networks)]) for column in fitted]
    columns = [column for column in columns if any(column.parts)]
    right = columns[-1].x + columns[-1].width
    y = 20.0
    items: list[Item] = []
    names = [arch_title(counted.arch) for counted in networks]
    tags = _table_tags(names)
    for index, counted in enumerate(networks):
        header_left = columns[1].x + 8  # right of the image, which is tallest: what follows is mostly lower
        prefix = "" if len(networks) == 1 or tags == names else f"{tags[index]}: "
        header, bottom = draw_header(counted, networks[0] if index else None, header_left, y, right, prefix)
        items += header
        parts = [column.parts[index] for column in columns]
        heights = [_Cuboid(part, scale).height if part else 0.0 for part in parts]
        base = max(y + heights[0], bottom + max(heights[1:])) + 8
        items += _draw_cuboids(columns, index, base, scale)
        y = base + (26 if index + 1 < len(networks) else 10)
    cells, y = _draw_table(columns, tags, _STRIP_MARGIN, y)
    kinds = {part.kind for column in columns for part in column.parts if part}
    note = _STRIP_NOTE + (f" Marked: differences from {tags[0]}." if len(networks) > 1 else "")
    legend, y = draw_legend(kinds, note, _STRIP_MARGIN, y + 12, right)
    title = " compared with ".join(map(summarize, networks))
    return Diagram(right + _STRIP_MARGIN, y + 12, title, (*items, *cells, *legend))


def _table_tags(names: Sequence[str]) -> list[str]:
    """Return names short enough for each line of the table, or letters instead."""
    are_short = len(set(names)) == len(names) and all(text_width(name, 9.0) < _TAG_WIDTH for name in names)
    return list(names) if are_short else ["A", "B"][: len(names)]


def _strip_columns(networks: Sequence[Count]) -> list[_Column]:
    """Return a column for each part name; a network that lacks the part has None there."""
    parts = [{part.name: part for part in (input_part(counted), *network_parts(counted))} for counted in networks]
    names = list(dict.fromkeys(name for by_name in parts for name in by_name))
    names.sort(key=lambda name: {"image": 0, "stem": 1, "head": 3, "classifier": 4}.get(name, 2))  # a stable sort
    return [_Column(name, tuple(by_name.get(name) for by_name in parts)) for name in names]


def _fit_columns(columns: list[_Column], side: float, left: float) -> tuple[list[_Column], _Scale]:
    """Place the columns with the largest scale of channels at which the strip is not too wide."""
    low, high, channel = 0.0, _MAX_CHANNEL_LENGTH, _MAX_CHANNEL_LENGTH
    for _ in range(12):
        last = _place_columns(columns, _Scale(side, channel), left)[-1]
        low, high = (channel, high) if last.x + last.width <= _MAX_STRIP_WIDTH else (low, channel)
        if low == high:
            break
        channel = (low + high) / 2
    return _place_columns(columns, _Scale(side, low), left), _Scale(side, low)


def _place_columns(columns: list[_Column], scale: _Scale, left: float) -> list[_Column]:
    placed = []
    for column in columns:
        widths = [_Cuboid(part, scale).width for part in column.parts if part]
        width = max(_column_text_width(column), *widths)
        placed.append(replace(column, x=left, width=width))
        left += width + _STRIP_GAP
    return placed


def _draw_cuboids(columns: Sequence[_Column], index: int, base: float, scale: _Scale) -> list[Item]:
    right = columns[-1].x + columns[-1].width
    items: list[Item] = [Line(((columns[0].x, base), (right, base)), INK, 0.25, 0.8)]
    for column in columns:
        part = column.parts[index]
        if part is not None:
            cuboid = _Cuboid(part, scale)
            items.append(Group(_describe_part(part), cuboid.items(column.middle - cuboid.width / 2, base)))
    return items


def _describe_part(part: NetworkPart) -> str:
    if part.kind == "image":
        return f"image: {format_shape(part.size_out, part.channels)}"
    layers = f"{part.layers} × " if part.layers > 1 else ""
    shapes = f"{format_shape(part.size_in, part.inputs)} → {format_shape(part.size_out, part.channels)}"
    return f"{part.name}: {layers}{part.operation}, {shapes}"


def _vertical_strip_diagram(counted: Count, scale_with: Count | None = None) -> Diagram:
    """Lay out the network from top to bottom, 360 units wide, so that every text is legible on a phone."""
    left, right = _VERTICAL_MARGIN, _VERTICAL_WIDTH - _VERTICAL_MARGIN
    parts = (input_part(counted), *network_parts(counted))
    scaled = (*parts, *(network_parts(scale_with) if scale_with else ()))
    side = max([*counted.size, *(scale_with.size if scale_with else ())])
    longest = max(part.channels * part.layers for part in scaled)
    scale = _Scale(_VERTICAL_MAX_SIDE / side, _VERTICAL_MAX_LENGTH / 1.1 / longest)
    items, y = draw_header(counted, None, left, 10, right)
    y += 6
    max_params, max_macs = max(part.params for part in parts), max(part.macs for part in parts)
    for part in parts:
        items.append(Line(((left, y), (right, y)), INK, 0.13, 0.8))
        cuboid = _Cuboid(part, scale)
        x = left + (_VERTICAL_MAX_LENGTH - cuboid.width) / 2
        items += cuboid.items(x, y + (_VERTICAL_ROW_HEIGHT + cuboid.height) / 2)
        items += _vertical_texts(part, y + (22 if part.kind == "image" else 5), max_params, max_macs)
        y += _VERTICAL_ROW_HEIGHT
    legend, y = draw_legend({part.kind for part in parts}, _STRIP_NOTE, left, y + 8, right)
    return Diagram(_VERTICAL_WIDTH, y + 8, summarize(counted), (*items, *legend))


def _vertical_texts(part: NetworkPart, top: float, max_params: int, max_macs: int) -> list[Item]:
    right = _VERTICAL_WIDTH - _VERTICAL_MARGIN
    output = format_output(part.kind, part.size_out, part.channels)
    heading = Text(_VERTICAL_TEXT_X, top + 12, part.name, 12.5, bold=True)
    if part.kind == "image":
        return [heading, Text(right, top + 12, output, 12, "end")]
    layers = f" × {part.layers}" if part.layers > 1 else ""
    operator = part.operation + layers + (", SE" if part.squeeze else "")
    items: list[Item] = [
        heading,
        diagram.shrink_to_width(Text(right, top + 12, operator, 12, "end"), right - heading.box.right - 10),
        Text(_VERTICAL_TEXT_X, top + 29, output, 12, opacity=0.85),
    ]
    half = (right - _VERTICAL_TEXT_X - 10) / 2
    for index, (name, cost, largest) in enumerate((("params", part.params, max_params), ("MACs", part.macs, max_macs))):
        x = _VERTICAL_TEXT_X + index * (half + 10)
        bar = Rect(Box(x, top + 49, max(0.6, half * cost / largest), 4), LAYER_COLORS[part.kind], 0.85)
        items.append(Group(f"{part.name}: {cost:,} {name}", (Text(x, top + 45, f"{format_si(cost)} {name}", 11), bar)))
    return items
