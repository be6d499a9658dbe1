from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import effnet
from tests.cli.conftest import Run


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A model of the two classes of the photos."""
    torch.manual_seed(0)
    model = effnet.create("nano", classes=2)
    model.labels = effnet.Labels(("ant", "bee"))
    path: Path = effnet.save(model, tmp_path / "two.safetensors")
    return path


def test_json(run: Run, two: Path, photos: Path) -> None:
    done = run("evaluate", two, photos, "--json")
    assert done.status == 0
    assert done.err == ""
    found = json.loads(done.out)
    assert effnet.Evaluation.from_dict(found) == effnet.evaluate(two, photos)
    assert found["images"] == 4
    assert found["top5"] == 1
    assert {"top1", "loss", "calibration_error", "classes", "confusion", "mistakes"} <= set(found)


def test_as_text(run: Run, two: Path, photos: Path) -> None:
    (photos / "bee" / "page.jpg").write_text("<html>")
    done = run("evaluate", two, photos)
    assert done.status == 0
    assert "on 4 images of the train split" in done.out
    assert "true ↓  predicted →" in done.out
    assert "mistakes: " in done.out
    assert str(photos / "bee" / "page.jpg") in done.out


def test_many_classes(run: Run, weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, maximum in (("MAX_CONFUSION_CLASSES", 2), ("MAX_CLASSES_SHOWN", 1), ("MAX_MISTAKES_SHOWN", 1)):
        monkeypatch.setattr(f"effnet.cli.evaluate.{name}", maximum)
    done = run("evaluate", weights, photos)
    assert "the 1 of 2 classes with the lowest F1" in done.out
    assert "predicted →" not in done.out
    assert ", the 1 most confident" in done.out


def test_errors(run: Run, two: Path, weights: Path, photos: Path) -> None:
    assert "does not exist" in run("evaluate", two, photos / "no").err
    assert "the data has no split 'val'" in run("evaluate", two, photos, "--split", "val").err
    assert run("evaluate", two, photos, "--decode", "half").status == 2
    assert run("evaluate", two).status == 2
    (photos / "bee" / "page.jpg").write_text("<html>")
    assert run("evaluate", two, photos, "--strict").status == 1
    (photos / "moth").mkdir()
    (photos / "ant" / "1.jpg").rename(photos / "moth" / "1.jpg")
    done = run("evaluate", weights, photos)
    assert done.status == 1
    assert "does not know the class 'moth'" in done.err


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ("photos", 4),
        ("photos/ant", 2),
        ("one", 2),
        ("table.csv", 1),
        ("tags.csv", 2),
        ("splits", 1),
        ("splits/train", 2),
    ],
)
def test_some_of_the_classes(run: Run, weights: Path, photos: Path, tmp_path: Path, data: str, images: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "bee").symlink_to(photos / "bee")
    (photos / "[wasp]").mkdir()  # nobody has seen one yet
    for split, name in (("train", "ant"), ("val", "bee")):
        (tmp_path / "splits" / split).mkdir(parents=True)
        (tmp_path / "splits" / split / name).symlink_to(photos / name)
    (photos / "bee" / "deep" / "4.jpg").rename(
        photos / "bee" / "4.txt" if data == "splits" else photos / "bee" / "4.jpg"
    )
    (tmp_path / "table.csv").write_text("path,label\nphotos/ant/1.jpg,ant\n")
    (tmp_path / "tags.csv").write_text("path,label\nphotos/ant/1.jpg,ant\nphotos/bee/3.jpg,bee\n")
    done = run("evaluate", weights, tmp_path / data, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["images"] == images


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("regression", "path,age\nphotos/ant/1.jpg,3\nphotos/bee/3.jpg,7\n"),
        ("multilabel", "path,label\nphotos/ant/1.jpg,bee\nphotos/bee/3.jpg,bee\n"),
        ("multilabel", "path,label\nphotos/ant/1.jpg,\"['bee', 'age']\"\nphotos/bee/3.jpg,[]\n"),
    ],
)
def test_some_of_the_values_or_labels(run: Run, photos: Path, tmp_path: Path, task: str, text: str) -> None:
    model = effnet.create("nano", classes=2)
    model.labels = effnet.Labels(("bee", "age"), task)
    (tmp_path / "table.csv").write_text(text)
    done = run("evaluate", effnet.save(model, tmp_path / "model.safetensors"), tmp_path / "table.csv", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["images"] == 2
