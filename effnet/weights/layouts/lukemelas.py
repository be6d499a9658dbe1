"""The names of lukemelas' EfficientNet-PyTorch (``efficientnet_pytorch``): one row an operation, read both ways.

Its blocks are counted through the whole network. Two families of its weights have the same names: those trained with
AutoAugment, and AdvProp's, whose pictures are scaled to −1 … 1 instead of normalised. No file says which it is.
Source: lukemelas/EfficientNet-PyTorch 0.7.1, ``model.py``.
"""

from __future__ import annotations

from effnet.arch import Arch, Layer
from effnet.weights.layouts.rows import Rows, spelled

ARCHS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")

# ours             theirs: convolution, batch norm
STEM = {"": ("_conv_stem", "_bn0")}
HEAD = {"": ("_conv_head", "_bn1")}
CLASSIFIER = {"": ("_fc", "")}
MBCONV = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "squeeze_excite.reduce": ("_se_reduce", ""),
    "squeeze_excite.expand": ("_se_expand", ""),
    "project": ("_project_conv", "_bn2"),
}


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → lukemelas', for every tensor of the network."""
    return spelled(arch, classes, _table)


def _table(layer: Layer, block: int) -> tuple[Rows, str]:
    """The rows for ``layer``, and what stands before its names: ``block`` is the number of blocks before it."""
    match layer.kind:
        case "stem":
            return STEM, ""
        case "head":
            return HEAD, ""
        case "classifier":
            return CLASSIFIER, ""
    return MBCONV, f"_blocks.{block}."
