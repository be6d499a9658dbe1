from __future__ import annotations

from math import ceil, sqrt

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effnet.net import create
from effnet.net.layers import Conv, ConvNorm, StochasticDepth, make_activation
from effnet.net.network import Classifier

KERNELS = (1, 3, 5, 7)
SIZES = range(1, 41)


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's rule, word for word: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2."""
    sides = []
    for size in (x.shape[3], x.shape[2]):  # F.pad begins at the last dimension
        total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def image(height: int, width: int, channels: int = 2, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.double)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("groups", [1, 2])
def test_same_padding_is_tensorflows_at_every_size(kernel: int, stride: int, groups: int) -> None:
    conv = Conv(2, 4, kernel, stride, groups, "same", bias=True).double()
    with torch.no_grad():
        conv.bias.normal_()
        for height in SIZES:
            for width in {height, 41 - height, max(1, height // 3)}:
                x = image(height, width)
                expected = F.conv2d(same_padded(x, kernel, stride), conv.weight, conv.bias, stride, 0, 1, groups)
                found = conv(x)
                assert found.shape[2:] == (ceil(height / stride), ceil(width / stride))
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_symmetric_padding_is_half_the_kernel_on_every_side(kernel: int, stride: int) -> None:
    conv = Conv(2, 3, kernel, stride, padding="symmetric").double()
    with torch.no_grad():
        for height in SIZES:
            x, half = image(height, 41 - height), kernel // 2
            found = conv(x)
            assert found.shape[2:] == (ceil(height / stride), ceil((41 - height) / stride))
            expected = F.conv2d(F.pad(x, (half,) * 4), conv.weight, None, stride)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_paddings_differ_only_where_same_is_lopsided() -> None:
    same, symmetric = Conv(1, 1, 3, 2, padding="same"), Conv(1, 1, 3, 2, padding="symmetric")
    symmetric.load_state_dict(same.state_dict())
    odd, even = torch.rand(1, 1, 7, 7), torch.rand(1, 1, 8, 8)
    assert torch.equal(same(odd), symmetric(odd))
    assert not torch.allclose(same(even), symmetric(even))


def test_same_padding_leaves_its_input_alone() -> None:
    x = torch.rand(1, 1, 8, 8)
    before = x.clone()
    Conv(1, 1, 5, 2)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("conv", "std"),
    [
        (lambda: Conv(64, 512, 1), sqrt(2 / 512)),
        (lambda: Conv(64, 256, 3), sqrt(2 / (9 * 256))),
        (lambda: Conv(4096, 4096, 5, groups=4096), sqrt(2 / 25)),  # depthwise: fan out is the multiplier's 1
        (lambda: Conv(512, 512, 1, bias=True), sqrt(2 / 512)),
    ],
)
def test_convolutions_start_as_the_official_ones(conv: object, std: float) -> None:
    torch.manual_seed(0)
    made = conv()  # type: ignore[operator]
    assert made.weight.std().item() == pytest.approx(std, rel=0.02)
    assert abs(made.weight.mean().item()) < 0.02 * std
    assert made.bias is None or not made.bias.any()


def test_the_classifier_starts_uniform_within_its_fan_out() -> None:
    torch.manual_seed(0)
    classifier = Classifier(1280, 100)
    assert 0.099 < classifier.weight.abs().max().item() <= 0.1
    assert classifier.weight.std().item() == pytest.approx(0.1 / sqrt(3), rel=0.02)
    assert not classifier.bias.any()


def test_every_part_of_a_network_starts_as_the_official_one() -> None:
    torch.manual_seed(0)
    model = create("b0")
    for name, module in model.named_modules():
        if isinstance(module, Conv):
            out = 1 if module.groups > 1 else module.out_channels
            expected = sqrt(2 / (module.kernel_size[0] ** 2 * out))
            spread = expected * 5 / sqrt(2 * module.weight.numel())  # five standard errors
            assert abs(module.weight.std().item() - expected) < spread, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert not module.bias.any(), name
            assert module.momentum == 0.01
            assert module.eps == 1e-3


def test_stochastic_depth_drops_whole_samples_and_divides_by_what_it_keeps() -> None:
    torch.manual_seed(0)
    out = StochasticDepth(0.2).train()(torch.ones(20_000, 2, 1, 2))
    per_sample = out.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    values = per_sample[:, 0].unique()
    torch.testing.assert_close(values, torch.tensor([0, 1.25]))
    kept = (per_sample[:, 0] > 0).float().mean().item()
    assert kept == pytest.approx(0.8, abs=5 * sqrt(0.16 / 20_000))
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_stochastic_depth_rests_in_evaluation_and_at_rate_0() -> None:
    x = torch.rand(8, 1, 1, 1)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.double])
def test_stochastic_depth_keeps_the_precision(dtype: torch.dtype) -> None:
    assert StochasticDepth(0.5).train()(torch.ones(4, 1, dtype=dtype)).dtype == dtype


def test_convolution_norm_activation_in_that_order() -> None:
    part = ConvNorm(3, 8, 3, 2, activation="relu6").double().eval()
    part.norm.running_mean.normal_()
    x = image(9, 12, 3)
    with torch.no_grad():
        norm = part.norm
        expected = F.relu6(
            F.batch_norm(part.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
        )
        torch.testing.assert_close(part(x), expected)


@pytest.mark.parametrize(("name", "reference"), [("silu", F.silu), ("relu", F.relu), ("relu6", F.relu6)])
def test_activations(name: str, reference: object) -> None:
    x = torch.linspace(-8, 8, 33)
    expected = reference(x.clone())  # type: ignore[operator]
    torch.testing.assert_close(make_activation(name)(x), expected)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation must be one of silu, relu, relu6, got 'gelu'"):
        make_activation("gelu")
