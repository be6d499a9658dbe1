"""Every stage opened into its layers: a chip for each, with what goes in and out and what it costs."""

from __future__ import annotations

from itertools import groupby

from effnet.arch import Count, LayerCount, Operation
from effnet.draw.font import text_width
from effnet.draw.formatting import (
    describe_operation,
    format_kernel,
    format_shape,
    format_si,
    operation_kind,
    operator_name,
)
from effnet.draw.network_summary import (
    BlockRepeat,
    LayerRun,
    NetworkPart,
    SubBlock,
    describe_module,
    draw_header,
    draw_legend,
    draw_swatches,
    expand_ratio,
    find_repeats,
    layer_runs,
    network_parts,
    summarize,
    used_modules,
)
from effnet.draw.scene import (
    GREY,
    INK,
    LAYER_COLORS,
    OPERATION_COLORS,
    Box,
    Group,
    Item,
    Line,
    Rect,
    Scene,
    Text,
    centered_text,
    right_edge,
    shrink_to_width,
)

_LAYERS_MARGIN, _LAYERS_WIDTH, _LAYERS_LEFT = 24.0, 1040.0, 232.0  # _LEFT: where the chips begin


_LAYER_BOX, _LAYER_GAP, _ARC_HEIGHT = (86.0, 62.0), 14.0, 11.0


_LAYERS_NOTE = "An arc: the residual, the input added to the output. At the foot of a layer: its MACs, on one scale. "


def layers_scene(counted: Count) -> Scene:
    """A band a stage, its layers from left to right and over as many lines as they need."""
    right = _LAYERS_WIDTH - _LAYERS_MARGIN
    items, at = draw_header(counted, None, _LAYERS_MARGIN, 16, right)
    at += 8
    most = max(row.macs for row in counted.layers)
    for stage, members in groupby(counted.layers, lambda row: (row.layer.stage, row.layer.kind)):
        rows = list(members)
        block = rows[0].layer.kind in ("mbconv", "fused")
        name = f"stage{stage[0]}" if block else rows[0].name
        items += _stage_heading(counted, name, rows, at, right)
        lines, at = _layer_boxes(rows, block, most, at + _ARC_HEIGHT + 4, right)
        items += lines
        at += 8
    notes, at = draw_legend({row.layer.kind for row in counted.layers}, _LAYERS_NOTE, _LAYERS_MARGIN, at + 2, right)
    return Scene(_LAYERS_WIDTH, at + 12, f"{summarize(counted)}, layer by layer", (*items, *notes))


def _stage_heading(counted: Count, name: str, rows: list[LayerCount], at: float, right: float) -> list[Item]:
    layer = rows[0].layer
    made = f"{operator_name(layer, expand_ratio(counted.arch, layer))} {format_kernel(layer)}".strip()
    lines = (
        f"{made}, squeeze-excite" if layer.squeezed else made,
        f"{format_shape(rows[0].size_in, layer.inputs)} → {_output_shape(rows[-1])}",
        f"{format_si(sum(row.params for row in rows))} params · {format_si(sum(row.macs for row in rows))} MACs",
    )
    return [
        Line(((_LAYERS_MARGIN, at), (right, at)), INK, 0.13, 0.8),
        Text(_LAYERS_MARGIN, at + 24, name, 12, bold=True),
        *(
            shrink_to_width(
                Text(_LAYERS_MARGIN, at + 40 + 15 * index, line, 10.5, opacity=0.85), _LAYERS_LEFT - _LAYERS_MARGIN - 10
            )
            for index, line in enumerate(lines)
        ),
    ]


def _output_shape(row: LayerCount) -> str:
    return f"{row.layer.channels}" if row.layer.kind == "classifier" else format_shape(row.size_out, row.layer.channels)


def _layer_boxes(rows: list[LayerCount], block: bool, most: int, at: float, right: float) -> tuple[list[Item], float]:
    """The chips from ``at`` on, with arrows between them; and where they end."""
    wide, tall = _LAYER_BOX
    items: list[Item] = []
    x = _LAYERS_LEFT
    for index, row in enumerate(rows):
        if index and x + _LAYER_GAP + wide > right:
            x, at = _LAYERS_LEFT, at + tall + _ARC_HEIGHT + 8
        elif index:
            items.append(Line(((x + 1, at + tall / 2), (x + _LAYER_GAP - 1, at + tall / 2)), width=1, arrow=True))
            x += _LAYER_GAP
        items.append(_layer_box(row, Box(x, at, wide, tall), most, block))
        x += wide
    return items, at + tall


def _layer_box(row: LayerCount, box: Box, most: int, block: bool) -> Group:
    layer, colour = row.layer, LAYER_COLORS[row.layer.kind]
    number = f".{row.name.rpartition('.')[2]}" if block else ""
    ways = f"{layer.inputs} → {layer.channels}"
    stride = f"stride {layer.stride}" if layer.stride > 1 else ""
    inner = Box(box.x + 4, box.y, box.width - 8, box.height)
    items: list[Item] = [
        Rect(box, colour, 0.2, 0.7, radius=5),
        Text(inner.x + 1, box.y + 13, number, 9.5, bold=True, bounds=inner),
        Text(inner.right - 1, box.y + 13, stride, 9.5, "end", opacity=0.85, bounds=inner),
        centered_text(Box(inner.x, box.y + 15, inner.width, 14), ways, 11, bold=True),
        centered_text(Box(inner.x, box.y + 29, inner.width, 13), f"{format_si(row.params)} params", 9.5, opacity=0.85),
        centered_text(Box(inner.x, box.y + 41, inner.width, 13), f"{format_si(row.macs)} MACs", 9.5, opacity=0.85),
        Rect(Box(inner.x, box.bottom - 6, max(0.6, inner.width * row.macs / most), 3), colour, 0.9),
    ]
    if layer.residual:
        low, high, left, right = box.y - 1, box.y - _ARC_HEIGHT + 3, box.x + 14, box.right - 14
        items.append(Line(((left, low), (left, high), (right, high), (right, low)), width=1, arrow=True))
    words = f"{row.name}: {format_shape(row.size_in, layer.inputs)} → {_output_shape(row)}, {row.params:,} params, {row.macs:,} MACs"
    return Group(words, tuple(item for item in items if not isinstance(item, Text) or item.text))


# Every layer opened into its operations, with shapes and counts: a card for each run of equal layers.


_CARDS_MARGIN, _CARD_WIDTH, _CARD_GAP = 24.0, 500.0, 20.0


_CARDS_WIDTH = 2 * _CARDS_MARGIN + 2 * _CARD_WIDTH + _CARD_GAP


_CARD_HEAD, _CARD_ROW, _CARD_FOOT = 42.0, 19.0, 8.0


# Where a row's texts stand, from the card's left edge: name, shape that leaves, and the right ends of params and MACs
_NAME_X, _SHAPE_X, _PARAMS_X, _MACS_X = 34.0, 196.0, 372.0, 436.0


_BARS_X = 446.0


_CARDS_NOTE = "A line at the side: the residual. Bars: MACs, on one scale. “× 3, each”: the counts are those of one."


def operations_scene(counted: Count) -> Scene:
    """The cards in two columns, read downwards."""
    found = list(layer_runs(counted))
    right = _CARDS_WIDTH - _CARDS_MARGIN
    items, top = draw_header(counted, None, _CARDS_MARGIN, 16, right)
    top += 10
    most = max(operation.macs(*size) for run in found for operation, size in run.first.operations)
    heights = [_CARD_HEAD + _CARD_ROW * len(run.first.operations) + _CARD_FOOT for run in found]
    half, at, column, lowest = (sum(heights) + 10 * len(heights)) / 2, top, 0, top
    for run, tall in zip(found, heights, strict=True):
        if not column and at + tall / 2 - top > half:
            column, at = 1, top
        items.append(_card(run, Box(_CARDS_MARGIN + column * (_CARD_WIDTH + _CARD_GAP), at, _CARD_WIDTH, tall), most))
        at += tall + 10
        lowest = max(lowest, at)
    kinds = {operation_kind(operation) for run in found for operation, _ in run.first.operations}
    colours = [(OPERATION_COLORS[kind], words) for kind, words in _CARDS_LEGEND.items() if kind in kinds]
    notes, at = draw_swatches(colours, _CARDS_NOTE, _CARDS_MARGIN, lowest, right)
    return Scene(_CARDS_WIDTH, at + 12, f"{summarize(counted)}, operation by operation", (*items, *notes))


_CARDS_LEGEND = {
    "expand": "expand",
    "depthwise": "depthwise",
    "fused": "fused convolution",
    "reduce": "squeeze-excite",
    "project": "project",
    "stem": "stem, head, classifier",
}


def _card(run: LayerRun, box: Box, most: int) -> Group:
    row, layer = run.first, run.first.layer
    many = f"× {len(run.rows)}, each" if len(run.rows) > 1 else ""
    entering = (
        format_shape((1, 1), layer.inputs) if layer.kind == "classifier" else format_shape(row.size_in, layer.inputs)
    )
    if layer.kind == "classifier":
        entering = format_shape(row.size_in, layer.inputs)
    whole = f"{format_si(row.params)} params · {format_si(row.macs)} MACs"
    items: list[Item] = [
        Rect(box, INK, 0.03, 0.18, radius=6),
        Rect(Box(box.x, box.y, 5, box.height), LAYER_COLORS[layer.kind], 0.9, radius=2),
        Text(box.x + 14, box.y + 17, run.name, 11.5, bold=True, bounds=box),
        Text(box.x + _SHAPE_X - 60, box.y + 17, f"{run.operator} {many}".strip(), 11, bounds=box),
        Text(box.right - 12, box.y + 17, whole, 10.5, "end", opacity=0.85, bounds=box),
        Text(box.x + _SHAPE_X, box.y + 34, entering, 10, opacity=0.7, bounds=box),
        Text(box.x + _NAME_X, box.y + 34, "in", 10, opacity=0.7, bounds=box),
        Text(box.x + _PARAMS_X, box.y + 34, "params", 9.5, "end", opacity=0.7, bounds=box),
        Text(box.x + _MACS_X, box.y + 34, "MACs", 9.5, "end", opacity=0.7, bounds=box),
    ]
    at = box.y + _CARD_HEAD
    for operation, size in row.operations:
        items += _operation_row(operation, size, Box(box.x, at, box.width, _CARD_ROW), most)
        at += _CARD_ROW
    if layer.residual:
        x, low, high = box.x + 15, at - _CARD_ROW / 2, box.y + 30
        ends = box.x + _NAME_X - 4
        items.append(Line(((ends, high), (x, high), (x, low), (ends - 1, low)), width=1, arrow=True))
    return Group(f"{run.name}: {run.operator}", tuple(items))


def _operation_row(operation: Operation, size: tuple[int, int], box: Box, most: int) -> list[Item]:
    colour, macs = OPERATION_COLORS[operation_kind(operation)], operation.macs(*size)
    line = box.y + 13.5
    longest = box.width - _BARS_X - 12
    name = Box(box.x + _NAME_X, box.y + 1, _SHAPE_X - _NAME_X - 8, box.height - 2)
    return [
        Rect(name, colour, 0.22, radius=4),
        shrink_to_width(
            Text(box.x + _NAME_X + 7, line, describe_operation(operation), 10.5, bounds=name), name.width - 14
        ),
        Text(box.x + _SHAPE_X, line, format_shape(size, operation.channels), 10.5, bounds=box),
        Text(box.x + _PARAMS_X, line, format_si(operation.params), 10.5, "end", bounds=box),
        Text(box.x + _MACS_X, line, format_si(macs), 10.5, "end", bounds=box),
        Rect(Box(box.x + _BARS_X, box.y + 6, max(0.6, longest * macs / most), 7), colour, 0.85),
    ]


# A network by its repeats: stages of sub-blocks, equal ones in one colour, and what each sub-block is made of.


_MODULES_MARGIN, _MODULES_WIDTH = 24.0, 1120.0


_STAGE_WIDTH, _STAGE_GAP, _STAGE_WORDS_HEIGHT = 94.0, 12.0, 50.0  # _TOP: height of a stage's words


_REPEAT_HEIGHT, _REPEAT_GAP = 40.0, 14.0


# Of sub-blocks, in their order: none that a module has
_SUB_BLOCK_COLORS = ("#c99a1e", "#1f9bb0", "#c8553d", "#5b62d6", "#7f9f2f", "#6b7280")


def modules_scene(counted: Count) -> Scene:
    """The stages from left to right, over as many lines as they need, and the sub-blocks and modules below."""
    right = _MODULES_WIDTH - _MODULES_MARGIN
    items, at = draw_header(counted, None, _MODULES_MARGIN, 16, right)
    at += 10
    found, stages = find_repeats(counted)
    columns = [
        (part, stages.get(int(part.name[5:]), ()) if part.name.startswith("stage") else ())
        for part in network_parts(counted)
    ]
    tall = (
        _STAGE_WORDS_HEIGHT + max(len(made) for _, made in columns) * (_REPEAT_HEIGHT + _REPEAT_GAP) - _REPEAT_GAP + 8
    )
    x = _MODULES_MARGIN
    for index, (part, made) in enumerate(columns):
        if index and x + _STAGE_GAP + _STAGE_WIDTH > right:
            x, at = _MODULES_MARGIN, at + tall + 18
        elif index:
            items.append(Line(((x + 1, at + 24), (x + _STAGE_GAP - 1, at + 24)), width=1, arrow=True))
            x += _STAGE_GAP
        items.append(_stage_group(part, made, Box(x, at, _STAGE_WIDTH, tall)))
        x += _STAGE_WIDTH
    at += tall + 30
    lines, side, end = _draw_sub_blocks(found, at)
    legend, low = _draw_modules_legend(found, counted.arch.activation, side + 40, at)
    drawn = (*items, *lines, *legend)
    wide = max(right_edge(item) for item in drawn) + _MODULES_MARGIN
    return Scene(wide, max(end, low) + 6, f"{summarize(counted)}, by what repeats in it", drawn)


def sub_block_color(block: SubBlock) -> str:
    """The colour of a sub-block, by its place in the alphabet."""
    return _SUB_BLOCK_COLORS[(ord(block.letter) - ord("A")) % len(_SUB_BLOCK_COLORS)]


def _stage_group(part: NetworkPart, made: tuple[BlockRepeat, ...], box: Box) -> Group:
    line = 14.0
    out = str(part.channels) if part.kind == "classifier" else format_shape(part.size_out, part.channels)
    words = (part.name, part.operator if made else f"{part.operator} {part.kernel}".strip(), out)
    items: list[Item] = [Rect(box, INK, 0.03, 0.2, radius=6)]
    for index, text in enumerate(words):
        place = Box(box.x + 2, box.y + 4 + index * line, box.width - 4, line)
        items.append(
            centered_text(place, text, 10.0 if index else 11.5, bold=not index, opacity=1.0 if not index else 0.85)
        )
    at = box.y + _STAGE_WORDS_HEIGHT
    for index, repeat in enumerate(made):
        place = Box(box.x + 6, at, box.width - 12, _REPEAT_HEIGHT)
        items += _repeat_box(repeat, place)
        if index:
            items.append(Line(((place.middle, at - _REPEAT_GAP), (place.middle, at - 1)), width=1, arrow=True))
        at += _REPEAT_HEIGHT + _REPEAT_GAP
    return Group(
        f"{part.name}: {', then '.join(_repeat_text(repeat) for repeat in made) or part.operator}", tuple(items)
    )


def _repeat_text(repeat: BlockRepeat) -> str:
    return f"{len(repeat.rows)} × {repeat.sub_block.letter}"


def _repeat_box(repeat: BlockRepeat, box: Box) -> list[Item]:
    layer = repeat.rows[0].layer
    how = f"{layer.kernel}×{layer.kernel}" + (", stride 2" if layer.stride > 1 else "")
    many = f"× {len(repeat.rows)}" if len(repeat.rows) > 1 else ""
    drawn: list[Item] = [Rect(box, sub_block_color(repeat.sub_block), 0.3, 0.8, radius=5)]
    drawn.append(
        centered_text(Box(box.x, box.y + 3, box.width, 19), f"{repeat.sub_block.letter} {many}".strip(), 13, bold=True)
    )
    drawn.append(centered_text(Box(box.x, box.y + 22, box.width, 14), how, 9.5, opacity=0.85))
    return drawn


def _draw_sub_blocks(found: tuple[SubBlock, ...], at: float) -> tuple[list[Item], float, float]:
    """A line a sub-block: its letter, its modules with arrows between them, words; and where that ends, both ways."""
    items: list[Item] = [Text(_MODULES_MARGIN, at, "Sub-blocks", 12, bold=True)]
    at += 14
    ends: list[tuple[float, float]] = []
    for block in found:
        letter = Box(_MODULES_MARGIN, at, 26, 26)
        items += [
            Rect(letter, sub_block_color(block), 0.3, 0.8, radius=5),
            centered_text(letter, block.letter, 13, bold=True),
        ]
        x = _MODULES_MARGIN + 40.0
        for index, module in enumerate(block.modules):
            if index:
                items.append(Line(((x + 1, at + 13), (x + 15, at + 13)), width=1, arrow=True))
                x += 16
            place = Box(x, at + 1, text_width(module, 10.5) + 20, 24)
            items += [Rect(place, _module_color(module), 0.25, 0.8, radius=5), centered_text(place, module, 10.5)]
            x = place.right
        if block.residual:
            items.append(Line(((x + 1, at + 13), (x + 15, at + 13)), width=1, arrow=True))
            plus = Box(x + 16, at + 3, 20, 20)
            items += [Rect(plus, GREY, 0.2, 0.9, radius=10), centered_text(plus, "+", 14, bold=True)]
            x = plus.right
        ends.append((x, at + 17))
        at += 36
    words = max(x for x, _ in ends) + 18
    items += [Text(words, y, block.description, 11, opacity=0.85) for (_, y), block in zip(ends, found, strict=True)]
    return items, max(right_edge(item) for item in items), at


def _draw_modules_legend(
    found: tuple[SubBlock, ...], activation: str, left: float, at: float
) -> tuple[list[Item], float]:
    """What the modules of these sub-blocks are; and where that ends."""
    items: list[Item] = [Text(left, at, "Modules", 12, bold=True)]
    at += 24
    for module in used_modules(found):
        items.append(Rect(Box(left, at - 9, 10, 10), _module_color(module), 0.5, 0.8, radius=2))
        items.append(Text(left + 16, at, describe_module(module, activation), 10.5, opacity=0.85))
        at += 20
    return items, at


def _module_color(module: str) -> str:
    return OPERATION_COLORS["reduce" if module == "squeeze-excite" else module]
