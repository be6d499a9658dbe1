"""Networks are found under any prefix, beside anything, with any head; of several the documented one is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effnet.arch import ARCHS
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.conversion import drop_batch_counters, layout_shapes
from effnet.weights.detect import Detection, choose, describe_nearest, detect_layouts

State = dict[str, Tensor]
NANO = (ARCHS["nano"],)
FEATURES = 192  # of nano


def state(seed: int = 0, classes: int = 5, prefix: str = "") -> State:
    """Return the tensors of nano in timm's layout."""
    torch.manual_seed(seed)
    tensors = convert(drop_batch_counters(create("nano", classes).state_dict()), ARCHS["nano"], "effnet", "timm")
    return {prefix + name: tensor for name, tensor in tensors.items()}


def detect(tensors: State, **options: Any) -> Detection:
    return choose(detect_layouts(tensors, NANO, **options))


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.", "0.model.", "classifier.", "a.b.c.", "head."])
def test_any_prefix(prefix: str) -> None:
    expected, others = state(), {"criterion.weight": torch.ones(5), "accuracy.confmat": torch.zeros(5, 5)}
    found = detect(state(prefix=prefix) | others)
    assert (found.prefix, found.layout, found.classes) == (prefix, "timm", 5)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.tensors.items())
    assert any("criterion.weight" in note for note in found.notes)
    assert any(prefix.rstrip(".") in note for note in found.notes)


def test_more_blocks_of_the_same_names_are_another_network() -> None:
    tensors = state() | {"blocks.2.3.conv_pw.weight": torch.zeros(192, 48, 1, 1)}
    assert detect_layouts(tensors, NANO) == []
    assert "blocks.2.3.conv_pw.weight" in describe_nearest(tensors, NANO)


ROOTS = [
    ("torchvision", "features.", "features."),
    ("torchvision", "features.", "net.features."),
    ("torchvision", "features.", "0.0."),
    ("huggingface", "efficientnet.", "efficientnet."),
    ("huggingface", "efficientnet.", "model.efficientnet."),
    ("huggingface", "efficientnet.", ""),
    ("huggingface", "efficientnet.", "encoder."),
    ("lukemelas", "", "encoder."),
    ("effnet", "", "model."),
]


@pytest.mark.parametrize(("layout", "root", "written"), ROOTS)
def test_the_module_around_the_backbone_may_have_any_name(layout: str, root: str, written: str) -> None:
    shapes = layout_shapes(layout, ARCHS["b0"], classes=0)
    tensors = {written + name.removeprefix(root): torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    (found,) = detect_layouts(tensors | {"fc.weight": torch.zeros(7, 1280)})
    assert (found.layout, found.arch.name, found.classes, found.head) == (layout, "b0", 7, "fc")
    assert found.prefix == written.removesuffix(root)
    assert set(found.names.values()) == set(tensors)


def test_an_exact_prefix_comes_first(tmp_path: Path) -> None:
    torch.save(state(1, prefix="model.") | state(2, prefix="student.model."), tmp_path / "m.pth")
    for prefix, seed in (("model", 1), ("student.model", 2)):
        model = load(tmp_path / "m.pth", arch="nano", prefix=prefix)
        assert torch.equal(model.stem.conv.weight, state(seed)["conv_stem.weight"])


def test_our_own_file_has_one_network(tmp_path: Path) -> None:
    path = save(create("nano"), tmp_path / "m.safetensors")
    for option in ("prefix", "head"):
        with pytest.raises(ValueError, match=f"contains one network: omit --{option} x"):
            load(path, **{option: "x"})


@pytest.mark.parametrize(
    ("own", "average"), [("model.", "model_ema.module."), ("net.", "ema."), ("net.", "swa_model."), ("m.", "avg_m.")]
)
def test_an_average_is_taken_before_the_weights(own: str, average: str) -> None:
    found = detect(state(1, prefix=own) | state(2, prefix=average))
    assert found.prefix == average
    assert torch.equal(found.tensors["conv_stem.weight"], state(2)["conv_stem.weight"])
    assert any("averaged" in note and own.rstrip(".") in note for note in found.notes)


def test_a_student_is_taken_before_its_teacher() -> None:
    assert detect(state(1, prefix="teacher.") | state(2, prefix="student.")).prefix == "student."


def test_between_equals_the_user_chooses(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(state(1, prefix="left.") | state(2, prefix="right."), path)
    with pytest.raises(ValueError, match=r"contains 2 networks, left, right: choose one with --prefix"):
        load(path, arch="nano")
    for prefix in ("right", "right."):
        assert torch.equal(load(path, arch="nano", prefix=prefix).stem.conv.weight, state(2)["conv_stem.weight"])
    with pytest.raises(ValueError, match="no network under the prefix top: --prefix can be left, right"):
        load(path, arch="nano", prefix="top")


def test_one_network_twice_is_one_network() -> None:
    assert detect(state(prefix="a.") | state(prefix="b.")).prefix == "a."


def linear(outputs: int, inputs: int = FEATURES, name: str = "", bias: bool = True) -> State:
    layer = nn.Linear(inputs, outputs, bias)
    return {f"{name}{part}": value.detach() for part, value in layer.named_parameters()}


def norm(features: int, name: str) -> State:
    generator = torch.Generator().manual_seed(features)
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}{part}": torch.rand(features, generator=generator) + 0.5 for part in parts}


def headless(prefix: str = "") -> State:
    return state(classes=0, prefix=prefix)


def apply_head(tensors: State, order: list[str], x: Tensor) -> Tensor:
    """Apply batch norms and linear layers in this order, in float64."""
    for name in order:
        part = {key.rpartition(".")[2]: value.double() for key, value in tensors.items() if key.startswith(name)}
        if "running_var" in part:
            x = (x - part["running_mean"]) / (part["running_var"] + 1e-5).sqrt() * part["weight"] + part["bias"]
        else:
            x = x @ part["weight"].T + part.get("bias", torch.zeros(()))
    return x


HEADS: dict[str, tuple[State, list[str]]] = {
    "Dropout and Linear": (linear(7, name="classifier.1."), ["classifier.1."]),
    "fc of another module": (linear(7, name="fc."), ["fc."]),
    "no bias": (linear(7, name="fc.", bias=False), ["fc."]),
    "batch norm before": (norm(FEATURES, "h.0.") | linear(7, name="h.2."), ["h.0.", "h.2."]),
    "batch norm after": (linear(7, name="h.0.") | norm(7, "h.1."), ["h.0.", "h.1."]),
    "both": (norm(FEATURES, "h.0.") | linear(7, name="h.2.") | norm(7, "h.9."), ["h.0.", "h.2.", "h.9."]),
    "equal sizes, before": (norm(FEATURES, "h.2.") | linear(FEATURES, name="h.10."), ["h.2.", "h.10."]),
    "equal sizes, after": (linear(FEATURES, name="h.2.") | norm(FEATURES, "h.10."), ["h.2.", "h.10."]),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_one_linear_layer_is_the_classifier(name: str, prefix: str) -> None:
    head, order = HEADS[name]
    found = detect(headless(prefix) | head)
    x = torch.rand(4, FEATURES, dtype=torch.double)
    ours = x @ found.tensors["classifier.weight"].double().T + found.tensors["classifier.bias"].double()
    expected = apply_head(head, order, x)
    assert found.classes == expected.shape[1]
    assert (ours - expected).abs().max() <= 1e-6 * expected.abs().max()


OTHER_HEADS: dict[str, State] = {
    "two linear layers": linear(64, name="head.0.") | linear(7, 64, name="head.3."),
    "generalized mean": linear(7, name="classifier.") | {"global_pool.p": torch.tensor([3.0])},
    "pooling twice": norm(2 * FEATURES, "1.2.") | linear(7, 2 * FEATURES, name="1.4."),
    "a decoder": {"decoder.0.weight": torch.zeros(8, 48, 3, 3), "decoder.0.bias": torch.zeros(8)},
    "layer norm": {"ln.weight": torch.ones(FEATURES), "ln.bias": torch.zeros(FEATURES)} | linear(7, name="fc."),
    "PReLU": {"act.weight": torch.ones(1)} | linear(7, name="fc."),
}


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_after_another_head_only_the_backbone_opens(name: str) -> None:
    found = detect(headless("backbone.") | OTHER_HEADS[name])
    assert (found.classes, found.head) == (0, "")
    assert any("without a classifier" in note for note in found.notes)


def test_of_several_linear_layers_the_user_chooses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, species = tmp_path / "m.pth", linear(5, name="species.")
    torch.save(headless("backbone.") | species | linear(3, name="color."), path)
    with caplog.at_level(logging.INFO, "effnet"):
        assert load(path, arch="nano").classes == 0
    assert "species or color could be it, choose with --head" in caplog.text
    model = load(path, arch="nano", head="species")
    assert isinstance(model.classifier, nn.Linear)
    assert torch.equal(model.classifier.weight, species["species.weight"])
    with pytest.raises(ValueError, match=r"m\.pth: size is no linear layer of 192 inputs"):
        load(path, arch="nano", head="size")


def test_a_head_of_two_layers_can_be_taken_by_name() -> None:
    tensors = headless("backbone.") | norm(FEATURES, "bn.") | linear(64, name="a.0.") | linear(7, 64, name="a.3.")
    assert detect(tensors, head="a.0").classes == 64


def test_a_missing_head_convolution_is_initialized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {name: tensor for name, tensor in headless().items() if not name.startswith(("conv_head", "bn2"))}
    torch.save(tensors, tmp_path / "m.pth")
    with caplog.at_level(logging.INFO, "effnet"):
        one, other = (load(tmp_path / "m.pth", arch="nano") for _ in range(2))
    assert "no head convolution" in caplog.text
    assert (one.classes, one.embed(torch.rand(1, 3, 32, 32)).shape) == (0, (1, FEATURES))
    assert torch.equal(one.head.conv.weight, other.head.conv.weight)


def resnet() -> State:
    from torchvision.models import resnet18

    return {name: value for name, value in resnet18().state_dict().items() if value.ndim}


def without_names() -> State:
    return {f"layer{index}": torch.zeros(2) for index in range(40)}


def with_other_shapes() -> State:
    return {name: torch.zeros(1) for name in state()}


def hollow() -> State:
    return {name: tensor for name, tensor in state(prefix="net.").items() if ".bn1." not in name}


@pytest.mark.parametrize("write", [resnet, without_names, with_other_shapes, hollow, dict])
def test_a_refusal_has_six_lines_and_names_the_nearest_network(write: Callable[[], State]) -> None:
    message = describe_nearest(write())
    assert len(message.splitlines()) <= 6
    assert "nearest is" in message
    assert "--arch" in message


def test_the_nearest_network_is_the_right_one() -> None:
    message = describe_nearest(hollow(), NANO)
    assert "nearest is nano in timm's layout under net" in message
    assert "missing net.blocks.0.0.bn1.weight 16" in message


SEQUENTIAL, RELU = "torch.nn.modules.container.Sequential", "torch.nn.modules.activation.ReLU"
SILENT: dict[str, tuple[dict[str, str], int]] = {
    "dropout": ({"head.__class__": SEQUENTIAL, "head.0.__class__": "torch.nn.modules.dropout.Dropout"}, 7),
    "activation before": ({"head.__class__": SEQUENTIAL, "head.0.__class__": RELU}, 0),
    "activation after": ({"head.__class__": SEQUENTIAL, "head.9.__class__": RELU}, 7),
    "activation of the network": ({"act.__class__": RELU, "blocks.0.0.bn1.act.__class__": RELU}, 7),
    "largest": ({"backbone.global_pool.pool_type": "max"}, 0),
    "average": ({"backbone.global_pool.pool_type": "avg"}, 7),
    "another pooling": ({"pool.__class__": "torch.nn.modules.pooling.AdaptiveMaxPool2d"}, 0),
}


@pytest.mark.parametrize("name", SILENT)
def test_modules_without_tensors_can_make_it_another_head(name: str) -> None:
    values, classes = SILENT[name]
    assert detect(headless("backbone.") | linear(7, name="head.2."), values=values).classes == classes


def test_a_normalized_weight_is_no_linear_layer() -> None:
    tensors = {"fc.weight_g": torch.ones(7, 1), "fc.weight_v": torch.ones(7, FEATURES), "fc.bias": torch.ones(7)}
    assert detect(headless("backbone.") | tensors).classes == 0
    assert detect(headless("backbone.") | tensors | linear(3, name="other.")).classes == 0
