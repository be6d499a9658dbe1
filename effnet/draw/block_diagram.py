"""A block to be drawn by itself: of given ratios, or one of a network's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import ceil

from effnet.arch import Arch, Layer, Operation, count, operations, resolve_arch
from effnet.arch.counting import Size
from effnet.arch.serde import check_size
from effnet.arch.spec import BLOCK_KINDS, block_layer
from effnet.draw.font import wrap_text
from effnet.draw.formatting import (
    ACTIVATION_NAMES,
    describe_operation,
    format_shape,
    format_si,
    operation_kind,
    operator_name,
)
from effnet.draw.network_summary import JsonRow, operation_to_json
from effnet.draw.network_summary import expand_ratio as expand_of
from effnet.draw.rendering import Diagram
from effnet.draw.scene import (
    GREEN,
    GREY,
    INK,
    OPERATION_COLORS,
    PINK,
    Box,
    Group,
    Item,
    Line,
    Rect,
    Scene,
    Text,
    centered_text,
)

DRAWABLE_KINDS = (*BLOCK_KINDS, "squeeze_excite")


_DEFAULT_EXPAND = {"mbconv": 6, "fused": 4, "squeeze_excite": 1}  # where none is given: as most stages have it


_DEFAULT_SQUEEZE = {"mbconv": 0.25, "fused": 0.0, "squeeze_excite": 0.25}


@dataclass(frozen=True)
class BlockSpec:
    """A block on a map of ``size`` (height, width), with the ratios that it was made from."""

    layer: Layer
    expand: int
    squeeze: float
    size: tuple[int, int]
    activation: str = "silu"
    part: str = ""  # "squeeze_excite": only that is drawn

    @property
    def operations(self) -> tuple[tuple[Operation, tuple[int, int]], ...]:
        """Its operations, each with the size of the map that it writes."""
        found, size = [], self.size
        for operation in operations(self.layer):
            size = (ceil(size[0] / operation.stride), ceil(size[1] / operation.stride))
            found.append((operation, (1, 1) if operation.pooled else size))
        wanted = ("reduce", "excite")
        return tuple(pair for pair in found if not self.part or operation_kind(pair[0]) in wanted)

    @property
    def size_out(self) -> tuple[int, int]:
        """Of the map that leaves it."""
        stride = 1 if self.part else self.layer.stride
        return ceil(self.size[0] / stride), ceil(self.size[1] / stride)

    @property
    def inner(self) -> int:
        """Channels of the map that a squeeze-excite weighs."""
        return self.layer.expanded or (self.layer.inputs if self.layer.kind == "mbconv" else self.layer.channels)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels that enter and leave."""
        return (self.inner, self.inner) if self.part else (self.layer.inputs, self.layer.channels)

    @property
    def params(self) -> int:
        """Of all its operations."""
        return sum(operation.params for operation, _ in self.operations)

    @property
    def macs(self) -> int:
        """Of all its operations, for one picture."""
        return sum(operation.macs(*size) for operation, size in self.operations)

    @property
    def title(self) -> str:
        """What it is: ``MBConv4 3×3``, with its name where it comes from a network."""
        if self.part:
            return "Squeeze-excite"
        made = f"{operator_name(self.layer, self.expand)} {self.layer.kernel}×{self.layer.kernel}"
        return made if self.layer.name == "block" else f"{self.layer.name}: {made}"


def make_block_spec(
    kind: str,
    inputs: int,
    channels: int | None = None,
    expand: int | None = None,
    kernel: int = 3,
    stride: int = 1,
    squeeze: float | None = None,
    size: Size = 56,
    activation: str = "silu",
) -> BlockSpec:
    """A block of these ratios; ``channels`` that leave are as many as enter if None.

    Where None, ``expand`` is 6 of an MBConv and 4 of a Fused-MBConv, and ``squeeze`` 0.25 of an MBConv and 0 of a
    Fused-MBConv. Of a "squeeze_excite", ``expand`` is that of the block around it, 1 if None: ``inputs × expand``
    channels are weighed. Raises ``ValueError`` for a kind or a size that there is none of.
    """
    if kind not in DRAWABLE_KINDS:
        raise ValueError(f"no block is called {kind!r}: there are {', '.join(DRAWABLE_KINDS)}")
    alone = kind == "squeeze_excite"
    if alone and (stride != 1 or kernel != 3 or channels is not None):
        raise ValueError("a squeeze-excite has no stride, kernel or other channels: it leaves the map's shape alone")
    wide, ratio = (
        _DEFAULT_EXPAND[kind] if expand is None else expand,
        _DEFAULT_SQUEEZE[kind] if squeeze is None else squeeze,
    )
    if alone and not ratio:
        raise ValueError("a squeeze of 0 means no squeeze-excite: give one above 0, such as 0.25")
    if activation not in ACTIVATION_NAMES:
        raise ValueError(f"no activation is called {activation!r}: there are {', '.join(ACTIVATION_NAMES)}")
    made = block_layer(
        "mbconv" if alone else kind, inputs, inputs if channels is None else channels, kernel, stride, wide, ratio
    )
    return BlockSpec(made, wide, ratio, check_size(size), activation, "squeeze_excite" if alone else "")


def find_block_spec(arch: Arch, name: str, size: Size | None = None) -> BlockSpec:
    """The block ``name`` (as ``stage3.0``) of ``arch`` on a picture of ``size``; its own resolution if None.

    Raises ``ValueError`` where the network has no block of that name.
    """
    rows = {row.name: row for row in count(arch, size).layers if row.layer.kind in BLOCK_KINDS}
    if name not in rows:
        raise ValueError(f"{arch.name} has no block {name!r}: its blocks are {', '.join(_format_ranges(list(rows)))}")
    row = rows[name]
    squeeze = arch.stages[row.layer.stage - 1].squeeze
    return BlockSpec(row.layer, expand_of(arch, row.layer), squeeze, row.size_in, arch.activation)


def _format_ranges(names: list[str]) -> list[str]:
    """``stage1.0``, ``stage2.0–1`` …"""
    last: dict[str, str] = {}
    for name in names:
        stage, _, index = name.partition(".")
        last[stage] = index
    return [f"{stage}.0" if index == "0" else f"{stage}.0–{index}" for stage, index in last.items()]


# In words: which parts a block has, and under which conditions (section 3 of arXiv:1801.04381, arXiv:1905.11946).


@dataclass(frozen=True)
class Condition:
    """Whether a block has a part, and why."""

    part: str  # "expansion", "stride", "squeeze-excite", "residual", "activation", "shape"
    holds: bool
    heading: str
    because: str


def block_conditions(subject: BlockSpec) -> tuple[Condition, ...]:
    """What the block has and has not, each with the reason in a sentence."""
    if subject.part:
        kept = "The map keeps its size and its channels: each channel is multiplied by one number between 0 and 1, "
        return (_squeeze(subject), Condition("shape", True, "The same shape", kept + "found from the averages of all."))
    return (_expansion(subject), _stride(subject), _squeeze(subject), _residual(subject), *_activation(subject))


def _present(part: str, because: str) -> Condition:
    return Condition(part, True, part.capitalize(), because)


def _absent(part: str, because: str) -> Condition:
    return Condition(part, False, f"No {part}", because)


def _expansion(subject: BlockSpec) -> Condition:
    layer, fused = subject.layer, subject.layer.kind == "fused"
    if not layer.expanded:
        without = (
            "one convolution takes the place of expansion and projection"
            if fused
            else "the block begins with its depthwise convolution"
        )
        return _absent("expansion", f"Expand is 1: {without}. There is an expansion where expand is above 1.")
    of = layer.expanded // subject.expand
    other = "" if of == layer.inputs else f" (this row expands {of} channels, not the {layer.inputs} that enter)"
    by = f"the fused {layer.kernel}×{layer.kernel} convolution" if fused else "a 1×1 convolution"
    return _present(
        "expansion",
        f"Expand is {subject.expand}: {by} makes {of} × {subject.expand} = {layer.expanded} channels{other}.",
    )


def _stride(subject: BlockSpec) -> Condition:
    layer = subject.layer
    which = "fused" if layer.kind == "fused" else "depthwise"
    does = "keeps the map's size" if layer.stride == 1 else "halves the map's sides, rounded up"
    return Condition("stride", layer.stride > 1, f"Stride {layer.stride}", f"The {which} convolution {does}.")


def _squeeze(subject: BlockSpec) -> Condition:
    layer = subject.layer
    if not layer.squeezed:
        return _absent("squeeze-excite", "Squeeze is 0. There is a squeeze-excite where squeeze is above 0.")
    wanted = layer.inputs * subject.squeeze
    rounded = "" if wanted == int(wanted) else ", rounded down but at least 1"
    expanded = f", not of the expanded {layer.expanded}" if layer.expanded else ""
    of = f"of the {layer.inputs} channels that enter the block{expanded}"
    return _present("squeeze-excite", f"Squeeze is {subject.squeeze:g} {of}: that makes {layer.squeezed}{rounded}.")


def _residual(subject: BlockSpec) -> Condition:
    layer = subject.layer
    needs = "stride 1 and as many channels out as in"
    if layer.residual:
        rate = f" In training it is all that is left of the block for {layer.drop_path:.1%} of the pictures: drop path."
        return _present("residual", f"There is {needs}: the input is added.{rate if layer.drop_path else ''}")
    against = ["the stride is 2"] if layer.stride > 1 else []
    if layer.inputs != layer.channels:
        against.append(f"{layer.inputs} channels enter and {layer.channels} leave")
    if not against:
        return _absent("residual", "Its row in the network's table has none, though the shapes would allow it.")
    why = " and ".join(against)
    return _absent("residual", f"{why[0].upper()}{why[1:]}. There is a residual where there is {needs}.")


def _activation(subject: BlockSpec) -> tuple[Condition, ...]:
    if subject.layer.kind == "fused" and not subject.layer.expanded:
        return ()
    end = "The projection stays linear: the bottleneck loses nothing to an activation."
    return (Condition("activation", False, "No activation at the end", end),)


# A block as a flow from the top down: its operations with shapes on every arrow, counts, and conditions in words.


_AXIS, _HALF, _TALL = 186.0, 100.0, 42.0  # of the main line: its x, half a box's width, a box's height


_BRANCH_BOX = Box(226, 0, 190, 34)  # a box of the squeeze-excite's branch


_BESIDE, _BRANCHED = _AXIS + _HALF + 14, 440.0  # where counts stand: beside a box, and beside the branch


_CONDITIONS_WIDTH = 330.0  # units that the conditions are wide


_RESIDUAL_X = 66.0  # x of the residual's line


_ARROW_LENGTH = 34.0


@dataclass
class _FlowBuilder:
    """What is drawn so far, and how far down."""

    at: float
    items: list[Item] = field(default_factory=list)

    def arrow(self, label: str, bare: bool = False) -> None:
        """Down by one arrow, with the map's shape beside it."""
        ends = ((_AXIS, self.at), (_AXIS, self.at + _ARROW_LENGTH))
        self.items.append(Line(ends, arrow=not bare))
        self.items.append(Text(_AXIS + 9, self.at + _ARROW_LENGTH / 2 + 3, label, 10.5, opacity=0.85))
        self.at += _ARROW_LENGTH

    def box(self, operation: Operation, size: tuple[int, int], activation: str) -> None:
        """An operation with what follows it, and its counts at the side."""
        colour = OPERATION_COLORS[operation_kind(operation)]
        place = Box(_AXIS - _HALF, self.at, 2 * _HALF, _TALL)
        follows = ", ".join(filter(None, ("batch norm", ACTIVATION_NAMES[activation] if operation.activation else "")))
        self.items.append(
            Group(
                f"{describe_operation(operation)}: weights {' × '.join(map(str, operation.weight))}",
                (
                    Rect(place, colour, 0.25, 0.8, radius=7),
                    centered_text(
                        Box(place.x, place.y + 4, place.width, 18), describe_operation(operation), 12, bold=True
                    ),
                    centered_text(Box(place.x, place.y + 21, place.width, 16), follows, 10.5, opacity=0.85),
                    *_count_texts(operation, size, _BESIDE, place.y + _TALL / 2),
                ),
            )
        )
        self.at += _TALL

    def joint(self, sign: str) -> float:
        """A circle on the main line; and the y of its centre."""
        place = Box(_AXIS - 10, self.at, 20, 20)
        self.items += [Rect(place, GREY, 0.2, 0.9, radius=10), centered_text(place, sign, 14, bold=True)]
        self.at += 20
        return place.y + 10


def block_scene(subject: BlockSpec) -> Scene:
    """The whole drawing of a block, or of a squeeze-excite by itself."""
    entering, leaving = subject.channels
    activation = subject.activation
    drawn = _FlowBuilder(74)
    drawn.items += [
        Text(24, 34, subject.title, 20, bold=True),
        Text(24, 55, f"{format_si(subject.params)} params · {format_si(subject.macs)} MACs", 12, opacity=0.85),
    ]
    _draw_end(drawn, "in")
    split = drawn.at + 9
    size, channels = subject.size, entering
    opened = list(subject.operations)
    while opened:
        operation, after = opened.pop(0)
        drawn.arrow(format_shape(size, channels), bare=operation_kind(operation) == "reduce")
        if operation_kind(operation) == "reduce":
            _draw_squeeze_excite(drawn, operation, opened.pop(0)[0], format_shape(size, channels), activation)
        else:
            drawn.box(operation, after, activation)
            size, channels = after, operation.channels
    drawn.arrow(format_shape(size, channels))
    if subject.layer.residual and not subject.part:
        y = drawn.joint("+")
        around = ((_AXIS, split), (_RESIDUAL_X, split), (_RESIDUAL_X, y), (_AXIS - 10, y))
        drawn.items += [Line(around, arrow=True), Text(_RESIDUAL_X + 6, y - 8, "residual", 10.5, opacity=0.85)]
        drawn.arrow(format_shape(size, channels))
    _draw_end(drawn, "out")
    left = (_BRANCHED if subject.layer.squeezed else _BESIDE) + 130
    words, end = _conditions_panel(block_conditions(subject), left)
    tall = max(drawn.at, end) + 20
    words.insert(0, Line(((left - 22, 26), (left - 22, tall - 20)), INK, 0.15, 0.8))
    title = f"{subject.title}: {format_shape(subject.size, entering)} → {format_shape(subject.size_out, leaving)}"
    return Scene(left + _CONDITIONS_WIDTH, tall, title, (*drawn.items, *words))


def _draw_end(drawn: _FlowBuilder, word: str) -> None:
    place = Box(_AXIS - 26, drawn.at, 52, 20)
    drawn.items += [Rect(place, INK, 0.06, 0.3, radius=10), centered_text(place, word, 11)]
    drawn.at += 20


def _count_texts(operation: Operation, size: tuple[int, int], x: float, middle: float) -> tuple[Text, Text]:
    return (
        Text(x, middle - 2, f"{format_si(operation.params)} params", 10.5, opacity=0.85),
        Text(x, middle + 12, f"{format_si(operation.macs(*size))} MACs", 10.5, opacity=0.85),
    )


def _draw_squeeze_excite(
    drawn: _FlowBuilder, reduce: Operation, excite: Operation, label: str, activation: str
) -> None:
    """The branch beside the main line: the average over the map, two linear maps, and a weight for each channel."""
    top, left = drawn.at, _BRANCH_BOX.x
    boxes = (
        ("average over the map", "", None),
        ("squeeze: linear", ACTIVATION_NAMES[activation], reduce),
        ("excite: linear", "sigmoid", excite),
    )
    shapes = (
        format_shape((1, 1), reduce.inputs),
        format_shape((1, 1), reduce.channels),
        format_shape((1, 1), excite.channels),
    )
    y = top + 24
    items: list[Item] = [Text(left - 2, top + 15, "squeeze-excite", 10.5, bold=True, opacity=0.85)]
    first = y + 15
    for index, ((name, follows, operation), after) in enumerate(zip(boxes, shapes, strict=True)):
        tall = 34.0 if operation else 26.0
        place = Box(left, y, _BRANCH_BOX.width, tall)
        items.append(Rect(place, PINK, 0.22, 0.7, radius=6))
        if operation:
            items.append(centered_text(Box(left, y + 2, place.width, 16), name, 11, bold=True))
            items.append(centered_text(Box(left, y + 17, place.width, 15), follows, 10, opacity=0.85))
            items += _count_texts(operation, (1, 1), _BRANCHED, y + tall / 2)
        else:
            items.append(centered_text(place, name, 11, bold=True))
        y += tall
        if index < 2:
            items.append(Line(((place.middle, y), (place.middle, y + 26)), arrow=True))
            items.append(Text(place.middle + 9, y + 16, after, 10.5, opacity=0.85))
            y += 26
    low = y + 30
    frame = Rect(
        Box(_AXIS + 18, top, left + _BRANCH_BOX.width + 12 - _AXIS - 18, y + 10 - top), PINK, 0.0, 0.6, 8, dashed=True
    )
    middle = left + _BRANCH_BOX.width / 2
    drawn.items += [
        frame,
        *items,
        Line(((_AXIS, top), (_AXIS, low - 10)), arrow=True),
        Line(((_AXIS, first), (left, first)), arrow=True),
        Line(((middle, y), (middle, low), (_AXIS + 10, low)), arrow=True),
        Text(middle + 9, y + 25, shapes[-1], 10.5, opacity=0.85),
    ]
    drawn.at = low - 10
    drawn.joint("×")


def _conditions_panel(found: tuple[Condition, ...], left: float) -> tuple[list[Item], float]:
    """The conditions, each with a mark that is filled where the block has the part; and where they end."""
    items: list[Item] = []
    at, most = 34.0, _CONDITIONS_WIDTH - 24 - 18
    for condition in found:
        colour, fill = (GREEN, 0.8) if condition.holds else (GREY, 0.0)
        items.append(Rect(Box(left, at - 9, 10, 10), colour, fill, 0.9, radius=5))
        items.append(Text(left + 18, at, condition.heading, 12, bold=True))
        for line in wrap_text(condition.because, most, 11):
            at += 16
            items.append(Text(left + 18, at, line, 11, opacity=0.85))
        at += 28
    return items, at - 20


# A block as a diagram: its operations, shapes on every arrow, counts, and under which conditions it has its parts.


def draw_block(
    kind: str,
    inputs: int,
    channels: int | None = None,
    expand: int | None = None,
    kernel: int = 3,
    stride: int = 1,
    squeeze: float | None = None,
    size: Size = 56,
    activation: str = "silu",
) -> Diagram:
    """An "mbconv", a "fused" or a "squeeze_excite" with ``inputs`` channels on a map of ``size`` pixels.

    As many ``channels`` leave as enter if None. Where None, ``expand`` is 6 of an MBConv and 4 of a Fused-MBConv, and
    ``squeeze`` 0.25 of an MBConv and 0 of a Fused-MBConv, as in most of the papers' rows. Of a "squeeze_excite",
    ``expand`` is that of the block around it, 1 if None: ``inputs × expand`` channels are weighed.
    Raises ``ValueError`` for a kind or a size that there is none of.
    """
    return Diagram(
        block_scene(make_block_spec(kind, inputs, channels, expand, kernel, stride, squeeze, size, activation))
    )


def draw_block_of(arch: str | Arch, name: str, size: Size | None = None) -> Diagram:
    """The block ``name``, such as ``stage3.0``, of a network on a picture of ``size``; its own resolution if None.

    Raises ``ValueError`` where the network has no block of that name.
    """
    return Diagram(block_scene(find_block_spec(resolve_arch(arch), name, size)))


def block_to_json(subject: BlockSpec) -> JsonRow:
    """A block with its operations, its shapes, and its conditions in words."""
    return {
        "block": subject.part or subject.layer.kind,
        "expand": subject.expand,
        "squeeze": subject.squeeze,
        "kernel": subject.layer.kernel,
        "stride": subject.layer.stride,
        "residual": subject.layer.residual,
        "size_in": subject.size,
        "size_out": subject.size_out,
        "inputs": subject.channels[0],
        "channels": subject.channels[1],
        "params": subject.params,
        "macs": subject.macs,
        "operations": [operation_to_json(*each) for each in subject.operations],
        "conditions": [asdict(condition) for condition in block_conditions(subject)],
    }
