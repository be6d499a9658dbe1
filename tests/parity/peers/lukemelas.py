"""Networks of ``efficientnet_pytorch``, and Lite of its fork ``efficientnet_lite_pytorch``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effnet.arch import ARCHS
from tests.parity.ecosystems import ODD
from tests.parity.peers import random_weights

VARIANTS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")
VARIANTS += ("lite0", "lite1", "lite2", "lite3", "lite4") * (find_spec("efficientnet_lite_pytorch") is not None)
SUFFIXES = (".pth",)
FLOAT64 = True
LIMIT = 1e-8
LARGEST = 480  # pixels: at its own 800, L2 in float64 needs too much memory and time for a test


def create_network(name: str, size: tuple[int, int] | None = None) -> nn.Module:
    """Create its network with padding for ``size`` only, or for any size with None."""
    package = pytest.importorskip("efficientnet_lite_pytorch" if name.startswith("lite") else "efficientnet_pytorch")
    network: nn.Module = package.EfficientNet.from_name(f"efficientnet-{name}", image_size=size)
    return network


def build(name: str) -> nn.Module:
    """Create its network with random weights and statistics."""
    torch.manual_seed(0)
    return random_weights.randomize(create_network(name))


def write(network: nn.Module, path: Path) -> None:
    """Save like its users."""
    torch.save(network.state_dict(), path)


def read(name: str, path: Path) -> nn.Module:
    """Create its network with the weights in the file and its default padding, for the native size only."""
    network = create_network(name, sizes(name)[0])
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return network.eval()


def predict(network: nn.Module, x: Tensor) -> Tensor:
    """Return logits in float64."""
    logits: Tensor = network.double()(x)
    return logits


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """All sizes are supported."""
    native = min(ARCHS[name].resolution, LARGEST if name == "l2" else ARCHS[name].resolution)
    return (native, native), ODD
