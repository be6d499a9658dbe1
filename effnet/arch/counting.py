"""Each layer opened into its convolutions: what is counted, drawn and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from effnet.arch.serde import check_int
from effnet.arch.spec import Arch, Layer, layers
from effnet.arch.variants import resolve_arch


@dataclass(frozen=True)
class Operation:
    """A convolution or a linear map. ``name`` is its module's path in the network."""

    name: str  # "stem", "stage2.0.expand", "stage2.0.squeeze_excite.reduce", "classifier"
    inputs: int
    channels: int  # out
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: bool = True  # batch norm follows and there is no bias; false: a bias and no batch norm
    activation: str = ""  # "act" (the network's), "sigmoid", or none
    pooled: bool = False  # acts on the average over the map, not on the map

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight: (out, in / groups, kernel, kernel)."""
        return self.channels, self.inputs // self.groups, self.kernel, self.kernel

    @property
    def params(self) -> int:
        """Weights, and either two for each batch-norm channel or one bias for each channel."""
        out, per_group, kernel, _ = self.weight
        return out * per_group * kernel**2 + out * (2 if self.norm else 1)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one picture whose map *leaves* at ``height × width``."""
        out, per_group, kernel, _ = self.weight
        return out * per_group * kernel**2 * (1 if self.pooled else height * width)


def operations(layer: Layer) -> tuple[Operation, ...]:
    """The operations of ``layer`` in the order in which they run."""
    at = layer.name
    if layer.kind in ("stem", "head"):
        return (Operation(at, layer.inputs, layer.channels, layer.kernel, layer.stride, activation="act"),)
    if layer.kind == "classifier":
        return (Operation(at, layer.inputs, layer.channels, norm=False, pooled=True),)
    inner = layer.expanded or (layer.inputs if layer.kind == "mbconv" else layer.channels)
    found: list[Operation] = []
    if layer.kind == "mbconv":
        if layer.expanded:
            found.append(Operation(f"{at}.expand", layer.inputs, inner, activation="act"))
        found.append(
            Operation(f"{at}.depthwise", inner, inner, layer.kernel, layer.stride, groups=inner, activation="act")
        )
    else:
        found.append(Operation(f"{at}.fused", layer.inputs, inner, layer.kernel, layer.stride, activation="act"))
    if layer.squeezed:
        squeeze = f"{at}.squeeze_excite"
        found.append(Operation(f"{squeeze}.reduce", inner, layer.squeezed, norm=False, activation="act", pooled=True))
        found.append(
            Operation(f"{squeeze}.expand", layer.squeezed, inner, norm=False, activation="sigmoid", pooled=True)
        )
    if layer.kind == "mbconv" or layer.expanded:
        found.append(Operation(f"{at}.project", inner, layer.channels))
    return tuple(found)


def tensor_shapes(arch: Arch, classes: int = 1000, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Name → shape of every weight and statistic of the network, in order, without building it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(arch, classes, channels):
        for operation in operations(layer):
            if operation.norm:
                shapes[f"{operation.name}.conv.weight"] = operation.weight
                for part in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{operation.name}.norm.{part}"] = (operation.channels,)
            else:
                linear = layer.kind == "classifier"
                shapes[f"{operation.name}.weight"] = operation.weight[:2] if linear else operation.weight
                shapes[f"{operation.name}.bias"] = (operation.channels,)
    return shapes


# What a network costs, from its rows alone: parameters, MACs, activations, peak memory, receptive field.
#
# MACs count convolutions and linear maps, one multiply-accumulate as 1 (the papers' "FLOPs"). Pooling, batch norm
# (folded into the convolution for inference), activations and the residual's addition are not counted.


BYTES_PER_FLOAT = 4


Size = int | tuple[int, int]


LayerOperations = tuple[Layer, tuple[Operation, ...]]


@dataclass(frozen=True)
class LayerCount:
    """The cost of one layer for one picture."""

    layer: Layer
    size_in: tuple[int, int]  # height, width of the map that enters
    size_out: tuple[int, int]
    params: int
    macs: int
    activations: int  # elements that its convolutions write
    bytes: int  # of float32 maps alive at once while it runs, at the worst moment
    receptive_field: int  # pixels of the picture that one output sees, a side; squeeze-excite aside, which sees all
    operations: tuple[tuple[Operation, tuple[int, int]], ...]  # each with the size of the map that it writes

    @property
    def name(self) -> str:
        """The layer's name, such as ``stage3.1``."""
        return self.layer.name


@dataclass(frozen=True)
class Count:
    """The cost of a network for one picture; ``layers`` has one row a layer."""

    arch: Arch
    size: tuple[int, int]
    params: int
    macs: int
    activations: int
    bytes: int
    receptive_field: int
    layers: tuple[LayerCount, ...]


def count(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> Count:
    """The cost of ``arch`` on one picture of ``size`` (side, or (height, width)) pixels; its own resolution if None.

    ``params`` are the trainable ones (batch norm's two, not its statistics). ``activations`` are the elements that
    convolutions and linear maps write, as in arXiv:2003.13678. ``bytes`` is the peak of float32 maps alive at once
    in inference with batch norm folded, activations and additions in place, and a block's input kept to its end:
    weights, the picture itself, and the copy that a lopsided 'same' padding may need, come on top.
    Raises ``ValueError`` for a size below one pixel.
    """
    arch = resolve_arch(arch)
    height, width = height_and_width(arch.resolution if size is None else size)
    rows = tuple(count_layers(layers_with_operations(arch, classes, channels), (height, width)))
    return Count(
        arch,
        (height, width),
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        activations=sum(row.activations for row in rows),
        bytes=max(row.bytes for row in rows),
        receptive_field=rows[-1].receptive_field,
        layers=rows,
    )


def height_and_width(size: Size) -> tuple[int, int]:
    """``size`` as (height, width). Raises ``ValueError`` unless both are whole and at least 1."""
    height, width = size if isinstance(size, tuple) else (size, size)
    check_int("size", height, 1)
    check_int("size", width, 1)
    return height, width


def layers_with_operations(arch: Arch, classes: int, channels: int) -> Iterator[LayerOperations]:
    """Every layer with its operations, which no size changes."""
    for layer in layers(arch, classes, channels):
        yield layer, operations(layer)


def count_layers(network: Iterable[LayerOperations], size: tuple[int, int]) -> Iterator[LayerCount]:
    """The cost of each layer of an `opened` network on a picture of that (height, width)."""
    field, step = 1, 1  # receptive field, and pixels between neighbours of the present map
    for layer, inside in network:
        size_in, params, macs, activations, peak = size, 0, 0, 0, 0
        kept = written = layer.inputs * (1 if layer.kind == "classifier" else size[0] * size[1])
        done: list[tuple[Operation, tuple[int, int]]] = []
        for operation in inside:
            size = (1, 1) if layer.kind == "classifier" else _output_size(size, operation.stride)
            area = 1 if operation.pooled else size[0] * size[1]
            out = operation.channels * area
            params += operation.params
            macs += operation.macs(*size)
            activations += out
            peak = max(peak, (kept if done else 0) + written + out)
            if not operation.pooled:  # squeeze-excite works on the map's average and leaves the map in its place
                written = out
                field += (operation.kernel - 1) * step
                step *= operation.stride
            done.append((operation, (1, 1) if operation.pooled else size))
        yield LayerCount(layer, size_in, size, params, macs, activations, peak * BYTES_PER_FLOAT, field, tuple(done))


def _output_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The map's size after a convolution: both paddings give ceil(size / stride) for odd kernels."""
    return ceil(size[0] / stride), ceil(size[1] / stride)
