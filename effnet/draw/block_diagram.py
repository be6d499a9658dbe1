"""Diagram of one block: its operations, the shape on every arrow, counts, and the conditions for each of its parts."""

from dataclasses import asdict, dataclass, field
from math import ceil

from effnet.arch import Arch, Layer, Operation, count, counting, operations, serde
from effnet.arch.spec import BLOCK_KINDS, block_layer
from effnet.draw import diagram, text
from effnet.draw.diagram import INK, Box, Diagram, Group, Item, Line, Rect, Text, centered_text, labeled_box
from effnet.draw.diagram_data import JsonRow, operation_to_json
from effnet.draw.text import ACTIVATION_NAMES, describe_operation, format_costs, format_shape, operation_kind, wrap_text

DRAWABLE_KINDS = (*BLOCK_KINDS, "squeeze_excite")
_DEFAULT_EXPAND = {"mbconv": 6, "fused": 4, "squeeze_excite": 1}  # that of most stages
_DEFAULT_SQUEEZE = {"mbconv": 0.25, "fused": 0.0, "squeeze_excite": 0.25}

_AXIS, _HALF_WIDTH, _BOX_HEIGHT = 186.0, 100.0, 42.0  # x of the main line, half the width and the height of its boxes
_BRANCH_LEFT, _BRANCH_WIDTH = 226.0, 190.0  # of the squeeze-excite's boxes
_COUNTS_X, _BRANCH_COUNTS_X = _AXIS + _HALF_WIDTH + 14, 440.0  # where the counts start
_CONDITIONS_WIDTH = 330.0
_RESIDUAL_X = 66.0
_ARROW_LENGTH = 34.0


@dataclass(frozen=True)
class BlockSpec:
    """A block on a map of ``size`` (height, width), with the ratios that it was made from."""

    layer: Layer
    expand: int
    squeeze: float
    size: tuple[int, int]
    activation: str = "silu"
    part: str = ""  # "squeeze_excite": only that is drawn
    listed: bool = False  # the row lists the channels inside each block, whatever the ratios

    @property
    def operations(self) -> tuple[tuple[Operation, tuple[int, int]], ...]:
        """Its operations, each with the size of its output map."""
        pairs, size = [], self.size
        for operation in operations(self.layer):
            size = (ceil(size[0] / operation.stride), ceil(size[1] / operation.stride))
            pairs.append((operation, (1, 1) if operation.pooled else size))
        return tuple(pair for pair in pairs if not self.part or operation_kind(pair[0]) in ("reduce", "excite"))

    @property
    def size_out(self) -> tuple[int, int]:
        """Size of the output map."""
        stride = 1 if self.part else self.layer.stride
        return ceil(self.size[0] / stride), ceil(self.size[1] / stride)

    @property
    def channels(self) -> tuple[int, int]:
        """Input and output channels."""
        if self.part:
            inner = self.layer.expanded or (self.layer.inputs if self.layer.kind == "mbconv" else self.layer.channels)
            return inner, inner
        return self.layer.inputs, self.layer.channels

    @property
    def params(self) -> int:
        """Parameters of all its operations."""
        return sum(operation.params for operation, _ in self.operations)

    @property
    def macs(self) -> int:
        """MACs of all its operations for one image."""
        return sum(operation.macs(*size) for operation, size in self.operations)

    @property
    def title(self) -> str:
        """``MBConv4 3×3``, preceded by its name if it is part of a network."""
        if self.part:
            return "Squeeze-excite"
        name = text.operator_name(self.layer, 0 if self.layer.expanded and self.listed else self.expand)
        operator = f"{name} {self.layer.kernel}×{self.layer.kernel}"
        return operator if self.layer.name == "block" else f"{self.layer.name}: {operator}"


def make_block_spec(
    kind: str,
    inputs: int,
    channels: int | None = None,
    expand: int | None = None,
    kernel: int = 3,
    stride: int = 1,
    squeeze: float | None = None,
    size: counting.Size = 56,
    activation: str = "silu",
) -> BlockSpec:
    """Return a block of a kind in `DRAWABLE_KINDS`; ``size`` of its input is a side or (height, width).

    By default ``channels``, its outputs, are its inputs, and the ratios those of most rows of the papers. A
    squeeze-excite has ``inputs × expand`` channels: ``expand`` is that of the block around it, by default 1. Raises
    ``ValueError`` if the kind or activation is unknown or a size impossible.
    """
    if kind not in DRAWABLE_KINDS:
        raise ValueError(f"unknown block {kind!r}: use one of {', '.join(DRAWABLE_KINDS)}")
    is_part = kind == "squeeze_excite"
    if is_part and (stride != 1 or kernel != 3 or channels is not None):
        raise ValueError("a squeeze-excite has no stride, kernel or output channels: it keeps the shape of the map")
    expand = _DEFAULT_EXPAND[kind] if expand is None else expand
    squeeze = _DEFAULT_SQUEEZE[kind] if squeeze is None else squeeze
    if is_part and not squeeze:
        raise ValueError("a squeeze of 0 means no squeeze-excite: use a value above 0, such as 0.25")
    if activation not in ACTIVATION_NAMES:
        raise ValueError(f"unknown activation {activation!r}: use one of {', '.join(ACTIVATION_NAMES)}")
    outputs = inputs if channels is None else channels
    layer = block_layer("mbconv" if is_part else kind, inputs, outputs, kernel, stride, expand, squeeze)
    return BlockSpec(layer, expand, squeeze, serde.check_size(size), activation, "squeeze_excite" if is_part else "")


def find_block_spec(arch: Arch, name: str, size: counting.Size | None = None) -> BlockSpec:
    """Return the block ``name`` (as ``stage3.0``) of ``arch`` at ``size``. Raises ``ValueError`` if it is unknown."""
    rows = {row.name: row for row in count(arch, size).layers if row.layer.kind in BLOCK_KINDS}
    if name not in rows:
        raise ValueError(f"{arch.name} has no block {name!r}: available are {', '.join(_format_ranges(list(rows)))}")
    row = rows[name]
    stage = arch.stages[row.layer.stage - 1]
    listed = bool(stage.expanded or stage.squeezed)
    return BlockSpec(row.layer, stage.expand, stage.squeeze, row.size_in, arch.activation, listed=listed)


def _format_ranges(names: list[str]) -> list[str]:
    """Return ``stage1.0``, ``stage2.0–1``, …"""
    last: dict[str, str] = {}
    for name in names:
        stage, _, index = name.partition(".")
        last[stage] = index
    return [f"{stage}.0" if index == "0" else f"{stage}.0–{index}" for stage, index in last.items()]


def block_to_json(spec: BlockSpec) -> JsonRow:
    """Return a block with its operations, shapes and conditions."""
    return {
        "block": spec.part or spec.layer.kind,
        "expand": spec.expand,
        "squeeze": spec.squeeze,
        "kernel": spec.layer.kernel,
        "stride": spec.layer.stride,
        "residual": spec.layer.residual,
        "size_in": spec.size,
        "size_out": spec.size_out,
        "inputs": spec.channels[0],
        "channels": spec.channels[1],
        "params": spec.params,
        "macs": spec.macs,
        "operations": [operation_to_json(*pair) for pair in spec.operations],
        "conditions": [asdict(condition) for condition in block_conditions(spec)],
    }


@dataclass(frozen=True)
class Condition:
    """Whether a block has a part, and why."""

    part: str  # "expansion", "stride", "squeeze-excite", "residual", "activation", "shape"
    holds: bool
    heading: str
    because: str


def block_conditions(spec: BlockSpec) -> tuple[Condition, ...]:
    """Return which parts the block has and which not, and why (arXiv:1801.04381, section 3; arXiv:1905.11946)."""
    layer = spec.layer
    if spec.part:
        because = (
            "The map keeps its size and channels: each channel is multiplied by a number between 0 and 1, which is "
            "computed from the averages of all channels."
        )
        return (_squeeze(spec), Condition("shape", True, "Same shape", because))
    effect = "keeps the map's size" if layer.stride == 1 else "halves the map's sides, rounded up"
    because = f"The {'fused' if layer.kind == 'fused' else 'depthwise'} convolution {effect}."
    stride = Condition("stride", layer.stride > 1, f"Stride {layer.stride}", because)
    conditions = (_expansion(spec), stride, _squeeze(spec), _residual(spec))
    if layer.kind == "fused" and not layer.expanded:
        return conditions
    because = "The projection is linear, so that the bottleneck loses no information in an activation."
    return (*conditions, Condition("activation", False, "No activation at the end", because))


def _condition(part: str, holds: bool, because: str) -> Condition:
    return Condition(part, holds, part.capitalize() if holds else f"No {part}", because)


def _expansion(spec: BlockSpec) -> Condition:
    layer, is_fused = spec.layer, spec.layer.kind == "fused"
    if not layer.expanded:
        instead = "the block starts with its depthwise convolution"
        if is_fused:
            instead = "one convolution replaces expansion and projection"
        return _condition("expansion", False, f"Expand is 1: {instead}. There is an expansion if expand is above 1.")
    if spec.listed:
        what = "fused" if is_fused else "1×1"
        because = f"The row lists the channels of each block: a {what} convolution gives {layer.expanded}."
        return _condition("expansion", True, because)
    base = layer.expanded // spec.expand
    note = "" if base == layer.inputs else f" (this row expands {base} channels, not the {layer.inputs} input channels)"
    convolution = f"the fused {layer.kernel}×{layer.kernel} convolution" if is_fused else "a 1×1 convolution"
    sizes = f"{base} × {spec.expand} = {layer.expanded}"
    return _condition("expansion", True, f"Expand is {spec.expand}: {convolution} gives {sizes} channels{note}.")


def _squeeze(spec: BlockSpec) -> Condition:
    layer = spec.layer
    if not layer.squeezed:
        return _condition("squeeze-excite", False, "Squeeze is 0. There is a squeeze-excite if squeeze is above 0.")
    if spec.listed:
        return _condition("squeeze-excite", True, f"The row lists the channels of each block: {layer.squeezed} here.")
    exact = layer.inputs * spec.squeeze
    rounded = "" if exact == int(exact) else ", rounded down but at least 1"
    expanded = f", not of the {layer.expanded} expanded ones" if layer.expanded else ""
    inputs = f"of the block's {layer.inputs} input channels{expanded}"
    return _condition("squeeze-excite", True, f"Squeeze is {spec.squeeze:g} {inputs}: {layer.squeezed}{rounded}.")


def _residual(spec: BlockSpec) -> Condition:
    layer = spec.layer
    requirement = "the stride is 1 and there are as many output as input channels"
    reasons = ["the stride is 2"] if layer.stride > 1 else []
    if layer.inputs != layer.channels:
        reasons.append(f"there are {layer.inputs} input and {layer.channels} output channels")
    reason = " and ".join(reasons)
    because = f"{reason[:1].upper()}{reason[1:]}. There is a residual if {requirement}."
    if layer.residual:
        because = f"Since {requirement}, the input is added."
        if layer.drop_path:
            because += f" In training, drop path leaves only the residual for {layer.drop_path:.1%} of the images."
    elif not reasons:
        because = "Its row in the network's table has none, though the shapes would allow it."
    return _condition("residual", layer.residual, because)


def draw_block(spec: BlockSpec) -> Diagram:
    """Draw a block, or a squeeze-excite by itself, from top to bottom, with the conditions on the right."""
    inputs, outputs = spec.channels
    flow = _Flow(74, spec.activation)
    flow.items.append(Text(24, 34, spec.title, 20, bold=True))
    flow.items.append(Text(24, 55, format_costs(spec.params, spec.macs, " · "), 12, opacity=0.85))
    flow.end("in")
    split = flow.y + 9
    size, channels = spec.size, inputs
    remaining = list(spec.operations)
    while remaining:
        operation, size_out = remaining.pop(0)
        is_squeeze = operation_kind(operation) == "reduce"
        flow.arrow(format_shape(size, channels), head=not is_squeeze)
        if is_squeeze:
            flow.squeeze_excite(operation, remaining.pop(0)[0])
        else:
            flow.box(operation, size_out)
            size, channels = size_out, operation.channels
    flow.arrow(format_shape(size, channels))
    if spec.layer.residual and not spec.part:
        y = flow.joint("+")
        path = ((_AXIS, split), (_RESIDUAL_X, split), (_RESIDUAL_X, y), (_AXIS - 10, y))
        flow.items += [Line(path, arrow=True), Text(_RESIDUAL_X + 6, y - 8, "residual", 10.5, opacity=0.85)]
        flow.arrow(format_shape(size, channels))
    flow.end("out")
    left = (_BRANCH_COUNTS_X if spec.layer.squeezed else _COUNTS_X) + 130
    panel, bottom = _conditions_panel(block_conditions(spec), left)
    height = max(flow.y, bottom) + 20
    separator = Line(((left - 22, 26), (left - 22, height - 20)), INK, 0.15, 0.8)
    title = f"{spec.title}: {format_shape(spec.size, inputs)} → {format_shape(spec.size_out, outputs)}"
    return Diagram(left + _CONDITIONS_WIDTH, height, title, (*flow.items, separator, *panel))


@dataclass
class _Flow:
    """The items drawn so far along the main line, and their bottom ``y``."""

    y: float
    activation: str
    items: list[Item] = field(default_factory=list)

    def arrow(self, label: str, head: bool = True) -> None:
        """Draw an arrow with the map's shape next to it."""
        self.items.append(Line(((_AXIS, self.y), (_AXIS, self.y + _ARROW_LENGTH)), arrow=head))
        self.items.append(Text(_AXIS + 9, self.y + _ARROW_LENGTH / 2 + 3, label, 10.5, opacity=0.85))
        self.y += _ARROW_LENGTH

    def box(self, operation: Operation, size: tuple[int, int]) -> None:
        """Draw an operation with the batch norm and activation that follow, and its counts at the side."""
        box = Box(_AXIS - _HALF_WIDTH, self.y, 2 * _HALF_WIDTH, _BOX_HEIGHT)
        after = f"batch norm, {ACTIVATION_NAMES[self.activation]}" if operation.activation else "batch norm"
        name = describe_operation(operation)
        items = (
            Rect(box, diagram.OPERATION_COLORS[operation_kind(operation)], 0.25, 0.8, radius=7),
            centered_text(Box(box.x, box.y + 4, box.width, 18), name, 12, bold=True),
            centered_text(Box(box.x, box.y + 21, box.width, 16), after, 10.5, opacity=0.85),
            *_count_texts(operation, size, _COUNTS_X, box.y + _BOX_HEIGHT / 2),
        )
        self.items.append(Group(f"{name}: weights {' × '.join(map(str, operation.weight))}", items))
        self.y += _BOX_HEIGHT

    def joint(self, sign: str) -> float:
        """Draw a circle on the main line; return the y of its center."""
        box = Box(_AXIS - 10, self.y, 20, 20)
        self.items += labeled_box(box, diagram.GREY, 0.2, 0.9, 10, sign, 14, bold=True)
        self.y += 20
        return box.y + 10

    def end(self, word: str) -> None:
        """Draw the input or output of the block."""
        box = Box(_AXIS - 26, self.y, 52, 20)
        self.items += labeled_box(box, INK, 0.06, 0.3, 10, word)
        self.y += 20

    def squeeze_excite(self, reduce: Operation, excite: Operation) -> None:
        """Draw the branch next to the main line: global average, two linear layers, a factor for each channel."""
        top, left, width = self.y, _BRANCH_LEFT, _BRANCH_WIDTH
        middle = left + width / 2
        boxes = (
            ("average over the map", "", None, reduce.inputs),
            ("squeeze: linear", ACTIVATION_NAMES[self.activation], reduce, reduce.channels),
            ("excite: linear", "sigmoid", excite, excite.channels),
        )
        items: list[Item] = [Text(left - 2, top + 15, "squeeze-excite", 10.5, bold=True, opacity=0.85)]
        y = top + 24
        entry = y + 15
        for index, (name, after, operation, channels) in enumerate(boxes):
            box = Box(left, y, width, 34.0 if operation else 26.0)
            items.append(Rect(box, diagram.PINK, 0.22, 0.7, radius=6))
            if operation:
                items.append(centered_text(Box(left, y + 2, width, 16), name, 11, bold=True))
                items.append(centered_text(Box(left, y + 17, width, 15), after, 10, opacity=0.85))
                items += _count_texts(operation, (1, 1), _BRANCH_COUNTS_X, y + box.height / 2)
            else:
                items.append(centered_text(box, name, 11, bold=True))
            y += box.height
            if index < 2:
                items.append(Line(((middle, y), (middle, y + 26)), arrow=True))
                items.append(Text(middle + 9, y + 16, format_shape((1, 1), channels), 10.5, opacity=0.85))
                y += 26
        bottom = y + 30
        frame = Box(_AXIS + 18, top, left + width + 12 - _AXIS - 18, y + 10 - top)
        self.items += [
            Rect(frame, diagram.PINK, 0.0, 0.6, 8, dashed=True),
            *items,
            Line(((_AXIS, top), (_AXIS, bottom - 10)), arrow=True),
            Line(((_AXIS, entry), (left, entry)), arrow=True),
            Line(((middle, y), (middle, bottom), (_AXIS + 10, bottom)), arrow=True),
            Text(middle + 9, y + 25, format_shape((1, 1), excite.channels), 10.5, opacity=0.85),
        ]
        self.y = bottom - 10
        self.joint("×")


def _count_texts(operation: Operation, size: tuple[int, int], x: float, middle: float) -> tuple[Text, Text]:
    params, macs = format_costs(operation.params, operation.macs(*size)).split(", ")
    return Text(x, middle - 2, params, 10.5, opacity=0.85), Text(x, middle + 12, macs, 10.5, opacity=0.85)


def _conditions_panel(conditions: tuple[Condition, ...], left: float) -> tuple[list[Item], float]:
    """Draw the conditions, each with a dot that is filled if the block has the part; return their bottom too."""
    items: list[Item] = []
    y = 34.0
    for condition in conditions:
        color, opacity = (diagram.GREEN, 0.8) if condition.holds else (diagram.GREY, 0.0)
        items.append(Rect(Box(left, y - 9, 10, 10), color, opacity, 0.9, radius=5))
        items.append(Text(left + 18, y, condition.heading, 12, bold=True))
        for line in wrap_text(condition.because, _CONDITIONS_WIDTH - 24 - 18, 11):
            y += 16
            items.append(Text(left + 18, y, line, 11, opacity=0.85))
        y += 28
    return items, y - 20
