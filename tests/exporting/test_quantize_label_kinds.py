"""int8 where any label may be right, and of values: judged by labels or R², against the truth or against float."""

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
from tests.exporting.test_quantize import CLASSES, FORMATS, float_answers, network, pictures

__all__ = ["pictures"]  # the fixture


def of_kind(kind: str, activation: str = "relu6") -> EfficientNet:
    model = network(activation, 0.0)
    model.labels = Labels(CLASSES, kind)
    return model


def stack(model: EfficientNet, pictures: Path) -> np.ndarray:
    return np.stack([load_input(file, model.preprocess) for file in sorted(pictures.rglob("*.png"))])


def labelled(model: EfficientNet, pictures: Path) -> ImageDataset:
    """What the network answers, as if it were the truth; the classes in another order."""
    files, kind = sorted(pictures.rglob("*.png")), model.labels.task
    found = task_of(kind).predict(float_answers(model, stack(model, pictures)))
    order = (2, 0, 1)
    items = [
        Item(file, tuple(map(float, row[list(order)])) if kind == "regression" else right(row, order), file.name)
        for file, row in zip(files, found, strict=True)
    ]
    return ImageDataset(tuple(items), Labels(tuple(CLASSES[place] for place in order), kind))


def right(row: np.ndarray, order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(place for place, ours in enumerate(order) if row[ours])


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_without_labels_it_is_judged_by_what_float_answers(
    suffix: str, kind: str, pictures: Path, tmp_path: Path
) -> None:
    model = of_kind(kind)
    done = quantize(model, tmp_path / f"m{suffix}", pictures, threads=1)  # whose folders say nothing of such labels
    assert (done.metric, done.float_score, done.task, done.images) == ("agreement", 1.0, kind, 18)
    engine = open_exported(tmp_path / f"m{suffix}", threads=1)
    assert engine.metadata.labels == model.labels
    given = stack(model, pictures)
    expected = float_answers(model, given)
    got = engine.run(given)
    assert done.int8_score == pytest.approx(task_of(kind).score(got, task_of(kind).predict(expected)), abs=1e-5)
    assert done.int8_score > 0.9
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("kind", "measure"), [("multilabel", "label accuracy"), ("regression", "R²")])
def test_labels_that_are_the_networks_are_judged_by(
    kind: str, measure: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_kind(kind)
    truth = labelled(model, pictures)
    monkeypatch.setattr("effnet.exporting.quantize.open_data", lambda _: Splits(truth, None, None))
    done = quantize(model, tmp_path / "m.onnx", pictures, threads=1)
    assert (done.metric, done.float_score) == (measure, pytest.approx(1, abs=1e-6))
    assert 0.9 < done.int8_score <= 1
    assert done.describe().startswith(f"every layer in int8; {measure} ")
    fewer = ImageDataset(
        tuple(Item(one.image, one.label[:1] if kind == "regression" else (), one.name) for one in truth.items),  # type: ignore[index]
        Labels(truth.labels.names[:1], kind),
    )
    monkeypatch.setattr("effnet.exporting.quantize.open_data", lambda _: Splits(fewer, None, None))
    assert quantize(model, tmp_path / "m.onnx", pictures, threads=1).metric == "agreement"


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_a_budget_and_the_table_behind_it(kind: str, pictures: Path, tmp_path: Path) -> None:
    model = of_kind(kind, "silu")
    rows = measure_sensitivity(model, pictures)
    assert all(row.divergence >= 0 and row.agreement <= 1 for row in rows)
    assert max(row.divergence for row in rows) > 0
    if kind == "regression":
        assert all(row.agreement == pytest.approx(1 - row.divergence, abs=1e-5) for row in rows)
    assert {"multilabel": "same labels", "regression": "R²"}[kind] in format_sensitivities(rows, kind).splitlines()[0]
    done = quantize(model, tmp_path / "m.onnx", pictures, max_drop=20, threads=1)
    assert done.drop <= 20


def test_an_output_that_the_labels_do_not_have(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this network outputs values, not probabilities"):
        quantize(of_kind("regression"), tmp_path / "m.onnx", pictures, IOSpec(size=(32, 32)))
    assert not list(tmp_path.iterdir())


def test_shares_by_hand() -> None:
    wanted = np.array([[0.0, 10], [2, 30]])
    assert task_of("regression").score(wanted, wanted) == 1
    assert task_of("regression").score(np.array([[1.0, 20], [1, 20]]), wanted) == 0  # the mean
    assert task_of("regression").score(np.array([[0.0, 20], [2, 20]]), wanted) == 0.5
    logits = np.array([[1.0, -1, 2], [0, -3, -2]])
    present = np.array([[True, False, True], [False, False, True]])
    assert task_of("multilabel").score(logits, present) == pytest.approx(4 / 6)
    assert task_of("classification").score(logits, np.array([2, 1])) == 0.5
