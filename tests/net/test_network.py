from __future__ import annotations

import copy
import io
import math
import pickle
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effnet.arch import ARCHS, Arch, Stage, count, tensor_shapes
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet, create
from effnet.net.surgery import fold_batch_norm
from tests.net.live import peak_bytes
from tests.strategies import archs

SMALL = ("b0", "lite0", "edge_s", "v2_b0", "nano")


def described(arch: Arch, classes: int = 1000, channels: int = 3) -> EfficientNet:
    """The network without its numbers: giants cost nothing on the meta device, where nothing need be drawn either."""
    with torch.device("meta"), mock.patch.object(nn.init, "normal_"):
        return EfficientNet(arch, classes, channels)


def shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    state = model.state_dict().items()
    return [(name, tuple(value.shape)) for name, value in state if not name.endswith("num_batches_tracked")]


def macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Multiply-accumulates of one image by torch's own counter, which calls each two operations."""
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, *size, device=device))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", ARCHS)
def test_a_variant_is_what_its_rows_say(name: str) -> None:
    arch = ARCHS[name]
    model = described(arch)
    assert shapes(model) == list(tensor_shapes(arch).items())  # names, shapes and order
    assert sum(value.numel() for value in model.parameters()) == count(arch).params
    for size in ((arch.resolution, arch.resolution), (197, 251)):
        assert macs(model, size) == count(arch, size).macs


@given(archs())
@settings(max_examples=200, deadline=None)
def test_any_network_is_what_its_rows_say(arch: Arch) -> None:
    model = described(arch, classes=7, channels=4)
    assert shapes(model) == list(tensor_shapes(arch, 7, 4).items())
    assert sum(value.numel() for value in model.parameters()) == count(arch, classes=7, channels=4).params


@given(archs())
@settings(max_examples=30, deadline=None)
def test_any_networks_maps_are_of_the_size_counted(arch: Arch) -> None:
    with torch.no_grad():
        maps = described(arch, 0, 4).eval().features(torch.empty(2, 4, 33, 20, device="meta"))
    by_stage = {row.layer.stage: row for row in count(arch, (33, 20), classes=0, channels=4).layers}
    assert [tuple(x.shape) for x in maps.values()] == [
        (2, row.layer.channels, *row.size_out) for _, row in sorted(by_stage.items())
    ]


@pytest.mark.parametrize("size", [(32, 32), (31, 45)])
def test_macs_of_a_network_that_really_runs(size: tuple[int, int]) -> None:
    assert macs(create("nano"), size) == count(ARCHS["nano"], size).macs


def measured_and_counted(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Bytes really alive at the worst moment, the caller's image aside, and bytes counted."""
    model = fold_batch_norm(create(name, numerics=Numerics("symmetric")))
    return peak_bytes(model, size) - 3 * math.prod(size) * 4, count(ARCHS[name], size).bytes


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "b4"])
def test_memory_is_what_is_really_alive(name: str, size: tuple[int, int]) -> None:
    measured, counted = measured_and_counted(name, size)
    assert measured == counted


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
@pytest.mark.parametrize("name", ["v2_b0", "v2_s", "nano"])
def test_memory_where_the_worst_moment_is_not_in_a_stages_first_block(name: str, size: tuple[int, int]) -> None:
    measured, counted = measured_and_counted(name, size)
    assert measured == counted


@pytest.mark.parametrize("name", SMALL)
def test_features_have_the_names_and_shapes_of_the_count(name: str) -> None:
    model = create(name, classes=0).eval()
    with torch.no_grad():
        maps = model.features(torch.rand(2, 3, 65, 50))
    assert (
        tuple(maps)
        == ("stem", *(f"stage{i + 1}" for i in range(len(ARCHS[name].stages))), "head")
        == model.feature_names()
    )
    last = {row.name.split(".")[0]: row for row in count(ARCHS[name], (65, 50), classes=0).layers}
    for part, x in maps.items():
        assert x.shape == (2, last[part].layer.channels, *last[part].size_out), part


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_features_averaged_and_classified(name: str) -> None:
    model, x = create(name, classes=5).eval(), torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        head = model.features(x)["head"]
        torch.testing.assert_close(model.embed(x), head.mean((2, 3)))
        torch.testing.assert_close(model(x), model.classifier(head.mean((2, 3))))


def test_features_are_not_overwritten_by_what_follows() -> None:
    """Without gradients the network works in place."""
    model, x = create("nano").eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        found = model.features(x)
        for name in model.feature_names():
            torch.testing.assert_close(found[name], model.features(x)[name])
    with_gradients = model.features(x)
    for name in model.feature_names():
        torch.testing.assert_close(found[name], with_gradients[name].detach())


def test_a_forward_pass_leaves_its_input_alone() -> None:
    model, x = create("nano").eval(), torch.rand(1, 3, 33, 32)
    before = x.clone()
    with torch.inference_mode():
        model(x)
    assert torch.equal(x, before)


def test_no_classifier() -> None:
    model, x = create("nano", classes=0).eval(), torch.rand(2, 3, 32, 32)
    assert isinstance(model.classifier, nn.Identity)
    assert not any("classifier" in name for name in model.state_dict())
    torch.testing.assert_close(model(x), model.embed(x))
    assert model(x).shape == (2, 192)


def test_dropout_acts_before_the_classifier_and_in_training_only() -> None:
    torch.manual_seed(0)
    model = create(replace(ARCHS["nano"], dropout=0.5, drop_path=0.0), classes=0)
    model.frozen_batch_norm = True
    x = torch.rand(2, 3, 32, 32)
    trained, evaluated = model.train()(x), model.eval()(x)
    dropped = trained == 0
    assert 0.3 < dropped.float().mean() < 0.7
    torch.testing.assert_close(trained[~dropped], 2 * evaluated[~dropped])


def test_the_contract_that_a_new_network_carries() -> None:
    model = create("b3", classes=0)
    assert model.arch is ARCHS["b3"]
    assert model.numerics == Numerics("same", 1e-3)
    assert model.preprocess == Preprocess((300, 300), crop_fraction=300 / 332)
    assert model.labels == Labels()
    assert (model.classes, model.channels, model.training) == (0, 3, True)


def test_numerics_reach_every_layer() -> None:
    model = create("nano", numerics=Numerics("symmetric", 1e-5))
    assert all(m.eps == 1e-5 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(getattr(m, "same", False) and m.kernel_size[0] > 1 for m in model.stem.modules())
    x = torch.rand(1, 3, 32, 32)
    same = create("nano", numerics=Numerics("same", 1e-5)).eval()
    same.load_state_dict(model.state_dict())
    assert not torch.allclose(model.eval()(x), same(x))


@pytest.mark.parametrize("wrong", [{"classes": -1}, {"channels": 0}, {"classes": 2.5}])
def test_networks_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be an integer of at least"):
        create("nano", **wrong)


def test_a_name_with_a_typo() -> None:
    with pytest.raises(ValueError, match="did you mean"):
        create("efficientnet_bo")


def nano(drop_path: float = 0.0) -> EfficientNet:
    torch.manual_seed(0)
    return create(replace(ARCHS["nano"], dropout=0.0, drop_path=drop_path), classes=4)


def step(model: EfficientNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of one training step, in float64."""
    model.double().train().zero_grad()
    torch.manual_seed(1)
    model(x.double()).square().sum().backward()
    return {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_gradient_checkpointing_gives_the_same_gradients(drop_path: float) -> None:
    plain, thrifty = nano(drop_path), nano(drop_path)
    thrifty.gradient_checkpointing = True
    x = torch.rand(4, 3, 32, 32)
    expected, found = step(plain, x), step(thrifty, x)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)


def test_gradient_checkpointing_gives_the_same_statistics() -> None:
    plain, thrifty = nano(), nano()
    thrifty.gradient_checkpointing = True
    x = torch.rand(4, 3, 32, 32)
    step(plain, x)
    step(thrifty, x)
    torch.testing.assert_close(dict(thrifty.named_buffers()), dict(plain.named_buffers()))


def test_gradient_checkpointing_keeps_fewer_maps() -> None:
    def kept(model: EfficientNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            model(torch.rand(2, 3, 64, 64))
        return sum(sizes)

    plain, thrifty = nano(), nano()
    thrifty.gradient_checkpointing = True
    assert kept(thrifty) < kept(plain) / 3


def test_frozen_norms_keep_their_statistics() -> None:
    model = nano()
    model.frozen_batch_norm = True
    before = {name: value.clone() for name, value in model.named_buffers()}
    gradients = step(model, torch.rand(4, 3, 32, 32))
    assert all(torch.equal(value.to(before[name]), before[name]) for name, value in model.named_buffers())
    assert gradients["stem.norm.weight"].abs().sum() > 0
    model.frozen_batch_norm = False
    step(model, torch.rand(4, 3, 32, 32))
    assert not torch.equal(model.stem.norm.running_mean, before["stem.norm.running_mean"].double())


def test_frozen_norms_take_effect_at_once() -> None:
    model = nano().train()
    model.frozen_batch_norm = True
    assert not model.stem.norm.training


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6"])
def test_residuals_around_a_lone_activation_train(activation: str) -> None:
    """Fused blocks without expansion end in an in-place activation, whose output the next block adds and reads."""
    stages = (Stage("fused", 1, 3, 1, 16, 3), Stage("mbconv", 1, 3, 1, 16, 3, squeeze=0.25))
    torch.manual_seed(0)
    model = create(Arch("plain", stages, stem=16, head=32, activation=activation, dropout=0, drop_path=0), classes=2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.rand(8, 3, 16, 16), torch.tensor([0, 1] * 4)
    x[1::2] *= 0.2
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_copies_are_equal_and_independent() -> None:
    model, x = create("nano").eval(), torch.rand(1, 3, 32, 32)
    deep = copy.deepcopy(model)
    thawed = pickle.loads(pickle.dumps(model))  # what worker processes do
    for twin in (deep, thawed):
        assert torch.equal(twin(x), model(x))
        assert (twin.arch, twin.numerics, twin.preprocess) == (model.arch, model.numerics, model.preprocess)
    nn.init.zeros_(deep.stem.conv.weight)
    assert model.stem.conv.weight.any()


def test_the_state_survives_a_file_without_running_code() -> None:
    model, other, x = create("nano").eval(), create("nano").eval(), torch.rand(1, 3, 32, 32)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), model(x))


def test_channels_last_answers_the_same() -> None:
    model, x = create("nano").double().eval(), torch.rand(2, 3, 33, 40).double()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)
