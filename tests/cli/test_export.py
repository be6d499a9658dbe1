"""``effnet export``: a file for another runtime, verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.weights import load
from tests.cli.conftest import Run

pytest.importorskip("onnxruntime")


def test_output(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("export", weights, tmp_path / "m.onnx")
    assert done.status == 0
    assert "m.onnx: onnx, 0.4 MB, uint8 pixels (batch, 32, 32, 3) → probabilities" in done.out
    assert "verified with 6 images: largest difference" in done.out
    assert "of the largest logit, same top-1 on 6" in done.out


def test_every_option_as_json(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    words = (
        "--to",
        "onnx",
        "--input-type",
        "floats",
        "--output-type",
        "logits",
        "--size",
        "37x40",
        "--embedding",
        "--json",
    )
    done = run("export", weights, tmp_path / "m", *words, "--images", photos, "--tolerance", "1e-3", "--offline")
    data = json.loads(done.out)
    assert data["interface"] == {"input": "floats", "output": "logits", "embedding": True, "size": [37, 40]}
    assert (data["written"], data["format"], data["images"]) == (str(tmp_path / "m"), "onnx", 4)
    assert data["bytes"] == (tmp_path / "m").stat().st_size
    assert 0 <= data["difference"] < 1e-5
    assert data["same_predictions"] == 4


def test_any_size_of_a_run_directory(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("export", weights.parent, tmp_path / "m.onnx", "--size", "any")
    assert "(batch, height, width, 3)" in done.out
    assert "with 12 images" in done.out


def test_exported_file_in_other_commands(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    exported = tmp_path / "m.onnx"
    assert run("export", weights, exported).status == 0
    assert run("show", exported).out.startswith("nano at 32×32")
    assert run("predict", next(photos.rglob("*.jpg")), "--model", exported).status == 0
    assert run("convert", exported, tmp_path / "m.pth", "--to", "timm").status == 0  # its weights are read
    assert run("export", weights, tmp_path / "m.xml").status == 0
    refused = run("convert", tmp_path / "m.xml", tmp_path / "n.pth", "--to", "timm")
    assert refused.status == 1
    assert "weights are not read from .xml files" in refused.err


def test_existing_file_is_kept(run: Run, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    (tmp_path / "m.bin").write_text("mine too")
    for name, taken in (("m.onnx", "m.onnx"), ("m.xml", "m.bin")):
        refused = run("export", weights, tmp_path / name)
        assert refused.status == 2
        assert f"{taken} already exists" in refused.err
    assert (tmp_path / "m.onnx").read_text() == "mine"
    assert run("export", weights, tmp_path / "m.onnx", "--force").status == 0
    assert (tmp_path / "m.bin").read_text() == "mine too"


def test_int8(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(10):
        source = sorted(photos.rglob("*.*g"))[index % 4]
        (folder / f"{index}{source.suffix}").write_bytes(source.read_bytes())
    words = ("--precision", "int8", "--images", folder)
    done = run("export", weights, tmp_path / "m.onnx", *words)
    assert done.status == 0, done.err
    assert "m.onnx: onnx, int8, " in done.out
    assert "6 of 23 layers in float; agreement " in done.out
    data = json.loads(run("export", weights, tmp_path / "j.onnx", *words, "--max-drop", "100", "--json").out)
    assert (data["written"], data["format"], data["images"]) == (str(tmp_path / "j.onnx"), "onnx", 10)
    assert data["drop"] == pytest.approx(100 * (data["float_score"] - data["int8_score"]))
    assert run("predict", next(photos.rglob("*.jpg")), "--model", tmp_path / "m.onnx").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--precision", "int8"), "--precision int8 requires --images"),
        (
            ("--precision", "int8", "--images", "x", "--size", "any"),
            "--image-size cannot be combined with --precision int8",
        ),
        (("--max-drop", "1"), "--max-drop requires --precision int8"),
    ],
)
def test_int8_usage_errors(run: Run, weights: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    refused = run("export", weights, tmp_path / "m.onnx", *words)
    assert refused.status == 2
    assert message in refused.err
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("name", "words", "status", "message"),
    [
        ("m.h5", (), 1, ".onnx (onnx), .xml (openvino), .tflite (litert), .pt2 (torch)"),
        ("m.onnx", ("--to", "litert"), 1, "suffix '.onnx' does not fit litert"),
        ("m.onnx", ("--size", "0"), 2, "is not a size"),
        ("m.onnx", ("--size", "large"), 2, "is not a size"),
        ("m.onnx", ("--images", "nowhere"), 1, "nowhere does not exist"),
        ("m.onnx", ("--tolerance", "0"), 1, "is not written"),
    ],
)
def test_errors(
    name: str, words: tuple[str, ...], status: int, message: str, run: Run, weights: Path, tmp_path: Path
) -> None:
    done = run("export", weights, tmp_path / name, *words)
    assert (done.status, list(tmp_path.iterdir())) == (status, [])
    assert message in done.err
    assert "Traceback" not in done.err


def test_stated_preprocessing(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    stated = "size=37x40,crop=0.9,mean=0.5,std=0.2/0.3/0.4,interpolation=bilinear,resize=squash,resampling=tensorflow"
    assert run("convert", weights, tmp_path / "m.safetensors", "--to", "effnet", "--preprocess", stated).status == 0
    found = load(tmp_path / "m.safetensors").preprocess
    assert (found.size, found.crop_fraction, found.mean, found.std) == ((37, 40), 0.9, (0.5,) * 3, (0.2, 0.3, 0.4))
    assert (found.interpolation, found.resize, found.resampling) == ("bilinear", "squash", "tensorflow")
    photo = next(photos.rglob("*.jpg"))
    asked = run("predict", photo, "--model", weights, "--preprocess", stated, "--json", "--engine", "eager")
    assert asked.out == run("predict", photo, "--model", tmp_path / "m.safetensors", "--json", "--engine", "eager").out
    for wrong, complaint in (("sharp=1", "expected NAME=VALUE with size"), ("mean=a", "'a' is not a number")):
        refused = run("predict", photo, "--model", weights, "--preprocess", wrong)
        assert refused.status == 2
        assert complaint in refused.err
