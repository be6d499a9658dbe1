"""timm's layout, in both directions, and real weights in it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from effnet.arch import ARCHS, tensors
from effnet.contract import Numerics
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.conversion import counted, names
from effnet.weights.recognition import recognise

REAL = Path(__file__).parents[2].parent / "shared" / "weights" / "lite0_imagenet_backbone_timm.pth"
PEERS = {
    "lite0": "tf_efficientnet_lite0",
    "b0": "tf_efficientnet_b0",
    "v2_s": "tf_efficientnetv2_s",
    "edge_s": "tf_efficientnet_es",
}
SIZE = (64, 96)


def unlike_new(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return model.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", PEERS)
def test_timm_opens_what_we_write(name: str, suffix: str, tmp_path: Path) -> None:
    model = unlike_new(create(name, classes=11))
    path = save(model, tmp_path / f"m{suffix}", layout="timm")
    peer = timm.create_model(PEERS[name], num_classes=11)
    if suffix == ".pth":
        given = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        given = load_file(path)
    peer.load_state_dict(given, strict=True)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model(x), peer.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PEERS)
def test_we_open_what_timm_writes(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer = unlike_new(timm.create_model(PEERS[name], num_classes=11))
    torch.save(peer.state_dict(), tmp_path / "peer.pth")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(tmp_path / "peer.pth")
    assert (model.arch.name, model.classes, model.channels) == (name, 11, 3)
    assert model.provenance.layout == "timm"
    assert model.numerics == Numerics()
    assert f"peer.pth: {name} in timm's layout" in caplog.text
    assert "assumed: same padding, batch-norm ε 0.001" in caplog.text
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model(x), peer(x), rtol=1e-4, atol=1e-5)


def test_there_and_back_again_is_exact() -> None:
    model = unlike_new(create("v2_b0"))
    ours = counted(model.state_dict())
    back = convert(convert(ours, model.arch, "effnet", "timm"), model.arch, "timm", "effnet")
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "nano"])
def test_names_and_shapes_are_timms_for_the_whole_family(name: str) -> None:
    sizes = name.removeprefix("v2_"), name.replace("edge_", "e")
    with torch.device("meta"):
        peer = timm.create_model(f"tf_efficientnetv2_{sizes[0]}" if "v2" in name else f"tf_efficientnet_{sizes[1]}")
    table, shapes = names("timm", ARCHS[name]), tensors(ARCHS[name])
    theirs = {key: tuple(value.shape) for key, value in counted(peer.state_dict()).items()}
    assert {table[ours]: shape for ours, shape in shapes.items()} == theirs


@pytest.mark.parametrize(("layout", "variants"), [("timm", tuple(ARCHS)), ("effnet", ("b0", "lite4", "v2_s", "nano"))])
def test_every_variant_is_recognised_as_itself_alone(layout: str, variants: tuple[str, ...]) -> None:
    for arch in map(ARCHS.__getitem__, variants):
        table = names(layout, arch)
        given = {table[ours]: torch.empty(shape, device="meta") for ours, shape in tensors(arch).items()}
        found = recognise(given)
        assert [(each.layout, each.arch.name, each.classes) for each in found] == [(layout, arch.name, 1000)]


@pytest.fixture(scope="module")
def real() -> Path:
    """Real weights: the ImageNet backbone of EfficientNet-Lite0."""
    if not REAL.is_file():
        pytest.skip(f"no {'/'.join(REAL.parts[-3:])}")
    return REAL


def test_real_weights_are_recognised_and_answer_as_in_timm(real: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(real)
    assert (model.arch, model.classes, model.channels) == (ARCHS["lite0"], 0, 3)
    assert model.provenance.layout == "timm"
    assert model.preprocess.mean == pytest.approx((127 / 255,) * 3)
    assert "lite0 in timm's layout" in caplog.text
    peer = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    peer.load_state_dict(torch.load(real, weights_only=True), strict=True)
    x = torch.rand(2, 3, 224, 224, dtype=torch.double) * 2 - 1
    with torch.no_grad():
        expected = peer.double().eval()(x)
        assert ((model.double()(x) - expected).abs().max() / expected.abs().max()).item() < 1e-12
        last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        assert ((last - expected).abs().max() / expected.abs().max()).item() < 1e-12


def test_real_weights_get_a_head(real: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(real, classes=17)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 17)
    assert "it has no head: it gets a new one of 17" in caplog.text


def test_a_head_of_another_size_is_replaced_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("nano", classes=10), tmp_path / "m.safetensors")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path, classes=4)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 4)
    assert "m.safetensors: its head of 10 classes is replaced by a new one of 4" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "effnet"):
        kept = load(path, classes=10)
    assert torch.equal(kept.classifier.weight, load(path).classifier.weight)
    assert not caplog.text


def test_what_a_file_cannot_say_can_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("nano"), tmp_path / "m.pth", layout="timm")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path, layout="timm", arch="nano", numerics=Numerics("symmetric", 1e-5))
    assert model.numerics == Numerics("symmetric", 1e-5)
    assert "given: symmetric padding, batch-norm ε 1e-05" in caplog.text
