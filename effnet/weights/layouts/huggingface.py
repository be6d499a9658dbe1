"""The names of Hugging Face's transformers (``EfficientNetForImageClassification``): one row an operation, both ways.

Its blocks are counted through the whole network. Source: huggingface/transformers
``models/efficientnet/modeling_efficientnet.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from effnet.arch import Arch, Layer
from effnet.weights.layouts.rows import Rows, Tidied, spelled

if TYPE_CHECKING:
    from torch import Tensor

ARCHS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")  # what its configuration can say
BASE = "efficientnet."  # before every name but the classifier's; EfficientNetModel, which has none, leaves it out

# ours             theirs: convolution, batch norm
STEM = {"": ("embeddings.convolution", "embeddings.batchnorm")}
HEAD = {"": ("encoder.top_conv", "encoder.top_bn")}
CLASSIFIER = {"": ("classifier", "")}
MBCONV = {
    "expand": ("expansion.expand_conv", "expansion.expand_bn"),
    "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
    "squeeze_excite.reduce": ("squeeze_excite.reduce", ""),
    "squeeze_excite.expand": ("squeeze_excite.expand", ""),
    "project": ("projection.project_conv", "projection.project_bn"),
}


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → transformers', for every tensor of the network."""
    return spelled(arch, classes, _table)


def tidy(tensors: Mapping[str, Tensor]) -> Tidied:
    """The names of a bare ``EfficientNetModel`` as they are called inside the classifying network."""
    if tensors and all(name.startswith(("embeddings.", "encoder.")) for name in tensors):
        return Tidied({BASE + name: tensor for name, tensor in tensors.items()})
    return Tidied(dict(tensors))


def _table(layer: Layer, block: int) -> tuple[Rows, str]:
    """The rows for ``layer``, and what stands before its names: ``block`` is the number of blocks before it."""
    match layer.kind:
        case "stem":
            return STEM, BASE
        case "head":
            return HEAD, BASE
        case "classifier":
            return CLASSIFIER, ""
    return MBCONV, f"{BASE}encoder.blocks.{block}."
