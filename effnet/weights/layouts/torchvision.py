"""torchvision's names: one row an operation, read from left to right and back.

Its modules are numbered, not named: a block's convolutions are ``block.0``, ``block.1`` …, each a pair of convolution
(0) and batch norm (1), with squeeze-excite counted among them. Source: pytorch/vision ``models/efficientnet.py``.
"""

from __future__ import annotations

from effnet.arch import Arch, Layer
from effnet.contract import Numerics
from effnet.weights.layouts.rows import Rows, spelled

V1 = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7")
ARCHS = (*V1, "v2_s", "v2_m", "v2_l")
PYTORCHS_EPS = ("b0", "b1", "b2", "b3", "b4")  # 1e-5, batch norm's own default; for the others it is given as 1e-3

# ours              theirs: convolution, batch norm
ENDS = {"": ("0", "1")}
CLASSIFIER = {"": ("classifier.1", "")}  # 0 is the dropout
MBCONV = {
    "expand": ("0.0", "0.1"),
    "depthwise": ("1.0", "1.1"),
    "squeeze_excite.reduce": ("2.fc1", ""),
    "squeeze_excite.expand": ("2.fc2", ""),
    "project": ("3.0", "3.1"),
}
MBCONV_UNEXPANDED = {
    "depthwise": ("0.0", "0.1"),
    "squeeze_excite.reduce": ("1.fc1", ""),
    "squeeze_excite.expand": ("1.fc2", ""),
    "project": ("2.0", "2.1"),
}
FUSED = {
    "fused": ("0.0", "0.1"),
    "project": ("1.0", "1.1"),
}


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → torchvision's, for every tensor of the network."""
    return spelled(arch, classes, _table)


def numerics(arch: Arch) -> Numerics:
    """What torchvision builds the network with: PyTorch's padding, and an ε that depends on the size."""
    return Numerics("symmetric", 1e-5 if arch.name in PYTORCHS_EPS else 1e-3)


def _table(layer: Layer, _: int) -> tuple[Rows, str]:
    """The rows for ``layer``, and what torchvision puts before its names: the stem is stage 0, the head the last."""
    if layer.kind == "classifier":
        return CLASSIFIER, ""
    if layer.kind in ("stem", "head"):
        return ENDS, f"features.{layer.stage}."
    prefix = f"features.{layer.stage}.{layer.name.split('.')[1]}.block."
    if layer.kind == "mbconv":
        return (MBCONV if layer.expanded else MBCONV_UNEXPANDED), prefix
    return FUSED, prefix
