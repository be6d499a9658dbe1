"""Channels brought to one size where SiLU, computed in float anyway, allows it: one range then serves them all.

Where a convolution writes y = x / k, k a size for each channel, y · σ(k · y) is SiLU's map divided by k, and the next
convolution has its weights times k. It costs one multiplication of the map, before σ. This is the equalisation of
arXiv:1906.04721, section 4.1, for an activation that is not linear on either side of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import torch
from torch import Tensor

from effnet.arch import layers, operations
from effnet.exporting.quantise.walk import activation_of, linear, walk
from effnet.net import EfficientNet

LEAST = 2.0  # of a channel's size: below it SiLU's valley (-1.28, -0.28) would be cut off with the others' small values


def readers(model: EfficientNet) -> dict[str, tuple[str, ...]]:
    """Of each operation whose channels can be evened, the operations that read its map.

    What a residual adds cannot, nor what is averaged for the embedding.
    """
    found: dict[str, tuple[str, ...]] = {}
    before = ""  # the stem, where no residual adds its map
    for layer in layers(model.arch, model.classes, model.channels):
        row = operations(layer)
        if layer.kind in ("head", "classifier"):
            continue
        if before and row and not layer.residual:
            found[before] = (row[0].name,)
        before = ""
        for at, each in enumerate(row):
            if each.activation != "act" or activation_of(model, each) != "silu" or "squeeze_excite" in each.name:
                continue
            rest = [other.name for other in row[at + 1 :]]
            gates = tuple(name for name in rest[:1] if name.endswith("squeeze_excite.reduce"))
            whole = [name for name in rest if "squeeze_excite" not in name]
            if not whole:
                before = each.name if layer.kind == "stem" else ""
            else:
                found[each.name] = (*gates, whole[0])
    return found


def sizes(model: EfficientNet, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The largest value of each channel after SiLU, (channels,), of each operation that `readers` names."""
    wanted, found = readers(model), dict[str, Tensor]()

    def look(name: str, x: Tensor) -> Tensor:
        if name in wanted:
            found[name] = torch.maximum(found.get(name, torch.tensor(LEAST)), x.amax((0, 2, 3)))
        return x

    if wanted:
        with torch.inference_mode():
            for batch in batches:
                walk(model, batch, look)
    return found


def evened(model: EfficientNet, by: Mapping[str, Tensor]) -> EfficientNet:
    """A copy of the folded ``model`` whose operations leave their maps divided ``by`` their channels' sizes.

    It is the same network once every σ of those SiLUs is given its map times the sizes.
    """
    copy, wanted = deepcopy(model), readers(model)
    with torch.no_grad():
        for name, size in by.items():
            writer = linear(copy, name)
            assert writer.bias is not None
            writer.weight /= size.view(-1, 1, 1, 1)
            writer.bias /= size
            for reader in wanted[name]:
                weight = linear(copy, reader).weight
                weight *= size.view(-1, 1, 1, 1) if weight.shape[1] == 1 else size.view(1, -1, 1, 1)
    return copy


def by_map(model: EfficientNet, by: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each map that is divided, its channels' sizes."""
    found, wanted = dict[str, Tensor](), readers(model)
    for name, size in by.items():
        found[name] = found[f"{name}.silu"] = size
        if len(wanted[name]) > 1:
            found[f"{wanted[name][0].removesuffix('reduce')}expand.gated"] = size
    return found


def image_of(weight: Tensor, size: Tensor | None, image: Callable[[Tensor], Tensor]) -> Tensor:
    """``image`` of a weight that reads a divided map, as it counts for the whole one."""
    if size is None or weight.shape[1] == 1:  # a depthwise one has a scale a channel
        return image(weight)
    return image(weight * size.view(1, -1, 1, 1)) / size.view(1, -1, 1, 1)
