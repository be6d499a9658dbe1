"""One file an ecosystem: how its tensors are called, and what its networks compute with."""

from __future__ import annotations

from effnet.arch import Arch, tensors
from effnet.weights.layouts import timm
from effnet.weights.layouts.rows import Layout


def _own(arch: Arch, classes: int = 1000) -> dict[str, str]:
    return {name: name for name in tensors(arch, classes)}


LAYOUTS: dict[str, Layout] = {
    "effnet": Layout(_own, suffixes=(".safetensors",)),
    "timm": Layout(timm.names),
}
