"""The proxy task: images in memory, and a short training that repeats exactly from the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.arch import Arch
from effnet.data import load_input, open_data
from effnet.lab.search import proxy_task
from effnet.lab.search.proxy_task import (
    PROXY_RECIPE,
    SearchDataset,
    _batches,
    evaluate_proxy,
    load_dataset,
    matching_weights,
    train_proxy,
)
from effnet.metadata import Preprocess
from effnet.net import create


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, size in (("train", 10), ("val", 3)):
        for name in ("cats", "dogs"):
            (root / split / name).mkdir(parents=True)
            for number in range(size):
                array = random.integers(0, 256, (20, 28, 3), np.uint8)
                Image.fromarray(array).save(root / split / name / f"{number}.png")
    return root


def test_a_fifth_is_held_out_and_val_is_for_testing(folder: Path) -> None:
    progress: list[tuple[int, int]] = []
    found = load_dataset(folder, 12, progress=lambda done, total: progress.append((done, total)))
    assert (len(found.train), len(found.selection), len(found.test)) == (16, 4, 6)
    assert found.has_test
    assert found.class_names == ("cats", "dogs")
    assert found.train.images.shape[-1] == 12
    assert progress == [(number, 26) for number in range(1, 27)]
    val = open_data(folder).val
    assert val
    expected = [load_input(item.image, Preprocess(size=(12, 12), crop_fraction=1.0)) for item in val.items]
    assert torch.equal(found.test.images, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))
    assert found.test.classes.tolist() == val.targets.tolist()


def test_without_val_the_selection_images_are_for_testing(folder: Path) -> None:
    found = load_dataset(folder / "train", 12)
    assert not found.has_test
    assert found.test is found.selection


def test_a_file_for_other_processes(folder: Path, tmp_path: Path) -> None:
    for source in (folder, folder / "train"):
        found = load_dataset(source, 12)
        found.save(tmp_path / "dataset")
        again = SearchDataset.load(tmp_path / "dataset")
        for name in ("train", "selection", "test"):
            assert torch.equal(getattr(again, name).images, getattr(found, name).images)
            assert torch.equal(getattr(again, name).classes, getattr(found, name).classes)
        for name in ("class_names", "horizontal_flip", "fingerprint", "has_test"):
            assert getattr(again, name) == getattr(found, name)


def test_the_fingerprint_depends_on_pixels_and_classes(folder: Path) -> None:
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


def test_unusable_data_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = open_data(folder)
    with pytest.raises(ValueError, match="no training images"):
        load_dataset(replace(splits, train=None), 12)
    assert splits.train
    several = replace(splits.train, labels=replace(splits.train.labels, task="multilabel"))
    with pytest.raises(ValueError, match="one class each"):
        load_dataset(replace(splits, train=several), 12)
    monkeypatch.setattr(proxy_task, "MAX_IMAGE_BYTES", 1000)
    with pytest.raises(ValueError, match="do not fit in memory"):
        load_dataset(folder, 12)


def test_it_learns_and_repeats_itself(striped: SearchDataset, tiny: Arch) -> None:
    first, model = train_proxy(tiny, striped, 4, seed=0)
    again, same = train_proxy(tiny, striped, 4, seed=0)
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))
    assert (first.test_accuracy or 0) > 0.8  # chance: a third
    other, _ = train_proxy(tiny, striped, 4, seed=1)
    assert other.loss != first.loss
    assert evaluate_proxy(model, striped.selection) == (first.selection_accuracy, first.loss)
    assert not model.training


def test_it_leaves_the_callers_randomness_alone(striped: SearchDataset, tiny: Arch) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_proxy(tiny, striped, 1, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_without_test_images_the_selection_accuracy_counts(striped: SearchDataset, tiny: Arch) -> None:
    found, _ = train_proxy(tiny, replace(striped, test=striped.selection, has_test=False), 1, seed=0)
    assert found.test_accuracy == found.selection_accuracy


def test_without_evaluate_test(striped: SearchDataset, tiny: Arch) -> None:
    without, _ = train_proxy(tiny, striped, 1, seed=0, evaluate_test=False)
    assert without.test_accuracy is None
    tested, _ = train_proxy(tiny, striped, 1, seed=0)
    assert replace(without, seconds=0) == replace(tested, test_accuracy=None, seconds=0)


def test_batches(striped: SearchDataset) -> None:
    part = striped.train.resize(8)
    batches = list(_batches(part, 50, True, seed=3, epoch=0))
    assert [len(indices) for _, indices in batches] == [50, 50, 50]  # the other 42 are dropped in this epoch
    assert all(images.shape == (50, 3, 8, 8) and images.dtype == torch.uint8 for images, _ in batches)
    again = list(_batches(part, 50, True, seed=3, epoch=0))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(batches, again, strict=True))
    later = list(_batches(part, 50, True, seed=3, epoch=1))
    assert not torch.equal(batches[0][1], later[0][1])
    # Shifted by at most one of eight pixels, flipped or not: a window of a padded image
    padded = torch.nn.functional.pad(part.images, (1,) * 4)
    windows = {padded[:, :, y : y + 8, x : x + 8].flatten(1)[row].numpy().tobytes() for y in range(3) for x in range(3)
               for row in range(len(part))}  # fmt: skip
    for images, _ in batches:
        for one in images:
            assert one.flatten().numpy().tobytes() in windows or one.flip(-1).flatten().numpy().tobytes() in windows


def test_weights_match_by_name_and_shape(tiny: Arch) -> None:
    parent = create(tiny, classes=3)
    wider = replace(tiny, stages=(tiny.stages[0], replace(tiny.stages[1], channels=24)))
    child = create(wider, classes=3)
    matching = matching_weights(child, parent.state_dict())
    mine, theirs = child.state_dict(), parent.state_dict()
    same = [name for name in mine if name in theirs and mine[name].shape == theirs[name].shape]
    assert list(matching) == same
    assert 0 < len(same) < len(mine)
    assert all(torch.equal(matching[name], theirs[name]) for name in same)


def test_initial_weights_help_a_short_training(striped: SearchDataset, tiny: Arch) -> None:
    _, parent = train_proxy(tiny, striped, 6, seed=0)
    fresh, _ = train_proxy(tiny, striped, 1, seed=1)
    heir, _ = train_proxy(tiny, striped, 1, seed=1, initial_weights=parent.state_dict())
    assert heir.loss < fresh.loss


def test_a_diverging_training_ends_at_chance(
    striped: SearchDataset, tiny: Arch, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(PROXY_RECIPE, learning_rate=10.0, warmup_epochs=0.0, weight_decay=1.0)
    monkeypatch.setattr(proxy_task, "PROXY_RECIPE", wild)
    found, _ = train_proxy(tiny, striped, 3, seed=0)
    assert found.selection_accuracy <= 0.5


@pytest.mark.parametrize("size", [3, 64, 192])
def test_fewer_images_than_a_batch(striped: SearchDataset, tiny: Arch, size: int) -> None:
    few = replace(striped, train=type(striped.train)(striped.train.images[:size], striped.train.classes[:size]))
    found, _ = train_proxy(tiny, few, 1, seed=0)
    assert 0 <= found.selection_accuracy <= 1
