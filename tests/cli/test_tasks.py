"""Multi-label and regression models on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet import EfficientNet, Labels
from effnet.cli.printing import format_number
from effnet.data import ImageDataset, Item, Splits
from tests.cli.conftest import Run

NAMES = ("ant", "bee", "night")


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for kind in ("multilabel", "regression"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = effnet.create("nano", classes=3)
        model.labels = Labels(NAMES, kind)
        with torch.no_grad():
            model.classifier.bias += torch.tensor([3.0, -0.2, -2.0])  # type: ignore[operator]
        found[kind] = effnet.save(model.eval(), tmp_path / f"{kind}.safetensors")
    return found


def predictions(model: Path, photos: Path) -> list[effnet.Prediction]:
    return effnet.Predictor(model, "eager")(sorted(photos.rglob("*.[jp]*g")))


def test_multilabel(run: Run, models: dict[str, Path], photos: Path) -> None:
    lines = run("predict", photos, "-m", models["multilabel"], "--engine", "eager").out.splitlines()
    assert lines[0].split() == ["image", "labels"]
    assert lines[2].split()[1:3] == ["ant", f"{predictions(models['multilabel'], photos)[0].probability:.1%}"]
    rows = list(csv.reader(io.StringIO(run("predict", photos, "-m", models["multilabel"], "--csv").out)))
    assert rows[0] == ["image", "rank", "label", "probability"]
    assert {row[2] for row in rows[1:]} <= {"ant", "bee"}
    found = json.loads(run("predict", photos, "-m", models["multilabel"], "--json").out)
    assert found[0]["labels"][0]["label"] == "ant"


def test_image_without_labels_has_a_line(run: Run, models: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    model = effnet.load(models["multilabel"])
    with torch.no_grad():
        model.classifier.bias -= 10  # type: ignore[operator]
    path = effnet.save(model, tmp_path / "none.safetensors")
    assert [line.split()[-1] for line in run("predict", photos, "-m", path).out.splitlines()[2:]] == ["none"] * 4
    rows = list(csv.reader(io.StringIO(run("predict", photos, "-m", path, "--csv").out)))
    assert [row[1:] for row in rows[1:]] == [["", "", ""]] * 4
    assert json.loads(run("predict", photos, "-m", path, "--json").out)[0]["labels"] == []


def test_regression(run: Run, models: dict[str, Path], photos: Path) -> None:
    first = predictions(models["regression"], photos)[0]
    lines = run("predict", photos, "-m", models["regression"], "--engine", "eager").out.splitlines()
    assert lines[0].split() == ["image", *NAMES]
    assert lines[2].split()[1:] == [format_number(first.values[name]) for name in NAMES]
    rows = list(csv.reader(io.StringIO(run("predict", photos, "-m", models["regression"], "--csv").out)))
    assert rows[0] == ["image", *NAMES]
    assert len(rows) == 5
    assert list(map(float, rows[1][1:])) == pytest.approx(list(first.values.values()), rel=1e-5)
    found = json.loads(run("predict", photos, "-m", models["regression"], "--json").out)
    assert found[0]["values"] == pytest.approx(dict(first.values), rel=1e-5)


def test_number_format() -> None:
    given = (41.2345, -0.00123456, 12345.6, 9999.96, 0, 1, 1e-9, 3.2e14, float("nan"), 0.99999)
    shown = ("41.23", "-0.001235", "12,346", "10,000", "0", "1.000", "1e-09", "3.2e+14", "nan", "1.0000")
    assert tuple(map(format_number, given)) == shown


def test_show_describes_outputs(run: Run, models: dict[str, Path], weights: Path) -> None:
    headings = [run("show", path).out.splitlines()[0] for path in (models["multilabel"], models["regression"], weights)]
    assert [heading.partition(", ")[2] for heading in headings] == ["3 labels (multi-label)", "3 values", "3 classes"]
    assert json.loads(run("show", models["multilabel"], "--json").out)["labels"] == {
        "names": list(NAMES),
        "task": "multilabel",
    }
    assert run("show", "nano").out.splitlines()[0] == "nano at 32×32"


@pytest.mark.parametrize(("kind", "output"), [("multilabel", "probabilities"), ("regression", "values")])
def test_export(kind: str, output: str, run: Run, models: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = run("export", models[kind], tmp_path / "m.onnx")
    assert f"→ {output}" in done.out
    assert done.out.strip().endswith(
        {"multilabel": "of the largest logit, same labels on 6", "regression": "largest value"}[kind]
    )
    shown = run("show", tmp_path / "m.onnx").out.splitlines()[0]
    assert shown.endswith({"multilabel": "3 labels (multi-label)", "regression": "3 values"}[kind])
    refused = run(
        "export",
        models[kind],
        tmp_path / "n.onnx",
        "--output-type",
        {"multilabel": "values", "regression": "probabilities"}[kind],
    )
    assert refused.status == 1
    assert f"this network outputs {output}" in refused.err


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_evaluate(kind: str, run: Run, models: dict[str, Path], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(photos.rglob("*.[jp]*g"))
    targets: list[tuple[float, ...]] = [(0,), (0, 1), (), (2,)]
    if kind == "regression":
        targets = [(1.0, 2.0, 1200.5), (2.0, 2.0, 0.0), (3.0, 2.0, 0.0), (4.0, 2.0, 0.0)]
    items = tuple(Item(file, label, file.name) for file, label in zip(files, targets, strict=True))
    splits = Splits(ImageDataset(items, Labels(NAMES, kind)), None, None)
    monkeypatch.setattr("effnet.evaluation.evaluator.open_data", lambda *_: splits)
    done = run("evaluate", models[kind], photos)
    assert done.status == 0
    if kind == "multilabel":
        assert done.out.startswith("mean average precision ")
        assert "on 4 images of the train split" in done.out
        assert "label accuracy" in done.out
        assert "wrong labels, the " in done.out
    else:
        assert done.out.startswith("averages over 3 values:\nR² ")
        assert "the 5 largest errors:" in done.out
        assert "1,200" in done.out or "1,201" in done.out
    data = json.loads(run("evaluate", models[kind], photos, "--json").out)
    assert (data["task"], data["images"]) == (kind, 4)
    other = {"multilabel": "regression", "regression": "multilabel"}[kind]
    assert f"the labels of the data are for {kind}" in run("evaluate", models[other], photos).err


def test_doctor_requires_classification(models: dict[str, Path]) -> None:
    random = np.random.default_rng(0)
    items = tuple(Item(random.integers(0, 256, (32, 32, 3), np.uint8), (n % 3,), f"{n}") for n in range(30))
    from effnet.doctor.examination import sample_images

    model: EfficientNet = effnet.load(models["multilabel"])
    with pytest.raises(ValueError, match="the doctor needs a classification model"):
        sample_images(model, ImageDataset(items, Labels(NAMES, "multilabel")), 20, 0, None)
