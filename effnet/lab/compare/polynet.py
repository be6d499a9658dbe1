"""PolyNet, "Very Deep": Inception-ResNet-v2 whose residuals are polynomials of its blocks (arXiv:1611.05725).

    2-way     x + s·(F(x) + G(x))              two blocks side by side
    poly-3    x + s·(F(x) + F²(x) + F³(x))     one block, up to three times in a row

Ten 2-way modules, a reduction, ten pairs of poly-3 and 2-way, a reduction, five such pairs: "10-20-10 mix". Scales, and
how much F shares with F² and F³, are those of the network that the authors released: the branches are shared, their
batch norms and the 1×1 convolution that widens their output again are not. The branches are data, below.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class ConvSpec(NamedTuple):
    """A convolution; ``padded``: so that a stride of 1 keeps the map's size."""

    channels: int
    kernel: tuple[int, int]  # height, width
    stride: int = 1
    same_padding: bool = True


Branch = tuple[ConvSpec, ...]

# fmt: off
STEM = (ConvSpec(32, (3, 3), 2, same_padding=False), ConvSpec(32, (3, 3), 1, same_padding=False), ConvSpec(64, (3, 3)))
STEM_3 = ((ConvSpec(96, (3, 3), 2, same_padding=False),),)
STEM_4 = (
    (ConvSpec(64, (1, 1)), ConvSpec(96, (3, 3), 1, same_padding=False)),
    (ConvSpec(64, (1, 1)), ConvSpec(64, (7, 1)), ConvSpec(64, (1, 7)), ConvSpec(96, (3, 3), 1, same_padding=False)),
)
STEM_5 = ((ConvSpec(192, (3, 3), 2, same_padding=False),),)
BLOCK_A = (
    (ConvSpec(32, (1, 1)), ConvSpec(48, (3, 3)), ConvSpec(64, (3, 3))),
    (ConvSpec(32, (1, 1)), ConvSpec(32, (3, 3))),
    (ConvSpec(32, (1, 1)),),
)
REDUCTION_A = (
    (ConvSpec(256, (1, 1)), ConvSpec(256, (3, 3)), ConvSpec(384, (3, 3), 2, same_padding=False)),
    (ConvSpec(384, (3, 3), 2, same_padding=False),),
)
BLOCK_B = (
    (ConvSpec(128, (1, 1)), ConvSpec(160, (1, 7)), ConvSpec(192, (7, 1))),
    (ConvSpec(192, (1, 1)),),
)
REDUCTION_B = (
    (ConvSpec(256, (1, 1)), ConvSpec(256, (3, 3)), ConvSpec(256, (3, 3), 2, same_padding=False)),
    (ConvSpec(256, (1, 1)), ConvSpec(256, (3, 3), 2, same_padding=False)),
    (ConvSpec(256, (1, 1)), ConvSpec(384, (3, 3), 2, same_padding=False)),
)
BLOCK_C = (
    (ConvSpec(192, (1, 1)), ConvSpec(224, (1, 3)), ConvSpec(256, (3, 1))),
    (ConvSpec(192, (1, 1)),),
)
# fmt: on
# Of each stage: what halves the map, the block, how many modules of it, and whether every other one is poly-3
STAGES = ((STEM_5, BLOCK_A, 10, False), (REDUCTION_A, BLOCK_B, 20, True), (REDUCTION_B, BLOCK_C, 10, True))
POLY_ORDER = 3
FIRST_RESIDUAL_SCALE, LAST_RESIDUAL_SCALE = 1.0, 0.7  # of the residuals, falling evenly from module to module


class ConvNormAct(nn.Module):
    """Convolution, batch norm, ReLU; ``times`` batch norms, one for each time that the convolution is used."""

    def __init__(self, inputs: int, step: ConvSpec, times: int = 1, activation: bool = True) -> None:
        super().__init__()
        outside = (step.kernel[0] // 2, step.kernel[1] // 2) if step.same_padding else 0
        self.conv = nn.Conv2d(inputs, step.channels, step.kernel, step.stride, outside, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(step.channels) for _ in range(times))
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, H', W')."""
        out: Tensor = self.activation(self.norms[time](self.conv(x)))
        return out


class ConvChain(nn.Module):
    """Convolutions one after the other."""

    def __init__(self, inputs: int, branch: Branch, times: int = 1) -> None:
        super().__init__()
        widths = (inputs, *(step.channels for step in branch))
        self.steps = nn.ModuleList(ConvNormAct(*pair, times) for pair in zip(widths, branch, strict=False))

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, H', W')."""
        for step in self.steps:
            x = step(x, time)
        return x


class InceptionBranches(nn.Module):
    """Branches side by side, and a max pool beside them where ``pooled``; concatenated."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], times: int = 1, pooled: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvChain(inputs, branch, times) for branch in branches)
        self.pool = nn.MaxPool2d(3, 2) if pooled else None
        self.channels = sum(branch[-1].channels for branch in branches) + (inputs if pooled else 0)

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, H', W')."""
        pooled = [] if self.pool is None else [self.pool(x)]
        return torch.cat([*pooled, *(branch(x, time) for branch in self.branches)], 1)


class TwoWay(nn.Module):
    """x + s·(F(x) + G(x)), then ReLU."""

    def __init__(self, channels: int, branches: tuple[Branch, ...], scale: float) -> None:
        super().__init__()
        self.scale = scale
        blocks = [InceptionBranches(channels, branches) for _ in range(2)]
        self.inner = nn.ModuleList(blocks)
        self.widen = nn.ModuleList(_widening_conv(block.channels, channels) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        out = x
        for block, widen in zip(self.inner, self.widen, strict=True):
            out = out + self.scale * widen(block(x))
        return out.relu()


class PolyThree(nn.Module):
    """x + s·(F(x) + F²(x) + F³(x)), then ReLU."""

    def __init__(self, channels: int, branches: tuple[Branch, ...], scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.inner = InceptionBranches(channels, branches, times=POLY_ORDER)
        self.widen = nn.ModuleList(_widening_conv(self.inner.channels, channels) for _ in range(POLY_ORDER))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        out = x
        for time, widen in enumerate(self.widen):
            x = widen(self.inner(x, time))
            out = out + self.scale * x
            x = x.relu()
        return out.relu()


def _widening_conv(inputs: int, channels: int) -> ConvNormAct:
    return ConvNormAct(inputs, ConvSpec(channels, (1, 1)), activation=False)


def polynet() -> nn.Module:
    """Very Deep PolyNet: (N, 3, H, W) -> (N, 1000) logits."""
    total = sum(modules for _, _, modules, _ in STAGES)
    scales = [
        FIRST_RESIDUAL_SCALE + (LAST_RESIDUAL_SCALE - FIRST_RESIDUAL_SCALE) * number / (total - 1)
        for number in range(total)
    ]
    halved = InceptionBranches(STEM[-1].channels, STEM_3, pooled=True)
    widened = InceptionBranches(halved.channels, STEM_4)
    layers: list[nn.Module] = [ConvChain(3, STEM), halved, widened]
    channels = widened.channels
    for reduction, block, modules, mixed in STAGES:
        reduced = InceptionBranches(channels, reduction, pooled=True)
        channels = reduced.channels
        layers.append(reduced)
        for number in range(modules):
            kind = PolyThree if mixed and number % 2 == 0 else TwoWay
            layers.append(kind(channels, block, scales.pop(0)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 1000))
