"""Networks to be timed that nobody has trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effnet.arch import Arch
from effnet.contract import Numerics
from effnet.data.normalise import normalise
from effnet.net import EfficientNet, FusedMBConv, MBConv, create
from effnet.net.layers import ConvNorm

PICTURES, SIDE = 4, 128  # of noise, from which batch norm takes its statistics

BRANCH = 0.2  # batch norm's gain at the end of a residual branch


def random_network(
    arch: str | Arch, classes: int = 1000, channels: int = 3, numerics: Numerics | None = None
) -> EfficientNet:
    """A network with random weights whose maps have the usual size of numbers, in evaluation mode.

    Time depends on the numbers after all: without statistics of its own a deep random network fades to numbers so
    small (denormals) that processors take many times as long for them. Residual branches add little to what they are
    added to, or rounding grows from block to block as in no trained network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(arch, classes, channels, numerics).eval()
        for module in model.modules():
            if isinstance(module, (MBConv, FusedMBConv)) and module.layer.residual:
                last = module.project if isinstance(module.project, ConvNorm) else module.fused
                assert isinstance(last.norm, nn.BatchNorm2d)
                nn.init.constant_(last.norm.weight, BRANCH)
        side = min(model.arch.resolution, SIDE)
        # noise as it is then asked of: of another spread it would grow from block to block, and rounding with it
        pictures = torch.randint(256, (PICTURES, side, side, channels), dtype=torch.uint8)
        settle(model, normalise(pictures, model.preprocess))
    return model


def settle(model: nn.Module, x: Tensor) -> None:
    """Gives every batch norm of ``model`` the statistics of one pass of ``x``; nothing else of it changes."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm, _ in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(x)
    for norm, momentum in norms:
        norm.eval().momentum = momentum
