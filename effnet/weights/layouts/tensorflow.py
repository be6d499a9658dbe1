"""The official checkpoints' names: tensorflow/tpu efficientnet (V1, Lite, EdgeTPU) and google/automl efficientnetv2.

A variable is called by the network, the part and the layer: ``efficientnet-b0/blocks_0/se/conv2d/kernel``. Blocks are
counted through; within one, equal layers are counted in the order of their use, so that one name means the expansion
in one block and the projection in the next. The table leaves the network's own name out: files give it any.

Sources: tensorflow/tpu ``models/official/efficientnet/efficientnet_model.py`` and ``utils.py`` (the first
``BatchNormalization`` is called as the TPU's); google/automl ``efficientnetv2/effnetv2_model.py``; tensorflow/tpu#460
for EdgeTPU's. The numbers agree with what lukemelas' ``convert_tf_to_pt`` and mmpretrain's
``efficientnet_to_mmpretrain.py`` expect of the published files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from effnet.arch import Arch, Layer
from effnet.contract import Numerics
from effnet.weights import official
from effnet.weights.layouts.rows import TENSORFLOW, Rows, Tidied, spelled

if TYPE_CHECKING:
    from torch import Tensor

NORMS = tuple(f"tpu_batch_normalization{count}" for count in ("", "_1", "_2"))

# ours              theirs: convolution, batch norm
ENDS = {"": ("conv2d", NORMS[0])}  # stem and head
CLASSIFIER = {"": ("dense", "")}
SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se/conv2d", ""),
    "squeeze_excite.expand": ("se/conv2d_1", ""),
}
MBCONV = {
    "expand": ("conv2d", NORMS[0]),
    "depthwise": ("depthwise_conv2d", NORMS[1]),
    "project": ("conv2d_1", NORMS[2]),
    **SQUEEZE_EXCITE,
}
MBCONV_UNEXPANDED = {
    "depthwise": ("depthwise_conv2d", NORMS[0]),
    "project": ("conv2d", NORMS[1]),
    **SQUEEZE_EXCITE,
}
FUSED = {  # also the unexpanded one, which has no projection
    "fused": ("conv2d", NORMS[0]),
    "project": ("conv2d_1", NORMS[1]),
    **SQUEEZE_EXCITE,
}

AVERAGE = "/ExponentialMovingAverage"
COUNTERS = {"global_step", "beta1_power", "beta2_power"}
_PART = re.compile(r"(?:^|/)(?=(?:stem|head|blocks_\d+)/)")  # where the network's own name ends
_PLAIN_NORM = re.compile(r"/batch_normalization(?=(_\d+)?/)")


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → TensorFlow's, for every tensor of the network; without the network's own name before it."""
    return spelled(arch, classes, _table, TENSORFLOW)


def scope(name: str) -> str:
    """What the official networks put before all their variables: "efficientnet-b0" for the arch called "b0"."""
    family, _, size = name.partition("_")
    called = {"v2": f"v2-{size}", "edge": f"-edgetpu-{size.upper()}"}.get(family, f"-{name}")
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"efficientnet{called}")


def numerics(arch: Arch) -> Numerics:
    """The official ones. EdgeTPU's networks stride in the projection *behind* a fused convolution.

    What that leaves of the fused one is symmetric padding (``MBConvBlockWithoutDepthwise``; tensorflow/tpu#660 takes
    the two for equal, which 'same' padding does not make them).
    """
    expected = official.numerics(arch)
    return replace(expected, fused_padding="symmetric") if arch.name.startswith("edge_") else expected


def tidy(given: Mapping[str, Tensor]) -> Tidied:
    """Variables under the names of the table, each its moving average where there is one.

    The network's own name, the optimiser's slots and counters are left out; batch norm that was not a TPU's is called
    as if it were.
    """
    if not any(_PART.search(name) for name in given):
        return Tidied(dict(given))
    averages = {name.removesuffix(AVERAGE): tensor for name, tensor in given.items() if name.endswith(AVERAGE)}
    kept = {
        name: tensor
        for name, tensor in given.items()
        if not (
            name.endswith(AVERAGE)
            or name.rpartition("/")[0] in given  # a variable's variable: an optimiser's
            or name.rpartition("/")[2] in COUNTERS
        )
    } | averages
    before = {name[: found.end()] for name in kept if (found := _PART.search(name))}
    network = before.pop() if len(before) == 1 else ""
    tensors = {
        _PLAIN_NORM.sub("/tpu_batch_normalization", name.removeprefix(network)): tensor for name, tensor in kept.items()
    }
    taken = f"the moving averages of {len(averages)} of its {len(tensors)} variables are taken in place of these"
    return Tidied(tensors, (taken,) if averages else ())


def _table(layer: Layer, blocks: int) -> tuple[Rows, str]:
    match layer.kind:
        case "stem" | "head":
            return ENDS, f"{layer.kind}/"
        case "classifier":
            return CLASSIFIER, "head/"
        case "fused":
            return FUSED, f"blocks_{blocks}/"
    return (MBCONV if layer.expanded else MBCONV_UNEXPANDED), f"blocks_{blocks}/"
