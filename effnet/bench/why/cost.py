"""What every step of a network costs before anything is measured: a reading of `effnet.count`'s rows."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch import Count, Operation
from effnet.arch.count import LayerCount

INPUT, BETWEEN = "input", "between"


@dataclass(frozen=True)
class Key:
    """A step: the operation (or the layer) that it belongs to, and its part in it.

    Parts: "convolution" (a linear map too), "activation", "padding" (a copy for a lopsided one), "layout" (reordering
    in memory); of a squeeze-excite "mean" and "gate"; of a layer "residual"; of the classifier "pool".
    """

    operation: str
    part: str


@dataclass(frozen=True)
class Cost:
    """Of one picture. ``values`` are read and written; ``weights`` are read once for all pictures."""

    group: str
    stage: str
    macs: int = 0
    values: int = 0
    weights: int = 0


def costs(counted: Count, channels: int = 3) -> dict[Key, Cost]:
    """Every step that an engine may take, in the network's order."""
    high, wide = counted.size
    found = {Key(INPUT, "input"): Cost(INPUT, INPUT, values=2 * channels * high * wide)}
    for row in counted.layers:
        found |= _layer(row)
    return found


def stage_of(row: LayerCount) -> str:
    """The part of the network that a layer belongs to: "stem", "stage1" …, "head"; the classifier to "head"."""
    kind = row.layer.kind
    return {"stem": "stem", "head": "head", "classifier": "head"}.get(kind, f"stage{row.layer.stage}")


def _layer(row: LayerCount) -> dict[Key, Cost]:
    found: dict[Key, Cost] = {}
    stage, layer = stage_of(row), row.layer
    area = row.size_in[0] * row.size_in[1]
    written = layer.inputs * area
    if layer.kind == "classifier":
        found[Key(row.name, "pool")] = Cost("classifier", stage, values=written)
    for operation, (high, wide) in row.operations:
        group = _group(operation, layer.kind)
        read, out = operation.inputs * (1 if operation.pooled else area), operation.channels * high * wide
        if group == "squeeze-excite" and operation.activation != "sigmoid":
            found[Key(operation.name, "mean")] = Cost(group, stage, values=written)
        found[Key(operation.name, "padding")] = Cost("padding", stage, values=2 * read)
        found[Key(operation.name, "layout")] = Cost("layout", stage, values=2 * read)
        weights = operation.channels * (operation.inputs // operation.groups * operation.kernel**2 + 1)
        found[Key(operation.name, "convolution")] = Cost(group, stage, operation.macs(high, wide), read + out, weights)
        if operation.activation:
            found[Key(operation.name, "activation")] = Cost(
                group if operation.pooled else "activation", stage, values=2 * out
            )
        if operation.activation == "sigmoid":
            found[Key(operation.name, "gate")] = Cost(group, stage, values=2 * written)
        if not operation.pooled:
            area, written = high * wide, out
    if layer.residual:
        found[Key(row.name, "residual")] = Cost("residual", stage, values=3 * written)
    return found


def _group(operation: Operation, kind: str) -> str:
    if kind in ("stem", "classifier"):
        return kind
    if operation.pooled:
        return "squeeze-excite"
    if operation.groups > 1:
        return "depthwise"
    return "fused" if operation.kernel > 1 else "pointwise"
