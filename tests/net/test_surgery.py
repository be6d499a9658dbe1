from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet, create
from effnet.net.surgery import fold_batch_norm, freeze, is_folded, set_classes, set_input_channels

SIZE = (33, 40)


def lively(name: str, **arguments: int) -> EfficientNet:
    """A network in float64 whose every number differs from what it starts with."""
    torch.manual_seed(0)
    model = create(name, **arguments).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.2)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.2)
    return model.eval()


def images(channels: int = 3, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, *SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.double)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "v2_b0", "nano"])
def test_folding_changes_no_answer(name: str) -> None:
    model, x = lively(name), images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected, copy = logits(model, x), fold_batch_norm(model)
    assert ((logits(copy, x) - expected).abs().max() / expected.abs().max()).item() <= 1e-10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert not any(value.requires_grad for value in copy.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (is_folded(copy), is_folded(model)) == (True, False)


def test_folding_happens_in_evaluation_mode_and_twice_is_once() -> None:
    model = lively("nano").train()
    once = fold_batch_norm(model)
    assert model.training
    assert not once.training
    assert torch.equal(logits(fold_batch_norm(once), images()), logits(once, images()))


def test_folding_keeps_the_precision_of_the_weights() -> None:
    assert {value.dtype for value in fold_batch_norm(create("nano").bfloat16()).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("how", ["tile", "sum"])
def test_one_channel_answers_grey_as_three_equal_channels_did(how: str) -> None:
    model, grey = lively("nano"), images(1)
    expected = logits(model, grey.expand(-1, 3, -1, -1))
    set_input_channels(model, 1, how)
    torch.testing.assert_close(logits(model, grey), expected, rtol=0, atol=1e-12)
    assert (model.channels, model.stem.conv.in_channels) == (1, 1)


@pytest.mark.parametrize("how", ["tile", "sum"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 12])
def test_equal_channels_answer_as_before(channels: int, how: str) -> None:
    model, grey = lively("nano"), images(1)
    expected = logits(model, grey.expand(-1, 3, -1, -1))
    set_input_channels(model, channels, how)
    torch.testing.assert_close(logits(model, grey.expand(-1, channels, -1, -1)), expected, rtol=0, atol=1e-12)


def test_three_tiled_channels_are_the_old_ones() -> None:
    model, x = lively("nano"), images()
    expected = logits(model, x)
    torch.testing.assert_close(logits(set_input_channels(model, 3), x), expected, rtol=0, atol=1e-12)


def test_six_tiled_channels_are_the_three_twice() -> None:
    model, x = lively("nano"), images()
    expected = logits(model, x)
    torch.testing.assert_close(logits(set_input_channels(model, 6), x.repeat(1, 2, 1, 1)), expected, rtol=0, atol=1e-12)


def test_summed_channels_all_count_alike() -> None:
    weight = set_input_channels(lively("nano"), 5, "sum").stem.conv.weight
    assert all(torch.equal(weight[:, 0], weight[:, index]) for index in range(5))


@pytest.mark.parametrize(
    ("channels", "how", "mean"),
    [(1, "tile", (0.449,)), (4, "tile", (0.485, 0.456, 0.406, 0.485)), (2, "sum", (0.449, 0.449))],
)
def test_preprocessing_follows_the_channels(channels: int, how: str, mean: tuple[float, ...]) -> None:
    model = set_input_channels(create("nano"), channels, how)
    assert model.preprocess.mean == pytest.approx(mean, abs=1e-3)
    assert len(model.preprocess.std) == channels
    assert model.preprocess.size == Preprocess((32, 32)).size


@pytest.mark.parametrize(("channels", "how"), [(0, "tile"), (-1, "sum"), (3, "mean"), (1.5, "tile")])
def test_channels_that_cannot_be(channels: int, how: str) -> None:
    with pytest.raises(ValueError, match=r"(channels|mode) must be"):
        set_input_channels(create("nano"), channels, how)


def test_a_new_head_is_fresh_and_the_rest_stays() -> None:
    model, x = lively("nano"), images()
    expected = model.embed(x)
    assert set_classes(model, 7, Labels(tuple("abcdefg"))) is model
    assert model(x).shape == (2, 7)
    assert model.classifier.weight.dtype == torch.double
    assert model.classifier.weight.abs().max() <= 7**-0.5
    assert not model.classifier.bias.any()
    assert (model.classes, model.labels.name(2)) == (7, "c")
    torch.testing.assert_close(model.embed(x), expected)


def test_a_head_can_be_taken_off_and_put_on_again() -> None:
    model, x = lively("nano"), images()
    assert torch.equal(logits(set_classes(model, 0), x), model.embed(x))
    assert model.labels == Labels()
    assert set_classes(model, 3)(x).shape == (2, 3)


def test_labels_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="2 labels do not match 3 classes"):
        set_classes(create("nano"), 3, Labels(("ant", "bee")))


def trained(model: EfficientNet) -> tuple[set[str], set[str]]:
    """(parts whose parameters, parts whose statistics) one training step moved."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD((value for value in model.parameters() if value.requires_grad), lr=0.1)
    model.train()
    nn.functional.cross_entropy(model(images(batch=4)), torch.tensor([0, 1, 2, 3])).backward()
    optimiser.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name, _ in model.named_buffers()}
    return {name.split(".")[0] for name in moved - statistics}, {name.split(".")[0] for name in moved & statistics}


def test_everything_trains_unless_it_is_frozen() -> None:
    model = lively("nano")
    parts = set(model.feature_names())
    assert trained(model) == (parts | {"classifier"}, parts)


@pytest.mark.parametrize("until", ["stem", "stage2", "head"])
def test_frozen_parts_neither_learn_nor_measure(until: str) -> None:
    model = lively("nano").train()
    assert freeze(model, until) is model
    parts = model.feature_names()
    rest = set(parts[parts.index(until) + 1 :])
    assert trained(model) == (rest | {"classifier"}, rest)
    for name in model.frozen_names():
        part = model.get_submodule(name)
        assert all(value.grad is None for value in part.parameters())
        assert not any(module.training for module in part.modules())
    assert model.classifier.training


def test_frozen_parts_stay_frozen_through_evaluation() -> None:
    model = freeze(lively("nano"), "stage1")
    assert not model.training
    model.eval().train()
    assert not model.stem.norm.training
    assert model.stage2.training


def test_unfreezing_frees_everything() -> None:
    model = freeze(freeze(lively("nano").train(), "head"), None)
    parts = set(model.feature_names())
    assert model.frozen_names() == ()
    assert trained(model) == (parts | {"classifier"}, parts)


def test_freezing_less_frees_the_rest() -> None:
    model = freeze(freeze(lively("nano").train(), "head"), "stem")
    assert trained(model)[1] == set(model.feature_names()) - {"stem"}


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="until must be one of stem, stage1, stage2, stage3, head, got 'stage9'"):
        freeze(create("nano"), "stage9")
