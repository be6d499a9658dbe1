"""Pictures in memory: which are held out, how they are resized, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.data import load_input, open_data
from effnet.lab.search import dataset as module
from effnet.lab.search.dataset import SearchDataset, load_dataset
from effnet.metadata import Preprocess


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, drawn = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, many in (("train", 10), ("val", 3)):
        for name in ("cats", "dogs"):
            (root / part / name).mkdir(parents=True)
            for number in range(many):
                array = drawn.integers(0, 256, (20, 28, 3), np.uint8)
                Image.fromarray(array).save(root / part / name / f"{number}.png")
    return root


def test_a_fifth_is_chosen_by_and_val_is_judged_by(folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    found = load_dataset(folder, 12, progress=lambda done, total: heard.append((done, total)))
    assert (len(found.train), len(found.selection), len(found.test)) == (16, 4, 6)
    assert found.has_test
    assert found.class_names == ("cats", "dogs")
    assert found.image_size == 12
    assert heard == [(number, 26) for number in range(1, 27)]
    val = open_data(folder).val
    assert val
    expected = [load_input(item.image, Preprocess(size=(12, 12), crop_fraction=1.0)) for item in val.items]
    assert torch.equal(found.test.images, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))
    assert found.test.classes.tolist() == val.targets.tolist()


def test_without_val_those_chosen_by_judge(folder: Path) -> None:
    found = load_dataset(folder / "train", 12)
    assert not found.has_test
    assert found.test is found.selection


def test_a_file_for_other_processes(folder: Path, tmp_path: Path) -> None:
    for source in (folder, folder / "train"):
        found = load_dataset(source, 12)
        found.save(tmp_path / "examples")
        again = SearchDataset.load(tmp_path / "examples")
        for name in ("fit", "select", "judge"):
            assert torch.equal(getattr(again, name).pictures, getattr(found, name).pictures)
            assert torch.equal(getattr(again, name).classes, getattr(found, name).classes)
        for name in ("names", "mirror", "fingerprint", "unseen"):
            assert getattr(again, name) == getattr(found, name)


def test_the_fingerprint_is_of_pixels_and_classes(folder: Path) -> None:
    first = load_dataset(folder, 12)
    assert load_dataset(folder, 12).fingerprint == first.fingerprint
    assert load_dataset(folder, 13).fingerprint != first.fingerprint
    assert load_dataset(folder, 12, seed=1).fingerprint != first.fingerprint  # others are held out


def test_resized_as_torch_does(folder: Path) -> None:
    part = load_dataset(folder, 12).train
    assert part.resize(12).images is part.images
    smaller = part.resize(7).images.float()
    exact = torch.nn.functional.interpolate(part.images.float(), (7, 7), mode="bilinear", antialias=True)
    assert (smaller - exact).abs().max() <= 1  # bytes


def test_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = open_data(folder)
    with pytest.raises(ValueError, match="no training pictures"):
        load_dataset(replace(splits, train=None), 12)
    assert splits.train
    several = replace(splits.train, labels=replace(splits.train.labels, task="multilabel"))
    with pytest.raises(ValueError, match="one class each"):
        load_dataset(replace(splits, train=several), 12)
    monkeypatch.setattr(module, "MEMORY_MOST", 1000)
    with pytest.raises(ValueError, match="do not fit in memory"):
        load_dataset(folder, 12)
