"""Padding and ε of timm's files, which have the same tensors for both: every piece of evidence, in its order."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from effnet.arch import ARCHS
from effnet.metadata import Numerics
from effnet.net import create
from effnet.weights import conversion, load
from effnet.weights.catalog import find_entry
from effnet.weights.formats import Checkpoint
from effnet.weights.numerics_evidence import find_name, model_name, stated_names

NATIVE, PORTED = Numerics("symmetric", 1e-5), Numerics("same", 1e-3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """A B0 under timm's names, with statistics that were never measured."""
    torch.manual_seed(0)
    return conversion.convert(create("b0", classes=3).state_dict(), ARCHS["b0"], "effnet", "timm")


def loaded(path: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Numerics, str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "effnet"):
        return load(path, **options).numerics, caplog.text


def test_order_of_evidence(tensors: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is found, and hides all that follow it."""
    path = tmp_path / "models--timm--efficientnet_b0.ra_in1k" / "pytorch_model.bin"
    path.parent.mkdir()
    torch.save(tensors, path)
    assert loaded(path, caplog) == (NATIVE, caplog.text)
    assert "efficientnet_b0, by the hub's identifier" in caplog.text
    path.with_name("config.json").write_text(json.dumps({"architecture": "tf_efficientnet_b0"}))
    assert loaded(path, caplog)[0] == PORTED
    assert "config.json beside it (tf_efficientnet_b0)" in caplog.text
    torch.save({"state_dict": tensors, "arch": "efficientnet_b0"}, path)
    assert loaded(path, caplog)[0] == NATIVE
    assert "efficientnet_b0, by arch" in caplog.text
    arguments = Namespace(model="efficientnet_b0", bn_eps=1e-3, mean=[0.5], std=[0.25], img_size=192)
    torch.save({"state_dict": tensors, "args": arguments}, path)
    assert loaded(path, caplog)[0] == Numerics("symmetric", 1e-3)
    preprocess = load(path).preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == ((192, 192), (0.5,) * 3, (0.25,) * 3)
    assert loaded(path, caplog, numerics=PORTED)[0] == PORTED
    assert "given" in caplog.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet_b0_ra-3dd342df.pth", NATIVE),
        ("tf_efficientnet_b0_ns-c0e6a31c.pth", PORTED),
        ("fold1_tf_efficientnet_b0.pth", PORTED),
        ("my_efficientnet_b0.ra_in1k_flowers.pth", NATIVE),
    ],
)
def test_file_names(
    name: str, expected: Numerics, tensors: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(tensors, tmp_path / name)
    assert loaded(tmp_path / name, caplog)[0] == expected
    assert "the file's name" in caplog.text
    assert "WARNING: " not in caplog.text


def test_without_evidence(tensors: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "efficientnet_b4_student.pth"  # another network's name says nothing of this one
    torch.save(tensors, path)
    assert loaded(path, caplog)[0] == PORTED
    for words in ("WARNING: ", "same padding", "symmetric padding", "--padding", "no running statistics"):
        assert words in caplog.text
    assert loaded(path, caplog, padding="symmetric")[0] == NATIVE  # with the ε that goes with it
    assert "WARNING: " not in caplog.text
    assert loaded(path, caplog, padding="symmetric", bn_eps=1e-3)[0] == Numerics("symmetric", 1e-3)
    assert loaded(path, caplog, bn_eps=1e-4)[0] == Numerics("same", 1e-4)
    assert "WARNING: " in caplog.text


def test_one_given_field_of_stated_numerics(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "tf_efficientnet_b0.safetensors"
    save_file(tensors, path)
    assert load(path, padding="symmetric").numerics == Numerics("symmetric", 1e-3)
    assert load(path, bn_eps=1e-4).numerics == Numerics("same", 1e-4)


def test_images_by_the_card(tmp_path: Path) -> None:
    """timm's native Lite0 expects ImageNet's mean and std, the official one (x − 127) / 128."""
    weights = conversion.convert(create("lite0", classes=3).state_dict(), ARCHS["lite0"], "effnet", "timm")
    for name, card in (("efficientnet_lite0", "lite0/ra_in1k"), ("tf_efficientnet_lite0", "lite0/tf_in1k")):
        torch.save(weights, tmp_path / f"{name}.pth")
        found, expected = load(tmp_path / f"{name}.pth").preprocess, find_entry(card).preprocess
        assert (found.mean, found.std, found.interpolation) == (expected.mean, expected.std, expected.interpolation)
    tagged = tmp_path / "efficientnet_b0.ra4_e3600_r224_in1k.pth"
    torch.save(conversion.convert(create("b0", classes=3).state_dict(), ARCHS["b0"], "effnet", "timm"), tagged)
    assert load(tagged).preprocess == find_entry("b0/ra4").preprocess


@pytest.mark.parametrize(
    ("text", "found", "model"),
    [
        ("tf_efficientnet_b0_ns-c0e6a31c", "tf_efficientnet_b0_ns", "tf_efficientnet_b0"),
        ("EfficientNet_B0", "efficientnet_b0", "efficientnet_b0"),
        ("run3-efficientnet_b0_best", "efficientnet_b0_best", "efficientnet_b0"),
        ("efficientnet-b0", None, None),
        ("notefficientnet_b0", None, None),
        ("efficientnet_b1", "efficientnet_b1", None),
    ],
)
def test_names_in_texts(text: str, found: str | None, model: str | None) -> None:
    assert find_name(text) == found
    assert found is None or model_name(found, ARCHS["b0"]) == model


def test_stated_names() -> None:
    checkpoint = Checkpoint(
        {},
        values={"args.model": "tf_efficientnet_b1", "arch": "efficientnet_b2"},
        arch_name="efficientnet_b3",
        stated_in={"arch_name": "config.json beside it"},
    )
    found = stated_names(Path("efficientnet_b4/efficientnet_b5.pth"), checkpoint, "me/efficientnet_b6")
    names = [f"efficientnet_b{number}" for number in (1, 2, 3, 6, 5, 4)]
    assert [each.name for each in found] == [f"tf_{names[0]}", *names[1:]]
