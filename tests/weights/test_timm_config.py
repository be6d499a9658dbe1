"""timm's ``config.json``: what it states is read, and what is written is what timm reads."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.arch import ARCHS, variants
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet, create
from effnet.weights import load, save
from effnet.weights.formats.timm_config import build_timm_config, numerics_of_name, read_timm_config, timm_name

PREPROCESS = Preprocess((64, 96), 0.8, "crop", "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), resampling="tensorflow1")


@pytest.fixture
def model() -> EfficientNet:
    torch.manual_seed(0)
    network = create("b0", classes=3, numerics=Numerics("symmetric", 2e-3)).eval()
    network.labels, network.preprocess = Labels(("Ameise", "蜂", "crane")), PREPROCESS
    return network


@pytest.mark.parametrize("numerics", [Numerics(), Numerics("symmetric", 1e-5), Numerics("symmetric", 2e-3)])
@pytest.mark.parametrize("preprocess", [PREPROCESS, Preprocess((64, 64), 1.0, "squash", "nearest")])
def test_round_trip(model: EfficientNet, numerics: Numerics, preprocess: Preprocess, tmp_path: Path) -> None:
    written = create("b0", classes=3, numerics=numerics)
    written.labels, written.preprocess = model.labels, preprocess
    found = load(save(written, tmp_path / "model.safetensors", "timm"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for record in ("arch", "numerics", "preprocess", "labels", "classes"):
        assert getattr(found, record) == getattr(written, record), record


def test_other_padding_of_fused_convolutions(tmp_path: Path) -> None:
    written = create("edge_s", classes=3, numerics=Numerics("same", 1e-3, "symmetric"))
    assert load(save(written, tmp_path / "model.safetensors", "timm")).numerics == written.numerics


def test_timm_opens_it(model: EfficientNet, tmp_path: Path) -> None:
    declare_operators()
    timm = pytest.importorskip("timm")
    from timm.data import resolve_model_data_config

    save(model, tmp_path / "model.safetensors", "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.rand(1, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        expected, answer = model.double()(x), theirs.double()(x)
    assert ((answer - expected).abs().max() / expected.abs().max()).item() < 1e-12
    data = resolve_model_data_config(theirs)
    assert list(data["input_size"]) == [3, 64, 96]
    assert (data["crop_pct"], data["interpolation"], data["crop_mode"]) == (0.8, "bilinear", "center")
    assert tuple(theirs.pretrained_cfg["label_names"]) == model.labels.names


def test_what_a_lone_file_loses_is_said(model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        save(model, tmp_path / "b0.pth", "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["b0.pth"]
    assert "resampling" in caplog.text
    assert "3 classes" in caplog.text
    caplog.clear()
    official = create("b0")
    with caplog.at_level(logging.WARNING, "effnet"):
        save(official, tmp_path / "official.pth", "timm")
    assert "otherwise" not in caplog.text


def test_names_of_networks() -> None:
    declare_operators()
    timm = pytest.importorskip("timm")
    for name in ("b0", "l2", "lite4", "edge_m", "v2_b3", "v2_xl"):
        for padding in ("same", "symmetric"):
            assert timm.is_model(timm_name(ARCHS[name], padding)), (name, padding)
    for arch in variants.RELATED_ARCHS:
        assert timm.is_model(timm_name(arch)), arch.name
    assert timm_name(ARCHS["nano"]) is None
    assert timm_name(replace(ARCHS["b0"], dropout=0.5)) is None
    assert build_timm_config(create("nano")) is None


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("tf_efficientnet_b0.ns_jft_in1k", {}, Numerics("same", 1e-3)),
        ("timm/efficientnet_b0.ra_in1k", {}, Numerics("symmetric", 1e-5)),
        ("efficientnet_b1_pruned", {}, Numerics("same", 1e-3)),
        ("efficientnet_b0", {"bn_eps": 1e-3, "pad_type": None}, Numerics("symmetric", 1e-3)),
        ("efficientnet_b0", {"pad_type": "same"}, Numerics("same", 1e-5)),
    ],
)
def test_numerics_of_name(name: str, arguments: dict[str, Any], expected: Numerics) -> None:
    assert numerics_of_name(name, arguments) == expected


def test_flat_configurations() -> None:
    """As on the hub before 2023: one level, names as ``labels``; the size of the test is preferred."""
    config = {
        "architecture": "efficientnet_b0",
        "labels": ["crane", "bee", "crane"],
        "input_size": [3, 192, 192],
        "test_input_size": [3, 256, 224],
        "crop_pct": 0.9,
        "crop_mode": "squash",
        "mean": [0.5],
        "std": [0.25],
    }
    found = read_timm_config(config, "config.json")
    assert found["labels"].names == ("crane (0)", "bee", "crane (2)")
    assert found["preprocess"] == {
        "size": (256, 224),
        "crop_fraction": 0.9,
        "resize": "squash",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"pretrained_cfg": {"input_size": "large"}},
        {"pretrained_cfg": {"mean": ["a"], "std": ["b"]}},
        {"label_names": {"one": "ant"}},
        {"model_args": {"bn_eps": "small"}},
    ],
)
def test_values_that_make_no_sense(change: dict[str, Any], tmp_path: Path) -> None:
    save(create("b0"), tmp_path / "model.safetensors", "timm")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path)
