"""The names of keras.applications' EfficientNets: one row an operation, read from left to right and back.

A layer and its tensor, as Keras 3 calls them: "block1a_dwconv/kernel"; Keras 2 adds ":0" to every name and calls the
depthwise kernel "depthwise_kernel". Stages count from 1, blocks from "a". V2 calls its depthwise convolution "dwconv2".

V1 pads by hand before every stride, for the input size that it was built with: then it is TensorFlow's 'same' at any
size. Built for no size (``input_shape=(None, None, 3)``) it pads as for even maps, and is 'same' only where every map
that a stride halves is even. Sources: keras-team/keras ``applications/efficientnet.py``, ``efficientnet_v2.py``.
"""

from __future__ import annotations

from dataclasses import replace

from effnet.arch import Arch, Layer
from effnet.weights.layouts.rows import TENSORFLOW, Rows, spelled

ARCHS = (
    *("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"),
    *("v2_b0", "v2_b1", "v2_b2", "v2_b3", "v2_s", "v2_m", "v2_l"),
)
PARTS = replace(TENSORFLOW, depthwise="kernel")

# ours      theirs: convolution, batch norm
STEM = {"": ("stem_conv", "stem_bn")}
HEAD = {"": ("top_conv", "top_bn")}
CLASSIFIER = {"": ("predictions", "")}
EXPAND = ("expand_conv", "expand_bn")
PROJECT = ("project_conv", "project_bn")
SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se_reduce", ""),
    "squeeze_excite.expand": ("se_expand", ""),
}
MBCONV = {"expand": EXPAND, "depthwise": ("dwconv", "bn"), "project": PROJECT, **SQUEEZE_EXCITE}
MBCONV_V2 = {**MBCONV, "depthwise": ("dwconv2", "bn")}
FUSED = {"fused": EXPAND, "project": PROJECT, **SQUEEZE_EXCITE}
FUSED_UNEXPANDED = {"fused": PROJECT, **SQUEEZE_EXCITE}


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → Keras', for every tensor of the network."""
    second = is_v2(arch)
    return spelled(arch, classes, lambda layer, _: table(layer, second), PARTS)


def is_v2(arch: Arch) -> bool:
    """Whether ``arch`` is of the second version: whatever has fused blocks."""
    return any(stage.block == "fused" for stage in arch.stages)


def table(layer: Layer, second: bool) -> tuple[Rows, str]:
    """The rows for ``layer`` of the first or the ``second`` version, and what stands before its names."""
    match layer.kind:
        case "stem":
            return STEM, ""
        case "head":
            return HEAD, ""
        case "classifier":
            return CLASSIFIER, ""
    prefix = f"block{layer.stage}{chr(ord('a') + int(layer.name.split('.')[1]))}_"
    if layer.kind == "mbconv":
        return (MBCONV_V2 if second else MBCONV), prefix
    return (FUSED if layer.expanded else FUSED_UNEXPANDED), prefix
