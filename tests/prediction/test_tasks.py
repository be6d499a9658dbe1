"""Predictions for the three tasks: in memory, from exported files, in tables."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import effnet
from effnet import EfficientNet, Labels, Prediction, Predictor
from effnet.data.preprocessing import normalize
from effnet.prediction.bulk import TABLE_COLUMNS, describe_predictor, predict_to_file, table_columns, table_writer
from effnet.prediction.predictor import to_prediction
from effnet.tasks import softmax
from tests.prediction.compare import assert_same_prediction

NAMES = ("cat", "dog", "night", "rain", "snow")


@torch.inference_mode()
def network(task: str) -> EfficientNet:
    """Scores on both sides of one half in most images; none above in the last one."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = effnet.create("nano", classes=5)
    model.labels = Labels(NAMES, task)
    seen = logits(model.eval(), images())
    model.classifier.weight *= 10 / float(seen.std(0).mean())  # type: ignore[operator]
    model.classifier.bias -= logits(model, images()).numpy()[4].max() + 0.1  # type: ignore[operator]
    return model


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.full((32, 32, 3), color, np.uint8) for color in rng.integers(0, 256, (5, 3), np.uint8)]


@torch.inference_mode()
def logits(model: EfficientNet, given: list[np.ndarray]) -> torch.Tensor:
    return model(normalize(torch.from_numpy(np.stack(given)), model.preprocess))


def test_classification() -> None:
    model = network("classification")
    shares = softmax(logits(model, images()).numpy())
    for found, row in zip(Predictor(model)(images(), top=3), shares, strict=True):
        assert found.labels == tuple(NAMES[place] for place in np.argsort(-row)[:3])
        assert found.probabilities == pytest.approx(np.sort(row)[::-1][:3], abs=1e-6)
        assert found.values == {}
        assert list(found.to_dict()) == ["image", "labels"]


def test_multilabel() -> None:
    model = network("multilabel")
    shares = logits(model, images()).sigmoid().numpy()
    found = Predictor(model)(images())
    assert [set(one.labels) for one in found] == [{NAMES[at] for at in np.flatnonzero(row >= 0.5)} for row in shares]
    for one, row in zip(found, shares, strict=True):
        assert list(one.probabilities) == sorted(one.probabilities, reverse=True)
        assert one.probabilities == pytest.approx([row[NAMES.index(label)] for label in one.labels], abs=1e-5)
    assert max(len(one.labels) for one in found) > 1
    assert max(len(one.labels) for one in Predictor(model)(images(), top=1)) == 1
    none = found[4]
    assert (none.labels, none.label, none.probability, none.error) == ((), "", 0, "")
    assert none.to_dict() == {"image": "image 5", "labels": []}


def test_regression() -> None:
    model = network("regression")
    found = Predictor(model)(images(), top=1)
    for one, row in zip(found, logits(model, images()).numpy(), strict=True):
        assert tuple(one.values) == NAMES
        assert list(one.values.values()) == pytest.approx(row, rel=1e-5, abs=1e-5)
        assert (one.labels, one.label, one.probability) == ((), "", 0)
        assert one.to_dict() == {"image": one.image, "values": dict(one.values)}
    prediction = to_prediction("x", np.array([[0], [np.float32(41.2)]]), Labels(("age",), "regression"))
    assert prediction.values == {"age": 41.2}
    assert hash(prediction) == hash(Prediction("x"))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml", ".tflite"])
def test_exported_files(task: str, suffix: str, tmp_path: Path) -> None:
    model, path = network(task), tmp_path / f"m{suffix}"
    effnet.save(model, path) if suffix == ".safetensors" else effnet.export(model, path)
    expected = Predictor(model, "eager")(images())
    predictor = Predictor(path)
    assert predictor.labels == model.labels
    for one, other in zip(predictor(images()), expected, strict=True):
        assert_same_prediction(one, other)


def test_unknown_value_names() -> None:
    model = effnet.create("nano", classes=2).eval()
    model.labels = Labels(task="regression")
    assert tuple(Predictor(model)(images()[0])[0].values) == ("class 0", "class 1")


# Tables

VALUES = [
    Prediction("cut.jpg", error="cut.jpg is damaged"),
    Prediction("a.jpg", values={"age": 41.2, "error": -0.001}),
    Prediction("b.jpg", values={"age": 1e7, "error": 2.0}),
]
LABELS = [Prediction("a.jpg", ("cat", "dog"), (0.9, 0.5)), Prediction("none.jpg"), Prediction("c", error="c is empty")]


def test_tables_of_values(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        table_writer(suffix)(tmp_path / f"r{suffix}", VALUES)
    names = ["path", "age", "error (value)", "error"]
    assert list(table_columns(("age", "error"))) == names
    rows = list(csv.reader((tmp_path / "r.csv").read_text().splitlines()))
    assert rows[0] == names
    assert rows[1:3] == [["cut.jpg", "", "", "cut.jpg is damaged"], ["a.jpg", "41.2", "-0.001", ""]]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines[0] == dict(zip(names, ("cut.jpg", None, None, "cut.jpg is damaged"), strict=True))
    assert lines[2] == dict(zip(names, ("b.jpg", 1e7, 2.0, ""), strict=True))
    assert parquet.read_table(tmp_path / "r.parquet").to_pylist() == lines


def test_tables_of_images_without_labels(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        table_writer(suffix)(tmp_path / f"r{suffix}", LABELS)
    rows = list(csv.reader((tmp_path / "r.csv").read_text().splitlines()))
    assert rows[0] == list(TABLE_COLUMNS)
    assert rows[1][:4] == ["a.jpg", "cat", "0.9", '["cat", "dog"]']
    assert rows[2:] == [["none.jpg", "", "", "[]", "[]", ""], ["c", "", "", "", "", "c is empty"]]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines[1] == dict(zip(TABLE_COLUMNS, ("none.jpg", "", None, [], [], ""), strict=True))
    assert parquet.read_table(tmp_path / "r.parquet").to_pylist()[1] == lines[1]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folder_to_table(task: str, tmp_path: Path) -> None:
    model, files = network(task), []
    for index, image in enumerate(images()):
        files.append(tmp_path / "photos" / f"{index}.png")
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(files[-1])
    path = effnet.save(model, tmp_path / "m.safetensors")
    out = tmp_path / "r.jsonl"
    predict_to_file(out, [tmp_path / "photos"], partial(Predictor, path, "eager"), describe_predictor(path))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    expected = Predictor(model, "eager")(files)
    if task == "regression":
        assert list(rows[0]) == ["path", *NAMES, "error"]
        assert [[row[name] for name in NAMES] for row in rows] == [list(one.values.values()) for one in expected]
    else:
        assert [tuple(row["labels"]) for row in rows] == [one.labels for one in expected]
        assert rows[4]["probability"] is None
