"""From the convolutions of a graph to a network: which one it is, its tensors under our names, what it states."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from effnet.arch import ARCHS, Arch, layers, operations
from effnet.metadata import Labels
from effnet.weights import conversion, key_maps
from effnet.weights.formats import Checkpoint, graph_facts
from effnet.weights.formats.graph_walk import Array, GraphConvolution, OperatorWalk

# What names only the networks of one library have, in the order in which they are looked for
ORIGINS = {
    "lukemelas": ("_conv_stem", "_blocks.0"),
    "huggingface": ("embeddings.convolution", "embeddings/convolution"),
    "torchvision": ("features.0.0",),
    "timm": ("conv_stem",),
    "keras": ("stem_conv", "block1a_dwconv"),
    "tensorflow": ("blocks_0/", "stem/conv2d"),
}


@dataclass(frozen=True)
class GraphInput:
    """The image of a graph: its type ("FLOAT", "UINT8"), and its shape with 0 for open sides."""

    kind: str
    shape: tuple[int, ...]

    @property
    def channels_last(self) -> bool:
        """Whether it is (N, H, W, C)."""
        return len(self.shape) == 4 and self.shape[3] in (1, 3, 4) and self.shape[1] not in (1, 3, 4)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width; None if they are open."""
        height, width = (self.shape[1:3] if self.channels_last else self.shape[2:4]) if len(self.shape) == 4 else (0, 0)
        return (height, width) if height > 0 and width > 0 else None


def build_checkpoint(
    walk: OperatorWalk, names: Iterable[str], source: GraphInput, outputs: Iterable[str]
) -> Checkpoint:
    """Return the network whose convolutions ``walk`` has found, in the layout of the library whose names it has.

    Args:
        walk: after its last step.
        names: of the graph's tensors and operators.
        source: its image.
        outputs: names of its outputs.

    Raises:
        ValueError: these are the convolutions of no EfficientNet: with the nearest one.
    """
    for before, after in pairwise(walk.convolutions):
        _move_stride(before, after)
    arch, notes = match_arch(walk), rounding_note(walk)
    origin = find_origin(names)
    layout = origin if origin and key_maps.LAYOUTS[origin].supports(arch) else "effnet"
    epsilons = {each.eps for each in walk.convolutions if each.eps is not None}
    if len(epsilons) > 1:
        raise ValueError(f"its batch norms have more than one epsilon: {sorted(epsilons)}")
    assumed = key_maps.LAYOUTS[layout].numerics(arch)
    padded = graph_facts.infer_padding(walk.convolutions) or assumed
    numerics = replace(padded, bn_eps=next(iter(epsilons), assumed.bn_eps))
    stem = walk.convolutions[0]
    image = walk.image.image if walk.image else None
    facts = graph_facts.infer_preprocess(source.kind, source.shape, (1.0, 0), image, None, stem.weight.shape[1])
    if not (facts.stem_factor == 1).all():
        stem.weight = (stem.weight * facts.stem_factor[:, None, None]).astype(stem.weight.dtype)
    tensors = name_tensors(walk, arch, numerics.bn_eps, notes)
    labels = _read_task(walk, set(outputs), tensors)
    if not epsilons:
        notes.append("batch norm is folded into them: they predict, but to fine-tune take the file that was exported")
    named = f", as {origin} names them" if origin else ""
    if not any(each.padding for each in walk.convolutions):
        notes.append(
            f"at the image size that it was exported for, both paddings are equal: {numerics.padding} is assumed, "
            "which matters at other sizes"
        )
    notes.insert(0, f"its weights are read from its graph, in the order in which they run{named}")
    preprocess = facts.preprocess
    if layout == "keras" and len(tensors.get("classifier.bias", ())) != 1000:  # as all published ones have
        preprocess = {**preprocess, **graph_facts.KERAS_FOLDER_PREPROCESS}
    if layout != "effnet":
        tensors = conversion.convert(tensors, arch, "effnet", layout)
    return Checkpoint(tensors, {}, layout, preprocess, numerics, labels, (*notes, *facts.notes))


def rounding_note(walk: OperatorWalk) -> list[str]:
    """Return the note on weights that were stored as integers, if they were."""
    note = "its weights are stored as 8-bit integers: they are within half a step of the original ones"
    return [note] if walk.rounded else []


def find_origin(names: Iterable[str]) -> str:
    """Return the layout whose library gave these names to tensors and operators; "" if none did."""
    text = "\n".join(names)
    return next((layout for layout, words in ORIGINS.items() if any(word in text for word in words)), "")


def _move_stride(before: GraphConvolution, after: GraphConvolution) -> None:
    """Move a projection's stride to the fused convolution before it: see `tflite_reader`, of the EdgeTPU networks."""
    strided = after.kind == "conv" and after.weight.shape[2] == 1 and after.stride == 2
    if strided and (before.kind, before.stride) == ("conv", 1) and before.weight.shape[2] > 1:
        before.stride, before.padding, after.stride, after.padding = 2, "symmetric", 1, None


def _expected_signatures(arch: Arch, channels: int) -> list[tuple[Any, ...]]:
    found = []
    for layer in layers(arch, 0, channels):
        for each in operations(layer):
            activation = arch.activation if each.activation == "act" else each.activation
            found.append(("depthwise" if each.groups > 1 else "conv", each.weight, each.stride, activation))
    return found


def match_arch(walk: OperatorWalk, archs: Iterable[Arch] = ARCHS.values()) -> Arch:
    """Return the arch whose convolutions the graph begins with. Raises ``ValueError`` that names the nearest one."""
    found = [each.signature for each in walk.convolutions]
    channels = found[0][1][1]
    best: tuple[int, int, Arch | None] = -1, 0, None  # how many of its convolutions fit, minus how many there are
    for arch in archs:
        expected = _expected_signatures(arch, channels)
        common = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        common = min(len(found), len(expected)) if common is None else common
        if common == len(expected):
            return arch
        if (common, -len(expected)) > best[:2]:
            best = common, -len(expected), arch
    common, _, nearest = best
    assert nearest is not None
    expected = _expected_signatures(nearest, channels)
    then = _describe(found[common]) if common < len(found) else "the end"
    raise ValueError(
        f"its {len(found)} convolutions are those of no EfficientNet known here; the nearest is {nearest.name}: "
        f"{common} of its {len(expected)} fit, then comes {then} instead of {_describe(expected[common])}"
    )


def _describe(signature: tuple[Any, ...]) -> str:
    kind, (out, inputs, side, _), stride, activation = signature
    name = "depthwise convolution" if kind == "depthwise" else "convolution"
    strided = f" of stride {stride}" if stride > 1 else ""
    return f"a {side}×{side} {name}{strided}, {inputs} → {out} channels, {activation or 'no'} activation"


def name_tensors(walk: OperatorWalk, arch: Arch, eps: float, notes: list[str]) -> dict[str, torch.Tensor]:
    """Return the tensors under our names, with the classifier if what follows the network is one linear layer."""
    places = [each for layer in layers(arch, 0) for each in operations(layer)]
    tensors: dict[str, Array] = {}
    for place, found in zip(places, walk.convolutions, strict=False):
        if not place.norm:
            bias = np.zeros(place.channels, found.weight.dtype) if found.bias is None else found.bias
            tensors[f"{place.name}.weight"] = found.weight.reshape(place.weight)
            tensors[f"{place.name}.bias"] = bias
            continue
        tensors[f"{place.name}.conv.weight"] = found.weight
        for name, values in zip(key_maps.BATCH_NORM_TENSORS, found.norm or _plain_norm(found, eps), strict=True):
            tensors[f"{place.name}.norm.{name}"] = values
    rest = walk.convolutions[len(places) :]
    head = rest[0] if len(rest) == 1 and rest[0].weight[:, :, None].shape[2:].count(1) else None
    if head and head.activation == "" and head.pooled == "average" and head.weight.shape[1] == places[-1].channels:
        tensors["classifier.weight"] = head.weight.reshape(len(head.weight), -1)
        tensors["classifier.bias"] = np.zeros(len(head.weight), head.weight.dtype) if head.bias is None else head.bias
    elif rest:
        layers_ = f"{len(rest)} layers" if len(rest) > 1 else "a layer"
        how = "" if len(rest) > 1 else f" of {rest[0].pooled or 'other'} features"
        notes.append(f"after the network come {layers_}{how}, not one linear layer: opened without a classifier")
    floats = {name: _plain_float(values) for name, values in tensors.items()}
    return {name: torch.from_numpy(np.array(values)) for name, values in floats.items()}  # copies: no mapped bytes


def _plain_norm(found: GraphConvolution, eps: float) -> tuple[Array, ...]:
    """Return a batch norm that only adds the bias."""
    channels, dtype = len(found.weight), found.weight.dtype
    zeros = np.zeros(channels, dtype)
    bias = zeros if found.bias is None else found.bias
    return np.ones(channels, dtype), bias, zeros, np.full(channels, 1 - eps, dtype)


def _plain_float(values: Array) -> Array:
    return values if values.dtype in (np.float16, np.float32, np.float64) else values.astype(np.float32)


def _read_task(walk: OperatorWalk, outputs: set[str], tensors: Mapping[str, torch.Tensor]) -> Labels:
    """Return what the outputs mean: with a sigmoid several are labels independent of each other."""
    answers = {after for name, (_, after) in walk.answers.items() if name in outputs}
    several = len(tensors.get("classifier.bias", ())) > 1
    return Labels(task="multilabel" if several and "sigmoid" in answers else "classification")
