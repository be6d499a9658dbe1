"""export: a file for another runtime, checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

pytest.importorskip("onnxruntime")


def test_what_is_told(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("export", weights, tmp_path / "m.onnx")
    assert done.status == 0
    assert "m.onnx: onnx, 0.4 MB, uint8 pixels (batch, 32, 32, 3) → probabilities" in done.out
    assert "compared with the network on 6 pictures: largest difference" in done.out
    assert "of the largest logit, the same top-1 on 6" in done.out


def test_every_option_as_json(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    words = ("--to", "onnx", "--input", "floats", "--output", "logits", "--size", "37x40", "--embedding", "--json")
    done = run("export", weights, tmp_path / "m", *words, "--pictures", photos, "--tolerance", "1e-3", "--offline")
    told = json.loads(done.out)
    assert told["interface"] == {"input": "floats", "output": "logits", "embedding": True, "size": [37, 40]}
    assert (told["written"], told["format"], told["pictures"]) == (str(tmp_path / "m"), "onnx", 4)
    assert told["bytes"] == (tmp_path / "m").stat().st_size
    assert 0 <= told["difference"] < 1e-5
    assert told["same_predictions"] == 4


def test_any_size_of_a_runs_folder(run: Run, weights: Path, tmp_path: Path) -> None:
    done = run("export", weights.parent, tmp_path / "m.onnx", "--size", "any")
    assert "(batch, height, width, 3)" in done.out
    assert "on 12 pictures" in done.out


def test_what_an_exported_file_is_good_for(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.onnx"
    assert run("export", weights, made).status == 0
    assert run("show", made).out.startswith("nano at 32×32")
    assert run("predict", next(photos.rglob("*.jpg")), "--model", made).status == 0
    refused = run("convert", made, tmp_path / "m.pth", "--to", "timm")
    assert refused.status == 1
    assert "was exported for another runtime" in refused.err


def test_what_is_there_stays(run: Run, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    (tmp_path / "m.bin").write_text("mine too")
    for name, taken in (("m.onnx", "m.onnx"), ("m.xml", "m.bin")):
        refused = run("export", weights, tmp_path / name)
        assert refused.status == 2
        assert f"{taken} is already there" in refused.err
    assert (tmp_path / "m.onnx").read_text() == "mine"
    assert run("export", weights, tmp_path / "m.onnx", "--force").status == 0
    assert (tmp_path / "m.bin").read_text() == "mine too"


def test_int8(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(10):
        source = sorted(photos.rglob("*.*g"))[index % 4]
        (folder / f"{index}{source.suffix}").write_bytes(source.read_bytes())
    words = ("--precision", "int8", "--pictures", folder)
    done = run("export", weights, tmp_path / "m.onnx", *words)
    assert done.status == 0, done.err
    assert "m.onnx: onnx, int8, " in done.out
    assert "6 of 23 layers in float; agreement " in done.out
    told = json.loads(run("export", weights, tmp_path / "j.onnx", *words, "--max-drop", "100", "--json").out)
    assert (told["written"], told["format"], told["images"]) == (str(tmp_path / "j.onnx"), "onnx", 10)
    assert told["drop"] == pytest.approx(100 * (told["float_score"] - told["int8_score"]))
    assert run("predict", next(photos.rglob("*.jpg")), "--model", tmp_path / "m.onnx").status == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "int8"), "int8 needs a folder"),
        (("--precision", "int8", "--pictures", "x", "--size", "any"), "int8 goes without"),
        (("--max-drop", "1"), "goes with --precision int8"),
    ],
)
def test_int8_refused(run: Run, weights: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused = run("export", weights, tmp_path / "m.onnx", *words)
    assert refused.status == 2
    assert said in refused.err.replace("│", "").replace("\n", " ")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("name", "words", "status", "said"),
    [
        ("m.h5", (), 1, ".onnx (onnx), .xml (openvino), .tflite (litert), .pt2 (torch)"),
        ("m.onnx", ("--to", "litert"), 1, ".onnx' does not fit litert"),
        ("m.onnx", ("--size", "0"), 2, "is no size"),
        ("m.onnx", ("--size", "large"), 2, "is no size"),
        ("m.onnx", ("--pictures", "nowhere"), 1, "nowhere does not exist"),
        ("m.onnx", ("--tolerance", "0"), 1, "is not written"),
    ],
)
def test_what_is_refused(
    name: str, words: tuple[str, ...], status: int, said: str, run: Run, weights: Path, tmp_path: Path
) -> None:
    done = run("export", weights, tmp_path / name, *words)
    assert (done.status, list(tmp_path.iterdir())) == (status, [])
    assert said in done.err
    assert "Traceback" not in done.err
