"""Operations of every layer, and their cost: parameters, MACs, activations, peak memory, receptive field.

MACs count convolutions and linear layers, one multiply-accumulate as 1 (the papers' "FLOPs"). Pooling, batch norm
(folded into the convolution for inference), activations and residual additions are not counted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from effnet.arch import serde, variants
from effnet.arch.spec import Arch, Layer, layers

BYTES_PER_FLOAT = 4

Size = int | tuple[int, int]  # side, or (height, width), in pixels


@dataclass(frozen=True)
class Operation:
    """A convolution or a linear layer. ``name`` is its module's path in the network."""

    name: str  # "stem", "stage2.0.expand", "stage2.0.squeeze_excite.reduce", "classifier"
    inputs: int  # input channels
    channels: int  # output channels
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: bool = True  # followed by batch norm, without bias; False: with bias, without batch norm
    activation: str = ""  # "act" (the network's), "sigmoid", or none
    pooled: bool = False  # applied to the map's average instead of the map

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight: (out, in / groups, kernel, kernel)."""
        return self.channels, self.inputs // self.groups, self.kernel, self.kernel

    @property
    def params(self) -> int:
        """Number of weights, plus two per batch-norm channel or one bias per channel."""
        out, per_group, kernel, _ = self.weight
        return out * per_group * kernel**2 + out * (2 if self.norm else 1)

    def macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one image whose *output* map is ``height × width``."""
        out, per_group, kernel, _ = self.weight
        return out * per_group * kernel**2 * (1 if self.pooled else height * width)


LayerOperations = tuple[Layer, tuple[Operation, ...]]


def operations(layer: Layer) -> tuple[Operation, ...]:
    """Return the operations of ``layer`` in execution order."""
    path = layer.name
    if layer.kind in ("stem", "head"):
        return (Operation(path, layer.inputs, layer.channels, layer.kernel, layer.stride, activation="act"),)
    if layer.kind == "classifier":
        return (Operation(path, layer.inputs, layer.channels, norm=False, pooled=True),)
    inner = layer.expanded or (layer.inputs if layer.kind == "mbconv" else layer.channels)
    result: list[Operation] = []
    if layer.kind == "mbconv":
        if layer.expanded:
            result.append(Operation(f"{path}.expand", layer.inputs, inner, activation="act"))
        kernel, stride = layer.kernel, layer.stride
        result.append(Operation(f"{path}.depthwise", inner, inner, kernel, stride, groups=inner, activation="act"))
    else:
        result.append(Operation(f"{path}.fused", layer.inputs, inner, layer.kernel, layer.stride, activation="act"))
    if layer.squeezed:
        squeeze = f"{path}.squeeze_excite"
        result.append(Operation(f"{squeeze}.reduce", inner, layer.squeezed, norm=False, activation="act", pooled=True))
        expand = Operation(f"{squeeze}.expand", layer.squeezed, inner, norm=False, activation="sigmoid", pooled=True)
        result.append(expand)
    if layer.kind == "mbconv" or layer.expanded:
        result.append(Operation(f"{path}.project", inner, layer.channels))
    return tuple(result)


def tensor_shapes(arch: Arch, classes: int = 1000, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Return name → shape of every parameter and buffer of the network, in order, without building it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(arch, classes, channels):
        for operation in operations(layer):
            if operation.norm:
                shapes[f"{operation.name}.conv.weight"] = operation.weight
                for tensor in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{operation.name}.norm.{tensor}"] = (operation.channels,)
            else:
                is_linear = layer.kind == "classifier"
                shapes[f"{operation.name}.weight"] = operation.weight[:2] if is_linear else operation.weight
                shapes[f"{operation.name}.bias"] = (operation.channels,)
    return shapes


@dataclass(frozen=True)
class LayerCount:
    """The cost of one layer for one image."""

    layer: Layer
    size_in: tuple[int, int]  # height, width of the input map
    size_out: tuple[int, int]
    params: int
    macs: int
    activations: int  # elements that its convolutions write
    bytes: int  # peak of float32 maps alive at once while it runs
    receptive_field: int  # side in input pixels; squeeze-excite, which sees the whole map, is ignored
    operations: tuple[tuple[Operation, tuple[int, int]], ...]  # each with the size of its output map

    @property
    def name(self) -> str:
        """The layer's name, such as ``stage3.1``."""
        return self.layer.name


@dataclass(frozen=True)
class Count:
    """The cost of a network for one image of ``size`` (height, width), in total and per layer."""

    arch: Arch
    size: tuple[int, int]
    params: int
    macs: int
    activations: int
    bytes: int
    receptive_field: int
    layers: tuple[LayerCount, ...]


def count(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> Count:
    """Count the parameters, MACs, activations and peak memory of a network.

    Args:
        arch: A network or the name of a published one.
        size: Input size, a side or (height, width) in pixels. Default: the network's own resolution.
        classes: Outputs of the classifier, 0 for none.
        channels: Input channels.

    Returns:
        A `Count` for one image. ``params`` are the trainable ones (batch norm's weight and bias, not its statistics).
        ``activations`` are the elements that convolutions and linear layers write, as in arXiv:2003.13678. ``bytes``
        is the peak of float32 maps alive at once in inference, with batch norm folded, activations and additions in
        place, and a block's input kept to its end; weights, the image itself and the copy that an asymmetric 'same'
        padding may need are not included.

    Raises:
        ValueError: The name is unknown or a side is below one pixel.

    Example:
        >>> effnet.count("b0").params
        5288548
    """
    arch = variants.resolve_arch(arch)
    size = serde.check_size(arch.resolution if size is None else size)
    network = ((layer, operations(layer)) for layer in layers(arch, classes, channels))
    rows = tuple(count_layers(network, size))
    return Count(
        arch,
        size,
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        activations=sum(row.activations for row in rows),
        bytes=max(row.bytes for row in rows),
        receptive_field=rows[-1].receptive_field,
        layers=rows,
    )


def count_layers(network: Iterable[LayerOperations], size: tuple[int, int]) -> Iterator[LayerCount]:
    """Yield the cost of each layer, with its operations, for an image of ``size`` (height, width)."""
    field, step = 1, 1  # receptive field, and input pixels between neighbors of the current map
    for layer, layer_operations in network:
        size_in, params, macs, activations, peak = size, 0, 0, 0, 0
        block_input = written = layer.inputs * (1 if layer.kind == "classifier" else size[0] * size[1])
        done: list[tuple[Operation, tuple[int, int]]] = []
        for operation in layer_operations:
            if layer.kind == "classifier":
                size = (1, 1)
            else:  # for odd kernels both paddings give ceil(size / stride)
                size = ceil(size[0] / operation.stride), ceil(size[1] / operation.stride)
            out = operation.channels * (1 if operation.pooled else size[0] * size[1])
            params += operation.params
            macs += operation.macs(*size)
            activations += out
            peak = max(peak, (block_input if done else 0) + written + out)
            if not operation.pooled:  # squeeze-excite works on the map's average and leaves the map in place
                written = out
                field += (operation.kernel - 1) * step
                step *= operation.stride
            done.append((operation, (1, 1) if operation.pooled else size))
        yield LayerCount(layer, size_in, size, params, macs, activations, peak * BYTES_PER_FLOAT, field, tuple(done))
