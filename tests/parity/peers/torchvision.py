"""Networks of torchvision."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from effnet.arch import ARCHS
from effnet.data.torchvision_compat import declare_operators
from tests.parity.ecosystems import ODD
from tests.parity.peers import random_weights

VARIANTS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")
SUFFIXES = (".pth",)
FLOAT64 = True
LIMIT = 1e-8


def create_network(name: str) -> nn.Module:
    """Create its network as it comes."""
    declare_operators()
    from torchvision.models import get_model

    network: nn.Module = get_model(f"efficientnet_{name}", weights=None)
    return network


def build(name: str) -> nn.Module:
    """Create its network with random weights and statistics."""
    torch.manual_seed(0)
    return random_weights.randomize(create_network(name))


def write(network: nn.Module, path: Path) -> None:
    """Save like its training scripts."""
    torch.save(network.state_dict(), path)


def read(name: str, path: Path) -> nn.Module:
    """Create its network with the weights in the file."""
    network = create_network(name)
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return network.eval()


def predict(network: nn.Module, x: Tensor) -> Tensor:
    """Return logits in float64."""
    logits: Tensor = network.double()(x)
    return logits


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """All sizes are supported."""
    native = ARCHS[name].resolution
    return (native, native), ODD
