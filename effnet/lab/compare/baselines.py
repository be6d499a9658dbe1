"""Baselines of the paper's Table 2, and what they cost: networks built on the meta device, params and MACs counted.

Each is counted at the resolution of its figures in that table (arXiv:1905.11946). Those that timm has are timm's; the
others are in `effnet.lab.compare.baseline_networks`. ResNet-RS, a later baseline, is here too.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from math import ceil

import torch
from torch import Tensor, nn

from effnet.arch import ARCHS, Arch, Operation, count, rounding_rules, serde, variants
from effnet.data.torchvision_compat import declare_operators
from effnet.lab.compare.baseline_networks import amoebanet_a, amoebanet_c, densenet264, gpipe, polynet

# Why a baseline costs something else than Table 2 quotes, beyond rounding: key -> arithmetic and sources
PARAMS_NOTES = {
    "densenet264": (
        "Table 1 of arXiv:1608.06993 with growth rate 32 comes to 33.34 M, and that paper prints no count; with the "
        "running means and variances of batch norm, which are not parameters, it is 33.74 M"
    ),
    "inception_v4": (
        "the released network (TF-slim) has 42.7 M, and 46.0 M with the auxiliary classifier of training; "
        "arXiv:1602.07261 prints no count. Table 5 of arXiv:1905.11946 itself says 41 M without the classifier, which "
        "is this network: 42.68 − 1.54 = 41.14 M"
    ),
    "polynet": (
        "the convolutions that run are the same: 34.70 G MACs, beside 34.7 B and 92.0 M params in Table 2 of "
        "arXiv:1802.01548. PolyNet uses some weights three times; shared as in the network that its authors released, "
        "and counted once, they are 95.4 M. How 92.0 M shares them is not in print"
    ),
    "senet154": (
        "arXiv:1707.07012 prints 145.8 M. The released network ends in a 7×7 average pool, which leaves one value "
        "per channel at 224 pixels, but 4×4 of the 10×10 map at 320. A classifier on all of them has 16 × 2048 × "
        "1000 weights instead of 2048 × 1000: 115.09 + 30.72 = 145.81 M (our arithmetic). With global pooling, as in "
        "arXiv:1709.01507, it is 115.1 M"
    ),
}
MACS_NOTES = {
    "resnet152": (
        "stages stride in their first 3×3 convolution here, as in torchvision and timm; with the stride in the 1×1 "
        "before it, as in arXiv:1512.03385, it is 11.28 G, and that paper prints 11.3"
    ),
    "densenet169": (
        "Table 1 of arXiv:1608.06993 comes to 3.36 G at 224 pixels. That paper only plots costs (figure 3), and "
        "where 3.5 B comes from is not in print; DenseNet-264 is as far off"
    ),
    "densenet264": (
        "Table 1 of arXiv:1608.06993 comes to 5.75 G at 224 pixels. That paper only plots costs (figure 3), and "
        "where 6.0 B comes from is not in print; DenseNet-169 is as far off"
    ),
    "inception_v4": (
        "at its published 299 pixels it is 12.25 G; arXiv:1602.07261 prints no count. 13 B is right for the row below, "
        "Inception-ResNet-v2 (13.16 G)"
    ),
    "pnasnet5": (
        "arXiv:1712.00559 prints 25.0 B, and the ratio printed with 23 B fits that: 6.0 × 4.2 B = 25.2 B. 23 B is the "
        "figure of AmoebaNet-A's row"
    ),
}


@dataclass(frozen=True)
class Baseline:
    """A network with 1000 classes; ``size`` is that of its published accuracy and MACs, ``source`` its paper."""

    title: str
    size: int
    source: str
    factory: Callable[[], nn.Module] | str  # or its name in timm

    def build(self) -> nn.Module:
        """Build it with random weights, in evaluation mode: (N, 3, H, W) -> (N, 1000) logits.

        Raises ``ImportError`` if it is timm's and timm is not installed.
        """
        if not isinstance(self.factory, str):
            return self.factory().eval()
        declare_operators()  # timm imports torchvision
        timm = serde.import_extra("timm", "peers", f"the baseline {self.factory} requires")
        network: nn.Module = timm.create_model(self.factory)
        return network.eval()


# The largest size of each depth in tensorflow/tpu's list of checkpoints
RESNET_RS_SIZES = {50: 160, 101: 192, 152: 256, 200: 256, 270: 256, 350: 320, 420: 320}

# Ours where timm has none, or another: its densenet264d has another stem, and its xception41 … 71 are later networks
# fmt: off
BASELINES: dict[str, Baseline] = {
    "resnet50": Baseline("ResNet-50", 224, "arXiv:1512.03385", "resnet50"),
    "densenet169": Baseline("DenseNet-169", 224, "arXiv:1608.06993", "densenet169"),
    "resnet152": Baseline("ResNet-152", 224, "arXiv:1512.03385", "resnet152"),
    "densenet264": Baseline("DenseNet-264", 224, "arXiv:1608.06993", densenet264),
    "inception_v3": Baseline("Inception-v3", 299, "arXiv:1512.00567", "inception_v3"),
    "xception": Baseline("Xception", 299, "arXiv:1610.02357", "legacy_xception"),
    "inception_v4": Baseline("Inception-v4", 299, "arXiv:1602.07261", "inception_v4"),
    "inception_resnet_v2": Baseline("Inception-ResNet-v2", 299, "arXiv:1602.07261", "inception_resnet_v2"),
    "resnext101": Baseline("ResNeXt-101 (64×4d)", 320, "arXiv:1611.05431", "resnext101_64x4d"),
    "polynet": Baseline("PolyNet (Very Deep)", 331, "arXiv:1611.05725", polynet),
    "senet154": Baseline("SENet-154", 320, "arXiv:1709.01507", "legacy_senet154"),
    "nasnet_a": Baseline("NASNet-A (6 @ 4032)", 331, "arXiv:1707.07012", "nasnetalarge"),
    "amoebanet_a": Baseline("AmoebaNet-A (6, 190)", 331, "arXiv:1802.01548", amoebanet_a),
    "pnasnet5": Baseline("PNASNet-5 (4, 216)", 331, "arXiv:1712.00559", "pnasnet5large"),
    "amoebanet_c": Baseline("AmoebaNet-C (6, 228)", 331, "arXiv:1805.09501", amoebanet_c),
    "gpipe": Baseline("GPipe's AmoebaNet-B (18, 512)", 480, "arXiv:1811.06965", gpipe),
    **{
        f"resnet_rs{depth}": Baseline(f"ResNet-RS-{depth}", size, "arXiv:2103.07579", f"resnetrs{depth}")
        for depth, size in RESNET_RS_SIZES.items()
    },
}
# fmt: on


@dataclass(frozen=True)
class ModelCost:
    """Parameters, including frozen ones, and multiply-accumulates of one image."""

    params: int
    macs: int


def count_module(model: nn.Module, size: int) -> ModelCost:
    """Count ``model`` for one RGB image of ``size`` × ``size`` pixels, on the meta device: nothing is computed.

    As in `effnet.count`, only ``nn.Conv2d`` and ``nn.Linear`` count. ``model`` is not changed. Raises ``ValueError``
    for a size below one pixel, and for a network in training mode.
    """
    serde.check_int("size", size, 1)
    if model.training:
        raise ValueError("cannot count a network in training mode: call its eval() first")
    macs: list[int] = []

    def add(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        macs.append(weight[0].numel() * out.numel())  # each output is a product with one row of the weight

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with torch.no_grad(), ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                hooks.enter_context(module.register_forward_hook(add))
        torch.func.functional_call(model, on_meta, (torch.empty(1, 3, size, size, device="meta"),))
    return ModelCost(sum(parameter.numel() for parameter in model.parameters()), sum(macs))


@cache
def count_baseline(key: str) -> tuple[ModelCost, int]:
    """Count the baseline ``key``; also return the params of its classifier. Raises ``ImportError`` without timm."""
    with torch.device("meta"):
        model = BASELINES[key].build()
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return count_module(model, BASELINES[key].size), sum(parameter.numel() for parameter in classifier.parameters())


# MobileNetV1, MobileNetV2 and ResNet-50 of Table 3 as rows, scaled by the rules of the official EfficientNet code:
# channels × width to the nearest multiple of 8, layers × depth rounded up. Which rules the paper used is not in print.
BASE_RESOLUTION = 224
# Channels, stride of the first layer, layers
MOBILENET_V1 = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))  # Table 1 of arXiv:1704.04861
RESNET50 = ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3))  # Table 1 of arXiv:1512.03385; four times that leave
MOBILENET_V2 = Arch("mobilenet_v2", variants.MOBILENETV2_STAGES, activation="relu6")  # its width scales stem and head
SCALED_ARCHS = {"mobilenet_v2": MOBILENET_V2, "b0": ARCHS["b0"]}

SizedOperations = Iterator[tuple[Operation, int]]  # each with the size of its output


def count_scaled(base: str, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> tuple[int, int]:
    """Return params, and MACs of one image, of a network of Table 3 or 7 (`ScaledRow.base`) scaled by these factors.

    ResNet-50 as nearly everyone builds it: with the stride in the 3×3 convolution, not in the 1×1 before it.
    """
    size = round(BASE_RESOLUTION * resolution)
    if base in SCALED_ARCHS:
        counted = count(replace(SCALED_ARCHS[base], width=width, depth=depth, resolution=size))
        return counted.params, counted.macs
    walk = {"mobilenet_v1": _walk_mobilenet_v1, "resnet50": _walk_resnet50}[base]
    operations = list(walk(depth, width, size))
    return sum(each.params for each, _ in operations), sum(each.macs(out, out) for each, out in operations)


def _walk_mobilenet_v1(depth: float, width: float, side: int) -> SizedOperations:
    inputs, side = rounding_rules.round_channels(32, width), ceil(side / 2)
    yield Operation("stem", 3, inputs, 3, 2), side
    for channels, first, repeats in MOBILENET_V1:
        wide = rounding_rules.round_channels(channels, width)
        for position in range(ceil(repeats * depth)):
            stride = first if position == 0 else 1
            side = ceil(side / stride)
            yield Operation("depthwise", inputs, inputs, 3, stride, groups=inputs), side
            yield Operation("project", inputs, wide), side
            inputs = wide
    yield Operation("classifier", inputs, 1000, norm=False, pooled=True), 1


def _walk_resnet50(depth: float, width: float, side: int) -> SizedOperations:
    inputs, side = rounding_rules.round_channels(64, width), ceil(side / 2)
    yield Operation("stem", 3, inputs, 7, 2), side
    side = ceil(side / 2)  # pooled
    for channels, first, repeats in RESNET50:
        inner, wide = rounding_rules.round_channels(channels, width), rounding_rules.round_channels(4 * channels, width)
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
