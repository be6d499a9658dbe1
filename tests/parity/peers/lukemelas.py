"""The networks of ``efficientnet_pytorch``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from effnet.arch import ARCHS
from tests.parity.ecosystems import ODD
from tests.parity.peers import drawing

VARIANTS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")
SUFFIXES = (".pth",)
DOUBLE = True
LIMIT = 1e-8
LARGEST = 480  # pixels: in float64 L2 would need more memory and time at its own 800 than a test may take


def made(name: str, size: tuple[int, int] | None = None) -> nn.Module:
    """Its network as it comes, padding for ``size`` alone; with None it pads for any."""
    from efficientnet_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name(f"efficientnet-{name}", image_size=size)
    return network


def build(name: str) -> nn.Module:
    """Its network with random weights and statistics."""
    torch.manual_seed(0)
    return drawing.randomise(made(name))


def write(network: nn.Module, path: Path) -> None:
    """As its users do."""
    torch.save(network.state_dict(), path)


def read(name: str, path: Path) -> nn.Module:
    """Its network with the weights in the file, padding for the native size alone, as it does unless told otherwise."""
    network = made(name, sizes(name)[0])
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return network.eval()


def answer(network: nn.Module, x: Tensor) -> Tensor:
    """Logits in float64."""
    logits: Tensor = network.double()(x)
    return logits


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """It takes any size."""
    native = min(ARCHS[name].resolution, LARGEST if name == "l2" else ARCHS[name].resolution)
    return (native, native), ODD
