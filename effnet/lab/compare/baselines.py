"""Why a rival costs something else than Table 2 of arXiv:1905.11946 quotes, beyond rounding: arithmetic and sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import nn

from effnet.data.torchvision_compat import declare_operators
from effnet.lab.compare.amoebanet import amoebanet_a, amoebanet_c, gpipe
from effnet.lab.compare.polynet import polynet

# key of RIVALS → the reason
PARAMS_NOTES = {
    "densenet264": (
        "Table 1 of arXiv:1608.06993 with growth rate 32 comes to 33.34 M, and that paper prints no count; with the "
        "running means and variances of batch norm, which are no parameters, it is 33.74 M"
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
        "arXiv:1707.07012 prints 145.8 M. The released network ends in a 7×7 average pool, which leaves one number a "
        "channel of a map of 224 pixels, but 4×4 of the 10×10 map of 320. A classifier of all of them has 16 × 2048 × "
        "1000 weights in place of 2048 × 1000: 115.09 + 30.72 = 145.81 M (our arithmetic). With global pooling, as in "
        "arXiv:1709.01507, it is 115.1 M"
    ),
}


MACS_NOTES = {
    "resnet152": (
        "a stage strides in its first 3×3 convolution here, as in torchvision and timm; with the stride in the 1×1 "
        "before it, as in arXiv:1512.03385, it is 11.28 G, and that paper prints 11.3"
    ),
    "densenet169": (
        "Table 1 of arXiv:1608.06993 comes to 3.36 G at 224 pixels. That paper only plots costs (figure 3), and where "
        "3.5 B is from is not in print; DenseNet-264 is as far off"
    ),
    "densenet264": (
        "Table 1 of arXiv:1608.06993 comes to 5.75 G at 224 pixels. That paper only plots costs (figure 3), and where "
        "6.0 B is from is not in print; DenseNet-169 is as far off"
    ),
    "inception_v4": (
        "at its published 299 pixels it is 12.25 G; arXiv:1602.07261 prints no count. 13 B is right for the row below, "
        "Inception-ResNet-v2 (13.16 G)"
    ),
    "pnasnet5": (
        "arXiv:1712.00559 prints 25.0 B, and the ratio beside 23 B fits that: 6.0 × 4.2 B = 25.2 B. 23 B is what the "
        "row of AmoebaNet-A has"
    ),
}


# DenseNet-264: a row of Table 1 of arXiv:1608.06993 that neither torchvision nor timm gives a name to.
#
# timm's ``densenet264d`` is another network: its stem has three convolutions in place of one.


DENSENET264_LAYERS = (6, 12, 64, 48)  # of the four dense blocks


DENSENET264_GROWTH_RATE = 32  # channels that each layer adds


DENSENET264_STEM = 64  # channels: twice the growth rate


def densenet264() -> nn.Module:
    """DenseNet-264 (k = 32), by torchvision's ``DenseNet``: (N, 3, H, W) -> (N, 1000) logits."""
    declare_operators()
    from torchvision.models import DenseNet

    network: nn.Module = DenseNet(DENSENET264_GROWTH_RATE, DENSENET264_LAYERS, DENSENET264_STEM)
    return network


# The networks that EfficientNet was measured against in Table 2 of arXiv:1905.11946, and ResNet-RS, as networks.
#
# Each at the size that its figures in that table are for. Those that timm keeps are timm's; the others are in `nets`.


BaselineSource = Literal["timm", "here", "quoted"]


@dataclass(frozen=True)
class Baseline:
    """A network of 1000 classes. ``size``: the side in pixels that its published accuracy and MACs are for.

    ``source``: the paper. ``origin``: who builds it; ``why``: why they do, or why nobody can ("quoted").
    """

    key: str
    title: str
    size: int
    source: str
    origin: BaselineSource
    origin_note: str
    factory: Callable[[], nn.Module] | None = field(default=None, repr=False)

    @property
    def params_note(self) -> str:
        """Why its params differ from what Table 2 quotes; "" where only rounding does."""
        return PARAMS_NOTES.get(self.key, "")

    @property
    def macs_note(self) -> str:
        """Why its MACs differ from what Table 2 quotes; "" where only rounding does."""
        return MACS_NOTES.get(self.key, "")

    @property
    def note(self) -> str:
        """Both notes; "" where there is none."""
        notes = (("Params", self.params_note), ("MACs", self.macs_note))
        return " ".join(f"{what}: {text}." for what, text in notes if text)

    def build(self) -> nn.Module:
        """The network in evaluation mode, with random weights: (N, 3, H, W) -> (N, 1000) logits.

        On the meta device, where it takes no memory, under ``with torch.device("meta")``. Raises ``ImportError`` where
        it is timm's and timm is missing, ``ValueError`` where it is only quoted.
        """
        if self.factory is None:
            raise ValueError(f"{self.title} is not built, only quoted: {self.origin_note}")
        return self.factory().eval()


def _create_timm(name: str) -> nn.Module:
    declare_operators()  # timm imports torchvision
    try:
        import timm
    except ImportError:
        raise ImportError(f'{name} is a network of timm, which is missing here: pip install "effnet[peers]"') from None
    network: nn.Module = timm.create_model(name)
    return network


def _timm_baseline(name: str, key: str, title: str, size: int, source: str, remark: str = "") -> Baseline:
    """The rival that timm keeps as ``name``."""
    return Baseline(key, title, size, source, "timm", f"timm keeps it as {name}{remark}", partial(_create_timm, name))


EVOLVED_NOTE = "no library keeps it; its cells are in its authors' code (tensorflow/tpu, amoeba_net)"


RELEASED_NOTE = "no library keeps it; built as its authors released it"


DENSENET264_NOTE = "torchvision's DenseNet with the row of Table 1; timm's densenet264d has another stem"


# The largest size of each depth in tensorflow/tpu's list of checkpoints
RESNET_RS_SIZES = {50: 160, 101: 192, 152: 256, 200: 256, 270: 256, 350: 320, 420: 320}


# fmt: off
_BASELINES = (
    _timm_baseline("resnet50", "resnet50", "ResNet-50", 224, "arXiv:1512.03385"),
    _timm_baseline("densenet169", "densenet169", "DenseNet-169", 224, "arXiv:1608.06993"),
    _timm_baseline("resnet152", "resnet152", "ResNet-152", 224, "arXiv:1512.03385"),
    Baseline("densenet264", "DenseNet-264", 224, "arXiv:1608.06993", "here", DENSENET264_NOTE, densenet264),
    _timm_baseline("inception_v3", "inception_v3", "Inception-v3", 299, "arXiv:1512.00567"),
    _timm_baseline("legacy_xception", "xception", "Xception", 299, "arXiv:1610.02357", "; xception41 to 71 are later networks"),
    _timm_baseline("inception_v4", "inception_v4", "Inception-v4", 299, "arXiv:1602.07261"),
    _timm_baseline("inception_resnet_v2", "inception_resnet_v2", "Inception-ResNet-v2", 299, "arXiv:1602.07261"),
    _timm_baseline("resnext101_64x4d", "resnext101", "ResNeXt-101 (64×4d)", 320, "arXiv:1611.05431"),
    Baseline("polynet", "PolyNet (Very Deep)", 331, "arXiv:1611.05725", "here", RELEASED_NOTE, polynet),
    _timm_baseline("legacy_senet154", "senet154", "SENet-154", 320, "arXiv:1709.01507"),
    _timm_baseline("nasnetalarge", "nasnet_a", "NASNet-A (6 @ 4032)", 331, "arXiv:1707.07012"),
    Baseline("amoebanet_a", "AmoebaNet-A (6, 190)", 331, "arXiv:1802.01548", "here", EVOLVED_NOTE, amoebanet_a),
    _timm_baseline("pnasnet5large", "pnasnet5", "PNASNet-5 (4, 216)", 331, "arXiv:1712.00559"),
    Baseline("amoebanet_c", "AmoebaNet-C (6, 228)", 331, "arXiv:1805.09501", "here", EVOLVED_NOTE, amoebanet_c),
    Baseline("gpipe", "GPipe's AmoebaNet-B (18, 512)", 480, "arXiv:1811.06965", "here", EVOLVED_NOTE, gpipe),
    *(
        _timm_baseline(f"resnetrs{depth}", f"resnet_rs{depth}", f"ResNet-RS-{depth}", size, "arXiv:2103.07579")
        for depth, size in RESNET_RS_SIZES.items()
    ),
)


# fmt: on
BASELINES: dict[str, Baseline] = {rival.key: rival for rival in _BASELINES}
