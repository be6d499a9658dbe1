"""What modules in a file state of padding, ε, activation and strides is used; what is no network here is refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from effnet.arch import ARCHS
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet, create
from effnet.weights import load
from effnet.weights.formats import read_checkpoint
from effnet.weights.module_evidence import ModuleEvidence, find_differences, read_class_names, read_module_evidence

declare_operators()


def make_timm(name: str = "efficientnet_b0", **options: object) -> nn.Module:
    from timm import create_model

    torch.manual_seed(0)
    return create_model(name, num_classes=3, **options).eval()  # type: ignore[no-any-return]


def make_torchvision() -> nn.Module:
    from torchvision.models import efficientnet_b0

    torch.manual_seed(0)
    return efficientnet_b0(num_classes=3).eval()  # type: ignore[no-any-return]


def save_pickled(network: nn.Module, path: Path) -> None:
    torch.save(network, path)


def save_traced(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and what people have
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32), check_trace=False).save(path)  # type: ignore[no-untyped-call]


def save_scripted(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(path)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Numerics]] = {
    "native": (make_timm, Numerics("symmetric", 1e-5)),
    "ported": (lambda: make_timm("tf_efficientnet_b0"), Numerics("same", 1e-3)),
    "another ε": (lambda: make_timm("tf_efficientnet_b0", bn_eps=1e-4), Numerics("same", 1e-4)),
    "torchvision": (make_torchvision, Numerics("symmetric", 1e-5)),
}


@pytest.mark.parametrize("save", [save_pickled, save_traced, save_scripted])
@pytest.mark.parametrize("name", NETWORKS)
def test_modules_state_the_numerics(
    name: str, save: Callable[[nn.Module, Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, expected = NETWORKS[name]
    network = make()
    save(network, tmp_path / "m.pt")
    values = read_checkpoint(tmp_path / "m.pt").values
    assert read_module_evidence(values) == ModuleEvidence(expected.padding, expected.bn_eps, "silu")
    assert find_differences(values, ARCHS["b0"], "torchvision" if name == "torchvision" else "timm") == ()
    with caplog.at_level(logging.INFO, "effnet"):
        model = load(tmp_path / "m.pt")
    assert model.numerics == expected
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(x), network(x), atol=1e-5)


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    torch.save(make_timm(), tmp_path / "m.pt")
    assert load(tmp_path / "m.pt", numerics=Numerics("same", 0.01)).numerics == Numerics("same", 0.01)


def change_stride(network: nn.Module) -> None:
    network.conv_stem.stride = (1, 1)  # type: ignore[union-attr]


def change_dilation(network: nn.Module) -> None:
    network.blocks[5][1].conv_dw.dilation = (2, 2)  # type: ignore[index, union-attr]


def change_activation(network: nn.Module) -> None:
    for module in network.modules():
        if hasattr(module, "act"):
            module.act = nn.ReLU()


def change_norm(network: nn.Module) -> None:
    network.blocks[1][0].bn1 = nn.GroupNorm(1, 96)  # type: ignore[index, union-attr]


def change_some_epsilons(network: nn.Module) -> None:
    network.blocks[1][0].bn1.eps = 1e-3  # type: ignore[index, union-attr]


CHANGES = {
    "conv_stem has a stride of 1, in b0 it is 2": change_stride,
    "blocks.5.1.conv_dw is dilated by 2": change_dilation,
    "its blocks compute relu, those of b0 silu": change_activation,
    "blocks.1.0.bn1 computes group norm": change_norm,
    "different ε, 1e-05 and 0.001": change_some_epsilons,
}


@pytest.mark.parametrize("message", CHANGES)
def test_modules_that_compute_something_else(message: str, tmp_path: Path) -> None:
    network = make_timm()
    CHANGES[message](network)
    torch.save(network, tmp_path / "m.pt")
    values = read_checkpoint(tmp_path / "m.pt").values
    assert any(message in each for each in find_differences(values, ARCHS["b0"], "timm"))
    if "group norm" not in message:  # its tensors are others, too
        with pytest.raises(ValueError, match=r"m\.pt: this is efficientnet_b0: its tensors are those of b0"):
            load(tmp_path / "m.pt")


def test_blur_pooling_is_refused(tmp_path: Path) -> None:
    torch.save(make_timm("efficientnet_blur_b0"), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"this is efficientnet_blur_b0: its tensors .* blur pooling, .* outside"):
        load(tmp_path / "m.pt")


def test_modules_of_a_head_do_not_count(tmp_path: Path) -> None:
    network = make_timm()
    network.classifier = nn.Sequential(nn.BatchNorm1d(1280, eps=0.1), nn.ReLU(), nn.Linear(1280, 3))  # type: ignore[assignment]
    torch.save({"net": network}, tmp_path / "m.pt")
    values = read_checkpoint(tmp_path / "m.pt").under("net.").values
    assert read_module_evidence(values) == ModuleEvidence("symmetric", 1e-5, "silu")


def revert_to_plain(network: nn.Module) -> nn.Module:
    """Replace every batch norm by PyTorch's, as programs do that take synchronized ones back."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            plain = nn.BatchNorm2d(child.num_features, child.eps)
            plain.load_state_dict(child.state_dict())
            for inner, module in child.named_children():
                plain.add_module(inner, module)
            setattr(network, name, plain)
        else:
            revert_to_plain(child)
    return network


def convert_stem(network: nn.Module) -> nn.Module:
    network.bn1 = nn.SyncBatchNorm.convert_sync_batchnorm(network.bn1)  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, revert_to_plain, convert_stem])
@pytest.mark.parametrize("wrap", [lambda network: network, lambda network: {"model": network, "epoch": 3}])
def test_batch_norm_that_lost_its_activation(
    convert: Callable[[nn.Module], nn.Module], wrap: Callable[[nn.Module], object], tmp_path: Path
) -> None:
    network = make_timm()
    x = torch.rand(1, 3, 64, 64)
    before = network(x)
    network = convert(network).eval()
    assert not torch.allclose(network(x), before)  # what the file computes is no EfficientNet's answer
    torch.save(wrap(network), tmp_path / "m.pt")
    message = r"bn1 is a (Sync)?BatchNorm(2d)? that leaves out the SiLU it contains, .* state_dict\(\) and open that"
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m.pt")
    torch.save(network.state_dict(), tmp_path / "efficientnet_b0.pth")  # that alone says nothing of activations
    assert torch.allclose(load(tmp_path / "efficientnet_b0.pth")(x), before, atol=1e-5)


def test_batch_norm_that_keeps_its_activation(tmp_path: Path) -> None:
    from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

    x = torch.rand(1, 3, 64, 64)
    for convert in (convert_sync_batchnorm, freeze_batch_norm_2d):
        network = make_timm()
        before = network(x)
        torch.save(convert(network), tmp_path / "m.pt")
        assert torch.allclose(load(tmp_path / "m.pt")(x), before, atol=1e-5)
    torch.save(nn.SyncBatchNorm.convert_sync_batchnorm(make_torchvision()), tmp_path / "m.pt")
    assert torch.allclose(load(tmp_path / "m.pt")(x), make_torchvision()(x), atol=1e-5)


@pytest.mark.parametrize("numerics", [Numerics("symmetric", 1e-5), Numerics("same", 1e-3, "symmetric")])
def test_a_pickled_network_of_this_package_states_everything(numerics: Numerics, tmp_path: Path) -> None:
    preprocess, labels = Preprocess((48, 40), interpolation="bilinear", mean=(0.1, 0.2, 0.3)), Labels(("cat", "dog"))
    network = EfficientNet(ARCHS["nano"], 2, 3, numerics, preprocess, labels).eval()
    torch.save({"best": network}, tmp_path / "m.pt")
    model = load(tmp_path / "m.pt")
    assert (model.numerics, model.preprocess, model.labels) == (numerics, preprocess, labels)
    x = torch.rand(1, 3, 48, 40)
    assert torch.equal(model(x), network(x))


@pytest.mark.parametrize(
    "beside",
    [
        {"dls": {"vocab": ["ant", "bee", "cat"]}},
        {"class_names": ("ant", "bee", "cat"), "labels": ["one", "two"]},
        {"data": {"class_to_idx": {"cat": 2, "ant": 0, "bee": 1}}},
        {"idx_to_class": {2: "cat", 0: "ant", 1: "bee"}},
        {"names": {0: "ant", 1: "bee", 2: "cat"}},
    ],
)
def test_names_of_classes_beside_the_network(beside: dict[str, object], tmp_path: Path) -> None:
    torch.save({"model": create("nano", 3).state_dict(), **beside}, tmp_path / "m.pt")
    assert load(tmp_path / "m.pt").labels.names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ("a", "b")},
        {"classes": ("a", "a", "b")},
        {"classes": ("a", "b", "c"), "x.names": ("c", "b", "a")},
        {"other": ("a", "b", "c")},
        {"class_to_idx.a": 1, "class_to_idx.b": 2, "class_to_idx.c": 3},
        {"config.id2label.0": "LABEL_0", "config.id2label.1": "LABEL_1", "config.id2label.2": "LABEL_2"},
    ],
)
def test_names_that_could_be_of_something_else(values: dict[str, object]) -> None:
    assert read_class_names(values, 3) == ()


def test_a_state_dict_states_nothing() -> None:
    assert read_module_evidence({}) == ModuleEvidence()
