"""Blocks of the family, usable on their own. Shapes are (N, channels, height, width).

MBConv (arXiv:1801.04381, with squeeze-excite)        Fused-MBConv (arXiv:2104.00298)

    x ── expand 1×1, norm, act      c → c·t               x ── fused k×k / s, norm, act   c → c·t
    │    depthwise k×k / s, norm, act                     │    squeeze-excite (rare)
    │    squeeze-excite: × sigmoid(W₂ act(W₁ mean))       │    project 1×1, norm        c·t → out
    │    project 1×1, norm          c·t → out             │
    └──────────────── + (stride 1 and out = c)            └──────────────── + (stride 1 and out = c)

    expand = 1: no expansion                              expand = 1: the k×k convolution alone, c → out
"""

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from effnet.arch import Layer, block_layer
from effnet.metadata import Numerics
from effnet.net import layers
from effnet.net.layers import SqueezeExcite


class _Block(nn.Module):
    """Base class of both blocks: built from a `Layer`, with a residual if the layer has one."""

    kind: str

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        expand: int = 6,
        squeeze: float = 0.0,
        residual: bool = True,
        drop_path: float = 0.0,
        activation: str = "silu",
        numerics: Numerics | None = None,
    ) -> None:
        layer = block_layer(self.kind, inputs, channels, kernel, stride, expand, squeeze, residual, drop_path)
        self._build(layer, activation, numerics or Numerics())

    @classmethod
    def from_layer(cls, layer: Layer, activation: str = "silu", numerics: Numerics | None = None) -> Self:
        """Build the block with exactly the sizes of ``layer``."""
        block = cls.__new__(cls)
        block._build(layer, activation, numerics or Numerics())
        return block

    def _build(self, layer: Layer, activation: str, numerics: Numerics) -> None:
        raise NotImplementedError

    def _squeeze_excite(self, channels: int, layer: Layer, activation: str) -> nn.Module:
        return SqueezeExcite(channels, layer.squeezed, activation, inplace=True) if layer.squeezed else nn.Identity()

    def _add_residual(self, x: Tensor, out: Tensor) -> Tensor:
        if not self.layer.residual:
            return out
        out = self.stochastic_depth(out)
        return out + x if torch.is_grad_enabled() else out.add_(x)

    layer: Layer
    stochastic_depth: layers.StochasticDepth


class MBConv(_Block):
    """Mobile inverted bottleneck: expand, depthwise, squeeze-excite, project; drawn at the top of this file.

    Args:
        inputs: Input channels.
        channels: Output channels.
        kernel: Kernel size of the depthwise convolution, odd.
        stride: 1 or 2.
        expand: Expansion ratio, inner over input channels; 1: no expansion.
        squeeze: Width of the squeeze-excite over input channels; 0: none.
        residual: Add the input if the stride is 1 and ``channels`` equals ``inputs``.
        drop_path: Stochastic-depth rate of the residual branch.
        activation: "silu", "relu" or "relu6".
        numerics: Padding and batch norm's ε.

    Raises:
        ValueError: An even kernel, another stride, or no channels.

    Source: arXiv:1801.04381, with the squeeze-excite of arXiv:1905.11946.

    Example:
        >>> effnet.MBConv(16, 24, stride=2)(torch.zeros(1, 16, 112, 112)).shape
        torch.Size([1, 24, 56, 56])
    """

    kind = "mbconv"

    def _build(self, layer: Layer, activation: str, numerics: Numerics) -> None:
        nn.Module.__init__(self)
        self.layer, inner = layer, layer.expanded or layer.inputs
        self.expand = (
            layers.ConvNorm(layer.inputs, inner, activation=activation, numerics=numerics)
            if layer.expanded
            else nn.Identity()
        )
        self.depthwise = layers.ConvNorm(inner, inner, layer.kernel, layer.stride, inner, activation, numerics)
        self.squeeze_excite = self._squeeze_excite(inner, layer, activation)
        self.project = layers.ConvNorm(inner, layer.channels, numerics=numerics)
        self.stochastic_depth = layers.StochasticDepth(layer.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        return self._add_residual(x, self.project(self.squeeze_excite(self.depthwise(self.expand(x)))))


class FusedMBConv(_Block):
    """Fused-MBConv: one k×k convolution instead of expansion and depthwise; drawn at the top of this file.

    Arguments are those of `MBConv`; with ``expand=1`` it is the k×k convolution alone, followed by its activation.

    Source: arXiv:2104.00298.

    Example:
        >>> effnet.FusedMBConv(24, 48, stride=2, expand=4)(torch.zeros(1, 24, 64, 64)).shape
        torch.Size([1, 48, 32, 32])
    """

    kind = "fused"

    def _build(self, layer: Layer, activation: str, numerics: Numerics) -> None:
        nn.Module.__init__(self)
        self.layer, inner = layer, layer.expanded or layer.channels
        numerics = replace(numerics, padding=numerics.fused_padding or numerics.padding)
        self.fused = layers.ConvNorm(layer.inputs, inner, layer.kernel, layer.stride, 1, activation, numerics)
        self.squeeze_excite = self._squeeze_excite(inner, layer, activation)
        self.project = layers.ConvNorm(inner, layer.channels, numerics=numerics) if layer.expanded else nn.Identity()
        self.stochastic_depth = layers.StochasticDepth(layer.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        return self._add_residual(x, self.project(self.squeeze_excite(self.fused(x))))
