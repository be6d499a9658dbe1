"""Diagrams of whole networks: the stages as a strip of cuboids to scale, with a table; two networks compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from effnet.arch import Arch, Count, count, counting, spec
from effnet.draw import diagram, font, formatting, layer_diagram, network_summary

DETAILS = ("stages", "layers", "operations")

# Cuboids
_SLANT = (0.32, 0.2)  # to the right and up, per unit of a map's width
_MIN_THICKNESS = 1.6
_MIN_SLAB_SPACING = 2.4  # thinner slabs are not drawn separately
_STRIP_NOTE = "A block's height and depth: its map; length: channels × layers, one slab per layer. To scale."

# The table below the strip
TABLE_FONT_SIZE = 10.5
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


# --- Public functions --------------------------------------------------------------------------------------------


def draw_network(
    arch: str | Arch,
    size: counting.Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
    narrow: bool = False,
    scale_with: str | Arch | None = None,
) -> diagram.Diagram:
    """Draw a network from its arch alone.

    Args:
        arch: A network or the name of a published one.
        size: Input size, a side or (height, width) in pixels. Default: the network's own resolution.
        classes: Outputs of the classifier.
        channels: Input channels.
        detail: "stages": a strip to scale, in which a map's height and depth are its sides in pixels and its length
            the channels of all layers of the stage, above the paper's table. "layers": every layer. "operations":
            every convolution and linear layer, with equal consecutive layers together.
        narrow: Draw the stages from top to bottom, 360 units wide, for a phone.
        scale_with: A network that would also fit on the same scale at its own resolution, so that diagrams of several
            networks can be compared; only with the detail "stages".

    Raises:
        ValueError: The detail is unknown, not compatible with ``narrow`` or ``scale_with``, or a side is below 1.
    """
    if check_detail(detail) != "stages" and (narrow or scale_with):
        raise ValueError(f"narrow and scale_with require detail='stages', got {detail!r}")
    counted = count(arch, size, classes, channels)
    if detail == "layers":
        return diagram.Diagram(layer_diagram.layers_scene(counted))
    if detail == "operations":
        return diagram.Diagram(layer_diagram.operations_scene(counted))
    other = count(scale_with, None, classes, channels) if scale_with else None
    return diagram.Diagram(vertical_strip_scene(counted, other) if narrow else strip_scene([counted], other))


def check_detail(detail: str) -> str:
    """Return ``detail``. Raises ``ValueError`` if it is unknown."""
    if detail not in DETAILS:
        raise ValueError(f"unknown detail {detail!r}: use one of {', '.join(DETAILS)}")
    return detail


def draw_modules(
    arch: str | Arch, size: counting.Size | None = None, classes: int = 1000, channels: int = 3
) -> diagram.Diagram:
    """Draw a network by its repeated blocks: stages of sub-blocks, equal ones in the same color."""
    return diagram.Diagram(layer_diagram.modules_scene(count(arch, size, classes, channels)))


def draw_comparison(first: Count, second: Count) -> diagram.Diagram:
    """Draw two networks on one scale, one above the other, and a table in which differences are marked."""
    return diagram.Diagram(strip_scene([first, second]))


# --- Cuboids -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawingScale:
    """SVG units per pixel of a map's side, and per channel."""

    side: float
    channel: float


@dataclass(frozen=True)
class Cuboid:
    """``layers`` maps of ``size`` (height, width) and ``channels``, one behind the other."""

    size: tuple[int, int]
    channels: int
    layers: int
    color: str

    def length(self, scale: DrawingScale) -> float:
        """Return its extent along x without the slanted depth."""
        return max(_MIN_THICKNESS, scale.channel * self.channels * self.layers)

    def slant(self, scale: DrawingScale) -> tuple[float, float]:
        """Return how far the back is to the right of and above the front."""
        depth = self.size[1] * scale.side
        return depth * _SLANT[0], depth * _SLANT[1]

    def width(self, scale: DrawingScale) -> float:
        """Return its extent along x."""
        return self.length(scale) + self.slant(scale)[0]

    def height(self, scale: DrawingScale) -> float:
        """Return its extent along y."""
        return self._front(scale) + self.slant(scale)[1]

    def _front(self, scale: DrawingScale) -> float:
        return max(_MIN_THICKNESS, self.size[0] * scale.side)

    def items(self, x: float, base: float, scale: DrawingScale) -> tuple[diagram.Item, ...]:
        """Draw it standing on ``base`` with its left edge at ``x``. Its faces are translucent and share only edges."""
        length, (dx, dy), front = self.length(scale), self.slant(scale), self._front(scale)
        top, right = base - front, x + length

        def face(points: tuple[tuple[float, float], ...], opacity: float) -> diagram.Shape:
            weight = 0.45 if self.color == diagram.INK else 1.0  # ink is stronger than any of the colors
            return diagram.Shape(points, self.color, opacity * weight, 0.75 * weight)

        items: list[diagram.Item] = [
            face(((x, base), (right, base), (right, top), (x, top)), 0.6),
            face(((x, top), (right, top), (right + dx, top - dy), (x + dx, top - dy)), 0.32),
            face(((right, base), (right + dx, base - dy), (right + dx, top - dy), (right, top)), 0.45),
        ]
        step = length / self.layers
        if step >= _MIN_SLAB_SPACING:
            for layer in range(1, self.layers):
                edge = x + layer * step
                items.append(diagram.Line(((edge, base), (edge, top), (edge + dx, top - dy)), self.color, 0.9, 0.8))
        return tuple(items)


def cuboid_of(part: network_summary.NetworkPart) -> Cuboid:
    """Return the output maps of the layers of a part."""
    size = (1, 1) if part.kind == "classifier" else part.size_out
    return Cuboid(size, part.channels, part.layers, diagram.LAYER_COLORS.get(part.kind, diagram.INK))


# --- The table: a row for each fact, a column for each part -------------------------------------------------------


def _if_block(part: network_summary.NetworkPart, text: str) -> str:
    return text if part.kind in spec.BLOCK_KINDS else ""


TEXT_ROWS: tuple[tuple[str, Callable[[network_summary.NetworkPart], str]], ...] = (
    ("operator", lambda part: part.operator),
    ("kernel", lambda part: part.kernel),
    ("squeeze-excite", lambda part: _if_block(part, f"{part.squeeze:g}" if part.squeeze else "–")),
    ("stride", lambda part: str(part.stride) if part.kernel else ""),
    ("layers", lambda part: _if_block(part, f"× {part.layers}")),
    ("map", lambda part: "" if part.kind == "classifier" else formatting.format_size(part.size_out)),
    ("channels", lambda part: str(part.channels)),
)
COST_ROWS: tuple[tuple[str, Callable[[network_summary.NetworkPart], int]], ...] = (
    ("params", lambda part: part.params),
    ("MACs", lambda part: part.macs),
)


@dataclass(frozen=True)
class StripColumn:
    """A column of the strip, with the part that each network has there."""

    name: str
    parts: tuple[network_summary.NetworkPart | None, ...]
    x: float = 0.0
    width: float = 0.0

    @property
    def middle(self) -> float:
        """x of the center."""
        return self.x + self.width / 2


def column_text_width(column: StripColumn) -> float:
    """Return the width of the column's widest text."""
    texts = [text_of(part) for part in column.parts if part for _, text_of in TEXT_ROWS]
    texts += [formatting.format_si(cost_of(part)) for part in column.parts if part for _, cost_of in COST_ROWS]
    return max(
        [
            font.text_width(column.name, TABLE_FONT_SIZE, True),
            *(font.text_width(text, TABLE_FONT_SIZE) for text in texts),
        ]
    )


def differs(column: StripColumn, text_of: Callable[[network_summary.NetworkPart], object]) -> bool:
    """Whether the networks differ in this fact."""
    return len({None if part is None else text_of(part) for part in column.parts}) > 1


def draw_table(
    columns: Sequence[StripColumn], names: Sequence[str], left: float, top: float
) -> tuple[list[diagram.Item], float]:
    """Draw the table of the networks called ``names``; return its bottom too."""
    items: list[diagram.Item] = []
    width = columns[-1].x + columns[-1].width - left
    for column in columns:
        box = diagram.Box(column.x, top, column.width, _LINE_HEIGHT)
        items.append(diagram.centered_text(box, column.name, TABLE_FONT_SIZE, bold=True))
    y = top + _LINE_HEIGHT + 2
    for name, text_of in TEXT_ROWS:
        has_differences = len(names) > 1 and any(differs(column, text_of) for column in columns)
        height = _LINE_HEIGHT * (len(names) if has_differences else 1)
        items += _table_row(name, names if has_differences else (), diagram.Box(left, y, width, height))
        for column in columns:
            items += _table_cells(column, text_of, diagram.Box(column.x, y, column.width, height), has_differences)
        y += height
    for name, cost_of in COST_ROWS:
        height = _LINE_HEIGHT * len(names)
        items += _table_row(name, names if len(names) > 1 else (), diagram.Box(left, y, width, height))
        items += _cost_bars(columns, cost_of, name, y)
        y += height + _CHART_HEIGHT
    return items, y


def _table_row(name: str, tags: Sequence[str], box: diagram.Box) -> list[diagram.Item]:
    rule = diagram.Line(((box.x, box.y), (box.right, box.y)), diagram.INK, 0.13, 0.8)
    bounds = diagram.Box(box.x, box.y, _HEADING_WIDTH - 12, _LINE_HEIGHT)
    heading = diagram.Text(box.x, box.y + 12, name, TABLE_FONT_SIZE, opacity=0.7, bounds=bounds)
    tag_end = box.x + _HEADING_WIDTH + _TAG_WIDTH - 12
    step = box.height / max(len(tags), 1)
    return [
        rule,
        heading,
        *(
            diagram.Text(tag_end, box.y + index * step + 12, tag, 9.0, "end", opacity=0.7)
            for index, tag in enumerate(tags)
        ),
    ]


def _table_cells(
    column: StripColumn, text_of: Callable[[network_summary.NetworkPart], str], box: diagram.Box, has_differences: bool
) -> list[diagram.Item]:
    """Draw the text of each network: once if they agree, else below each other, the second one marked."""
    texts = [text_of(part) if part else "–" for part in column.parts]
    if not differs(column, text_of):
        opacity = 0.6 if has_differences else 1.0
        return [diagram.centered_text(box, texts[0], TABLE_FONT_SIZE, opacity=opacity)] if texts[0] else []
    step = box.height / len(texts)
    items: list[diagram.Item] = []
    for index, text in enumerate(texts):
        cell = diagram.Box(box.x, box.y + index * step, box.width, step)
        if index:
            width = font.text_width(text, TABLE_FONT_SIZE) + 8
            marked = diagram.Box(cell.middle - width / 2, cell.y + 1.5, width, cell.height - 3)
            items.append(diagram.Rect(marked, diagram.CHANGED_COLOR, 0.32, radius=4))
        items.append(diagram.centered_text(cell, text or "–", TABLE_FONT_SIZE))
    return items


def _cost_bars(
    columns: Sequence[StripColumn], cost_of: Callable[[network_summary.NetworkPart], int], name: str, top: float
) -> list[diagram.Item]:
    largest = max(cost_of(part) for column in columns for part in column.parts if part)
    networks = len(columns[0].parts)
    totals = [sum(cost_of(part) for c in columns if (part := c.parts[index])) for index in range(networks)]
    width, base = 26.0 / networks, top + networks * _LINE_HEIGHT + _CHART_HEIGHT - 4
    items: list[diagram.Item] = []
    for column in columns:
        for index, part in enumerate(column.parts):
            if part and part.kind == "image":
                continue
            line = diagram.Box(column.x, top + index * _LINE_HEIGHT, column.width, _LINE_HEIGHT)
            if part is None:
                items.append(diagram.centered_text(line, "–", TABLE_FONT_SIZE))
                continue
            cost = cost_of(part)
            height = max(0.6, (_CHART_HEIGHT - 8) * cost / largest)
            bar = diagram.Box(column.middle + (index - networks / 2) * width, base - height, width - 1, height)
            opacity = 0.85 if index + 1 == networks else 0.45
            title = f"{part.name}: {cost:,} {name}, {formatting.format_percent(cost / totals[index])} of the network"
            text = diagram.centered_text(line, formatting.format_si(cost), TABLE_FONT_SIZE)
            items.append(
                diagram.Group(
                    title, (text, diagram.Rect(bar, diagram.LAYER_COLORS.get(part.kind, diagram.GREY), opacity))
                )
            )
    return items


# --- The strip ---------------------------------------------------------------------------------------------------


def strip_scene(networks: Sequence[Count], scale_with: Count | None = None) -> diagram.Scene:
    """Lay out one or two networks on the largest scale on which they, and ``scale_with``, fit."""
    scaled = [*networks, scale_with] if scale_with else networks
    largest = max(max(counted.size) for counted in scaled)
    left = _STRIP_MARGIN + _HEADING_WIDTH + (_TAG_WIDTH if len(networks) > 1 else 0)
    fitted, scale = _fit_columns(_strip_columns(scaled), _MAX_IMAGE_HEIGHT / largest, left)
    columns = [replace(column, parts=column.parts[: len(networks)]) for column in fitted]
    columns = [column for column in columns if any(column.parts)]
    right = columns[-1].x + columns[-1].width
    y = 20.0
    items: list[diagram.Item] = []
    names = [formatting.arch_title(counted.arch) for counted in networks]
    tags = _table_tags(names)
    for index, counted in enumerate(networks):
        header_left = columns[1].x + 8  # right of the image, which is tallest: what follows is mostly lower
        prefix = "" if len(networks) == 1 or tags == names else f"{tags[index]}: "
        header, bottom = network_summary.draw_header(
            counted, networks[0] if index else None, header_left, y, right, prefix
        )
        items += header
        parts = [column.parts[index] for column in columns]
        heights = [cuboid_of(part).height(scale) if part else 0.0 for part in parts]
        base = max(y + heights[0], bottom + max(heights[1:])) + 8
        items += _draw_cuboids(columns, index, base, scale)
        y = base + (26 if index + 1 < len(networks) else 10)
    cells, y = draw_table(columns, tags, _STRIP_MARGIN, y)
    kinds = {part.kind for column in columns for part in column.parts if part}
    note = _STRIP_NOTE + (f" Marked: differences from {tags[0]}." if len(networks) > 1 else "")
    legend, y = network_summary.draw_legend(kinds, note, _STRIP_MARGIN, y + 12, right)
    title = " compared with ".join(map(network_summary.summarize, networks))
    return diagram.Scene(right + _STRIP_MARGIN, y + 12, title, (*items, *cells, *legend))


def _table_tags(names: Sequence[str]) -> list[str]:
    """Return names short enough for each line of the table, or letters instead."""
    are_short = len(set(names)) == len(names) and all(font.text_width(name, 9.0) < _TAG_WIDTH for name in names)
    return list(names) if are_short else ["A", "B"][: len(names)]


def _strip_columns(networks: Sequence[Count]) -> list[StripColumn]:
    """Return a column for each part name; a network that lacks the part has None there."""
    parts = [
        {part.name: part for part in (network_summary.input_part(counted), *network_summary.network_parts(counted))}
        for counted in networks
    ]
    names = list(dict.fromkeys(name for by_name in parts for name in by_name))
    names.sort(key=lambda name: {"image": 0, "stem": 1, "head": 3, "classifier": 4}.get(name, 2))  # a stable sort
    return [StripColumn(name, tuple(by_name.get(name) for by_name in parts)) for name in names]


def _fit_columns(columns: list[StripColumn], side: float, left: float) -> tuple[list[StripColumn], DrawingScale]:
    """Place the columns with the largest scale of channels at which the strip is not too wide."""
    low, high, channel = 0.0, _MAX_CHANNEL_LENGTH, _MAX_CHANNEL_LENGTH
    for _ in range(12):
        placed = _place_columns(columns, DrawingScale(side, channel), left)
        if placed[-1].x + placed[-1].width <= _MAX_STRIP_WIDTH:
            low = channel
        else:
            high = channel
        if low == high:
            break
        channel = (low + high) / 2
    return _place_columns(columns, DrawingScale(side, low), left), DrawingScale(side, low)


def _place_columns(columns: list[StripColumn], scale: DrawingScale, left: float) -> list[StripColumn]:
    placed = []
    for column in columns:
        widths = [cuboid_of(part).width(scale) for part in column.parts if part]
        width = max(column_text_width(column), *widths)
        placed.append(replace(column, x=left, width=width))
        left += width + _STRIP_GAP
    return placed


def _draw_cuboids(columns: Sequence[StripColumn], index: int, base: float, scale: DrawingScale) -> list[diagram.Item]:
    right = columns[-1].x + columns[-1].width
    items: list[diagram.Item] = [diagram.Line(((columns[0].x, base), (right, base)), diagram.INK, 0.25, 0.8)]
    for column in columns:
        part = column.parts[index]
        if part is not None:
            cuboid = cuboid_of(part)
            x = column.x + (column.width - cuboid.width(scale)) / 2
            items.append(diagram.Group(_describe_part(part), cuboid.items(x, base, scale)))
    return items


def _describe_part(part: network_summary.NetworkPart) -> str:
    if part.kind == "image":
        return f"image: {formatting.format_shape(part.size_out, part.channels)}"
    layers = f"{part.layers} × " if part.layers > 1 else ""
    shapes = f"{formatting.format_shape(part.size_in, part.inputs)} → {formatting.format_shape(part.size_out, part.channels)}"
    return f"{part.name}: {layers}{part.operator} {part.kernel}, {shapes}"


# --- The vertical strip: 360 units wide, so that every text is legible on a phone ---------------------------------


def vertical_strip_scene(counted: Count, scale_with: Count | None = None) -> diagram.Scene:
    """Lay out the network from top to bottom on the largest scale on which it, and ``scale_with``, fit."""
    left, right = _VERTICAL_MARGIN, _VERTICAL_WIDTH - _VERTICAL_MARGIN
    parts = (network_summary.input_part(counted), *network_summary.network_parts(counted))
    scaled = (*parts, *(network_summary.network_parts(scale_with) if scale_with else ()))
    side = max([*counted.size, *(scale_with.size if scale_with else ())])
    longest = max(part.channels * part.layers for part in scaled)
    scale = DrawingScale(_VERTICAL_MAX_SIDE / side, _VERTICAL_MAX_LENGTH / 1.1 / longest)
    items, y = network_summary.draw_header(counted, None, left, 10, right)
    y += 6
    max_params, max_macs = max(part.params for part in parts), max(part.macs for part in parts)
    for part in parts:
        items.append(diagram.Line(((left, y), (right, y)), diagram.INK, 0.13, 0.8))
        cuboid = cuboid_of(part)
        x = left + (_VERTICAL_MAX_LENGTH - cuboid.width(scale)) / 2
        items += cuboid.items(x, y + (_VERTICAL_ROW_HEIGHT + cuboid.height(scale)) / 2, scale)
        items += _vertical_texts(part, y + (22 if part.kind == "image" else 5), max_params, max_macs)
        y += _VERTICAL_ROW_HEIGHT
    legend, y = network_summary.draw_legend({part.kind for part in parts}, _STRIP_NOTE, left, y + 8, right)
    return diagram.Scene(_VERTICAL_WIDTH, y + 8, network_summary.summarize(counted), (*items, *legend))


def _vertical_texts(
    part: network_summary.NetworkPart, top: float, max_params: int, max_macs: int
) -> list[diagram.Item]:
    right = _VERTICAL_WIDTH - _VERTICAL_MARGIN
    output = str(part.channels) if part.kind == "classifier" else formatting.format_shape(part.size_out, part.channels)
    heading = diagram.Text(_VERTICAL_TEXT_X, top + 12, part.name, 12.5, bold=True)
    if part.kind == "image":
        return [heading, diagram.Text(right, top + 12, output, 12, "end")]
    layers = f" × {part.layers}" if part.layers > 1 else ""
    operator = f"{part.operator} {part.kernel}".strip() + layers + (", SE" if part.squeeze else "")
    items: list[diagram.Item] = [
        heading,
        diagram.shrink_to_width(diagram.Text(right, top + 12, operator, 12, "end"), right - heading.box.right - 10),
        diagram.Text(_VERTICAL_TEXT_X, top + 29, output, 12, opacity=0.85),
    ]
    half = (right - _VERTICAL_TEXT_X - 10) / 2
    for index, (name, cost, largest) in enumerate((("params", part.params, max_params), ("MACs", part.macs, max_macs))):
        x = _VERTICAL_TEXT_X + index * (half + 10)
        bar = diagram.Rect(
            diagram.Box(x, top + 49, max(0.6, half * cost / largest), 4),
            diagram.LAYER_COLORS.get(part.kind, diagram.GREY),
            0.85,
        )
        items.append(
            diagram.Group(
                f"{part.name}: {cost:,} {name}",
                (diagram.Text(x, top + 45, f"{formatting.format_si(cost)} {name}", 11), bar),
            )
        )
    return items
