"""timm's names (native and ``tf_`` models alike): one row an operation, read from left to right and back.

timm keeps the batch norm beside its convolution where we keep it inside: hence two names of theirs to one of ours.
"""

from __future__ import annotations

from effnet.arch import Arch, Layer
from effnet.weights.layouts.rows import Rows, spelled

# ours                     theirs: convolution, batch norm
STEM = {"": ("conv_stem", "bn1")}
HEAD = {"": ("conv_head", "bn2")}
CLASSIFIER = {"": ("classifier", "")}
SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se.conv_reduce", ""),
    "squeeze_excite.expand": ("se.conv_expand", ""),
}
MBCONV = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
    **SQUEEZE_EXCITE,
}
MBCONV_UNEXPANDED = {  # timm's DepthwiseSeparableConv
    "depthwise": ("conv_dw", "bn1"),
    "project": ("conv_pw", "bn2"),
    **SQUEEZE_EXCITE,
}
FUSED = {  # timm's EdgeResidual
    "fused": ("conv_exp", "bn1"),
    "project": ("conv_pwl", "bn2"),
    **SQUEEZE_EXCITE,
}
FUSED_UNEXPANDED = {  # timm's ConvBnAct
    "fused": ("conv", "bn1"),
    **SQUEEZE_EXCITE,
}


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → timm's, for every tensor of the network."""
    return spelled(arch, classes, _table)


def _table(layer: Layer, _: int) -> tuple[Rows, str]:
    """The rows for ``layer``, and what timm puts before its names: blocks are counted from 0."""
    match layer.kind:
        case "stem":
            return STEM, ""
        case "head":
            return HEAD, ""
        case "classifier":
            return CLASSIFIER, ""
    prefix = f"blocks.{layer.stage - 1}.{layer.name.split('.')[1]}."
    if layer.kind == "mbconv":
        return (MBCONV if layer.expanded else MBCONV_UNEXPANDED), prefix
    return (FUSED if layer.expanded else FUSED_UNEXPANDED), prefix
