"""'Same' padding as TensorFlow pads, for kernels of any shape: the convolutions and pools of searched networks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HeightWidth = tuple[int, int]  # height, width


def pad_same(x: Tensor, kernel: HeightWidth, stride: HeightWidth, value: float = 0.0) -> Tensor:
    """(N, C, H, W) padded so that an unpadded kernel leaves ceil(size / stride); what is odd goes bottom and right."""
    (high, wide) = (
        max((ceil(size / step) - 1) * step + span - size, 0)
        for size, span, step in zip(x.shape[-2:], kernel, stride, strict=True)
    )
    sides = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    return F.pad(x, sides, value=value) if any(sides) else x


class SameConv(nn.Conv2d):
    """A convolution without bias whose map leaves at ceil(size / stride)."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: HeightWidth,
        stride: HeightWidth = (1, 1),
        groups: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(inputs, channels, kernel, stride, groups=groups, dilation=dilation, bias=False)
        self.effective_kernel: HeightWidth = (
            (kernel[0] - 1) * dilation + 1,
            (kernel[1] - 1) * dilation + 1,
        )  # that the kernel covers
        self.strides = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        return super().forward(pad_same(x, self.effective_kernel, self.strides))


class SamePool(nn.Module):
    """The largest, or the average, of each window; what lies outside the map counts in neither."""

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, (kernel, kernel), (stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        if self.kind == "max":
            return F.max_pool2d(pad_same(x, self.kernel, self.stride, float("-inf")), self.kernel, self.stride)
        there = torch.ones_like(x[:1, :1])  # (1, 1, H, W)
        return self._sum_windows(x) / self._sum_windows(there)

    def _sum_windows(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride, divisor_override=1)

    def extra_repr(self) -> str:
        """Kind, kernel and stride, for ``print(model)``."""
        return f"{self.kind}, kernel={self.kernel[0]}, stride={self.stride[0]}"


# Networks of cells, as in the NASNet search space (arXiv:1707.07012): a cell is data, and one module walks it.
#
#         previous   current                 A cell sees what the last two cells made. Each pair of its steps makes a
#            │  1×1, or  │ 1×1               new state: the sum of two operations, each on a state that is there already.
#            │  factorised                   States 0 (current) and 1 (previous) have the map's size before the stride;
#            1           0                   what comes from them strides, what comes from a later state does not.
#             ╲─ steps ─╱                    The output is some of the states, one behind the other.
#            2  3  4  5  6
#             ╲── outputs ──▶ concatenated
#
# Every operation is ReLU, convolution, batch norm, in this order; pools, and an identity that fits, are bare.


STEM_CHANNELS = 32  # channels


BN_EPS = 1e-3  # batch norm's


@dataclass(frozen=True)
class Cell:
    """Steps in pairs, each an operation and the state that it works on; and the states that are handed on.

    Operations: "none" (identity), "conv1", "conv3", "conv1x7", "sep3", "sep5", "sep7", "sep5_dilated", "avg3", "max2",
    "max3". State 0 is the last cell's output, 1 the one's before it, 2 the first pair's sum, and so on.
    """

    steps: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]

    @property
    def pairs(self) -> tuple[tuple[tuple[str, int], tuple[str, int]], ...]:
        """The steps two by two."""
        return tuple(zip(self.steps[::2], self.steps[1::2], strict=True))


def relu_conv_norm(
    inputs: int,
    channels: int,
    kernel: HeightWidth = (1, 1),
    stride: HeightWidth = (1, 1),
    depthwise: int = 0,
    dilation: int = 1,
) -> nn.Sequential:
    """ReLU, convolution, batch norm; where ``depthwise`` is a kernel, with a depthwise convolution in front."""
    layers: list[nn.Module] = [nn.ReLU()]
    if depthwise:
        layers.append(SameConv(inputs, inputs, (depthwise, depthwise), stride, inputs, dilation))
        stride = (1, 1)
    return nn.Sequential(*layers, SameConv(inputs, channels, kernel, stride), nn.BatchNorm2d(channels, BN_EPS))


def separable_conv(inputs: int, channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """The search space's separable convolution: twice, of which the first strides."""
    first = relu_conv_norm(inputs, channels, stride=(stride, stride), depthwise=kernel, dilation=dilation)
    return nn.Sequential(first, relu_conv_norm(channels, channels, depthwise=kernel, dilation=dilation))


def bottleneck_conv(
    inputs: int, channels: int, kernels: tuple[HeightWidth, ...], strides: tuple[HeightWidth, ...]
) -> nn.Sequential:
    """Full convolutions at a quarter of the channels, between two 1×1."""
    inner = channels // 4
    middle = [relu_conv_norm(inner, inner, kernel, stride) for kernel, stride in zip(kernels, strides, strict=True)]
    return nn.Sequential(relu_conv_norm(inputs, inner), *middle, relu_conv_norm(inner, channels))


def pool_layer(kind: str, kernel: int, inputs: int, channels: int, stride: int) -> nn.Module:
    """A pool; where the channels do not fit yet, with a 1×1 and batch norm behind it."""
    pooled = SamePool(kind, kernel, stride)
    if inputs == channels:
        return pooled
    return nn.Sequential(pooled, SameConv(inputs, channels, (1, 1)), nn.BatchNorm2d(channels, BN_EPS))


def build_operation(name: str, inputs: int, channels: int, stride: int) -> nn.Module:
    """The operation called ``name``. Raises ``ValueError`` for an unknown one."""
    strides = (stride, stride)
    match name:
        case "none" if stride == 1 and inputs == channels:
            return nn.Identity()
        case "none" | "conv1":
            return relu_conv_norm(inputs, channels, stride=strides)
        case "conv3":
            return bottleneck_conv(inputs, channels, ((3, 3),), (strides,))
        case "conv1x7":
            return bottleneck_conv(inputs, channels, ((1, 7), (7, 1)), ((1, stride), (stride, 1)))
        case "sep3" | "sep5" | "sep7":
            return separable_conv(inputs, channels, int(name[-1]), stride)
        case "sep5_dilated":
            return separable_conv(inputs, channels, 5, stride, dilation=2)
        case "avg3":
            return pool_layer("avg", 3, inputs, channels, stride)
        case "max2" | "max3":
            return pool_layer("max", int(name[-1]), inputs, channels, stride)
    raise ValueError(f"no operation of cells is called {name!r}")


class FactorizedReduction(nn.Module):
    """Half the size, and no pixel left out: two strided 1×1, the second one pixel further down and right.

    An odd number of channels is split into halves that differ by one.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = SameConv(inputs, channels // 2, (1, 1), (2, 2))
        self.shifted_conv = SameConv(inputs, channels - channels // 2, (1, 1), (2, 2))
        self.norm = nn.BatchNorm2d(channels, BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / 2), ceil(W / 2))."""
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[..., 1:, 1:]
        joined: Tensor = self.norm(torch.cat((self.conv(x), self.shifted_conv(shifted)), 1))
        return joined


class CellBlock(nn.Module):
    """One cell at its true size. ``halved``: the current map is half as large as the previous one."""

    def __init__(
        self, cell: Cell, current: int, previous: int | None, channels: int, stride: int, halved: bool
    ) -> None:
        super().__init__()
        self.pairs, self.outputs = cell.pairs, cell.outputs
        self.fit_current = relu_conv_norm(current, channels)
        self.fit_previous: nn.Module = nn.Identity()
        second = channels
        if previous is None:
            second = current  # the very first cell has nothing before it, and takes its input twice
        elif halved:
            self.fit_previous = nn.Sequential(nn.ReLU(), FactorizedReduction(previous, channels))
        elif previous != channels:
            self.fit_previous = relu_conv_norm(previous, channels)
        inputs = [channels, second] + [channels] * len(self.pairs)
        self.operations = nn.ModuleList(
            build_operation(name, inputs[state], channels, stride if state < 2 else 1) for name, state in cell.steps
        )
        self.output_layers = nn.ModuleList(
            FactorizedReduction(inputs[state], channels) if state < 2 and stride == 2 else nn.Identity()
            for state in cell.outputs
        )
        self.channels = channels * len(cell.outputs)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(N, current, H, W), (N, previous, H or 2H, …) -> (N, channels × outputs, ceil(H / stride), …)."""
        states = [self.fit_current(current), self.fit_previous(previous)]
        for number, ((_, left), (_, right)) in enumerate(self.pairs):
            first, second = self.operations[2 * number], self.operations[2 * number + 1]
            states.append(first(states[left]) + second(states[right]))
        return torch.cat([fit(states[state]) for fit, state in zip(self.output_layers, self.outputs, strict=True)], 1)


class CellNetwork(nn.Module):
    """Three stacks of ``layers`` normal cells, a reduction cell between them and two in the stem.

    ``channels`` (F) are of the first stack's convolutions; each reduction doubles them, and the stem's two have a
    quarter and a half, rounded down. The auxiliary classifier, which only training needs, is left out.
    """

    def __init__(self, normal: Cell, reduction: Cell, layers: int, channels: int, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, STEM_CHANNELS, 3, 2, bias=False), nn.BatchNorm2d(STEM_CHANNELS, BN_EPS))
        plan = [(reduction, channels // 4, 2), (reduction, channels // 2, 2)]
        for stack in range(3):
            wide = channels * 2**stack
            plan += [(reduction, wide, 2)] * (stack > 0) + [(normal, wide, 1)] * layers
        self.cells = nn.ModuleList()
        current, previous, halved = STEM_CHANNELS, None, False
        for cell, wide, stride in plan:
            block = CellBlock(cell, current, previous, wide, stride, halved)
            self.cells.append(block)
            current, previous, halved = block.channels, current, stride == 2
        self.classifier = nn.Linear(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        previous = current = self.stem(x)
        for cell in self.cells:
            previous, current = current, cell(current, previous)
        logits: Tensor = self.classifier(current.relu().mean((2, 3)))
        return logits


# AmoebaNet-A, -B and -C: the cells that evolution found (arXiv:1802.01548), as their authors' code has them.
#
# The paper draws the cells; tensorflow/tpu (models/official/amoeba_net, ``model_specs.py``) writes them down. Where the
# paper says that every *unused* state is handed on, the code hands on a few that are used as well. With the code's lists
# the parameters are those that the paper prints (86.7 M for A); with the sentence's they are not (75.1 M).


# fmt: off
A_NORMAL = Cell((
    ("avg3", 0), ("max3", 0),
    ("sep3", 1), ("none", 1),
    ("none", 0), ("avg3", 1),
    ("sep3", 0), ("sep5", 2),
    ("avg3", 5), ("sep3", 0),
), (1, 3, 4, 6))


A_REDUCTION = Cell((
    ("sep3", 1), ("avg3", 0),
    ("max3", 0), ("sep7", 2),
    ("max3", 1), ("max3", 0),
    ("sep3", 4), ("conv1x7", 0),
    ("avg3", 1), ("sep7", 0),
), (2, 3, 4, 5, 6))


B_NORMAL = Cell((
    ("conv1", 1), ("max3", 1),
    ("none", 1), ("sep3", 0),
    ("conv1", 1), ("sep3", 0),
    ("conv1", 2), ("none", 2),
    ("avg3", 1), ("conv1", 5),
), (0, 3, 4, 6))


B_REDUCTION = Cell((
    ("max2", 0), ("max3", 0),
    ("none", 2), ("conv3", 1),
    ("sep5_dilated", 2), ("max3", 2),
    ("none", 3), ("sep3", 1),
    ("avg3", 4), ("conv1", 3),
), (5, 6))


C_NORMAL = Cell((
    ("avg3", 0), ("sep3", 0),
    ("none", 0), ("sep3", 0),
    ("avg3", 2), ("sep3", 1),
    ("none", 0), ("sep3", 1),
    ("avg3", 3), ("sep3", 0),
), (1, 2, 4, 5, 6))


C_REDUCTION = Cell((
    ("max3", 0), ("max3", 0),
    ("sep7", 2), ("sep3", 0),
    ("sep7", 0), ("max3", 1),
    ("sep5", 4), ("sep5", 4),
    ("max3", 1), ("sep3", 1),
), (0, 2, 3, 4, 5, 6))


# fmt: on
def amoebanet_a() -> nn.Module:
    """AmoebaNet-A (N = 6, F = 190), Table 2 of arXiv:1802.01548: (N, 3, H, W) -> (N, 1000) logits."""
    return CellNetwork(A_NORMAL, A_REDUCTION, layers=6, channels=190)


def amoebanet_c() -> nn.Module:
    """AmoebaNet-C (6, 228), as the ImageNet table of arXiv:1805.09501 names it: (N, 3, H, W) -> (N, 1000) logits."""
    return CellNetwork(C_NORMAL, C_REDUCTION, layers=6, channels=228)


def gpipe() -> nn.Module:
    """AmoebaNet-B (18, 512) of arXiv:1811.06965: (N, 3, H, W) -> (N, 1000) logits.

    18 are its normal cells in all, as the authors' code counts them: 557 M params; 18 a stack would be 1,617 M.
    """
    return CellNetwork(B_NORMAL, B_REDUCTION, layers=6, channels=512)
