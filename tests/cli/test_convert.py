"""``effnet convert``: another layout, verified."""

from __future__ import annotations

import json
from pathlib import Path

import effnet
from tests.cli.conftest import Run


def test_round_trip(run: Run, weights: Path, tmp_path: Path) -> None:
    converted = run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    assert converted.status == 0
    assert "nano with 3 classes in the layout of timm" in converted.out
    assert "verified by reading it back: largest difference" in converted.out
    assert "it expects same padding, batch-norm ε 0.001; images 32×32" in converted.out
    back = run(
        "convert", tmp_path / "m.pth", tmp_path / "back.safetensors", "--to", "effnet", "--arch", "nano", "--json"
    )
    data = json.loads(back.out)
    assert (data["layout"], data["arch"], data["classes"]) == ("effnet", "nano", 3)
    assert data["difference"] == 0
    assert effnet.load(tmp_path / "back.safetensors").provenance.source == "m.pth"


def test_numerics_options(run: Run, weights: Path, tmp_path: Path) -> None:
    run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    words = ("--arch", "nano", "--padding", "symmetric", "--bn-eps", "1e-5")
    assert run("convert", tmp_path / "m.pth", tmp_path / "m.safetensors", "--to", "effnet", *words).status == 0
    assert effnet.load(tmp_path / "m.safetensors").numerics == effnet.Numerics("symmetric", 1e-5)


def test_existing_file_is_kept(run: Run, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_text("mine")
    refused = run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    assert refused.status == 2
    assert "already exists" in refused.err
    assert (tmp_path / "m.pth").read_text() == "mine"
    assert run("convert", weights, tmp_path / "m.pth", "--to", "timm", "--force").status == 0


def test_unknown_layout_and_wrong_suffix(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("convert", weights, tmp_path / "m.pth", "--to", "caffe")
    assert done.status == 1
    assert "must be one of effnet, timm" in done.err
    assert "are written to .safetensors" in run("convert", weights, tmp_path / "m.pth", "--to", "effnet").err
    assert list(tmp_path.iterdir()) == []


def test_like_published_weights(run: Run, tmp_path: Path) -> None:
    effnet.save(effnet.create("b0", classes=2), tmp_path / "m.pth", layout="lukemelas")
    words = ("--to", "effnet", "--like", "b0/lukemelas_advprop")
    assert run("convert", tmp_path / "m.pth", tmp_path / "m.safetensors", *words).status == 0
    assert effnet.load(tmp_path / "m.safetensors").preprocess.mean == (0.5, 0.5, 0.5)
