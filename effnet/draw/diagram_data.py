"""What diagrams show of a network, as data and as JSON: stages, runs of equal layers, repeated blocks, totals."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from effnet.arch import Arch, Count, Layer, LayerCount, Operation, spec
from effnet.draw import text
from effnet.draw.diagram import CHANGED_COLOR, LAYER_COLORS, LAYER_NAMES, Box, Item, Rect, Text
from effnet.draw.text import ACTIVATION_NAMES, arch_title, format_kernel, format_si, operator_name, text_width

_MODULE_DESCRIPTIONS = {
    "expand": "expand: conv 1×1",
    "depthwise": "depthwise: conv k×k, each channel separately",
    "fused": "fused: conv k×k",
    "squeeze-excite": "squeeze-excite: average, linear, linear, scale",
    "project": "project: conv 1×1",
}
_NAME_FONT_SIZE = 22.0

JsonRow = dict[str, Any]


@dataclass(frozen=True)
class NetworkPart:
    """A column of the network's diagram: the image, the stem, a stage, the head or the classifier."""

    name: str  # "image", "stem", "stage1", …, "head", "classifier"
    kind: str  # that of its layers, or "image"
    operator: str
    kernel: str
    stride: int
    squeeze: float  # ratio of the squeeze-excite; 0: none
    layers: int
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    inputs: int
    channels: int
    params: int
    macs: int
    rows: tuple[LayerCount, ...] = ()

    @property
    def operation(self) -> str:
        """Operator and kernel: ``MBConv6 3×3``, ``Linear``."""
        return f"{self.operator} {self.kernel}".strip()


@dataclass(frozen=True)
class LayerRun:
    """Consecutive layers of one stage that are equal in everything but their drop path."""

    rows: tuple[LayerCount, ...]
    operator: str

    @property
    def first(self) -> LayerCount:
        """The first layer, whose counts are those of each."""
        return self.rows[0]

    @property
    def name(self) -> str:
        """``stage3.1``, or ``stage3.1–3`` for several layers."""
        last = self.rows[-1].name.rpartition(".")[2]
        return self.first.name if len(self.rows) == 1 else f"{self.first.name}–{last}"


def expand_ratio(arch: Arch, layer: Layer) -> int:
    """Return the ``expand`` of the layer's row, 0 if the row lists channels; 1 for other layers than blocks."""
    if layer.kind not in spec.BLOCK_KINDS:
        return 1
    stage = arch.stages[layer.stage - 1]
    return 0 if stage.expanded else stage.expand


def network_parts(counted: Count) -> tuple[NetworkPart, ...]:
    """Return the parts from the stem to the classifier; a stage stands at its number."""
    parts = []
    for (stage, kind), members in groupby(counted.layers, lambda row: (row.layer.stage, row.layer.kind)):
        rows = tuple(members)
        first, is_block = rows[0].layer, kind in spec.BLOCK_KINDS
        part = NetworkPart(
            name=f"stage{stage}" if is_block else kind,
            kind=kind,
            operator=operator_name(first, expand_ratio(counted.arch, first)),
            kernel=format_kernel(first),
            stride=first.stride,
            squeeze=counted.arch.stages[stage - 1].squeeze if is_block else 0.0,
            layers=len(rows),
            size_in=rows[0].size_in,
            size_out=rows[-1].size_out,
            inputs=first.inputs,
            channels=rows[-1].layer.channels,
            params=sum(row.params for row in rows),
            macs=sum(row.macs for row in rows),
            rows=rows,
        )
        parts.append(part)
    return tuple(parts)


def input_part(counted: Count) -> NetworkPart:
    """Return the input image as a part."""
    channels = counted.layers[0].layer.inputs
    return NetworkPart("image", "image", "", "", 0, 0.0, 1, counted.size, counted.size, channels, channels, 0, 0)


def layer_runs(counted: Count) -> Iterator[LayerRun]:
    """Yield all layers, with equal neighbors of a stage as one run."""
    runs = groupby(counted.layers, lambda row: (replace(row.layer, name="", drop_path=0.0), row.size_in))
    for (layer, _), members in runs:
        yield LayerRun(tuple(members), operator_name(layer, expand_ratio(counted.arch, layer)))


@dataclass(frozen=True)
class SubBlock:
    """Blocks with the same operations in the same order, of any size."""

    letter: str
    kind: str  # "mbconv" or "fused"
    modules: tuple[str, ...]  # "expand", "depthwise", "fused", "squeeze-excite", "project"
    residual: bool

    @property
    def description(self) -> str:
        """``MBConv with expansion, with residual``."""
        expands = "expand" in self.modules or (self.kind == "fused" and "project" in self.modules)
        words = ["with" if part else "without" for part in (expands, self.residual)]
        return f"{LAYER_NAMES[self.kind]} {words[0]} expansion, {words[1]} residual"


@dataclass(frozen=True)
class BlockRepeat:
    """Consecutive layers of a stage that are the same sub-block with the same kernel and stride."""

    sub_block: SubBlock
    rows: tuple[LayerCount, ...]

    @property
    def label(self) -> str:
        """``A``, or ``A × 3`` for several layers."""
        return self.sub_block.letter + (f" × {len(self.rows)}" if len(self.rows) > 1 else "")

    @property
    def kernel(self) -> str:
        """``3×3`` or ``3×3, stride 2``."""
        return format_kernel(self.rows[0].layer) + (", stride 2" if self.rows[0].layer.stride > 1 else "")


def describe_modules(sub_blocks: Iterable[SubBlock], activation: str) -> dict[str, str]:
    """Return what each module of these sub-blocks consists of, in the order in which a block runs them."""
    after = {"squeeze-excite": "", "project": ", batch norm"}
    other = f", batch norm, {ACTIVATION_NAMES[activation]}"
    used = {module for block in sub_blocks for module in block.modules}
    return {name: content + after.get(name, other) for name, content in _MODULE_DESCRIPTIONS.items() if name in used}


def find_repeats(counted: Count) -> tuple[tuple[SubBlock, ...], dict[int, tuple[BlockRepeat, ...]]]:
    """Return the sub-blocks, lettered in order of appearance, and the repeats of each stage by its number."""
    sub_blocks: dict[tuple[object, ...], SubBlock] = {}

    def sub_block(row: LayerCount) -> SubBlock:
        kinds = [text.operation_kind(operation) for operation, _ in row.operations]  # both of squeeze-excite: a module
        modules = tuple("squeeze-excite" if kind == "reduce" else kind for kind in kinds if kind != "excite")
        key = (row.layer.kind, modules, row.layer.residual)
        letter = chr(ord("A") + len(sub_blocks))
        return sub_blocks.setdefault(key, SubBlock(letter, row.layer.kind, modules, row.layer.residual))

    stages: dict[int, tuple[BlockRepeat, ...]] = {}
    blocks = (row for row in counted.layers if row.layer.kind in spec.BLOCK_KINDS)
    for stage, rows in groupby(blocks, lambda row: row.layer.stage):
        repeats = groupby(rows, lambda row: (sub_block(row), row.layer.kernel, row.layer.stride))
        stages[stage] = tuple(BlockRepeat(block, tuple(members)) for (block, _, _), members in repeats)
    return tuple(sub_blocks.values()), stages


def summarize(counted: Count) -> str:
    """Return a network in one line: ``b0 at 224×224: 5.29 M params, 386 M MACs``."""
    costs = text.format_costs(counted.params, counted.macs)
    return f"{arch_title(counted.arch)} at {text.format_size(counted.size)}: {costs}"


def format_settings(counted: Count) -> list[str]:
    """Return the settings of the whole network: activation, dropout, drop path."""
    arch = counted.arch
    return [ACTIVATION_NAMES[arch.activation], f"dropout {arch.dropout:g}", f"drop path {arch.drop_path:g}"]


def draw_header(
    counted: Count, other: Count | None, left: float, top: float, right: float, prefix: str = ""
) -> tuple[list[Item], float]:
    """Draw name, totals and settings, with differences from ``other`` marked; return the items and their bottom."""
    measure = partial(text_width, size=_NAME_FONT_SIZE, bold=True)
    name = text.truncate_measured(prefix + arch_title(counted.arch), right - left, measure)
    items: list[Item] = [Text(left, top + _NAME_FONT_SIZE, name, _NAME_FONT_SIZE, bold=True)]
    base = other or counted
    totals: list[tuple[str, bool]] = []
    for unit, value, base_value in (("params", counted.params, base.params), ("MACs", counted.macs, base.macs)):
        ratio = f" (× {value / base_value:.3g})" if other else ""
        totals.append((f"{format_si(value)} {unit}{ratio}", format_si(value) != format_si(base_value)))
    totals.append((text.format_size(counted.size), counted.size != base.size))
    pairs = zip(format_settings(counted), format_settings(base), strict=True)
    settings = [(word, word != base_word) for word, base_word in pairs]
    y = top + _NAME_FONT_SIZE + 24
    for words, size in ((totals, 13.0), (settings, 11.0)):
        line, y = _draw_words(words, size, left, y, right)
        items += line
        y += 19
    return items, y - 10


def _draw_words(
    words: list[tuple[str, bool]], size: float, left: float, y: float, right: float
) -> tuple[list[Item], float]:
    """Draw words separated by dots, wrapped at ``right``, those that differ marked; return the last baseline too."""
    items: list[Item] = []
    x = left
    for index, (word, differs) in enumerate(words):
        width = text_width(word, size)
        if index and x + 20 + width > right:
            x, y = left, y + 1.6 * size
        elif index:
            items.append(Text(x + 10, y, "·", size, "middle", opacity=0.6))
            x += 20
        if differs:
            items.append(Rect(Box(x - 4, y - 1.05 * size, width + 8, 1.42 * size), CHANGED_COLOR, 0.32, radius=4))
        items.append(Text(x, y, word, size, opacity=0.85))
        x += width
    return items, y


def draw_legend(kinds: Collection[str], note: str, left: float, top: float, right: float) -> tuple[list[Item], float]:
    """Draw the legend of the layers' colors and a note; return the items and their bottom."""
    entries = [(LAYER_COLORS[kind], LAYER_NAMES[kind]) for kind in LAYER_NAMES if kind in kinds]
    return draw_swatches(entries, note, left, top, right)


def draw_swatches(
    entries: Collection[tuple[str, str]], note: str, left: float, top: float, right: float
) -> tuple[list[Item], float]:
    """Draw a square of each color with its label, then a note, wrapped at ``right``; return the bottom too."""
    items: list[Item] = []
    x, y = left, top + 10
    for color, label in entries:
        width = 14 + text_width(label, 10) + 16
        if x > left and x + width > right:
            x, y = left, y + 16
        items += [Rect(Box(x, y - 8.5, 10, 10), color, 0.6, 0.75, radius=2), Text(x + 14, y, label, 10, opacity=0.85)]
        x += width
    line = ""
    for word in note.split():
        if line and x + text_width(f"{line} {word}", 10) > right:
            items.append(Text(x, y, line, 10, opacity=0.65))
            x, y, line = left, y + 16, ""
        line = f"{line} {word}".lstrip()
    return [*items, Text(x, y, line, 10, opacity=0.65)], y + 6


def stages_to_json(counted: Count) -> list[JsonRow]:
    """Return a row for the stem, each stage, the head and the classifier."""
    return [{name: value for name, value in vars(part).items() if name != "rows"} for part in network_parts(counted)]


def layers_to_json(counted: Count, operations: bool = False) -> list[JsonRow]:
    """Return a row for each layer, optionally with its operations."""
    rows = []
    for layer_count in counted.layers:
        row = asdict(layer_count.layer)
        del row["stage"]
        row["operator"] = operator_name(layer_count.layer, expand_ratio(counted.arch, layer_count.layer))
        row |= {name: getattr(layer_count, name) for name in ("size_in", "size_out", "params", "macs")}
        if operations:
            row["operations"] = [operation_to_json(*pair) for pair in layer_count.operations]
        rows.append(row)
    return rows


def modules_to_json(counted: Count) -> JsonRow:
    """Return the sub-blocks and the sequence of sub-blocks of each stage."""
    sub_blocks, stages = find_repeats(counted)
    blocks = [
        {"letter": block.letter, "block": block.kind, "modules": list(block.modules), "residual": block.residual}
        for block in sub_blocks
    ]
    rows: list[JsonRow] = []
    for stage, repeats in stages.items():
        sequence = [
            {
                "sub_block": repeat.sub_block.letter,
                "repeats": len(repeat.rows),
                "kernel": repeat.rows[0].layer.kernel,
                "stride": repeat.rows[0].layer.stride,
                "layers": [row.name for row in repeat.rows],
            }
            for repeat in repeats
        ]
        rows.append({"name": f"stage{stage}", "made_of": sequence})
    return {"sub_blocks": blocks, "stages": rows}


def differences_to_json(first: Count, second: Count) -> list[JsonRow]:
    """Return a row for each difference of the networks and of their parts; null where one lacks the part."""
    ours, theirs = _facts(first), _facts(second)
    rows: list[JsonRow] = []
    for of in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(of, {}), theirs.get(of, {})
        pairs = ((fact, one.get(fact), other.get(fact)) for fact in one or other)
        rows += [{"of": of, "fact": fact, "first": a, "second": b} for fact, a, b in pairs if a != b]
    return rows


def _facts(counted: Count) -> dict[str, JsonRow]:
    facts = {name: getattr(counted.arch, name) for name in ("resolution", "activation", "dropout", "drop_path")}
    facts |= {name: getattr(counted, name) for name in ("size", "params", "macs")}
    return {"network": facts} | {row["name"]: row for row in stages_to_json(counted)}


def operation_to_json(operation: Operation, size: tuple[int, int]) -> JsonRow:
    """Return an operation whose output map has that size."""
    names = ("name", "kernel", "stride", "groups", "inputs", "channels", "params")
    row = {name: getattr(operation, name) for name in names}
    return row | {"kind": text.operation_kind(operation), "size_out": size, "macs": operation.macs(*size)}
