"""Classification metrics, and the evaluation of models, splits and exported files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

import effnet
from effnet import EfficientNet, Evaluation, Labels, evaluate
from effnet.data import ImageDataset, ImageError, Item, open_data
from effnet.evaluation.evaluator import class_columns, pick_split
from effnet.evaluation.metrics import MAX_UNCERTAIN, CalibrationBin, calibration_bins, calibration_error, score_classes


def logits(*shares: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.log(np.array(shares))


def test_small_example() -> None:
    found = score_classes(
        logits((0.7, 0.2, 0.1), (0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.2, 0.3, 0.5)),
        np.array([0, 1, 1, 2]),
        ("a", "b", "c"),
        ("1", "2", "3", "4"),
    )
    assert found.images == 4
    assert found.top1 == 0.75
    assert found.top5 == 1
    assert found.loss == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.5]).mean())
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 1))
    a, b, c = found.classes
    assert (a.name, a.images, a.precision, a.recall) == ("a", 1, 0.5, 1)
    assert (b.images, b.precision, b.recall) == (2, 1, 0.5)
    assert b.f1 == pytest.approx(2 / 3)
    assert c.f1 == 1
    (mistake,) = found.mistakes
    assert (mistake.image, mistake.label, mistake.predicted) == ("2", "b", "a")
    assert mistake.probability == pytest.approx(0.6)
    # each in a bin of its own: |1 − .7|, |0 − .6|, |1 − .8|, |1 − .5|
    assert found.calibration_error == pytest.approx((0.3 + 0.6 + 0.2 + 0.5) / 4)


def test_scikit_learn_is_not_imported() -> None:
    """It takes two seconds and 140 MB, at the end of every training run."""
    code = "import sys, numpy as np; from effnet.evaluation.metrics import score_classes; "
    code += "score_classes(np.eye(3), np.arange(3), 'abc', 'abc'); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    values, targets = rng.normal(size=(300, 8)), rng.integers(0, 7, 300)  # class 7 never appears
    found = score_classes(values, targets, [str(c) for c in range(8)], [str(n) for n in range(300)])
    shares, predicted, every = np.exp(values) / np.exp(values).sum(1, keepdims=True), values.argmax(1), range(8)
    assert found.top1 == accuracy_score(targets, predicted)
    assert found.loss == pytest.approx(log_loss(targets, shares, labels=list(every)))
    assert found.confusion == tuple(map(tuple, confusion_matrix(targets, predicted, labels=list(every))))
    options = {"labels": list(every), "average": None, "zero_division": 0.0}
    for name, measure in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert [getattr(row, name) for row in found.classes] == pytest.approx(measure(targets, predicted, **options))
    fifth = np.sort(values, axis=1)[:, -5]
    assert found.top5 == (values[np.arange(300), targets] >= fifth).mean()
    surest = [one.probability for one in found.mistakes]
    assert surest == sorted(surest, reverse=True)
    assert len(surest) == round(300 * (1 - found.top1))
    assert Evaluation.from_dict(json.loads(found.to_json())) == found


def test_calibration_error() -> None:
    # two in (.6, .667], one of them right, and two at .95, both right
    confidence, right = np.array([0.62, 0.66, 0.95, 0.95]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx((abs(1 - 1.28) + abs(2 - 1.9)) / 4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert calibration_error(np.ones(3), np.zeros(3, bool)) == 1


def test_confident_mistake_has_a_finite_loss() -> None:
    found = score_classes(np.array([[0.0, 1e6]]), np.array([0]), ("a", "b"), ("x",))
    assert found.loss == pytest.approx(-np.log(1e-12))


# Models


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = effnet.create("nano", classes=3)
    made.labels = Labels(("cat", "dog", "owl"))
    return made.eval()


def noisy(count: int, labels: tuple[str, ...]) -> ImageDataset:
    rng = np.random.default_rng(1)
    items = (
        Item(rng.integers(0, 256, (32, 32, 3), np.uint8), index % len(labels), f"{index}") for index in range(count)
    )
    return ImageDataset(tuple(items), Labels(labels))


def test_classes_are_matched_by_name(model: EfficientNet) -> None:
    images = noisy(6, ("owl", "cat"))
    found = evaluate(model, images, batch_size=4)
    assert [row.name for row in found.classes] == ["cat", "dog", "owl"]
    assert [row.images for row in found.classes] == [3, 0, 3]
    predicted = [one.label for one in effnet.Predictor(model)([item.image for item in images.items])]
    assert found.top1 == np.mean([name == ("owl", "cat")[n % 2] for n, name in enumerate(predicted)])
    assert class_columns(model.labels, 3, images.labels) == [2, 0]


def test_other_classes(model: EfficientNet) -> None:
    with pytest.raises(ValueError, match="does not know the class 'eel'"):
        evaluate(model, noisy(4, ("cat", "eel")))
    unnamed = effnet.create("nano", classes=3)
    with pytest.raises(ValueError, match="3 classes without names, the data has 2"):
        evaluate(unnamed, noisy(4, ("cat", "dog")))
    assert [row.name for row in evaluate(unnamed, noisy(3, ("x", "y", "z"))).classes] == [
        f"class {n}" for n in range(3)
    ]
    with pytest.raises(ValueError, match="takes 5 channels, and no kind of image has as many"):
        evaluate(effnet.create("nano", classes=3, channels=5), noisy(3, ("x", "y", "z")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (40, 40), (index * 50, 99, 7)).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def test_splits(model: EfficientNet, folder: Path) -> None:
    assert [(found.split, found.images) for found in (evaluate(model, folder), evaluate(model, folder, "val"))] == [
        ("test", 2),
        ("val", 4),
    ]
    splits = open_data(folder)
    assert pick_split(splits, "train")[1] is splits.train
    with pytest.raises(ValueError, match="no split 'dev', only test, val, train"):
        evaluate(model, folder, "dev")
    assert evaluate(model, folder / "val").split == "train"  # classes, but no splits


def test_unreadable_images(model: EfficientNet, folder: Path) -> None:
    bad = folder / "test" / "cat" / "bad.png"
    bad.write_text("no")
    found = evaluate(model, folder)
    assert found.images == 2
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(f"{bad} is not a")
    with pytest.raises(ImageError, match=r"bad\.png"):
        evaluate(model, folder, strict=True)
    nothing = ImageDataset((Item(bad, 0, "bad"),), Labels(("cat", "dog")))
    with pytest.raises(ValueError, match="none of the images"):
        evaluate(model, nothing)


def test_progress(model: EfficientNet) -> None:
    steps: list[tuple[int, int]] = []
    evaluate(model, noisy(5, ("cat", "dog")), batch_size=2, progress=lambda *step: steps.append(step))
    assert steps == [(number, 5) for number in range(1, 6)]


def test_weights_files(model: EfficientNet, folder: Path, tmp_path: Path) -> None:
    path = effnet.save(model, tmp_path / "run" / "model.safetensors")
    assert evaluate(path, str(folder)) == evaluate(str(path.parent), folder) == evaluate(model, folder)
    with pytest.raises(ValueError, match="batch_size must be"):
        evaluate(model, folder, batch_size=0)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_exported_files(model: EfficientNet, tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(5)
    for name in model.labels.names:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(3):
            image = Image.fromarray(noise.integers(0, 256, (40, 40, 3), np.uint8))
            image.save(tmp_path / "photos" / name / f"{index}.png")
    exported = effnet.export(model, tmp_path / f"model{suffix}").path
    found, expected = (evaluate(each, tmp_path / "photos") for each in (exported, model))
    assert found.confusion == expected.confusion
    assert found.loss == pytest.approx(expected.loss, abs=1e-4)
    assert evaluate(effnet.engine(exported), tmp_path / "photos").confusion == expected.confusion


def test_calibration_bins() -> None:
    # .2 is the border between the third and the fourth bin of fifteen; 1 belongs to the last
    found = calibration_bins(np.array([0.21, 0.25, 0.93, 0.95, 1.0, 0.0]), np.array([1, 0, 0, 1, 1, 0], bool))
    assert len(found) == 15
    assert found[3] == CalibrationBin(2, pytest.approx(0.23), 0.5)
    assert found[13] == CalibrationBin(1, pytest.approx(0.93), 0.0)
    assert found[14] == CalibrationBin(2, pytest.approx(0.975), 1.0)
    assert found[0] == CalibrationBin(1, 0.0, 0.0)
    assert sum(one.images for one in found) == 6
    assert all(one == CalibrationBin(0, 0.0, 0.0) for place, one in enumerate(found) if place not in (0, 3, 13, 14))


def test_bins_give_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    bins = calibration_bins(confidence, right)
    gap = sum(one.images * abs(one.accuracy - one.confidence) for one in bins) / 500
    assert gap == pytest.approx(calibration_error(confidence, right))


def test_most_uncertain_images() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.46, 0.44], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]])
    found = score_classes(np.log(shares), np.array([0, 2, 1, 0]), ["a", "b", "c"], ["w", "x", "y", "z"])
    assert [one.image for one in found.uncertain] == ["z", "x", "w", "y"]
    second = found.uncertain[1]
    assert (second.label, second.predicted, second.other) == ("c", "b", "c")
    assert (second.probability, second.other_probability) == (pytest.approx(0.46), pytest.approx(0.44))
    assert (found.uncertain[2].predicted, found.uncertain[2].other) == ("a", "b")  # right, and listed too


def test_limit_of_uncertain_images() -> None:
    rng = np.random.default_rng(0)
    many = score_classes(
        rng.normal(0, 1, (100, 4)), rng.integers(0, 4, 100), list("abcd"), [str(n) for n in range(100)]
    )
    assert len(many.uncertain) == MAX_UNCERTAIN
    gaps = [one.probability - one.other_probability for one in many.uncertain]
    assert gaps == sorted(gaps)
    assert min(gaps) >= 0
