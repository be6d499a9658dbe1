"""convert: into another layout, checked."""

from __future__ import annotations

import json
from pathlib import Path

import effnet
from tests.cli.conftest import Run


def test_there_and_back(run: Run, weights: Path, tmp_path: Path) -> None:
    there = run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    assert there.status == 0
    assert "nano with 3 classes in timm's layout" in there.out
    assert "read back and asked the same: largest difference" in there.out
    assert "it expects same padding, batch-norm ε 0.001; pictures 32×32" in there.out
    back = run(
        "convert", tmp_path / "m.pth", tmp_path / "back.safetensors", "--to", "effnet", "--arch", "nano", "--json"
    )
    told = json.loads(back.out)
    assert (told["layout"], told["arch"], told["classes"]) == ("effnet", "nano", 3)
    assert told["difference"] == 0
    assert effnet.load(tmp_path / "back.safetensors").provenance.source == "m.pth"


def test_what_the_file_cannot_say_can_be_said(run: Run, weights: Path, tmp_path: Path) -> None:
    run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    words = ("--arch", "nano", "--padding", "symmetric", "--bn-eps", "1e-5")
    assert run("convert", tmp_path / "m.pth", tmp_path / "m.safetensors", "--to", "effnet", *words).status == 0
    assert effnet.load(tmp_path / "m.safetensors").numerics == effnet.Numerics("symmetric", 1e-5)


def test_what_is_there_stays(run: Run, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_text("mine")
    refused = run("convert", weights, tmp_path / "m.pth", "--to", "timm")
    assert refused.status == 2
    assert "already there" in refused.err
    assert (tmp_path / "m.pth").read_text() == "mine"
    assert run("convert", weights, tmp_path / "m.pth", "--to", "timm", "--force").status == 0


def test_an_unknown_layout_and_a_wrong_suffix(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("convert", weights, tmp_path / "m.pth", "--to", "caffe")
    assert done.status == 1
    assert "must be one of effnet, timm" in done.err
    assert "are written to .safetensors" in run("convert", weights, tmp_path / "m.pth", "--to", "effnet").err
    assert list(tmp_path.iterdir()) == []


def test_like_a_card(run: Run, tmp_path: Path) -> None:
    effnet.save(effnet.create("b0", classes=2), tmp_path / "m.pth", layout="lukemelas")
    words = ("--to", "effnet", "--like", "b0/lukemelas_advprop")
    assert run("convert", tmp_path / "m.pth", tmp_path / "m.safetensors", *words).status == 0
    assert effnet.load(tmp_path / "m.safetensors").preprocess.mean == (0.5, 0.5, 0.5)
