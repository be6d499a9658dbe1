"""The layouts of PyTorch's ecosystems: names counted against their own networks, and every way between them."""

from __future__ import annotations

import logging
from importlib import import_module
from itertools import permutations
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS, tensors
from effnet.contract import Numerics
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.conversion import counted, names
from effnet.weights.layouts import LAYOUTS
from effnet.weights.recognition import recognise

ECOSYSTEMS = {"torchvision": "torchvision", "lukemelas": "efficientnet_pytorch", "huggingface": "transformers"}
EVERY = [(layout, name) for layout in ECOSYSTEMS for name in LAYOUTS[layout].archs]
PAIRS = [
    (name, *pair)
    for name in ("b0", "v2_b0", "v2_s")
    for pair in permutations(
        [layout for layout in ("effnet", "timm", *ECOSYSTEMS) if LAYOUTS[layout].has(ARCHS[name])], 2
    )
]


def peer(layout: str) -> ModuleType:
    """The ecosystem as its users use it."""
    pytest.importorskip(ECOSYSTEMS[layout])
    return import_module(f"tests.parity.peers.{layout}")


def numbered(name: str) -> dict[str, Tensor]:
    """Random tensors under our names."""
    torch.manual_seed(0)
    return {key: torch.randn(shape) for key, shape in tensors(ARCHS[name], classes=3).items()}


def hollow(layout: str, name: str, classes: int = 1000) -> dict[str, Tensor]:
    """Tensors of a layout without memory."""
    theirs = names(layout, ARCHS[name], classes)
    return {theirs[ours]: torch.empty(s, device="meta") for ours, s in tensors(ARCHS[name], classes).items()}


@pytest.mark.parametrize(("name", "layout", "other"), PAIRS)
def test_there_and_back_again_changes_no_bit(name: str, layout: str, other: str) -> None:
    given = convert(numbered(name), ARCHS[name], "effnet", layout)
    back = convert(convert(given, ARCHS[name], layout, other), ARCHS[name], other, layout)
    assert list(back) == list(given)
    assert all(torch.equal(back[key], given[key]) for key in given)


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_names_and_shapes_are_those_of_its_own_network(layout: str, name: str) -> None:
    known = peer(layout)
    with torch.device("meta"):
        network = known.made(name)
    theirs = {key: tuple(value.shape) for key, value in counted(network.state_dict()).items()}
    assert {key: tuple(value.shape) for key, value in hollow(layout, name).items()} == theirs


@pytest.mark.parametrize("classes", [1000, 0])
@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_it_is_recognised_as_itself_alone(layout: str, name: str, classes: int) -> None:
    found = recognise(hollow(layout, name, classes))
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
    assert LAYOUTS[layout].fixed


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
    given = convert(counted(create(name).state_dict()), ARCHS[name], "effnet", "timm")
    del given["bn1.weight"]
    torch.save(given, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=rf"weights of {name} in timm's layout; 1 differ:\n  missing bn1\.weight"):
        load(tmp_path / "m.pth", arch=name)


def test_numerics_that_the_ecosystem_has_not_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        save(create("b0", numerics=Numerics("symmetric", 1e-5)), tmp_path / "fits.pth", "torchvision")
        assert caplog.text == ""
        save(create("b0"), tmp_path / "m.pth", "torchvision")
    assert "computes with symmetric padding, batch-norm ε 1e-05, these weights expect same padding" in caplog.text
