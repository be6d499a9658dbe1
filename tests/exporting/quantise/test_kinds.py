"""int8 where any label may be right, and of values: judged by labels or R², against the truth or against float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effnet.contract import Labels
from effnet.data import Item, Pictures, Splits
from effnet.data.pixels import pixels
from effnet.engines.interface import Interface
from effnet.engines.opening import open_file
from effnet.exporting.alike import answer, share_right
from effnet.exporting.quantise import in_words, quantise, sensitivity
from effnet.net import EfficientNet

from .test_quantise import CLASSES, FORMATS, float_answers, network, pictures

__all__ = ["pictures"]  # the fixture


def of_kind(kind: str, activation: str = "relu6") -> EfficientNet:
    model = network(activation, 0.0)
    model.labels = Labels(CLASSES, kind)
    return model


def stack(model: EfficientNet, pictures: Path) -> np.ndarray:
    return np.stack([pixels(file, model.preprocess) for file in sorted(pictures.rglob("*.png"))])


def labelled(model: EfficientNet, pictures: Path) -> Pictures:
    """What the network answers, as if it were the truth; the classes in another order."""
    files, kind = sorted(pictures.rglob("*.png")), model.labels.kind
    found = answer(float_answers(model, stack(model, pictures)), kind)
    order = (2, 0, 1)
    items = [
        Item(file, tuple(map(float, row[list(order)])) if kind == "value" else right(row, order), file.name)
        for file, row in zip(files, found, strict=True)
    ]
    return Pictures(tuple(items), Labels(tuple(CLASSES[place] for place in order), kind))


def right(row: np.ndarray, order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(place for place, ours in enumerate(order) if row[ours])


@pytest.mark.parametrize("kind", ["any", "value"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_without_labels_it_is_judged_by_what_float_answers(
    suffix: str, kind: str, pictures: Path, tmp_path: Path
) -> None:
    model = of_kind(kind)
    done = quantise(model, tmp_path / f"m{suffix}", pictures, threads=1)  # whose folders say nothing of such labels
    assert (done.measure, done.before, done.kind, done.pictures) == ("agreement", 1.0, kind, 18)
    engine = open_file(tmp_path / f"m{suffix}", threads=1)
    assert engine.contract.labels == model.labels
    given = stack(model, pictures)
    expected = float_answers(model, given)
    got = engine.run(given)
    assert done.after == pytest.approx(share_right(got, answer(expected, kind), kind), abs=1e-5)
    assert done.after > 0.9
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("kind", "measure"), [("any", "labels right"), ("value", "R²")])
def test_labels_that_are_the_networks_are_judged_by(
    kind: str, measure: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_kind(kind)
    truth = labelled(model, pictures)
    monkeypatch.setattr("effnet.exporting.quantise.pictures.open_data", lambda _: Splits(truth, None, None))
    done = quantise(model, tmp_path / "m.onnx", pictures, threads=1)
    assert (done.measure, done.before) == (measure, pytest.approx(1, abs=1e-6))
    assert 0.9 < done.after <= 1
    assert done.in_words().startswith(f"every layer in int8; {measure} ")
    fewer = Pictures(
        tuple(Item(one.picture, one.label[:1] if kind == "value" else (), one.name) for one in truth.items),  # type: ignore[index]
        Labels(truth.labels.names[:1], kind),
    )
    monkeypatch.setattr("effnet.exporting.quantise.pictures.open_data", lambda _: Splits(fewer, None, None))
    assert quantise(model, tmp_path / "m.onnx", pictures, threads=1).measure == "agreement"


@pytest.mark.parametrize("kind", ["any", "value"])
def test_a_budget_and_the_table_behind_it(kind: str, pictures: Path, tmp_path: Path) -> None:
    model = of_kind(kind, "silu")
    rows = sensitivity(model, pictures)
    assert all(row.divergence >= 0 and row.agreement <= 1 for row in rows)
    assert max(row.divergence for row in rows) > 0
    if kind == "value":
        assert all(row.agreement == pytest.approx(1 - row.divergence, abs=1e-5) for row in rows)
    assert {"any": "same labels", "value": "R²"}[kind] in in_words(rows, kind).splitlines()[0]
    done = quantise(model, tmp_path / "m.onnx", pictures, max_drop=20, threads=1)
    assert done.drop <= 20


def test_an_output_that_the_labels_do_not_have(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this network gives values, no probabilities"):
        quantise(of_kind("value"), tmp_path / "m.onnx", pictures, Interface(size=(32, 32)))
    assert not list(tmp_path.iterdir())


def test_shares_by_hand() -> None:
    wanted = np.array([[0.0, 10], [2, 30]])
    assert share_right(wanted, wanted, "value") == 1
    assert share_right(np.array([[1.0, 20], [1, 20]]), wanted, "value") == 0  # the mean
    assert share_right(np.array([[0.0, 20], [2, 20]]), wanted, "value") == 0.5
    logits = np.array([[1.0, -1, 2], [0, -3, -2]])
    assert share_right(logits, np.array([[True, False, True], [False, False, True]]), "any") == pytest.approx(4 / 6)
    assert share_right(logits, np.array([2, 1]), "one") == 0.5
