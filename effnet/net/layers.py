"""The parts of every block: a convolution with exact padding, batch norm, activation, stochastic depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.metadata import Numerics
from effnet.net.memory_efficient import can_recompute, norm_activation, recompute_of, with_recomputed_input

BATCH_NORM_MOMENTUM = 0.01  # the official .99 in TensorFlow's sense
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # of one device, of several: neither is the other's kind


class Conv(nn.Conv2d):
    """A convolution whose padding is exact at any size: "same" as TensorFlow's, or "symmetric" (kernel // 2).

    Both give ceil(size / stride). 'Same' padding that comes out even is left to the convolution; only a lopsided one,
    as at stride 2 on even sizes, costs a copy of the map.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        padding: str = "same",
        bias: bool = False,
    ) -> None:
        self.same = padding == "same"
        super().__init__(inputs, channels, kernel, stride, kernel // 2, groups=groups, bias=bias)

    def reset_parameters(self) -> None:
        """N(0, √(2 / (k·k·out))), the official one: for a depthwise kernel ``out`` is its last dimension, 1. Bias 0."""
        if self.weight.is_meta:
            return  # torch would think long about numbers that are nowhere
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        out = 1 if self.groups > 1 else self.out_channels
        nn.init.normal_(self.weight, std=sqrt(2 / (self.kernel_size[0] * self.kernel_size[1] * out)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        how, padding = recompute_of(x), self.padding
        if self.same and self.stride[0] > 1:
            high, wide = (_same_padding(x.shape[-2 + i], self.kernel_size[i], self.stride[i]) for i in (0, 1))
            padding = (high // 2, wide // 2)
            if high % 2 or wide % 2:
                edges, padding = (wide // 2, wide - wide // 2, high // 2, high - high // 2), (0, 0)
                x, how = F.pad(x, edges), how and partial(_pad_output, how, edges)

        def convolved() -> Tensor:
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)

        return with_recomputed_input(convolved, x, how) if how else convolved()


def _same_padding(size: int, kernel: int, stride: int) -> int:
    """Rows to add in all so that the map leaves at ceil(size / stride)."""
    return max((ceil(size / stride) - 1) * stride + kernel - size, 0)


def _pad_output(make: Callable[[], Tensor], edges: tuple[int, ...]) -> Tensor:
    return F.pad(make(), edges)


class ConvNorm(nn.Module):
    """Convolution, batch norm, and an activation unless it is None.

    ``lean = True`` makes the activated map again in the backward pass in place of keeping it (`effnet.net.memory_efficient`).
    """

    memory_efficient = False

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
        numerics: Numerics | None = None,
    ) -> None:
        super().__init__()
        numerics = numerics or Numerics()
        self.conv = Conv(inputs, channels, kernel, stride, groups, numerics.padding)
        self.norm: nn.Module = nn.BatchNorm2d(channels, eps=numerics.bn_eps, momentum=BATCH_NORM_MOMENTUM)
        self.activation = make_activation(activation) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        x = self.conv(x)
        if self.memory_efficient and can_recompute(self.norm, self.activation, x):
            assert isinstance(self.norm, nn.BatchNorm2d)
            return norm_activation(x, self.norm, self.activation)
        out: Tensor = self.activation(self.norm(x))
        return out


def make_activation(name: str) -> nn.Module:
    """The activation called ``name``, working in place. Raises ``ValueError`` for an unknown one."""
    match name:
        case "silu":
            return nn.SiLU(inplace=True)
        case "relu":
            return nn.ReLU(inplace=True)
        case "relu6":
            return nn.ReLU6(inplace=True)
    raise ValueError(f"activation must be one of silu, relu, relu6, got {name!r}")


@contextmanager
def freeze_running_stats(module: nn.Module) -> Iterator[None]:
    """In this block batch norm leaves its running statistics alone: a pass that is made again is not measured twice."""
    norms = [norm for norm in module.modules() if isinstance(norm, BATCH_NORMS)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class StochasticDepth(nn.Module):
    """Drops whole samples of a residual branch in training, and divides the rest by the keep probability.

    Source: arXiv:1603.09382, as the official code applies it ("drop connect").
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) -> (N, …)."""
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        kept = torch.empty(x.shape[0], *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        """The rate, for ``print(model)``."""
        return f"rate={self.drop_prob:g}"
