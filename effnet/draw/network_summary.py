"""What is drawn of a network, as data: its stages, and its layers with equal neighbours taken together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

from effnet.arch import Arch, Count, Layer, LayerCount, Operation
from effnet.draw.font import text_width, truncate
from effnet.draw.formatting import (
    ACTIVATION_NAMES,
    arch_title,
    format_kernel,
    format_si,
    format_size,
    operation_kind,
    operator_name,
)
from effnet.draw.scene import CHANGED_COLOR, LAYER_COLORS, LAYER_NAMES, Box, Item, Rect, Text


@dataclass(frozen=True)
class NetworkPart:
    """A column of the network's drawing: the picture, the stem, a stage, the head or the classifier."""

    name: str  # "picture", "stem", "stage1" …, "head", "classifier"
    kind: str  # as a layer's, or "picture"
    operator: str
    kernel: str
    stride: int
    squeeze: float  # the row's ratio; 0: no squeeze-excite
    layers: int
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    inputs: int
    channels: int
    params: int
    macs: int


@dataclass(frozen=True)
class LayerRun:
    """Layers of one stage that follow each other and are alike in everything but the rate of their drop path."""

    rows: tuple[LayerCount, ...]
    operator: str

    @property
    def first(self) -> LayerCount:
        """Whose counts are those of each."""
        return self.rows[0]

    @property
    def kernel(self) -> str:
        """``5×5``; nothing for the classifier."""
        return format_kernel(self.first.layer)

    @property
    def name(self) -> str:
        """``stage3.1``, or ``stage3.1–3`` where there are several."""
        last = self.rows[-1].name.rpartition(".")[2]
        return self.first.name if len(self.rows) == 1 else f"{self.first.name}–{last}"


def expand_ratio(arch: Arch, layer: Layer) -> int:
    """The ``expand`` of the row that the layer comes from; 1 for what is no block."""
    return arch.stages[layer.stage - 1].expand if layer.kind in ("mbconv", "fused") else 1


def network_parts(counted: Count) -> tuple[NetworkPart, ...]:
    """From the stem to the classifier, which is a part of its own."""
    found = []
    for (stage, kind), members in groupby(counted.layers, lambda row: (row.layer.stage, row.layer.kind)):
        rows = list(members)
        first, block = rows[0].layer, kind in ("mbconv", "fused")
        found.append(
            NetworkPart(
                name=f"stage{stage}" if block else kind,
                kind=kind,
                operator=operator_name(first, expand_ratio(counted.arch, first)),
                kernel=format_kernel(first),
                stride=first.stride,
                squeeze=counted.arch.stages[stage - 1].squeeze if block else 0.0,
                layers=len(rows),
                size_in=rows[0].size_in,
                size_out=rows[-1].size_out,
                inputs=first.inputs,
                channels=rows[-1].layer.channels,
                params=sum(row.params for row in rows),
                macs=sum(row.macs for row in rows),
            )
        )
    return tuple(found)


def input_part(counted: Count) -> NetworkPart:
    """What enters the network, as a column of its own."""
    channels = counted.layers[0].layer.inputs
    return NetworkPart("picture", "picture", "", "", 0, 0.0, 1, counted.size, counted.size, channels, channels, 0, 0)


def layer_runs(counted: Count) -> Iterator[LayerRun]:
    """Every layer, equal neighbours of a stage together."""
    alike = groupby(counted.layers, lambda row: (replace(row.layer, name="", drop_path=0.0), row.size_in))
    for (layer, _), members in alike:
        yield LayerRun(tuple(members), operator_name(layer, expand_ratio(counted.arch, layer)))


# What repeats in a network: sub-blocks, which are layers of the same operations, and modules, their operations.


# What is inside of each
_MODULE_DESCRIPTIONS = MappingProxyType(
    {
        "expand": "expand: conv 1×1",
        "depthwise": "depthwise: conv k×k, each channel by itself",
        "fused": "fused: conv k×k",
        "squeeze-excite": "squeeze-excite: average, linear, linear, scale",
        "project": "project: conv 1×1",
    }
)


@dataclass(frozen=True)
class SubBlock:
    """Blocks with the same operations in the same order, whatever their sizes."""

    letter: str
    kind: str  # "mbconv" or "fused"
    modules: tuple[str, ...]  # "expand", "depthwise", "fused", "squeeze-excite", "project"
    residual: bool

    @property
    def description(self) -> str:
        """``MBConv with expansion and residual``."""
        name = {"mbconv": "MBConv", "fused": "Fused-MBConv"}[self.kind]
        expands = "expand" in self.modules or (self.kind == "fused" and "project" in self.modules)
        return f"{name} {'with' if expands else 'without'} expansion, {'with' if self.residual else 'without'} residual"


@dataclass(frozen=True)
class BlockRepeat:
    """Neighbouring layers of a stage that are the same sub-block with the same kernel and stride."""

    sub_block: SubBlock
    rows: tuple[LayerCount, ...]


def block_modules(operations: tuple[Operation, ...]) -> tuple[str, ...]:
    """The modules that these operations make up: a squeeze-excite is one."""
    kinds = [operation_kind(operation) for operation in operations]
    return tuple("squeeze-excite" if kind == "reduce" else kind for kind in kinds if kind != "excite")


def used_modules(found: Iterable[SubBlock]) -> tuple[str, ...]:
    """The modules that these sub-blocks have, in the order in which a block runs them."""
    used = {module for block in found for module in block.modules}
    return tuple(module for module in _MODULE_DESCRIPTIONS if module in used)


def describe_module(module: str, activation: str) -> str:
    """What is inside of a module, with what follows its convolution."""
    if module == "squeeze-excite":
        return _MODULE_DESCRIPTIONS[module]
    acts = "" if module == "project" else f", {ACTIVATION_NAMES[activation]}"
    return f"{_MODULE_DESCRIPTIONS[module]}, batch norm{acts}"


def find_repeats(counted: Count) -> tuple[tuple[SubBlock, ...], dict[int, tuple[BlockRepeat, ...]]]:
    """The sub-blocks, with letters in the order in which they come, and by stage what it is made of."""
    found: dict[tuple[object, ...], SubBlock] = {}

    def sub_block(row: LayerCount) -> SubBlock:
        modules = block_modules(tuple(operation for operation, _ in row.operations))
        key = (row.layer.kind, modules, row.layer.residual)
        letter = chr(ord("A") + len(found))
        return found.setdefault(key, SubBlock(letter, row.layer.kind, modules, row.layer.residual))

    stages: dict[int, tuple[BlockRepeat, ...]] = {}
    blocks = (row for row in counted.layers if row.layer.kind in ("mbconv", "fused"))
    for stage, rows in groupby(blocks, lambda row: row.layer.stage):
        stages[stage] = tuple(_group_repeats([(sub_block(row), row) for row in rows]))
    return tuple(found.values()), stages


def _group_repeats(pairs: list[tuple[SubBlock, LayerCount]]) -> Iterator[BlockRepeat]:
    for (block, _, _), members in groupby(pairs, lambda pair: (pair[0], pair[1].layer.kernel, pair[1].layer.stride)):
        yield BlockRepeat(block, tuple(row for _, row in members))


# What stands above and below a network's drawing: its name and totals, and what the colours mean.


_NAME_FONT_SIZE = 22.0


def summarize(counted: Count) -> str:
    """A network in one line: ``b0 at 224×224: 5.29 M params, 386 M MACs``."""
    totals = f"{format_si(counted.params)} params, {format_si(counted.macs)} MACs"
    return f"{arch_title(counted.arch)} at {format_size(counted.size)}: {totals}"


def _format_totals(counted: Count) -> list[str]:
    return [f"{format_si(counted.params)} params", f"{format_si(counted.macs)} MACs", format_size(counted.size)]


def format_settings(counted: Count) -> list[str]:
    """What holds for the whole network: activation, dropout, drop path."""
    arch = counted.arch
    return [ACTIVATION_NAMES[arch.activation], f"dropout {arch.dropout:g}", f"drop path {arch.drop_path:g}"]


def draw_header(
    counted: Count, against: Count | None, left: float, top: float, right: float, before: str = ""
) -> tuple[list[Item], float]:
    """Name, totals and settings from ``top`` on; and where they end. What differs from ``against`` is marked."""
    other = against or counted
    name = truncate(before + arch_title(counted.arch), right - left, _NAME_FONT_SIZE, bold=True)
    items: list[Item] = [Text(left, top + _NAME_FONT_SIZE, name, _NAME_FONT_SIZE, bold=True)]
    totals = _mark_differences(_format_totals(counted), _format_totals(other))
    if against:
        for place, ratio in ((0, counted.params / against.params), (1, counted.macs / against.macs)):
            totals[place] = (f"{totals[place][0]} (× {ratio:.3g})", totals[place][1])
    at = top + _NAME_FONT_SIZE + 24
    for words, size in ((totals, 13.0), (_mark_differences(format_settings(counted), format_settings(other)), 11.0)):
        line, at = _draw_words(words, size, left, at, right)
        items += line
        at += 19
    return items, at - 10


def _mark_differences(words: list[str], others: list[str]) -> list[tuple[str, bool]]:
    return [(word, word != other) for word, other in zip(words, others, strict=True)]


def _draw_words(
    words: list[tuple[str, bool]], size: float, left: float, at: float, right: float
) -> tuple[list[Item], float]:
    """Words with dots between them on as many lines as they need, those that differ marked; and the last baseline."""
    items: list[Item] = []
    x = left
    for index, (word, changed) in enumerate(words):
        wide = text_width(word, size)
        if index and x + 20 + wide > right:
            x, at = left, at + 1.6 * size
        elif index:
            items.append(Text(x + 10, at, "·", size, "middle", opacity=0.6))
            x += 20
        if changed:
            items.append(Rect(Box(x - 4, at - 1.05 * size, wide + 8, 1.42 * size), CHANGED_COLOR, 0.32, radius=4))
        items.append(Text(x, at, word, size, opacity=0.85))
        x += wide
    return items, at


def draw_legend(kinds: Collection[str], note: str, left: float, top: float, right: float) -> tuple[list[Item], float]:
    """What the colours of the layers mean, and a note; and where they end."""
    found = [(LAYER_COLORS[kind], LAYER_NAMES[kind]) for kind in LAYER_NAMES if kind in kinds]
    return draw_swatches(found, note, left, top, right)


def draw_swatches(
    found: Collection[tuple[str, str]], note: str, left: float, top: float, right: float
) -> tuple[list[Item], float]:
    """A square of each colour with its words, then a note, over as many lines as they need; and where they end."""
    items: list[Item] = []
    x, line = left, top + 10
    for colour, words in found:
        wide = 14 + text_width(words, 10) + 16
        if x > left and x + wide > right:
            x, line = left, line + 16
        items += [
            Rect(Box(x, line - 8.5, 10, 10), colour, 0.6, 0.75, radius=2),
            Text(x + 14, line, words, 10, opacity=0.85),
        ]
        x += wide
    rest: list[str] = []
    for word in note.split():
        if rest and x + text_width(" ".join([*rest, word]), 10) > right:
            items.append(Text(x, line, " ".join(rest), 10, opacity=0.65))
            x, line, rest = left, line + 16, []
        rest.append(word)
    if rest:
        items.append(Text(x, line, " ".join(rest), 10, opacity=0.65))
    return items, line + 6


# What a diagram shows, as plain data: rows of stages, layers or operations, repeats, differences, a block.


JsonRow = dict[str, Any]


def stages_to_json(counted: Count) -> list[JsonRow]:
    """A row for the stem, each stage, the head and the classifier."""
    return [_part_to_json(part) for part in network_parts(counted)]


def layers_to_json(counted: Count, operations: bool = False) -> list[JsonRow]:
    """A row a layer; with its operations if wanted."""
    return [
        _layer_to_json(counted, row)
        | ({"operations": [operation_to_json(*each) for each in row.operations]} if operations else {})
        for row in counted.layers
    ]


def modules_to_json(counted: Count) -> JsonRow:
    """The sub-blocks by their letters, and of which of them each stage consists."""
    found, made = find_repeats(counted)
    return {
        "sub_blocks": [
            {"letter": block.letter, "block": block.kind, "modules": list(block.modules), "residual": block.residual}
            for block in found
        ],
        "stages": [
            {
                "name": f"stage{stage}",
                "made_of": [
                    {
                        "sub_block": repeat.sub_block.letter,
                        "repeats": len(repeat.rows),
                        "kernel": repeat.rows[0].layer.kernel,
                        "stride": repeat.rows[0].layer.stride,
                        "layers": [row.name for row in repeat.rows],
                    }
                    for repeat in each
                ],
            }
            for stage, each in made.items()
        ],
    }


def differences_to_json(first: Count, second: Count) -> list[JsonRow]:
    """What differs, one row a fact: of the whole network, and of each of its parts; null where one has no such part."""
    found: list[JsonRow] = []
    for fact in ("resolution", "activation", "dropout", "drop_path"):
        found += _difference_row("network", fact, getattr(first.arch, fact), getattr(second.arch, fact))
    for fact in ("size", "params", "macs"):
        found += _difference_row("network", fact, getattr(first, fact), getattr(second, fact))
    ours, theirs = ({row["name"]: row for row in stages_to_json(counted)} for counted in (first, second))
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name, {}), theirs.get(name, {})
        for fact in one or other:
            found += _difference_row(name, fact, one.get(fact), other.get(fact))
    return found


def _difference_row(of: str, fact: str, first: object, second: object) -> list[JsonRow]:
    return [] if first == second else [{"of": of, "fact": fact, "first": first, "second": second}]


def _part_to_json(part: NetworkPart) -> JsonRow:
    return asdict(part)


def _layer_to_json(counted: Count, row: LayerCount) -> JsonRow:
    layer = row.layer
    return {
        "name": row.name,
        "kind": layer.kind,
        "operator": operator_name(layer, expand_ratio(counted.arch, layer)),
        "kernel": layer.kernel,
        "stride": layer.stride,
        "expanded": layer.expanded,
        "squeezed": layer.squeezed,
        "residual": layer.residual,
        "drop_path": layer.drop_path,
        "size_in": row.size_in,
        "size_out": row.size_out,
        "inputs": layer.inputs,
        "channels": layer.channels,
        "params": row.params,
        "macs": row.macs,
    }


def operation_to_json(operation: Operation, size: tuple[int, int]) -> JsonRow:
    return {
        "name": operation.name,
        "kind": operation_kind(operation),
        "kernel": operation.kernel,
        "stride": operation.stride,
        "groups": operation.groups,
        "inputs": operation.inputs,
        "channels": operation.channels,
        "size_out": size,
        "params": operation.params,
        "macs": operation.macs(*size),
    }
