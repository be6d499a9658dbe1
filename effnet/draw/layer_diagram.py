"""Diagrams of all layers, of all operations in cards, and of the blocks that repeat."""

from effnet.arch import Count, LayerCount, Operation
from effnet.draw import diagram, diagram_data, text
from effnet.draw.diagram import INK, OPERATION_COLORS, Box, Diagram, Group, Item, Line, Rect, Text, centered_text
from effnet.draw.diagram_data import BlockRepeat, NetworkPart, SubBlock, draw_header, network_parts, summarize
from effnet.draw.text import format_costs, format_output, format_shape, format_si, operation_kind

_MARGIN = 24.0

# Layers
_LAYERS_WIDTH, _LAYERS_LEFT = 1040.0, 232.0  # of the diagram, and where its boxes start
_LAYER_BOX, _LAYER_GAP, _ARC_HEIGHT = (86.0, 62.0), 14.0, 11.0
_LAYERS_NOTE = "Arc: residual. Bar at the bottom of a layer: its MACs, all on one scale."

# Cards of operations
_CARD_WIDTH, _CARD_GAP = 500.0, 20.0
_CARDS_WIDTH = 2 * _MARGIN + 2 * _CARD_WIDTH + _CARD_GAP
_CARD_HEAD, _CARD_ROW, _CARD_FOOT = 42.0, 19.0, 8.0
# Columns of a card, from its left edge: name, output shape, right ends of params and MACs, bars
_NAME_X, _SHAPE_X, _PARAMS_X, _MACS_X, _BARS_X = 34.0, 196.0, 372.0, 436.0, 446.0
_CARDS_NOTE = "Line on the left: residual. Bars: MACs, all on one scale. “× 3, each”: counts of a single layer."
_CARDS_LEGEND = {"expand": "expand", "depthwise": "depthwise", "fused": "fused convolution"}
_CARDS_LEGEND |= {"reduce": "squeeze-excite", "project": "project", "stem": "stem, head, classifier"}

# Repeats
_REPEATS_WIDTH = 1120.0
_STAGE_WIDTH, _STAGE_GAP, _STAGE_WORDS_HEIGHT = 94.0, 12.0, 50.0
_REPEAT_HEIGHT, _REPEAT_GAP = 40.0, 14.0
_SUB_BLOCK_COLORS = ("#c99a1e", "#1f9bb0", "#c8553d", "#5b62d6", "#7f9f2f", "#6b7280")  # other than those of modules


def layers_diagram(counted: Count) -> Diagram:
    """Lay out a band for each stage, with its layers from left to right, wrapped."""
    right = _LAYERS_WIDTH - _MARGIN
    items, y = draw_header(counted, None, _MARGIN, 16, right)
    y += 8
    max_macs = max(row.macs for row in counted.layers)
    for part in network_parts(counted):
        items += _stage_heading(part, y, right)
        lines, y = _layer_boxes(part, max_macs, y + _ARC_HEIGHT + 4, right)
        items += lines
        y += 8
    kinds = {row.layer.kind for row in counted.layers}
    notes, y = diagram_data.draw_legend(kinds, _LAYERS_NOTE, _MARGIN, y + 2, right)
    return Diagram(_LAYERS_WIDTH, y + 12, f"{summarize(counted)}, layer by layer", (*items, *notes))


def _stage_heading(part: NetworkPart, y: float, right: float) -> list[Item]:
    lines = (
        f"{part.operation}, squeeze-excite" if part.squeeze else part.operation,
        f"{format_shape(part.size_in, part.inputs)} → {format_output(part.kind, part.size_out, part.channels)}",
        format_costs(part.params, part.macs, " · "),
    )
    items: list[Item] = [Line(((_MARGIN, y), (right, y)), INK, 0.13, 0.8)]
    items.append(Text(_MARGIN, y + 24, part.name, 12, bold=True))
    for index, line in enumerate(lines):
        heading = Text(_MARGIN, y + 40 + 15 * index, line, 10.5, opacity=0.85)
        items.append(diagram.shrink_to_width(heading, _LAYERS_LEFT - _MARGIN - 10))
    return items


def _layer_boxes(part: NetworkPart, max_macs: int, y: float, right: float) -> tuple[list[Item], float]:
    width, height = _LAYER_BOX
    items: list[Item] = []
    x = _LAYERS_LEFT
    for index, row in enumerate(part.rows):
        if index and x + _LAYER_GAP + width > right:
            x, y = _LAYERS_LEFT, y + height + _ARC_HEIGHT + 8
        elif index:
            items.append(_arrow(x, x + _LAYER_GAP, y + height / 2))
            x += _LAYER_GAP
        items.append(_layer_box(row, Box(x, y, width, height), max_macs))
        x += width
    return items, y + height


def _arrow(x0: float, x1: float, y: float) -> Line:
    return Line(((x0 + 1, y), (x1 - 1, y)), width=1, arrow=True)


def _layer_box(row: LayerCount, box: Box, max_macs: int) -> Group:
    layer, color = row.layer, diagram.LAYER_COLORS[row.layer.kind]
    number = "".join(row.name.partition(".")[1:])
    channels = f"{layer.inputs} → {layer.channels}"
    stride = f"stride {layer.stride}" if layer.stride > 1 else ""
    inner = Box(box.x + 4, box.y, box.width - 8, box.height)
    items: list[Item] = [
        Rect(box, color, 0.2, 0.7, radius=5),
        Text(inner.x + 1, box.y + 13, number, 9.5, bold=True, bounds=inner),
        Text(inner.right - 1, box.y + 13, stride, 9.5, "end", opacity=0.85, bounds=inner),
        centered_text(Box(inner.x, box.y + 15, inner.width, 14), channels, 11, bold=True),
        centered_text(Box(inner.x, box.y + 29, inner.width, 13), f"{format_si(row.params)} params", 9.5, opacity=0.85),
        centered_text(Box(inner.x, box.y + 41, inner.width, 13), f"{format_si(row.macs)} MACs", 9.5, opacity=0.85),
        Rect(Box(inner.x, box.bottom - 6, max(0.6, inner.width * row.macs / max_macs), 3), color, 0.9),
    ]
    if layer.residual:
        low, high, left, right = box.y - 1, box.y - _ARC_HEIGHT + 3, box.x + 14, box.right - 14
        items.append(Line(((left, low), (left, high), (right, high), (right, low)), width=1, arrow=True))
    shapes = f"{format_shape(row.size_in, layer.inputs)} → {format_output(layer.kind, row.size_out, layer.channels)}"
    title = f"{row.name}: {shapes}, {row.params:,} params, {row.macs:,} MACs"
    return Group(title, tuple(item for item in items if not isinstance(item, Text) or item.text))


def operations_diagram(counted: Count) -> Diagram:
    """Lay out a card for each run of equal layers, in two columns."""
    runs = list(diagram_data.layer_runs(counted))
    right = _CARDS_WIDTH - _MARGIN
    items, top = draw_header(counted, None, _MARGIN, 16, right)
    top += 10
    max_macs = max(operation.macs(*size) for run in runs for operation, size in run.first.operations)
    heights = [_CARD_HEAD + _CARD_ROW * len(run.first.operations) + _CARD_FOOT for run in runs]
    half, y, column, lowest = (sum(heights) + 10 * len(heights)) / 2, top, 0, top
    for run, height in zip(runs, heights, strict=True):
        if not column and y + height / 2 - top > half:
            column, y = 1, top
        items.append(_card(run, Box(_MARGIN + column * (_CARD_WIDTH + _CARD_GAP), y, _CARD_WIDTH, height), max_macs))
        y += height + 10
        lowest = max(lowest, y)
    kinds = {operation_kind(operation) for run in runs for operation, _ in run.first.operations}
    swatches = [(OPERATION_COLORS[kind], label) for kind, label in _CARDS_LEGEND.items() if kind in kinds]
    notes, y = diagram_data.draw_swatches(swatches, _CARDS_NOTE, _MARGIN, lowest, right)
    return Diagram(_CARDS_WIDTH, y + 12, f"{summarize(counted)}, operation by operation", (*items, *notes))


def _card(run: diagram_data.LayerRun, box: Box, max_macs: int) -> Group:
    row, layer = run.first, run.first.layer
    many = f"× {len(run.rows)}, each" if len(run.rows) > 1 else ""
    totals = format_costs(row.params, row.macs, " · ")
    items: list[Item] = [
        Rect(box, INK, 0.03, 0.18, radius=6),
        Rect(Box(box.x, box.y, 5, box.height), diagram.LAYER_COLORS[layer.kind], 0.9, radius=2),
        Text(box.x + 14, box.y + 17, run.name, 11.5, bold=True, bounds=box),
        Text(box.x + _SHAPE_X - 60, box.y + 17, f"{run.operator} {many}".strip(), 11, bounds=box),
        Text(box.right - 12, box.y + 17, totals, 10.5, "end", opacity=0.85, bounds=box),
        Text(box.x + _SHAPE_X, box.y + 34, format_shape(row.size_in, layer.inputs), 10, opacity=0.7, bounds=box),
        Text(box.x + _NAME_X, box.y + 34, "in", 10, opacity=0.7, bounds=box),
        Text(box.x + _PARAMS_X, box.y + 34, "params", 9.5, "end", opacity=0.7, bounds=box),
        Text(box.x + _MACS_X, box.y + 34, "MACs", 9.5, "end", opacity=0.7, bounds=box),
    ]
    y = box.y + _CARD_HEAD
    for operation, size in row.operations:
        items += _operation_row(operation, size, Box(box.x, y, box.width, _CARD_ROW), max_macs)
        y += _CARD_ROW
    if layer.residual:
        x, low, high = box.x + 15, y - _CARD_ROW / 2, box.y + 30
        ends = box.x + _NAME_X - 4
        items.append(Line(((ends, high), (x, high), (x, low), (ends - 1, low)), width=1, arrow=True))
    return Group(f"{run.name}: {run.operator}", tuple(items))


def _operation_row(operation: Operation, size: tuple[int, int], box: Box, max_macs: int) -> list[Item]:
    color, macs = OPERATION_COLORS[operation_kind(operation)], operation.macs(*size)
    line = box.y + 13.5
    longest = box.width - _BARS_X - 12
    place = Box(box.x + _NAME_X, box.y + 1, _SHAPE_X - _NAME_X - 8, box.height - 2)
    name = Text(place.x + 7, line, text.describe_operation(operation), 10.5, bounds=place)
    return [
        Rect(place, color, 0.22, radius=4),
        diagram.shrink_to_width(name, place.width - 14),
        Text(box.x + _SHAPE_X, line, format_shape(size, operation.channels), 10.5, bounds=box),
        Text(box.x + _PARAMS_X, line, format_si(operation.params), 10.5, "end", bounds=box),
        Text(box.x + _MACS_X, line, format_si(macs), 10.5, "end", bounds=box),
        Rect(Box(box.x + _BARS_X, box.y + 6, max(0.6, longest * macs / max_macs), 7), color, 0.85),
    ]


def draw_modules(counted: Count) -> Diagram:
    """Draw a network by its repeated blocks: stages as sequences of sub-blocks, with these and their modules below."""
    right = _REPEATS_WIDTH - _MARGIN
    items, y = draw_header(counted, None, _MARGIN, 16, right)
    y += 10
    sub_blocks, stages = diagram_data.find_repeats(counted)
    columns = [(part, stages.get(index, ())) for index, part in enumerate(network_parts(counted))]
    rows = max(len(repeats) for _, repeats in columns)
    height = _STAGE_WORDS_HEIGHT + rows * (_REPEAT_HEIGHT + _REPEAT_GAP) - _REPEAT_GAP + 8
    x = _MARGIN
    for index, (part, repeats) in enumerate(columns):
        if index and x + _STAGE_GAP + _STAGE_WIDTH > right:
            x, y = _MARGIN, y + height + 18
        elif index:
            items.append(_arrow(x, x + _STAGE_GAP, y + 24))
            x += _STAGE_GAP
        items.append(_stage_group(part, repeats, Box(x, y, _STAGE_WIDTH, height)))
        x += _STAGE_WIDTH
    y += height + 30
    lines, side, bottom = _draw_sub_blocks(sub_blocks, y)
    legend, legend_bottom = _draw_modules_legend(sub_blocks, counted.arch.activation, side + 40, y)
    items += [*lines, *legend]
    width = max(map(diagram.right_edge, items)) + _MARGIN
    title = f"{summarize(counted)}, by its repeated blocks"
    return Diagram(width, max(bottom, legend_bottom) + 6, title, tuple(items))


def _sub_block_color(block: SubBlock) -> str:
    return _SUB_BLOCK_COLORS[(ord(block.letter) - ord("A")) % len(_SUB_BLOCK_COLORS)]


def _stage_group(part: NetworkPart, repeats: tuple[BlockRepeat, ...], box: Box) -> Group:
    out = format_output(part.kind, part.size_out, part.channels)
    words = (part.name, part.operator if repeats else part.operation, out)
    items: list[Item] = [Rect(box, INK, 0.03, 0.2, radius=6)]
    for index, word in enumerate(words):
        place = Box(box.x + 2, box.y + 4 + index * 14, box.width - 4, 14)
        size, opacity = (10.0, 0.85) if index else (11.5, 1.0)
        items.append(centered_text(place, word, size, bold=not index, opacity=opacity))
    y = box.y + _STAGE_WORDS_HEIGHT
    for index, repeat in enumerate(repeats):
        place = Box(box.x + 6, y, box.width - 12, _REPEAT_HEIGHT)
        items += _repeat_box(repeat, place)
        if index:
            items.append(Line(((place.middle, y - _REPEAT_GAP), (place.middle, y - 1)), width=1, arrow=True))
        y += _REPEAT_HEIGHT + _REPEAT_GAP
    sequence = ", then ".join(f"{len(repeat.rows)} × {repeat.sub_block.letter}" for repeat in repeats)
    return Group(f"{part.name}: {sequence or part.operator}", tuple(items))


def _repeat_box(repeat: BlockRepeat, box: Box) -> list[Item]:
    return [
        Rect(box, _sub_block_color(repeat.sub_block), 0.3, 0.8, radius=5),
        centered_text(Box(box.x, box.y + 3, box.width, 19), repeat.label, 13, bold=True),
        centered_text(Box(box.x, box.y + 22, box.width, 14), repeat.kernel, 9.5, opacity=0.85),
    ]


def _draw_sub_blocks(sub_blocks: tuple[SubBlock, ...], y: float) -> tuple[list[Item], float, float]:
    """Draw a line for each sub-block: letter, modules, description; return the right end and the bottom too."""
    items: list[Item] = [Text(_MARGIN, y, "Sub-blocks", 12, bold=True)]
    y += 14
    ends: list[tuple[float, float]] = []
    for block in sub_blocks:
        place = Box(_MARGIN, y, 26, 26)
        items += diagram.labeled_box(place, _sub_block_color(block), 0.3, 0.8, 5, block.letter, 13, bold=True)
        x = _MARGIN + 40.0
        for index, module in enumerate(block.modules):
            if index:
                items.append(_arrow(x, x + 16, y + 13))
                x += 16
            place = Box(x, y + 1, text.text_width(module, 10.5) + 20, 24)
            items += diagram.labeled_box(place, _module_color(module), 0.25, 0.8, 5, module, 10.5)
            x = place.right
        if block.residual:
            items.append(_arrow(x, x + 16, y + 13))
            place = Box(x + 16, y + 3, 20, 20)
            items += diagram.labeled_box(place, diagram.GREY, 0.2, 0.9, 10, "+", 14, bold=True)
            x = place.right
        ends.append((x, y + 17))
        y += 36
    x = max(end for end, _ in ends) + 18
    for (_, baseline), block in zip(ends, sub_blocks, strict=True):
        items.append(Text(x, baseline, block.description, 11, opacity=0.85))
    return items, max(map(diagram.right_edge, items)), y


def _draw_modules_legend(
    sub_blocks: tuple[SubBlock, ...], activation: str, left: float, y: float
) -> tuple[list[Item], float]:
    items: list[Item] = [Text(left, y, "Modules", 12, bold=True)]
    y += 24
    for module, description in diagram_data.describe_modules(sub_blocks, activation).items():
        items.append(Rect(Box(left, y - 9, 10, 10), _module_color(module), 0.5, 0.8, radius=2))
        items.append(Text(left + 16, y, description, 10.5, opacity=0.85))
        y += 20
    return items, y


def _module_color(module: str) -> str:
    return OPERATION_COLORS["reduce" if module == "squeeze-excite" else module]
