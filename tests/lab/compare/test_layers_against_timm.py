"""The layers of B0–B7 and of the relatives, one by one: ours as arithmetic, timm's as the modules that it builds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effnet.arch import ARCHS, count, layers, operations
from effnet.arch.variants import RELATED_ARCHS
from effnet.data.torchvision_compat import declare_operators

declare_operators()
timm = pytest.importorskip("timm")
from tests.parity.timm_comparison import timm_name  # noqa: E402

# (kind, input channels, output channels, kernel, stride, groups, has a bias)
Shape = tuple[str, int, int, int, int, int, bool]


def our_shapes(name: str) -> list[Shape]:
    """List the convolutions and linear maps of our walk, in order, without torch."""
    found: list[Shape] = []
    for layer in layers(ARCHS[name]):
        for one in operations(layer):
            kind = "linear" if layer.kind == "classifier" else "convolution"
            found.append((kind, one.inputs, one.channels, one.kernel, one.stride, one.groups, not one.norm))
    return found


def timm_shapes(name: str) -> list[Shape]:
    """List those of timm's network, in the order of registration, which is that of computation."""
    with torch.device("meta"):
        network = timm.create_model(timm_name(name))
    found: list[Shape] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size[0] == module.kernel_size[1]
            assert module.stride[0] == module.stride[1]
            sizes = (module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], module.groups)
            found.append(("convolution", *sizes, module.bias is not None))
        elif isinstance(module, nn.Linear):
            found.append(("linear", module.in_features, module.out_features, 1, 1, 1, module.bias is not None))
    return found


RELATIVES = [arch.name for arch in RELATED_ARCHS]


@pytest.mark.parametrize("name", [*(f"b{number}" for number in range(8)), *RELATIVES])
def test_every_layer_is_that_of_timm(name: str) -> None:
    ours, theirs = our_shapes(name), timm_shapes(name)
    assert len(ours) > (80 if name not in RELATIVES else 15)
    assert ours == theirs


@pytest.mark.parametrize("name", RELATIVES)
def test_as_many_parameters_as_timm(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(timm_name(name))
    assert count(name).params == sum(parameter.numel() for parameter in network.parameters())
