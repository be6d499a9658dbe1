"""Each layer opened into its convolutions: what is counted, drawn and named."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch.spec import Arch, Layer, layers


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


def tensors(arch: Arch, classes: int = 1000, channels: int = 3) -> dict[str, tuple[int, ...]]:
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
