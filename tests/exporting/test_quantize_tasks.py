"""int8 for multi-label and regression: scored against labels, or against the float network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effnet.data import ImageDataset, Item, Splits
from effnet.data.image_io import load_input
from effnet.exporting.quantize import measure_sensitivity, quantize
from effnet.exporting.sensitivity import format_sensitivities
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of
from tests.exporting.test_quantize import CLASSES, FORMATS, float_logits, images, network

__all__ = ["images"]  # the fixture


def network_for(task: str, activation: str = "relu6") -> EfficientNet:
    model = network(activation, 0.0)
    model.labels = Labels(CLASSES, task)
    return model


def stack(model: EfficientNet, images: Path) -> np.ndarray:
    return np.stack([load_input(file, model.preprocess) for file in sorted(images.rglob("*.png"))])


def labeled(model: EfficientNet, images: Path) -> ImageDataset:
    """The network's predictions as ground truth, with the classes in another order."""
    files, task = sorted(images.rglob("*.png")), model.labels.task
    found = task_of(task).predict(float_logits(model, stack(model, images)))
    order = (2, 0, 1)
    items = [
        Item(
            file, tuple(map(float, row[list(order)])) if task == "regression" else present_labels(row, order), file.name
        )
        for file, row in zip(files, found, strict=True)
    ]
    return ImageDataset(tuple(items), Labels(tuple(CLASSES[index] for index in order), task))


def present_labels(row: np.ndarray, order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(index for index, ours in enumerate(order) if row[ours])


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_agreement(suffix: str, task: str, images: Path, tmp_path: Path) -> None:
    model = network_for(task)
    quantized = quantize(model, tmp_path / f"m{suffix}", images, threads=1)  # whose class folders are no such labels
    assert (quantized.metric, quantized.float_score, quantized.task, quantized.images) == ("agreement", 1.0, task, 18)
    engine = open_exported(tmp_path / f"m{suffix}", threads=1)
    assert engine.metadata.labels == model.labels
    pixels = stack(model, images)
    expected = float_logits(model, pixels)
    got = engine.run(pixels)
    assert quantized.int8_score == pytest.approx(task_of(task).score(got, task_of(task).predict(expected)), abs=1e-5)
    assert quantized.int8_score > 0.9
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "label accuracy"), ("regression", "R²")])
def test_labels(task: str, metric: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network_for(task)
    truth = labeled(model, images)
    monkeypatch.setattr("effnet.data.dataset_sources.open_data", lambda _: Splits(truth, None, None))
    quantized = quantize(model, tmp_path / "m.onnx", images, threads=1)
    assert (quantized.metric, quantized.float_score) == (metric, pytest.approx(1, abs=1e-6))
    assert 0.9 < quantized.int8_score <= 1
    assert quantized.describe().startswith(f"every layer in int8; {metric} ")
    fewer = ImageDataset(
        tuple(Item(one.image, one.label[:1] if task == "regression" else (), one.name) for one in truth.items),  # type: ignore[index]
        Labels(truth.labels.names[:1], task),
    )
    monkeypatch.setattr("effnet.data.dataset_sources.open_data", lambda _: Splits(fewer, None, None))
    assert quantize(model, tmp_path / "m.onnx", images, threads=1).metric == "agreement"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_max_drop_and_sensitivity(task: str, images: Path, tmp_path: Path) -> None:
    model = network_for(task, "silu")
    rows = measure_sensitivity(model, images)
    assert all(row.divergence >= 0 and row.agreement <= 1 for row in rows)
    assert max(row.divergence for row in rows) > 0
    if task == "regression":
        assert all(row.agreement == pytest.approx(1 - row.divergence, abs=1e-5) for row in rows)
    assert {"multilabel": "same labels", "regression": "R²"}[task] in format_sensitivities(rows, task).splitlines()[0]
    quantized = quantize(model, tmp_path / "m.onnx", images, max_drop=20, threads=1)
    assert quantized.drop <= 20


def test_wrong_output(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this network outputs values, not probabilities"):
        quantize(network_for("regression"), tmp_path / "m.onnx", images, IOSpec(size=(32, 32)))
    assert not list(tmp_path.iterdir())


def test_scores() -> None:
    expected = np.array([[0.0, 10], [2, 30]])
    assert task_of("regression").score(expected, expected) == 1
    assert task_of("regression").score(np.array([[1.0, 20], [1, 20]]), expected) == 0  # the mean
    assert task_of("regression").score(np.array([[0.0, 20], [2, 20]]), expected) == 0.5
    logits = np.array([[1.0, -1, 2], [0, -3, -2]])
    present = np.array([[True, False, True], [False, False, True]])
    assert task_of("multilabel").score(logits, present) == pytest.approx(4 / 6)
    assert task_of("classification").score(logits, np.array([2, 1])) == 0.5
