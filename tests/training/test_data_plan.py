"""Which images a run trains on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from effnet.data import ImageDataset, Item, Splits, open_data
from effnet.metadata import Labels
from effnet.training.config import TrainConfig
from effnet.training.data_plan import fingerprint_splits, make_plan, training_images
from effnet.training.run_dir import RunDir
from tests.training.conftest import Recorder, paint


def test_fingerprint() -> None:
    items = [Item(np.zeros((8, 8, 3), np.uint8), label, name) for label, name in ((0, "b"), (1, "a"))]
    labels = Labels(("cat", "dog"))
    both = ImageDataset(tuple(items), labels)
    fingerprint = fingerprint_splits({"train": both, "val": ImageDataset((), labels)})
    assert fingerprint == sha256(b"train\ta\tdog\ntrain\tb\tcat\n").hexdigest()
    assert fingerprint_splits({"train": ImageDataset(tuple(items[::-1]), labels)}) == fingerprint
    others = [
        {"selection": both},
        {"train": ImageDataset(tuple(items), Labels(("cat", "owl")))},
        {"train": ImageDataset((items[0], replace(items[1], name="c")), labels)},
    ]
    assert len({fingerprint, *map(fingerprint_splits, others)}) == 4


def test_fingerprint_of_other_tasks_and_broken_names() -> None:
    image, names = np.zeros((8, 8, 3), np.uint8), ("cat", "dog")
    multilabel = ImageDataset((Item(image, (0, 1), "b"), Item(image, (), "a")), Labels(names, "multilabel"))
    assert fingerprint_splits({"fit": multilabel}) == sha256(b"fit\ta\t\nfit\tb\tcat|dog\n").hexdigest()
    values = ImageDataset((Item(image, (0.5, -2.0), "b"),), Labels(names, "regression"))
    assert fingerprint_splits({"fit": values}) == sha256(b"fit\tb\t0.5|-2.0\n").hexdigest()
    broken = ImageDataset((Item(image, 0, "\udcff\ud800"),), Labels(names))
    assert len(fingerprint_splits({"fit": broken})) == 64


def test_training_needs_two_classes() -> None:
    """A set of one class can be opened, since a network of more classes may be evaluated on it."""
    image = np.zeros((8, 8, 3), np.uint8)
    one = ImageDataset((Item(image, 0, "a"),), Labels(("cat",)))
    with pytest.raises(ValueError, match="only one class, 'cat': a classifier needs at least two"):
        training_images(Splits(one))
    assert training_images(Splits(ImageDataset((Item(image, (0,), "a"),), Labels(("cat",), "multilabel"))))


def test_images_with_several_labels(tmp_path: Path) -> None:
    for name, brightness in (("dark", 70), ("light", 180)):
        paint(tmp_path / "data", name, brightness, 10)
    shutil.copy(tmp_path / "data/dark/00.png", tmp_path / "data/light/copy.png")
    splits, recorder, run_dir = open_data(tmp_path / "data"), Recorder(), RunDir(tmp_path / "out")
    plan = make_plan(splits, TrainConfig(data=splits, out=tmp_path / "out", weights="none"), recorder)
    said = "1 image has several labels: dark/00.png (dark) = light/copy.png (light)"
    assert [message for message in recorder.messages if "several" in message] == [said]
    assert {row.split for row in plan.rows() if row.image in ("dark/00.png", "light/copy.png")} <= {
        *("train", "selection", "holdout")
    }
    run_dir.write_label_conflicts(plan.label_conflicts)
    assert run_dir.label_conflicts.read_text().splitlines() == [
        "number,image,label,split", "1,dark/00.png,dark,train", "1,light/copy.png,light,train"
    ]  # fmt: skip
    run_dir.write_label_conflicts([])
    assert not run_dir.label_conflicts.exists()
