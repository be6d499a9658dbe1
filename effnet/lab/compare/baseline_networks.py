"""Baselines that no library has, from their papers: DenseNet-264, AmoebaNet-A, -B and -C, and PolyNet.

Cells and branches are data, and modules walk them.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.data.torchvision_compat import declare_operators

HeightWidth = tuple[int, int]


def densenet264() -> nn.Module:
    """DenseNet-264 (k = 32), a row of Table 1 of arXiv:1608.06993: (N, 3, H, W) -> (N, 1000) logits.

    No library has it: the stem of timm's ``densenet264d`` has three convolutions instead of one.
    """
    declare_operators()
    from torchvision.models import DenseNet

    network: nn.Module = DenseNet(growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64)
    return network


def pad_same(x: Tensor, kernel: HeightWidth, stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    """Pad (N, C, H, W) as TensorFlow's 'same' does, to ceil(size / stride); an odd pixel goes bottom and right."""
    height, width = (
        max((ceil(size / step) - 1) * step + span - size, 0)
        for size, span, step in zip(x.shape[-2:], kernel, stride, strict=True)
    )
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(x, sides, value=value) if any(sides) else x


class SameConv(nn.Conv2d):
    """Convolution without bias and with 'same' padding, for kernels of any shape."""

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
        self.effective_kernel: HeightWidth = ((kernel[0] - 1) * dilation + 1, (kernel[1] - 1) * dilation + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        return super().forward(pad_same(x, self.effective_kernel, self.stride))


class SamePool(nn.Module):
    """Max or average pool with 'same' padding; padding counts in neither."""

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, (kernel, kernel), (stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        if self.kind == "max":
            return F.max_pool2d(pad_same(x, self.kernel, self.stride, float("-inf")), self.kernel, self.stride)
        ones = torch.ones_like(x[:1, :1])  # (1, 1, H, W)
        return self._sum_windows(x) / self._sum_windows(ones)

    def _sum_windows(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride, divisor_override=1)


# Networks of cells, as in the NASNet search space (arXiv:1707.07012): a cell is data, and one module walks it.
#
#     previous   current                 A cell gets the outputs of the last two cells. Each pair of its steps makes a
#        │  1×1, or  │ 1×1               new state: the sum of two operations, each on an existing state.
#        │  factorized                   States 0 (current) and 1 (previous) have the map's size before the stride;
#        1           0                   operations on them stride, operations on later states do not.
#         ╲─ steps ─╱                    The output concatenates some of the states.
#        2  3  4  5  6
#         ╲── outputs ──▶ concatenated
#
# Every operation is ReLU, convolution, batch norm, in this order; pools, and an identity that fits, are bare.
CELL_STEM_CHANNELS = 32
CELL_BN_EPS = 1e-3


@dataclass(frozen=True)
class Cell:
    """Steps in pairs, each an operation (`build_operation`) and the state that it works on; and the states to output.

    State 0 is the last cell's output, 1 the one before it, 2 the first pair's sum, and so on.
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
    """ReLU, convolution, batch norm; with a ``depthwise`` kernel, a depthwise convolution comes first."""
    layers: list[nn.Module] = [nn.ReLU()]
    if depthwise:
        layers.append(SameConv(inputs, inputs, (depthwise, depthwise), stride, inputs, dilation))
        stride = (1, 1)
    return nn.Sequential(*layers, SameConv(inputs, channels, kernel, stride), nn.BatchNorm2d(channels, CELL_BN_EPS))


def separable_conv(inputs: int, channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """The search space's separable convolution: two of them, of which the first strides."""
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
    """A pool; if the channels do not fit yet, followed by a 1×1 convolution and batch norm."""
    pool = SamePool(kind, kernel, stride)
    if inputs == channels:
        return pool
    return nn.Sequential(pool, SameConv(inputs, channels, (1, 1)), nn.BatchNorm2d(channels, CELL_BN_EPS))


def build_operation(name: str, inputs: int, channels: int, stride: int) -> nn.Module:
    """Build the operation called ``name``. Raises ``ValueError`` for an unknown one."""
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
    raise ValueError(f"unknown cell operation {name!r}")


class FactorizedReduction(nn.Module):
    """Half the size without skipping pixels: two strided 1×1, the second shifted by one pixel down and right."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = SameConv(inputs, channels // 2, (1, 1), (2, 2))
        self.shifted_conv = SameConv(inputs, channels - channels // 2, (1, 1), (2, 2))
        self.norm = nn.BatchNorm2d(channels, CELL_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / 2), ceil(W / 2))."""
        shifted = F.pad(x, (0, 1, 0, 1))[..., 1:, 1:]
        out: Tensor = self.norm(torch.cat((self.conv(x), self.shifted_conv(shifted)), 1))
        return out


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
            second = current  # the very first cell has no previous one, and gets its input twice
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
    """Three stacks of ``layers`` normal cells, with a reduction cell between them and two in the stem.

    ``channels`` (F) are those of the first stack; each reduction doubles them, and the stem's two have a quarter and a
    half. The auxiliary classifier, which only training uses, is omitted.
    """

    def __init__(self, normal: Cell, reduction: Cell, layers: int, channels: int, classes: int = 1000) -> None:
        super().__init__()
        stem_conv = nn.Conv2d(3, CELL_STEM_CHANNELS, 3, 2, bias=False)
        self.stem = nn.Sequential(stem_conv, nn.BatchNorm2d(CELL_STEM_CHANNELS, CELL_BN_EPS))
        plan = [(reduction, channels // 4, 2), (reduction, channels // 2, 2)]
        for stack in range(3):
            width = channels * 2**stack
            plan += [(reduction, width, 2)] * (stack > 0) + [(normal, width, 1)] * layers
        self.cells = nn.ModuleList()
        current, previous, halved = CELL_STEM_CHANNELS, None, False
        for cell, width, stride in plan:
            block = CellBlock(cell, current, previous, width, stride, halved)
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


# AmoebaNet-A, -B and -C: cells found by evolution (arXiv:1802.01548). The paper draws them; tensorflow/tpu
# (models/official/amoeba_net, ``model_specs.py``) lists them. Where the paper says that every *unused* state is output,
# the code outputs a few used ones too. With the code's lists the params are those that the paper prints (86.7 M for A);
# by the paper's sentence they are not (75.1 M).
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

    It has 18 normal cells in total, as the authors' code counts: 557 M params; 18 per stack would be 1,617 M.
    """
    return CellNetwork(B_NORMAL, B_REDUCTION, layers=6, channels=512)


# PolyNet, "Very Deep": Inception-ResNet-v2 whose residuals are polynomials of its blocks (arXiv:1611.05725).
#
#     2-way     x + s·(F(x) + G(x))              two blocks side by side
#     poly-3    x + s·(F(x) + F²(x) + F³(x))     one block, up to three times in a row
#
# Ten 2-way modules, a reduction, ten pairs of poly-3 and 2-way, a reduction, five such pairs: "10-20-10 mix". Scales,
# and how much F shares with F² and F³, are those of the network that the authors released: branches are shared; their
# batch norms, and the 1×1 convolution that widens their output again, are not.
class ConvSpec(NamedTuple):
    """A convolution; with ``same_padding`` a stride of 1 keeps the map's size."""

    channels: int
    kernel: HeightWidth
    stride: int = 1
    same_padding: bool = True


Branch = tuple[ConvSpec, ...]


def _valid(channels: int, kernel: HeightWidth, stride: int = 1) -> ConvSpec:
    return ConvSpec(channels, kernel, stride, same_padding=False)


# fmt: off
POLYNET_STEM = (_valid(32, (3, 3), 2), _valid(32, (3, 3)), ConvSpec(64, (3, 3)))
STEM_3 = ((_valid(96, (3, 3), 2),),)
STEM_4 = (
    (ConvSpec(64, (1, 1)), _valid(96, (3, 3))),
    (ConvSpec(64, (1, 1)), ConvSpec(64, (7, 1)), ConvSpec(64, (1, 7)), _valid(96, (3, 3))),
)
STEM_5 = ((_valid(192, (3, 3), 2),),)
BLOCK_A = (
    (ConvSpec(32, (1, 1)), ConvSpec(48, (3, 3)), ConvSpec(64, (3, 3))),
    (ConvSpec(32, (1, 1)), ConvSpec(32, (3, 3))),
    (ConvSpec(32, (1, 1)),),
)
REDUCTION_A = (
    (ConvSpec(256, (1, 1)), ConvSpec(256, (3, 3)), _valid(384, (3, 3), 2)),
    (_valid(384, (3, 3), 2),),
)
BLOCK_B = (
    (ConvSpec(128, (1, 1)), ConvSpec(160, (1, 7)), ConvSpec(192, (7, 1))),
    (ConvSpec(192, (1, 1)),),
)
REDUCTION_B = (
    (ConvSpec(256, (1, 1)), ConvSpec(256, (3, 3)), _valid(256, (3, 3), 2)),
    (ConvSpec(256, (1, 1)), _valid(256, (3, 3), 2)),
    (ConvSpec(256, (1, 1)), _valid(384, (3, 3), 2)),
)
BLOCK_C = (
    (ConvSpec(192, (1, 1)), ConvSpec(224, (1, 3)), ConvSpec(256, (3, 1))),
    (ConvSpec(192, (1, 1)),),
)
# fmt: on
# Of each stage: the reduction, the block, the number of its modules, and whether every other one is poly-3
STAGES = ((STEM_5, BLOCK_A, 10, False), (REDUCTION_A, BLOCK_B, 20, True), (REDUCTION_B, BLOCK_C, 10, True))
POLY_ORDER = 3
FIRST_RESIDUAL_SCALE, LAST_RESIDUAL_SCALE = 1.0, 0.7  # falling linearly from module to module


class ConvNormAct(nn.Module):
    """Convolution, batch norm, ReLU, with one batch norm for each of ``times`` that the convolution is used."""

    def __init__(self, inputs: int, spec: ConvSpec, times: int = 1, activation: bool = True) -> None:
        super().__init__()
        padding = (spec.kernel[0] // 2, spec.kernel[1] // 2) if spec.same_padding else 0
        self.conv = nn.Conv2d(inputs, spec.channels, spec.kernel, spec.stride, padding, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(spec.channels) for _ in range(times))
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, H', W')."""
        out: Tensor = self.activation(self.norms[time](self.conv(x)))
        return out


class ConvChain(nn.Module):
    """Convolutions one after the other."""

    def __init__(self, inputs: int, branch: Branch, times: int = 1) -> None:
        super().__init__()
        widths = (inputs, *(spec.channels for spec in branch))
        self.steps = nn.ModuleList(ConvNormAct(*pair, times) for pair in zip(widths, branch, strict=False))

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, H', W')."""
        for step in self.steps:
            x = step(x, time)
        return x


class InceptionBranches(nn.Module):
    """Parallel branches, with a max pool if ``pooled``, concatenated."""

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
    slope = (LAST_RESIDUAL_SCALE - FIRST_RESIDUAL_SCALE) / (total - 1)
    scales = [FIRST_RESIDUAL_SCALE + slope * number for number in range(total)]
    stem_3 = InceptionBranches(POLYNET_STEM[-1].channels, STEM_3, pooled=True)
    stem_4 = InceptionBranches(stem_3.channels, STEM_4)
    layers: list[nn.Module] = [ConvChain(3, POLYNET_STEM), stem_3, stem_4]
    channels = stem_4.channels
    for reduction, block, modules, mixed in STAGES:
        reduced = InceptionBranches(channels, reduction, pooled=True)
        channels = reduced.channels
        layers.append(reduced)
        for number in range(modules):
            kind = PolyThree if mixed and number % 2 == 0 else TwoWay
            layers.append(kind(channels, block, scales.pop(0)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 1000))
