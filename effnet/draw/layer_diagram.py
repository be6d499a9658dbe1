"""Diagrams of all layers, of all operations in cards, and of the blocks that repeat."""

from itertools import groupby

from effnet.arch import Count, LayerCount, Operation, spec
from effnet.draw import diagram, font, formatting, network_summary

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
_CARDS_LEGEND = {
    "expand": "expand",
    "depthwise": "depthwise",
    "fused": "fused convolution",
    "reduce": "squeeze-excite",
    "project": "project",
    "stem": "stem, head, classifier",
}

# Repeats
_REPEATS_WIDTH = 1120.0
_STAGE_WIDTH, _STAGE_GAP, _STAGE_WORDS_HEIGHT = 94.0, 12.0, 50.0
_REPEAT_HEIGHT, _REPEAT_GAP = 40.0, 14.0
_SUB_BLOCK_COLORS = ("#c99a1e", "#1f9bb0", "#c8553d", "#5b62d6", "#7f9f2f", "#6b7280")  # other than those of modules


# --- Layers ------------------------------------------------------------------------------------------------------


def layers_scene(counted: Count) -> diagram.Scene:
    """Lay out a band for each stage, with its layers from left to right, wrapped."""
    right = _LAYERS_WIDTH - _MARGIN
    items, y = network_summary.draw_header(counted, None, _MARGIN, 16, right)
    y += 8
    max_macs = max(row.macs for row in counted.layers)
    for stage, members in groupby(counted.layers, lambda row: (row.layer.stage, row.layer.kind)):
        rows = list(members)
        is_block = rows[0].layer.kind in spec.BLOCK_KINDS
        name = f"stage{stage[0]}" if is_block else rows[0].name
        items += _stage_heading(counted, name, rows, y, right)
        lines, y = _layer_boxes(rows, is_block, max_macs, y + _ARC_HEIGHT + 4, right)
        items += lines
        y += 8
    notes, y = network_summary.draw_legend(
        {row.layer.kind for row in counted.layers}, _LAYERS_NOTE, _MARGIN, y + 2, right
    )
    return diagram.Scene(
        _LAYERS_WIDTH, y + 12, f"{network_summary.summarize(counted)}, layer by layer", (*items, *notes)
    )


def _stage_heading(counted: Count, name: str, rows: list[LayerCount], y: float, right: float) -> list[diagram.Item]:
    layer = rows[0].layer
    operator = f"{formatting.operator_name(layer, network_summary.expand_ratio(counted.arch, layer))} {formatting.format_kernel(layer)}".strip()
    lines = (
        f"{operator}, squeeze-excite" if layer.squeezed else operator,
        f"{formatting.format_shape(rows[0].size_in, layer.inputs)} → {_output_shape(rows[-1])}",
        f"{formatting.format_si(sum(row.params for row in rows))} params · {formatting.format_si(sum(row.macs for row in rows))} MACs",
    )
    return [
        diagram.Line(((_MARGIN, y), (right, y)), diagram.INK, 0.13, 0.8),
        diagram.Text(_MARGIN, y + 24, name, 12, bold=True),
        *(
            diagram.shrink_to_width(
                diagram.Text(_MARGIN, y + 40 + 15 * index, line, 10.5, opacity=0.85), _LAYERS_LEFT - _MARGIN - 10
            )
            for index, line in enumerate(lines)
        ),
    ]


def _output_shape(row: LayerCount) -> str:
    return (
        f"{row.layer.channels}"
        if row.layer.kind == "classifier"
        else formatting.format_shape(row.size_out, row.layer.channels)
    )


def _layer_boxes(
    rows: list[LayerCount], is_block: bool, max_macs: int, y: float, right: float
) -> tuple[list[diagram.Item], float]:
    width, height = _LAYER_BOX
    items: list[diagram.Item] = []
    x = _LAYERS_LEFT
    for index, row in enumerate(rows):
        if index and x + _LAYER_GAP + width > right:
            x, y = _LAYERS_LEFT, y + height + _ARC_HEIGHT + 8
        elif index:
            items.append(
                diagram.Line(((x + 1, y + height / 2), (x + _LAYER_GAP - 1, y + height / 2)), width=1, arrow=True)
            )
            x += _LAYER_GAP
        items.append(_layer_box(row, diagram.Box(x, y, width, height), max_macs, is_block))
        x += width
    return items, y + height


def _layer_box(row: LayerCount, box: diagram.Box, max_macs: int, is_block: bool) -> diagram.Group:
    layer, color = row.layer, diagram.LAYER_COLORS[row.layer.kind]
    number = f".{row.name.rpartition('.')[2]}" if is_block else ""
    channels = f"{layer.inputs} → {layer.channels}"
    stride = f"stride {layer.stride}" if layer.stride > 1 else ""
    inner = diagram.Box(box.x + 4, box.y, box.width - 8, box.height)
    items: list[diagram.Item] = [
        diagram.Rect(box, color, 0.2, 0.7, radius=5),
        diagram.Text(inner.x + 1, box.y + 13, number, 9.5, bold=True, bounds=inner),
        diagram.Text(inner.right - 1, box.y + 13, stride, 9.5, "end", opacity=0.85, bounds=inner),
        diagram.centered_text(diagram.Box(inner.x, box.y + 15, inner.width, 14), channels, 11, bold=True),
        diagram.centered_text(
            diagram.Box(inner.x, box.y + 29, inner.width, 13),
            f"{formatting.format_si(row.params)} params",
            9.5,
            opacity=0.85,
        ),
        diagram.centered_text(
            diagram.Box(inner.x, box.y + 41, inner.width, 13),
            f"{formatting.format_si(row.macs)} MACs",
            9.5,
            opacity=0.85,
        ),
        diagram.Rect(diagram.Box(inner.x, box.bottom - 6, max(0.6, inner.width * row.macs / max_macs), 3), color, 0.9),
    ]
    if layer.residual:
        low, high, left, right = box.y - 1, box.y - _ARC_HEIGHT + 3, box.x + 14, box.right - 14
        items.append(diagram.Line(((left, low), (left, high), (right, high), (right, low)), width=1, arrow=True))
    shapes = f"{formatting.format_shape(row.size_in, layer.inputs)} → {_output_shape(row)}"
    title = f"{row.name}: {shapes}, {row.params:,} params, {row.macs:,} MACs"
    return diagram.Group(title, tuple(item for item in items if not isinstance(item, diagram.Text) or item.text))


# --- Operations --------------------------------------------------------------------------------------------------


def operations_scene(counted: Count) -> diagram.Scene:
    """Lay out a card for each run of equal layers, in two columns."""
    runs = list(network_summary.layer_runs(counted))
    right = _CARDS_WIDTH - _MARGIN
    items, top = network_summary.draw_header(counted, None, _MARGIN, 16, right)
    top += 10
    max_macs = max(operation.macs(*size) for run in runs for operation, size in run.first.operations)
    heights = [_CARD_HEAD + _CARD_ROW * len(run.first.operations) + _CARD_FOOT for run in runs]
    half, y, column, lowest = (sum(heights) + 10 * len(heights)) / 2, top, 0, top
    for run, height in zip(runs, heights, strict=True):
        if not column and y + height / 2 - top > half:
            column, y = 1, top
        items.append(
            _card(run, diagram.Box(_MARGIN + column * (_CARD_WIDTH + _CARD_GAP), y, _CARD_WIDTH, height), max_macs)
        )
        y += height + 10
        lowest = max(lowest, y)
    kinds = {formatting.operation_kind(operation) for run in runs for operation, _ in run.first.operations}
    swatches = [(diagram.OPERATION_COLORS[kind], label) for kind, label in _CARDS_LEGEND.items() if kind in kinds]
    notes, y = network_summary.draw_swatches(swatches, _CARDS_NOTE, _MARGIN, lowest, right)
    return diagram.Scene(
        _CARDS_WIDTH, y + 12, f"{network_summary.summarize(counted)}, operation by operation", (*items, *notes)
    )


def _card(run: network_summary.LayerRun, box: diagram.Box, max_macs: int) -> diagram.Group:
    row, layer = run.first, run.first.layer
    many = f"× {len(run.rows)}, each" if len(run.rows) > 1 else ""
    totals = f"{formatting.format_si(row.params)} params · {formatting.format_si(row.macs)} MACs"
    items: list[diagram.Item] = [
        diagram.Rect(box, diagram.INK, 0.03, 0.18, radius=6),
        diagram.Rect(diagram.Box(box.x, box.y, 5, box.height), diagram.LAYER_COLORS[layer.kind], 0.9, radius=2),
        diagram.Text(box.x + 14, box.y + 17, run.name, 11.5, bold=True, bounds=box),
        diagram.Text(box.x + _SHAPE_X - 60, box.y + 17, f"{run.operator} {many}".strip(), 11, bounds=box),
        diagram.Text(box.right - 12, box.y + 17, totals, 10.5, "end", opacity=0.85, bounds=box),
        diagram.Text(
            box.x + _SHAPE_X,
            box.y + 34,
            formatting.format_shape(row.size_in, layer.inputs),
            10,
            opacity=0.7,
            bounds=box,
        ),
        diagram.Text(box.x + _NAME_X, box.y + 34, "in", 10, opacity=0.7, bounds=box),
        diagram.Text(box.x + _PARAMS_X, box.y + 34, "params", 9.5, "end", opacity=0.7, bounds=box),
        diagram.Text(box.x + _MACS_X, box.y + 34, "MACs", 9.5, "end", opacity=0.7, bounds=box),
    ]
    y = box.y + _CARD_HEAD
    for operation, size in row.operations:
        items += _operation_row(operation, size, diagram.Box(box.x, y, box.width, _CARD_ROW), max_macs)
        y += _CARD_ROW
    if layer.residual:
        x, low, high = box.x + 15, y - _CARD_ROW / 2, box.y + 30
        ends = box.x + _NAME_X - 4
        items.append(diagram.Line(((ends, high), (x, high), (x, low), (ends - 1, low)), width=1, arrow=True))
    return diagram.Group(f"{run.name}: {run.operator}", tuple(items))


def _operation_row(operation: Operation, size: tuple[int, int], box: diagram.Box, max_macs: int) -> list[diagram.Item]:
    color, macs = diagram.OPERATION_COLORS[formatting.operation_kind(operation)], operation.macs(*size)
    line = box.y + 13.5
    longest = box.width - _BARS_X - 12
    name = diagram.Box(box.x + _NAME_X, box.y + 1, _SHAPE_X - _NAME_X - 8, box.height - 2)
    return [
        diagram.Rect(name, color, 0.22, radius=4),
        diagram.shrink_to_width(
            diagram.Text(box.x + _NAME_X + 7, line, formatting.describe_operation(operation), 10.5, bounds=name),
            name.width - 14,
        ),
        diagram.Text(box.x + _SHAPE_X, line, formatting.format_shape(size, operation.channels), 10.5, bounds=box),
        diagram.Text(box.x + _PARAMS_X, line, formatting.format_si(operation.params), 10.5, "end", bounds=box),
        diagram.Text(box.x + _MACS_X, line, formatting.format_si(macs), 10.5, "end", bounds=box),
        diagram.Rect(diagram.Box(box.x + _BARS_X, box.y + 6, max(0.6, longest * macs / max_macs), 7), color, 0.85),
    ]


# --- Repeats -----------------------------------------------------------------------------------------------------


def modules_scene(counted: Count) -> diagram.Scene:
    """Lay out the stages as sequences of sub-blocks, wrapped, with the sub-blocks and modules below."""
    right = _REPEATS_WIDTH - _MARGIN
    items, y = network_summary.draw_header(counted, None, _MARGIN, 16, right)
    y += 10
    sub_blocks, stages = network_summary.find_repeats(counted)
    columns = [
        (part, stages.get(int(part.name[5:]), ()) if part.name.startswith("stage") else ())
        for part in network_summary.network_parts(counted)
    ]
    rows = max(len(repeats) for _, repeats in columns)
    height = _STAGE_WORDS_HEIGHT + rows * (_REPEAT_HEIGHT + _REPEAT_GAP) - _REPEAT_GAP + 8
    x = _MARGIN
    for index, (part, repeats) in enumerate(columns):
        if index and x + _STAGE_GAP + _STAGE_WIDTH > right:
            x, y = _MARGIN, y + height + 18
        elif index:
            items.append(diagram.Line(((x + 1, y + 24), (x + _STAGE_GAP - 1, y + 24)), width=1, arrow=True))
            x += _STAGE_GAP
        items.append(_stage_group(part, repeats, diagram.Box(x, y, _STAGE_WIDTH, height)))
        x += _STAGE_WIDTH
    y += height + 30
    lines, side, bottom = _draw_sub_blocks(sub_blocks, y)
    legend, legend_bottom = _draw_modules_legend(sub_blocks, counted.arch.activation, side + 40, y)
    items += [*lines, *legend]
    width = max(diagram.right_edge(item) for item in items) + _MARGIN
    title = f"{network_summary.summarize(counted)}, by its repeated blocks"
    return diagram.Scene(width, max(bottom, legend_bottom) + 6, title, tuple(items))


def sub_block_color(block: network_summary.SubBlock) -> str:
    """Return the color of a sub-block, by its letter."""
    return _SUB_BLOCK_COLORS[(ord(block.letter) - ord("A")) % len(_SUB_BLOCK_COLORS)]


def _stage_group(
    part: network_summary.NetworkPart, repeats: tuple[network_summary.BlockRepeat, ...], box: diagram.Box
) -> diagram.Group:
    line = 14.0
    out = str(part.channels) if part.kind == "classifier" else formatting.format_shape(part.size_out, part.channels)
    words = (part.name, part.operator if repeats else f"{part.operator} {part.kernel}".strip(), out)
    items: list[diagram.Item] = [diagram.Rect(box, diagram.INK, 0.03, 0.2, radius=6)]
    for index, text in enumerate(words):
        place = diagram.Box(box.x + 2, box.y + 4 + index * line, box.width - 4, line)
        items.append(
            diagram.centered_text(
                place, text, 10.0 if index else 11.5, bold=not index, opacity=1.0 if not index else 0.85
            )
        )
    y = box.y + _STAGE_WORDS_HEIGHT
    for index, repeat in enumerate(repeats):
        place = diagram.Box(box.x + 6, y, box.width - 12, _REPEAT_HEIGHT)
        items += _repeat_box(repeat, place)
        if index:
            items.append(diagram.Line(((place.middle, y - _REPEAT_GAP), (place.middle, y - 1)), width=1, arrow=True))
        y += _REPEAT_HEIGHT + _REPEAT_GAP
    return diagram.Group(
        f"{part.name}: {', then '.join(_repeat_text(repeat) for repeat in repeats) or part.operator}", tuple(items)
    )


def _repeat_text(repeat: network_summary.BlockRepeat) -> str:
    return f"{len(repeat.rows)} × {repeat.sub_block.letter}"


def _repeat_box(repeat: network_summary.BlockRepeat, box: diagram.Box) -> list[diagram.Item]:
    layer = repeat.rows[0].layer
    how = f"{layer.kernel}×{layer.kernel}" + (", stride 2" if layer.stride > 1 else "")
    many = f"× {len(repeat.rows)}" if len(repeat.rows) > 1 else ""
    items: list[diagram.Item] = [diagram.Rect(box, sub_block_color(repeat.sub_block), 0.3, 0.8, radius=5)]
    items.append(
        diagram.centered_text(
            diagram.Box(box.x, box.y + 3, box.width, 19), f"{repeat.sub_block.letter} {many}".strip(), 13, bold=True
        )
    )
    items.append(diagram.centered_text(diagram.Box(box.x, box.y + 22, box.width, 14), how, 9.5, opacity=0.85))
    return items


def _draw_sub_blocks(
    sub_blocks: tuple[network_summary.SubBlock, ...], y: float
) -> tuple[list[diagram.Item], float, float]:
    """Draw a line for each sub-block: letter, modules, description; return the right end and the bottom too."""
    items: list[diagram.Item] = [diagram.Text(_MARGIN, y, "Sub-blocks", 12, bold=True)]
    y += 14
    ends: list[tuple[float, float]] = []
    for block in sub_blocks:
        letter = diagram.Box(_MARGIN, y, 26, 26)
        items += [
            diagram.Rect(letter, sub_block_color(block), 0.3, 0.8, radius=5),
            diagram.centered_text(letter, block.letter, 13, bold=True),
        ]
        x = _MARGIN + 40.0
        for index, module in enumerate(block.modules):
            if index:
                items.append(diagram.Line(((x + 1, y + 13), (x + 15, y + 13)), width=1, arrow=True))
                x += 16
            place = diagram.Box(x, y + 1, font.text_width(module, 10.5) + 20, 24)
            items += [
                diagram.Rect(place, _module_color(module), 0.25, 0.8, radius=5),
                diagram.centered_text(place, module, 10.5),
            ]
            x = place.right
        if block.residual:
            items.append(diagram.Line(((x + 1, y + 13), (x + 15, y + 13)), width=1, arrow=True))
            plus = diagram.Box(x + 16, y + 3, 20, 20)
            items += [
                diagram.Rect(plus, diagram.GREY, 0.2, 0.9, radius=10),
                diagram.centered_text(plus, "+", 14, bold=True),
            ]
            x = plus.right
        ends.append((x, y + 17))
        y += 36
    x = max(end for end, _ in ends) + 18
    for (_, baseline), block in zip(ends, sub_blocks, strict=True):
        items.append(diagram.Text(x, baseline, block.description, 11, opacity=0.85))
    return items, max(diagram.right_edge(item) for item in items), y


def _draw_modules_legend(
    sub_blocks: tuple[network_summary.SubBlock, ...], activation: str, left: float, y: float
) -> tuple[list[diagram.Item], float]:
    items: list[diagram.Item] = [diagram.Text(left, y, "Modules", 12, bold=True)]
    y += 24
    for module in network_summary.used_modules(sub_blocks):
        items.append(diagram.Rect(diagram.Box(left, y - 9, 10, 10), _module_color(module), 0.5, 0.8, radius=2))
        items.append(
            diagram.Text(left + 16, y, network_summary.describe_module(module, activation), 10.5, opacity=0.85)
        )
        y += 20
    return items, y


def _module_color(module: str) -> str:
    return diagram.OPERATION_COLORS["reduce" if module == "squeeze-excite" else module]
