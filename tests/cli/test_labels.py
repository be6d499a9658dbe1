"""``--labels FILE`` in every command that shows or matches labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import effnet
from tests.cli.conftest import Run


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("bee\nant\nowl\n")
    return path


def test_predict(run: Run, weights: Path, photos: Path, labels: Path, tmp_path: Path) -> None:
    photo, own = photos / "ant" / "1.jpg", ("ant", "bee", "[wasp]")
    before, after = (
        json.loads(run("predict", photo, "-m", weights, "--json", *words).out)[0]["labels"]
        for words in ((), ("--labels", labels))
    )
    renamed = dict(zip(own, ("bee", "ant", "owl"), strict=True))
    assert [renamed[one["label"]] for one in before] == [one["label"] for one in after]
    assert run("predict", photos, "-m", weights, "--labels", labels, "-o", tmp_path / "all.csv").status == 0
    with (tmp_path / "all.csv").open() as file:
        assert {value for row in csv.DictReader(file) for value in row.values()} & {"bee", "ant", "owl"}
    # another file of labels, other predictions: not resumed
    again = run("predict", photos, "-m", weights, "-o", tmp_path / "all.csv")
    assert again.status != 0
    assert "--force" in again.err


def test_evaluate_explain_convert_export(run: Run, weights: Path, photos: Path, labels: Path, tmp_path: Path) -> None:
    plain, renamed = (
        json.loads(run("evaluate", weights, photos, "--json", *words).out) for words in ((), ("--labels", labels))
    )
    assert [row["name"] for row in renamed["classes"]] == ["bee", "ant", "owl"]
    assert [row["images"] for row in renamed["classes"]] == [1 + 1, 1 + 1, 0]
    assert plain["images"] == renamed["images"] == 4
    done = run("explain", weights, photos, "-o", tmp_path / "maps", "--labels", labels, "--classes", "owl", "--json")
    assert json.loads(done.out)[0]["explained"][0] | {"probability": 0, "logit": 0} == {
        "label": "owl",
        "class": 2,
        "probability": 0,
        "logit": 0,
    }
    assert run("convert", weights, tmp_path / "named.safetensors", "--to", "effnet", "--labels", labels).status == 0
    assert effnet.load(tmp_path / "named.safetensors").labels.names == ("bee", "ant", "owl")
    assert run("export", weights, tmp_path / "named.onnx", "--labels", labels).status == 0
    assert effnet.Predictor(tmp_path / "named.onnx").labels.names == ("bee", "ant", "owl")


@pytest.mark.parametrize("words", [("predict", "PHOTO", "-m"), ("doctor",), ("serve", "--port", "0")])
def test_another_number(run: Run, weights: Path, photos: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "two.txt").write_text("bee\nant\n")
    filled = [photos / "ant" / "1.jpg" if word == "PHOTO" else word for word in words]
    done = run(*filled, weights, "--labels", tmp_path / "two.txt")
    assert done.status == 1
    assert "2 labels were given for a network with 3 outputs" in done.err
    assert len(done.err.splitlines()) == 1
    missing = run(*filled, weights, "--labels", tmp_path / "none.txt")
    assert missing.status == 1
    assert "none.txt" in missing.err


def test_evaluation_of_fewer_classes_by_number(run: Run, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "1").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "set" / "1" / "a.png")
    done = run("evaluate", weights, tmp_path / "set", "--json")
    assert done.status == 0, done.err
    assert [row["images"] for row in json.loads(done.out)["classes"]] == [0, 1, 0]
    assert "matched by number: 1 is 'bee'" in done.err
