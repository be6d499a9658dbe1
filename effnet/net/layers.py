"""Layers of every block: convolution with exact padding, batch norm and activation, stochastic depth."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.arch.serde import check_choice
from effnet.arch.spec import ACTIVATIONS
from effnet.metadata import Numerics
from effnet.net.memory_efficient import can_recompute, norm_activation, recompute_of, with_recomputed_input

BATCH_NORM_MOMENTUM = 0.01  # the official .99 in TensorFlow's definition
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # neither is a subclass of the other


class Conv(nn.Conv2d):
    """A convolution whose padding is exact at any size: "same" as in TensorFlow, or "symmetric" (kernel // 2).

    Both give ceil(size / stride). Symmetric 'same' padding is left to the convolution; only an asymmetric one, as at
    stride 2 on even sizes, costs a copy of the map.
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
        """Initialize as officially: N(0, √(2 / (k·k·out))), where ``out`` of a depthwise kernel is 1; bias 0."""
        if self.weight.is_meta:
            return  # torch would take long to initialize tensors without storage
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        out = 1 if self.groups > 1 else self.out_channels
        nn.init.normal_(self.weight, std=sqrt(2 / (self.kernel_size[0] * self.kernel_size[1] * out)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        recompute, padding = recompute_of(x), self.padding
        if self.same and self.stride[0] > 1:
            high, wide = (_same_padding(x.shape[-2 + i], self.kernel_size[i], self.stride[i]) for i in (0, 1))
            padding = (high // 2, wide // 2)
            if high % 2 or wide % 2:
                edges, padding = (wide // 2, wide - wide // 2, high // 2, high - high // 2), (0, 0)
                x, recompute = F.pad(x, edges), recompute and partial(_pad_output, recompute, edges)

        def convolve() -> Tensor:
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)

        return with_recomputed_input(convolve, x, recompute) if recompute else convolve()


def _same_padding(size: int, kernel: int, stride: int) -> int:
    """Return the total padding of one dimension for an output of ceil(size / stride)."""
    return max((ceil(size / stride) - 1) * stride + kernel - size, 0)


def _pad_output(make: Callable[[], Tensor], edges: tuple[int, ...]) -> Tensor:
    return F.pad(make(), edges)


class ConvNorm(nn.Module):
    """Convolution, batch norm, and an activation unless it is None.

    ``memory_efficient = True`` recomputes the activated map in the backward pass (see `effnet.net.memory_efficient`).
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
    """Return the in-place activation called ``name``. Raises ``ValueError`` for an unknown name."""
    check_choice("activation", name, ACTIVATIONS)
    return {"silu": nn.SiLU, "relu": nn.ReLU, "relu6": nn.ReLU6}[name](inplace=True)


@contextmanager
def freeze_running_stats(module: nn.Module) -> Iterator[None]:
    """Keep batch norm from updating its running statistics, so that a recomputed pass is not counted twice."""
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
    """Drops whole samples of a residual branch in training, and divides the others by the keep probability.

    Source: arXiv:1603.09382, as in the official code ("drop connect").
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) -> (N, …)."""
        if not self.training or self.drop_prob == 0:
            return x
        keep_prob = 1 - self.drop_prob
        mask = torch.empty(x.shape[0], *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(keep_prob)
        return x * mask.div_(keep_prob)

    def extra_repr(self) -> str:
        """The drop probability, for ``print(model)``."""
        return f"drop_prob={self.drop_prob:g}"


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the whole map: x · σ(expand(act(reduce(mean(x))))).

    Args:
        channels: Channels of the map.
        squeezed: Inner width; in this family a quarter of the *block's input* channels, not of ``channels``.
        activation: "silu", "relu" or "relu6".
        inplace: Overwrite the input if no gradient is needed, as the blocks do.

    Source: arXiv:1709.01507.

    Example:
        >>> effnet.SqueezeExcite(96, 4)(torch.zeros(1, 96, 56, 56)).shape
        torch.Size([1, 96, 56, 56])
    """

    def __init__(self, channels: int, squeezed: int, activation: str = "silu", inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.reduce = Conv(channels, squeezed, bias=True)
        self.activation = make_activation(activation)
        self.expand = Conv(squeezed, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        squeezed = self.activation(self.reduce(x.mean((2, 3), keepdim=True)))
        gate: Tensor = self.expand(squeezed).sigmoid()  # (N, channels, 1, 1)
        if self.inplace and not torch.is_grad_enabled():
            return x.mul_(gate)
        recompute = recompute_of(x)
        if not recompute:
            return x * gate
        out: Tensor = with_recomputed_input(lambda: x * gate, x, recompute)
        weights = gate.detach()
        out.recompute = lambda: recompute() * weights  # type: ignore[attr-defined]
        return out
