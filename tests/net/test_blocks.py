from __future__ import annotations

from math import ceil

import pytest
import torch
from torch import nn

from effnet.arch import block_layer
from effnet.metadata import Numerics
from effnet.net import FusedMBConv, MBConv, SqueezeExcite
from effnet.net.layers import ConvNorm

BLOCKS = (MBConv, FusedMBConv)


def test_the_documented_call() -> None:
    made = MBConv(3, 16, kernel=3, stride=1, expand=4)
    assert made(torch.rand(2, 3, 9, 12)).shape == (2, 16, 9, 12)
    assert made.expand.conv.out_channels == 12


@pytest.mark.parametrize("made", BLOCKS)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("expand", [1, 4])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_blocks_alone(made: type[MBConv], kernel: int, stride: int, expand: int, padding: str) -> None:
    found = made(8, 12, kernel, stride, expand, squeeze=0.25, numerics=Numerics(padding))
    for height, width in ((1, 1), (7, 10), (16, 16)):
        assert found(torch.rand(2, 8, height, width)).shape == (2, 12, ceil(height / stride), ceil(width / stride))


@pytest.mark.parametrize("made", BLOCKS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel": 4}, "kernel must be odd"),
        ({"kernel": 0}, "kernel must be"),
        ({"stride": 3}, "stride must be 1 or 2, got 3"),
        ({"inputs": 0}, "inputs must be an integer of at least 1"),
        ({"channels": 0}, "channels must be an integer of at least 1"),
        ({"expand": 0}, "expand must be"),
        ({"squeeze": -0.5}, "squeeze must be"),
        ({"drop_path": 1.0}, "drop_path must be"),
        ({"activation": "gelu"}, "activation must be one of"),
    ],
)
def test_blocks_that_cannot_be(made: type[MBConv], wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**{"inputs": 8, "channels": 8, **wrong})


@pytest.mark.parametrize("made", BLOCKS)
def test_of_builds_what_the_arguments_build(made: type[MBConv]) -> None:
    layer = block_layer(made.kind, 8, 8, 5, 1, 3, 0.25, drop_path=0.1)
    arguments = made(8, 8, kernel=5, expand=3, squeeze=0.25, drop_path=0.1)
    assert arguments.layer == layer
    shapes = [
        {name: value.shape for name, value in b.state_dict().items()} for b in (made.from_layer(layer), arguments)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("made", BLOCKS)
@pytest.mark.parametrize("expand", [1, 4])
def test_the_residual_is_the_input_itself(made: type[MBConv], expand: int) -> None:
    inside = made(8, 8, expand=expand, squeeze=0.25).eval()
    alone = made(8, 8, expand=expand, squeeze=0.25, residual=False).eval()
    alone.load_state_dict(inside.state_dict())
    x = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(inside(x), alone(x) + x)


@pytest.mark.parametrize("changed", [{"stride": 2}, {"channels": 16}, {"residual": False}])
def test_no_residual_where_the_map_changes(changed: dict[str, int]) -> None:
    assert not MBConv(**{"inputs": 8, "channels": 8, **changed}).layer.residual


@pytest.mark.parametrize("made", BLOCKS)
@pytest.mark.parametrize("activation", ["silu", "relu", "relu6"])
@pytest.mark.parametrize("expand", [1, 4])
def test_the_same_answer_with_and_without_gradients(made: type[MBConv], activation: str, expand: int) -> None:
    """Without gradients sums and products are taken in place: that must change neither answer nor input."""
    found = made(8, 8, expand=expand, squeeze=0.5, activation=activation).eval()
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    with_gradients = found(x)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(found(x), with_gradients.detach())
            assert torch.equal(x, before)


@pytest.mark.parametrize("made", BLOCKS)
@pytest.mark.parametrize("activation", ["silu", "relu", "relu6"])
@pytest.mark.parametrize("expand", [1, 4])
def test_gradients_are_those_of_finite_differences(made: type[MBConv], activation: str, expand: int) -> None:
    """In-place activations must not spoil what the backward pass reads."""
    torch.manual_seed(0)
    chain = nn.Sequential(*(made(3, 3, expand=expand, squeeze=0.5, activation=activation) for _ in range(2)))
    chain.double().eval()
    x = torch.randn(1, 3, 3, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(chain, (x,), fast_mode=True)


def test_dropping_the_branch_leaves_the_input() -> None:
    torch.manual_seed(0)
    found = MBConv(8, 8, drop_path=0.9).train()
    x = torch.rand(64, 8, 4, 4)
    untouched = (found(x) == x).flatten(1).all(1)
    assert 0.7 < untouched.float().mean() < 1


def test_squeeze_excite_is_its_formula() -> None:
    found = SqueezeExcite(12, 3).double()
    for convolution in (found.reduce, found.expand):
        nn.init.normal_(convolution.bias)
    x = torch.randn(2, 12, 5, 7, dtype=torch.double)
    reduce, expand = found.reduce.weight[:, :, 0, 0], found.expand.weight[:, :, 0, 0]
    inner = nn.functional.silu(x.mean((2, 3)) @ reduce.T + found.reduce.bias)
    gate = torch.sigmoid(inner @ expand.T + found.expand.bias)
    torch.testing.assert_close(found(x), x * gate[:, :, None, None])


def test_squeeze_excite_alone_leaves_its_input_alone() -> None:
    x = torch.rand(1, 8, 4, 4)
    before = x.clone()
    with torch.no_grad():
        SqueezeExcite(8, 2)(x)
    assert torch.equal(x, before)


def test_squeeze_excite_narrows_to_a_share_of_the_blocks_input() -> None:
    made = MBConv(32, 16, expand=6, squeeze=0.25)
    assert made.squeeze_excite.reduce.weight.shape == (8, 192, 1, 1)
    assert isinstance(MBConv(32, 16).squeeze_excite, nn.Identity)


def test_what_an_expansion_of_1_leaves_out() -> None:
    assert isinstance(MBConv(8, 8, expand=1).expand, nn.Identity)
    alone = FusedMBConv(8, 12, expand=1)
    assert isinstance(alone.project, nn.Identity)
    assert isinstance(alone.fused.activation, nn.SiLU)
    assert isinstance(alone.fused, ConvNorm)
    assert alone.fused.conv.out_channels == 12


def test_the_projection_is_linear() -> None:
    assert isinstance(MBConv(8, 8).project.activation, nn.Identity)
    assert isinstance(FusedMBConv(8, 8).project.activation, nn.Identity)
