"""Baseline networks: against their papers' counts, against arithmetic, and run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.lab.compare import baseline_networks as networks
from effnet.lab.compare.baseline_networks import (
    BLOCK_A,
    POLY_ORDER,
    Cell,
    CellBlock,
    CellNetwork,
    FactorizedReduction,
    PolyThree,
    SameConv,
    SamePool,
    TwoWay,
    amoebanet_a,
    amoebanet_c,
    build_operation,
    densenet264,
    gpipe,
    polynet,
)
from effnet.lab.compare.baselines import count_module
from effnet.net.layers import Conv

CELLS = {name: cell for name, cell in vars(networks).items() if isinstance(cell, Cell)}
OPERATIONS = (*("none", "conv1", "conv3", "conv1x7", "sep3", "sep5", "sep7", "sep5_dilated"), *("avg3", "max2", "max3"))


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def params(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def numbered(height: int, width: int, channels: int = 1) -> Tensor:
    return torch.arange(float(channels * height * width)).reshape(1, channels, height, width)


class TestCounts:
    def test_the_largest_amoebanet_a(self) -> None:
        """469 M params, and 104 B multiply-adds, which fit the 299 pixels that are the default of the authors' code."""
        model = on_meta(lambda: CellNetwork(networks.A_NORMAL, networks.A_REDUCTION, layers=6, channels=448))
        assert params(model) / 1e6 == pytest.approx(469, rel=0.002)
        assert round(count_module(model, 299).macs / 1e9) == 104

    def test_eighteen_cells_are_in_all_and_not_a_stack(self) -> None:
        model = on_meta(lambda: CellNetwork(networks.B_NORMAL, networks.B_REDUCTION, layers=18, channels=512))
        assert [round(params(network) / 1e6) for network in (on_meta(gpipe), model)] == [557, 1617]

    def test_every_unused_state_and_no_other_would_be_another_network(self) -> None:
        def unused(cell: Cell) -> Cell:
            used = {state for _, state in cell.steps}
            return Cell(cell.steps, tuple(state for state in range(7) if state not in used))

        cells = map(unused, (networks.A_NORMAL, networks.A_REDUCTION))
        assert round(params(on_meta(lambda: CellNetwork(*cells, layers=6, channels=190))) / 1e6, 1) == 75.1

    def test_densenet264_by_hand(self) -> None:
        """Table 1 of arXiv:1608.06993: growth 32, bottlenecks of 128, transitions that halve the channels."""
        total = 3 * 49 * 64 + 2 * 64
        channels = 64
        for layers in (6, 12, 64, 48):
            for _ in range(layers):
                total += 2 * channels + channels * 128 + 2 * 128 + 128 * 9 * 32
                channels += 32
            if layers != 48:
                total += 2 * channels + channels * channels // 2
                channels //= 2
        assert params(on_meta(densenet264)) == total + 2 * channels + channels * 1000 + 1000 == 33_337_704

    def test_polynet_by_hand(self) -> None:
        model, seen = on_meta(polynet), []
        for module in model[:-4]:
            module.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:3])))
        found = count_module(model, 331)
        assert round(found.macs / 1e9, 1) == 34.7  # Table 2 of arXiv:1802.01548
        assert list(dict.fromkeys(seen)) == [(64, 163), (160, 81), (192, 79), (384, 39), (1152, 19), (2048, 9)]
        # Convolutions of a block F and of the 1×1 that widens its output again
        a = 384 * (32 + 32 + 32) + 9 * (32 * 48 + 48 * 64 + 32 * 32) + 128 * 384
        b, widen_b = 1152 * (128 + 192) + 7 * (128 * 160 + 160 * 192), 384 * 1152
        c, widen_c = 2048 * (192 + 192) + 3 * (192 * 224 + 224 * 256), 448 * 2048
        modules = 10 * 2 * a + 10 * (2 * (b + widen_b) + b + 3 * widen_b) + 5 * (2 * (c + widen_c) + c + 3 * widen_c)
        stem = (
            9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 96) + 2 * 160 * 64 + 9 * 2 * 64 * 96 + 14 * 64 * 64 + 9 * 192 * 192
        )
        first = 9 * (256 * 256 + 256 * 384 + 384 * 384) + 384 * 256
        second = 3 * 1152 * 256 + 9 * (3 * 256 * 256 + 256 * 384)
        norms = sum(params(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        assert found.params == modules + stem + first + second + norms + 2048 * 1000 + 1000 == 95_366_600


class TestCells:
    @pytest.mark.parametrize("name", CELLS)
    def test_a_cell_is_well_formed(self, name: str) -> None:
        cell = CELLS[name]
        assert len(cell.pairs) == 5
        for number, pair in enumerate(cell.pairs):
            assert all(kind in OPERATIONS and state < number + 2 for kind, state in pair)
        states = {state for _, state in cell.steps} | set(cell.outputs)
        assert set(range(2, 7)) <= states <= set(range(7))  # every state is used
        assert list(cell.outputs) == sorted(set(cell.outputs))

    @pytest.mark.parametrize(
        ("make", "states", "wide"), [(amoebanet_a, 4, 760), (amoebanet_c, 5, 912), (gpipe, 4, 2048)]
    )
    def test_widths(self, make: Callable[[], nn.Module], states: int, wide: int) -> None:
        """After two reductions 4F, and the classifier sees every output state of the last cell."""
        model = on_meta(make)
        assert model.classifier.in_features == states * wide
        assert len(model.cells) == 2 + 3 * 6 + 2

    @pytest.mark.parametrize("letter", "ABC")
    @pytest.mark.parametrize("size", [(64, 64), (75, 97)])
    def test_a_small_one_runs(self, letter: str, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        cells = CELLS[f"{letter}_NORMAL"], CELLS[f"{letter}_REDUCTION"]
        model = CellNetwork(*cells, layers=1, channels=18, classes=7).eval()  # a quarter and a half of 18: 4 and 9
        seen: list[tuple[int, int]] = []
        for cell in model.cells:
            cell.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[-2:])))
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            logits = model(x)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        assert not torch.equal(logits[0], logits[1])
        expected, map_size = [], [(side - 1) // 2 for side in size]
        for stride in (2, 2, 1, 2, 1, 2, 1):
            map_size = [-(-side // stride) for side in map_size]
            expected.append(tuple(map_size))
        assert seen == expected

    def test_gradients_reach_every_weight(self) -> None:
        torch.manual_seed(0)
        model = CellNetwork(networks.C_NORMAL, networks.C_REDUCTION, layers=1, channels=16, classes=5)
        model(torch.rand(4, 3, 64, 64)).square().sum().backward()
        assert [name for name, value in model.named_parameters() if value.grad is None] == []

    def test_a_cell_by_hand(self) -> None:
        """State 2 = max(0) + 1, state 3 = 2 + 2; both and state 0 are output."""
        torch.manual_seed(0)
        cell = Cell((("max3", 0), ("none", 1), ("none", 2), ("none", 2)), (0, 2, 3))
        block = CellBlock(cell, current=4, previous=6, channels=6, stride=1, halved=False).eval()
        current, previous = torch.randn(1, 4, 5, 5), torch.randn(1, 6, 5, 5)
        with torch.no_grad():
            zero = block.fit_current[2](block.fit_current[1](current.relu()))  # batch norm of convolution of ReLU
            two = F.max_pool2d(zero, 3, 1, 1) + previous  # the previous map fits: 6 channels, the same size
            assert torch.equal(block(current, previous), torch.cat((zero, two, two + two), 1))

    def test_a_striding_cell_strides_only_its_inputs(self) -> None:
        cell = Cell((("max3", 0), ("none", 1), ("sep3", 2), ("none", 0)), (1, 3))
        block = CellBlock(cell, current=4, previous=3, channels=6, stride=2, halved=True).eval()
        with torch.no_grad():
            out = block(torch.rand(1, 4, 9, 10), torch.rand(1, 3, 17, 20))
        assert out.shape == (1, 12, 5, 5)

    def test_the_first_cell_gets_its_input_twice(self) -> None:
        block = CellBlock(networks.A_REDUCTION, current=32, previous=None, channels=4, stride=2, halved=False).eval()
        assert isinstance(block.fit_previous, nn.Identity)
        x = torch.rand(1, 32, 8, 8)
        with torch.no_grad():
            assert block(x, x).shape == (1, 20, 4, 4)

    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("channels", [8, 12])
    def test_operations_fit_any_size(self, name: str, stride: int, channels: int) -> None:
        made = build_operation(name, 8, channels, stride).eval()
        with torch.no_grad():
            assert made(torch.rand(1, 8, 7, 10)).shape == (1, channels, -(-7 // stride), -(-10 // stride))

    def test_costs_of_operations_by_hand(self) -> None:
        inner = 2  # a quarter of 8
        expected = {
            "sep5": 2 * (8 * 25 + 8 * 8 + 2 * 8),
            "sep5_dilated": 2 * (8 * 25 + 8 * 8 + 2 * 8),
            "conv3": 8 * inner + inner * inner * 9 + inner * 8 + 2 * (inner + inner + 8),
            "conv1x7": 8 * inner + 2 * inner * inner * 7 + inner * 8 + 2 * (3 * inner + 8),
            "conv1": 8 * 8 + 2 * 8,
            "none": 0,
            "avg3": 0,
        }
        assert {name: params(build_operation(name, 8, 8, 1)) for name in expected} == expected

    def test_an_unknown_operation(self) -> None:
        with pytest.raises(ValueError, match="unknown cell operation 'conv9'"):
            build_operation("conv9", 8, 8, 1)


class TestFactorizedReduction:
    @pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (5, 6)])
    def test_no_pixel_is_skipped(self, height: int, width: int) -> None:
        reduction = FactorizedReduction(1, 3).eval()  # an odd number of channels: one and two
        with torch.no_grad():
            reduction.conv.weight.fill_(1)
            reduction.shifted_conv.weight.fill_(1)
            x = numbered(height, width)
            out = reduction(x) * (1 + reduction.norm.eps) ** 0.5
        shifted = torch.zeros_like(x)
        shifted[..., :-1, :-1] = x[..., 1:, 1:]
        expected = torch.cat((x[..., ::2, ::2], shifted[..., ::2, ::2], shifted[..., ::2, ::2]), 1)
        assert torch.allclose(out, expected, atol=1e-4)


class TestSamePadding:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", [(6, 7), (9, 12)])
    @pytest.mark.parametrize("kernel", [1, 3, 5, 7])
    def test_square_kernels_agree_with_those_of_the_family(
        self, kernel: int, size: tuple[int, int], stride: int
    ) -> None:
        torch.manual_seed(0)
        ours, known = SameConv(4, 4, (kernel, kernel), (stride, stride), groups=4), Conv(4, 4, kernel, stride, groups=4)
        known.weight.data.copy_(ours.weight.data)
        x = torch.randn(2, 4, *size)
        with torch.no_grad():
            assert torch.equal(ours(x), known(x))

    def test_long_kernels(self) -> None:
        """7 wide at stride 2 on 8 pixels: 5 of padding, 2 left and 3 right."""
        wide = SameConv(1, 1, (1, 7), (1, 2))
        wide.weight.data.fill_(1)
        row = torch.arange(1.0, 9).reshape(1, 1, 1, 8)
        with torch.no_grad():
            assert wide(row).flatten().tolist() == [15, 28, 33, 26]
            high = SameConv(1, 1, (7, 1), (2, 1))
            high.weight.data.fill_(1)
            assert high(row.mT).flatten().tolist() == [15, 28, 33, 26]

    def test_dilated_kernels_keep_the_size(self) -> None:
        dilated = SameConv(1, 1, (5, 5), dilation=2)
        dilated.weight.data.zero_()
        dilated.weight.data[0, 0, 0, 0] = 1  # four up and four to the left
        x = numbered(6, 6)
        with torch.no_grad():
            out = dilated(x)
        assert out[0, 0, 4:, 4:].tolist() == x[0, 0, :2, :2].tolist()
        assert out[0, 0, :4].abs().sum() == 0

    def test_pools_ignore_padding(self) -> None:
        for stride in (1, 2):
            below = -torch.ones(1, 1, 5, 8)
            for kind, kernel in (("max", 3), ("max", 2), ("avg", 3)):
                out = SamePool(kind, kernel, stride)(below)
                assert out.shape[-2:] == (-(-5 // stride), 8 // stride)
                assert torch.allclose(out, torch.tensor(-1.0))

    def test_an_average_at_the_corner(self) -> None:
        x = numbered(4, 4)
        assert SamePool("avg", 3, 1)(x)[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4
        assert SamePool("avg", 3, 2)(x)[0, 0, 1, 1] == (10 + 11 + 14 + 15) / 4  # the odd row and column are at the end


class _Twice(nn.Module):
    """2x, called like a block, with the number of the use."""

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        return 2 * x


class TestPolyNet:
    def test_poly_three_is_the_polynomial(self) -> None:
        module = PolyThree(384, BLOCK_A, scale=0.5)
        module.inner, module.widen = _Twice(), nn.ModuleList(nn.Identity() for _ in range(POLY_ORDER))
        assert module(torch.ones(1, 1, 1, 1)).item() == 1 + 0.5 * (2 + 4 + 8)

    def test_two_way_is_the_sum(self) -> None:
        module = TwoWay(384, BLOCK_A, scale=0.5)
        module.inner, module.widen = nn.ModuleList((_Twice(), nn.Identity())), nn.ModuleList((_Twice(), nn.Identity()))
        assert module(torch.ones(1, 1, 1, 1)).item() == 1 + 0.5 * (4 + 1)

    def test_branches_are_shared_and_batch_norms_are_not(self) -> None:
        module = PolyThree(384, BLOCK_A, scale=1.0)
        block = 384 * (32 + 32 + 32) + 9 * (32 * 48 + 48 * 64 + 32 * 32)
        norms = 2 * (32 + 48 + 64 + 32 + 32 + 32)
        assert params(module) == block + 3 * norms + 3 * (128 * 384 + 2 * 384)

    def test_modules_and_scales(self) -> None:
        model = on_meta(polynet)
        modules = [module for module in model if isinstance(module, (PolyThree, TwoWay))]
        kinds = "".join("p" if isinstance(module, PolyThree) else "2" for module in modules)
        assert kinds == "2" * 10 + "p2" * 10 + "p2" * 5
        scales = [module.scale for module in modules]
        assert (scales[0], scales[-1]) == (1.0, pytest.approx(0.7))
        assert {round(before - after, 9) for before, after in pairwise(scales)} == {round(0.3 / 39, 9)}


@pytest.mark.parametrize(("make", "size"), [(polynet, 107), (densenet264, 33)])
def test_the_whole_network_runs(make: Callable[[], nn.Module], size: int) -> None:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 3, size, size))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
