"""What a layout is, and how its rows are read: one row an operation, from left to right and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.arch import Arch, Layer, layers, operations
from effnet.contract import Numerics, Preprocess
from effnet.weights import official

if TYPE_CHECKING:
    from torch import Tensor

Rows = Mapping[str, tuple[str, str]]  # our operation within its layer → their convolution, their batch norm


@dataclass(frozen=True)
class Parts:
    """What an ecosystem calls the tensors of one operation."""

    conv: str = "weight"
    depthwise: str = "weight"
    bias: str = "bias"
    norm: tuple[str, str, str, str] = ("weight", "bias", "running_mean", "running_var")
    between: str = "."


TORCH = Parts()
TENSORFLOW = Parts("kernel", "depthwise_kernel", "bias", ("gamma", "beta", "moving_mean", "moving_variance"), "/")
NORM = ("weight", "bias", "running_mean", "running_var")  # ours


@dataclass(frozen=True)
class Axes:
    """Which of our axes, (out, in, height, width) or (out, in), each axis of an ecosystem's kernels is."""

    conv: tuple[int, ...] = (0, 1, 2, 3)
    depthwise: tuple[int, ...] = (0, 1, 2, 3)
    linear: tuple[int, ...] = (0, 1)

    def order(self, name: str, axes: int) -> tuple[int, ...]:
        """The axes of *our* tensor ``name`` in their order; vectors have but one."""
        if axes == 4:
            return self.depthwise if name.endswith("depthwise.conv.weight") else self.conv
        return self.linear if axes == 2 else tuple(range(axes))


OIHW = Axes()
HWIO = Axes((2, 3, 1, 0), (2, 3, 0, 1), (1, 0))  # TensorFlow and Keras; (height, width, channels, 1) where depthwise
OHWI = Axes((0, 2, 3, 1), (1, 2, 3, 0))  # TFLite; (1, height, width, channels) where depthwise


@dataclass(frozen=True)
class Tidied:
    """Tensors under a layout's own names, and what was done to find them, in words."""

    tensors: dict[str, Tensor]
    remarks: tuple[str, ...] = ()


def _as_they_are(tensors: Mapping[str, Tensor]) -> Tidied:
    return Tidied(dict(tensors))


@dataclass(frozen=True)
class Layout:
    """How one ecosystem keeps the weights of the family.

    ``numerics`` and ``preprocess`` are what its files are assumed to expect where neither they nor a card say it;
    with ``fixed`` its own networks compute with no other numerics. ``tidy`` turns what its files really hold (prefixes,
    averages beside the weights, an optimiser's slots) into the names of the table.
    """

    names: Callable[[Arch, int], dict[str, str]]  # (arch, classes) → our tensor name → theirs
    axes: Axes = OIHW
    archs: tuple[str, ...] = ()  # what it has networks for; (): whatever the rows can spell
    numerics: Callable[[Arch], Numerics] = official.numerics
    preprocess: Callable[[Arch], Preprocess] = official.preprocess
    fixed: bool = False
    folded: bool = False  # batch norm lies in weights and biases
    tidy: Callable[[Mapping[str, Tensor]], Tidied] = _as_they_are
    suffixes: tuple[str, ...] = (".safetensors", ".pth", ".pt")  # what its files are written to

    def has(self, arch: Arch) -> bool:
        """Whether the ecosystem has such a network."""
        return not self.archs or arch.name in self.archs


def spelled(
    arch: Arch, classes: int, table: Callable[[Layer, int], tuple[Rows, str]], parts: Parts = TORCH
) -> dict[str, str]:
    """Our tensor name → theirs, for every tensor of the network.

    ``table`` gives the rows for a layer, and what stands before its names; it is told the number of blocks before it.
    """
    found, blocks = {}, 0
    for layer in layers(arch, classes):
        rows, prefix = table(layer, blocks)
        blocks += layer.kind in ("mbconv", "fused")
        for operation in operations(layer):
            convolution, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
            weight = f"{prefix}{convolution}{parts.between}{parts.depthwise if operation.groups > 1 else parts.conv}"
            if operation.norm:
                found[f"{operation.name}.conv.weight"] = weight
                for ours, theirs in zip(NORM, parts.norm, strict=True):
                    found[f"{operation.name}.norm.{ours}"] = f"{prefix}{norm}{parts.between}{theirs}"
            else:
                found[f"{operation.name}.weight"] = weight
                found[f"{operation.name}.bias"] = f"{prefix}{convolution}{parts.between}{parts.bias}"
    return found
