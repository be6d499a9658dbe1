"""The layouts of PyTorch's ecosystems: names counted against their own networks, and every way between them."""

from __future__ import annotations

import logging
from importlib import import_module
from itertools import permutations
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from torch import Tensor, nn

from effnet.arch import ARCHS, tensor_shapes
from effnet.metadata import Numerics
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.conversion import drop_batch_counters, key_map
from effnet.weights.detect import detect_layouts
from effnet.weights.key_maps import LAYOUTS
from tests.parity.timm_comparison import timm_name

ECOSYSTEMS = {"torchvision": "torchvision", "lukemelas": "efficientnet_pytorch", "huggingface": "transformers"}


EVERY = [(layout, name) for layout in ECOSYSTEMS for name in LAYOUTS[layout].archs]


PAIRS = [
    (name, *pair)
    for name in ("b0", "v2_b0", "v2_s")
    for pair in permutations(
        [layout for layout in ("effnet", "timm", *ECOSYSTEMS) if LAYOUTS[layout].supports(ARCHS[name])], 2
    )
]


def peer(layout: str) -> ModuleType:
    """The ecosystem as its users use it."""
    pytest.importorskip(ECOSYSTEMS[layout])
    return import_module(f"tests.parity.peers.{layout}")


def numbered(name: str) -> dict[str, Tensor]:
    """Random tensors under our names."""
    torch.manual_seed(0)
    return {key: torch.randn(shape) for key, shape in tensor_shapes(ARCHS[name], classes=3).items()}


def hollow(layout: str, name: str, classes: int = 1000) -> dict[str, Tensor]:
    """Tensors of a layout without memory."""
    theirs = key_map(layout, ARCHS[name], classes)
    return {theirs[ours]: torch.empty(s, device="meta") for ours, s in tensor_shapes(ARCHS[name], classes).items()}


@pytest.mark.parametrize(("name", "layout", "other"), PAIRS)
def test_there_and_back_again_changes_no_bit(name: str, layout: str, other: str) -> None:
    tensors = convert(numbered(name), ARCHS[name], "effnet", layout)
    back = convert(convert(tensors, ARCHS[name], layout, other), ARCHS[name], other, layout)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_names_and_shapes_are_those_of_its_own_network(layout: str, name: str) -> None:
    known = peer(layout)
    with torch.device("meta"):
        network = known.create_network(name)
    theirs = {key: tuple(value.shape) for key, value in drop_batch_counters(network.state_dict()).items()}
    assert {key: tuple(value.shape) for key, value in hollow(layout, name).items()} == theirs


@pytest.mark.parametrize("classes", [1000, 0])
@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_it_is_recognised_as_itself_alone(layout: str, name: str, classes: int) -> None:
    found = detect_layouts(hollow(layout, name, classes))
    assert [(each.layout, each.arch.name, each.classes) for each in found] == [(layout, name, classes)]


@pytest.mark.parametrize("layout", ECOSYSTEMS)
def test_numbers_of_classes_and_channels_are_the_files_own(layout: str, tmp_path: Path) -> None:
    model = load(save(create("b0", classes=7, channels=4), tmp_path / "m.safetensors", layout))
    assert (model.classes, model.channels, model.provenance.layout) == (7, 4, layout)


@pytest.mark.parametrize(
    ("layout", "name", "expected"),
    [
        ("torchvision", "b4", Numerics("symmetric", 1e-5)),
        ("torchvision", "b5", Numerics("symmetric", 1e-3)),
        ("torchvision", "v2_s", Numerics("symmetric", 1e-3)),
        ("lukemelas", "b4", Numerics("same", 1e-3)),
        ("huggingface", "b4", Numerics("same", 1e-3)),
    ],
)
def test_what_a_file_is_assumed_to_compute_with(layout: str, name: str, expected: Numerics) -> None:
    assert LAYOUTS[layout].numerics(ARCHS[name]) == expected
    assert LAYOUTS[layout].fixed_numerics


@pytest.mark.parametrize("layout", ECOSYSTEMS)
def test_the_assumption_is_said(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("b0"), tmp_path / "m.safetensors", layout)
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path)
    assert model.numerics == LAYOUTS[layout].numerics(ARCHS["b0"])
    assert model.preprocess == LAYOUTS[layout].preprocess(ARCHS["b0"])
    assert f"b0 in {layout}'s layout" in caplog.text
    assert f"{model.numerics.padding} padding" in caplog.text


@pytest.mark.parametrize(
    ("layout", "name"),
    [("torchvision", "lite0"), ("torchvision", "b8"), ("lukemelas", "v2_s"), ("huggingface", "edge_s")],
)
def test_a_network_that_an_ecosystem_lacks(layout: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{layout} has no {name}: it has b0, b1, "):
        save(create(name), tmp_path / "m.safetensors", layout)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"^{layout} has no {name}: "):
        convert({}, ARCHS[name], layout, "effnet")


@pytest.mark.parametrize("name", ["lite0", "v2_s", "edge_s"])
def test_a_damaged_file_is_compared_only_with_layouts_that_have_such_a_network(name: str, tmp_path: Path) -> None:
    tensors = convert(drop_batch_counters(create(name).state_dict()), ARCHS[name], "effnet", "timm")
    del tensors["bn1.weight"]
    torch.save(tensors, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=rf"nearest is {name} in timm's layout, [^\n]*\n  missing bn1\.weight"):
        load(tmp_path / "m.pth", arch=name)


def test_numerics_that_the_ecosystem_has_not_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        save(create("b0", numerics=Numerics("symmetric", 1e-5)), tmp_path / "fits.pth", "torchvision")
        assert caplog.text == ""
        save(create("b0"), tmp_path / "m.pth", "torchvision")
    assert "computes with symmetric padding, batch-norm ε 1e-05, these weights expect same padding" in caplog.text


# timm's layout, in both directions, and real weights in it.


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
        tensors = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        tensors = load_file(path)
    peer.load_state_dict(tensors, strict=True)
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
    ours = drop_batch_counters(model.state_dict())
    back = convert(convert(ours, model.arch, "effnet", "timm"), model.arch, "timm", "effnet")
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "nano"])
def test_names_and_shapes_are_timms_for_the_whole_family(name: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(timm_name(name))
    table, shapes = key_map("timm", ARCHS[name]), tensor_shapes(ARCHS[name])
    theirs = {key: tuple(value.shape) for key, value in drop_batch_counters(peer.state_dict()).items()}
    assert {table[ours]: shape for ours, shape in shapes.items()} == theirs


@pytest.mark.parametrize(("layout", "variants"), [("timm", tuple(ARCHS)), ("effnet", ("b0", "lite4", "v2_s", "nano"))])
def test_every_variant_is_recognised_as_itself_alone(layout: str, variants: tuple[str, ...]) -> None:
    for arch in map(ARCHS.__getitem__, variants):
        table = key_map(layout, arch)
        tensors = {table[ours]: torch.empty(shape, device="meta") for ours, shape in tensor_shapes(arch).items()}
        found = detect_layouts(tensors)
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
    assert "it has no head and gets a new one of 17" in caplog.text


def test_a_head_of_another_size_is_replaced_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("nano", classes=10), tmp_path / "m.safetensors")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path, classes=4)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 4)
    assert "m.safetensors: its head of 10 classes is replaced by a new one of 4" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "effnet"):
        loaded = load(path, classes=10)
    assert torch.equal(loaded.classifier.weight, load(path).classifier.weight)
    assert not caplog.text


def test_what_a_file_cannot_say_can_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("nano"), tmp_path / "m.pth", layout="timm")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path, layout="timm", arch="nano", numerics=Numerics("symmetric", 1e-5))
    assert model.numerics == Numerics("symmetric", 1e-5)
    assert "given: symmetric padding, batch-norm ε 1e-05" in caplog.text
