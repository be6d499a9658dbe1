"""What any network costs by the family's own measure: parameters, and MACs of its convolutions and linear maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil

import torch
from torch import Tensor, nn
from torch.func import functional_call

from effnet.arch import Arch, Operation, Stage, count
from effnet.arch.serde import check_int
from effnet.arch.spec import round_channels


@dataclass(frozen=True)
class ModelCost:
    """Parameters, frozen ones too, and multiply-accumulates of one picture."""

    params: int
    macs: int


def count_module(model: nn.Module, size: int) -> ModelCost:
    """The cost of ``model`` for one RGB picture of ``size × size`` pixels, on the meta device: nothing is computed.

    As `effnet.arch.counting`: a multiply-accumulate of an ``nn.Conv2d`` or an ``nn.Linear`` is 1; pooling, batch norm,
    activations, additions and biases are not counted. ``model`` may be on any device, and stays as it is.
    Raises ``ValueError`` for a size below one pixel, and for a network in training mode.
    """
    check_int("size", size, 1)
    if model.training:
        raise ValueError("a network in training mode has no cost of one picture: call its eval() first")
    macs: list[int] = []

    def add(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        macs.append(weight[0].numel() * out.numel())  # each number that leaves is a product with one row of the weight

    counted = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(add) for module in counted]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    nowhere = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    try:
        with torch.no_grad():
            functional_call(model, nowhere, (torch.empty(1, 3, size, size, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
    return ModelCost(sum(parameter.numel() for parameter in model.parameters()), sum(macs))


# What a rival costs, built on the meta device: no memory, no weights.


@dataclass(frozen=True)
class BaselineCost:
    """Params, those of the classifier among them, and MACs of one picture of ``size`` pixels a side.

    The notes say why they differ from what Table 2 quotes; "" where only rounding does it.
    """

    params: int
    classifier_params: int
    macs: int
    size: int
    params_note: str = ""
    macs_note: str = ""


@cache
def count_baseline(key: str) -> BaselineCost | str:
    """The rival of that ``key``, built and counted; or, where it is only quoted, one sentence that says why.

    Raises ``ImportError`` where it is timm's and timm is missing.
    """
    import torch
    from torch import nn

    from effnet.lab.compare.baselines import BASELINES

    rival = BASELINES[key]
    if rival.origin == "quoted":
        return f"not built: {rival.origin_note}"
    with torch.device("meta"):
        model = rival.build()
    found = count_module(model, rival.size)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    classifier = sum(parameter.numel() for parameter in linears[-1].parameters())
    return BaselineCost(found.params, classifier, found.macs, rival.size, rival.params_note, rival.macs_note)


# MobileNetV1, MobileNetV2 and ResNet-50 scaled as EfficientNet is: the networks of Table 3, as rows, counted.
#
# Channels × width to the nearest multiple of 8, layers × depth rounded up, the side of 224 × resolution: the rules of the
# official EfficientNet code. By which rules the paper rounded these three is not in print.


BASE_RESOLUTION = 224


# channels, stride of the first layer, layers
MOBILENET_V1 = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))  # Table 1 of arXiv:1704.04861


RESNET50 = ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3))  # Table 1 of arXiv:1512.03385; four times that leave


# Table 2 of arXiv:1801.04381
MOBILENET_V2 = Arch(
    "mobilenet_v2",
    tuple(
        Stage("mbconv", expand, 3, stride, channels, repeats)
        for expand, channels, repeats, stride in (
            *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
            *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
        )
    ),
    activation="relu6",
)


SizedOperations = Iterator[tuple[Operation, int]]  # each with the side of the map that it writes


def count_scaled(base: str, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> tuple[int, int]:
    """Params, and MACs of one picture, of "mobilenet_v1", "mobilenet_v2" or "resnet50" scaled by these factors.

    Of ResNet-50 as nearly everyone builds it: with the stride in the 3×3 convolution, not in the 1×1 before it.
    """
    side = round(BASE_RESOLUTION * resolution)
    if base == "mobilenet_v2":
        arch = Arch("mobilenet_v2", MOBILENET_V2.stages, width, depth, side, activation="relu6")
        counted = count(arch)
        return counted.params, counted.macs
    walk = {"mobilenet_v1": _walk_mobilenet_v1, "resnet50": _walk_resnet50}[base]
    placed = list(walk(depth, width, side))
    return sum(one.params for one, _ in placed), sum(one.macs(at, at) for one, at in placed)


def _walk_mobilenet_v1(depth: float, width: float, side: int) -> SizedOperations:
    inputs, side = round_channels(32, width), ceil(side / 2)
    yield Operation("stem", 3, inputs, 3, 2), side
    for channels, first, repeats in MOBILENET_V1:
        wide = round_channels(channels, width)
        for position in range(ceil(repeats * depth)):
            stride = first if position == 0 else 1
            side = ceil(side / stride)
            yield Operation("depthwise", inputs, inputs, 3, stride, groups=inputs), side
            yield Operation("project", inputs, wide), side
            inputs = wide
    yield Operation("classifier", inputs, 1000, norm=False, pooled=True), 1


def _walk_resnet50(depth: float, width: float, side: int) -> SizedOperations:
    inputs, side = round_channels(64, width), ceil(side / 2)
    yield Operation("stem", 3, inputs, 7, 2), side
    side = ceil(side / 2)  # pooled
    for channels, first, repeats in RESNET50:
        inner, wide = round_channels(channels, width), round_channels(4 * channels, width)
        for position in range(ceil(repeats * depth)):
            stride = first if position == 0 else 1
            yield Operation("reduce", inputs, inner), side
            side = ceil(side / stride)
            yield Operation("convolve", inner, inner, 3, stride), side
            yield Operation("expand", inner, wide), side
            if position == 0:
                yield Operation("shortcut", inputs, wide, 1, stride), side
            inputs = wide
    yield Operation("classifier", inputs, 1000, norm=False, pooled=True), 1
