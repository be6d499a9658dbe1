from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effnet.data import ImageDataset, open_data

Folders = Callable[..., Path]

SYNSETS = ("n01440764", "n01443537", "n01484850")
TRUTH = (2, 0, 1, 0)  # of the four validation images, as positions in SYNSETS
IDS = {"n01440764": 449, "n01443537": 450, "n01484850": 442}  # the devkit counts otherwise
TRAIN = tuple(f"train/{synset}/{synset}_1.JPEG" for synset in SYNSETS)
FLAT = tuple(f"val/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 5))


def write_kaggle(folder: Path) -> None:
    rows = [f"ILSVRC2012_val_{number:08},{SYNSETS[label]} 1 2 3 4 " for number, label in enumerate(TRUTH, 1)]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")


def write_synsets(folder: Path) -> None:
    lines = "".join(f"{SYNSETS[label]}\n" for label in TRUTH)
    (folder / "imagenet_2012_validation_synset_labels.txt").write_text(lines)


def write_numbers(folder: Path) -> None:
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{IDS[SYNSETS[i]]}\n" for i in TRUTH))


def write_meta(folder: Path) -> None:
    """As the devkit's: a column of structs, with more nodes of WordNet than there are classes."""
    from scipy.io import savemat

    rows = [(number, synset, "words", 0.0) for synset, number in IDS.items()] + [(1001, "n00001740", "entity", 3.0)]
    kinds = np.dtype([(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")])
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kinds)[:, None]})


def write_devkit(root: Path) -> None:
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    write_numbers(folder)
    write_meta(folder)


def read_labels(dataset: ImageDataset | None) -> list[tuple[str, str]]:
    return [(item.name[-9:-5], dataset.labels.name(item.label)) for item in dataset.items]


EXPECTED = [(f"{number:04}", SYNSETS[label]) for number, label in enumerate(TRUTH, 1)]


@pytest.mark.parametrize("bring", [write_kaggle, write_synsets, write_devkit])
@pytest.mark.parametrize("place", [".", "val"])
def test_flat_validation(folders: Folders, bring: Callable[[Path], None], place: str) -> None:
    root = folders(*TRAIN, *FLAT, "test/ILSVRC2012_test_00000001.JPEG", "LOC_synset_mapping.txt")
    bring(root / place)
    splits = open_data(root)
    assert splits.test is None
    assert splits.train.labels.names == splits.val.labels.names == SYNSETS
    assert read_labels(splits.val) == EXPECTED


@pytest.mark.parametrize("inside", [False, True])
def test_validation_alone(folders: Folders, inside: bool) -> None:
    root = folders(*FLAT)
    write_synsets(root)
    splits = open_data(root / "val" if inside else root)
    assert splits.train is None
    assert read_labels(splits.val) == EXPECTED


def test_sorted_validation_is_class_folders(folders: Folders) -> None:
    root = folders(*TRAIN, *(f"val/{synset}/ILSVRC2012_val_0000000{i}.JPEG" for i, synset in enumerate(SYNSETS)))
    splits = open_data(root)
    assert splits.val.class_counts() == (1, 1, 1)


def test_kaggle_rows_may_be_more_than_images(folders: Folders) -> None:
    root = folders(*FLAT[:2])
    write_kaggle(root)
    val = open_data(root).val
    assert read_labels(val) == EXPECTED[:2]
    assert val.labels.names == SYNSETS


def refusal(root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        open_data(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truth_missing(folders: Folders) -> None:
    text = refusal(folders(*TRAIN, *FLAT))
    assert "LOC_val_solution.csv" in text
    assert "imagenet_2012_validation_synset_labels.txt" in text
    assert "meta.mat" in text


def test_truth_of_another_length(folders: Folders) -> None:
    root = folders(*TRAIN, *FLAT[:3])
    write_synsets(root)
    assert "has 4 lines" in refusal(root)
    assert "has 3 images" in refusal(root)


def test_truth_of_other_images(folders: Folders) -> None:
    root = folders(*TRAIN, *FLAT[:3], "val/ILSVRC2012_val_00000009.JPEG")
    write_synsets(root)
    assert "no class for ILSVRC2012_val_00000009.JPEG" in refusal(root)


def test_devkit_without_its_key(folders: Folders) -> None:
    root = folders(*TRAIN, *FLAT)
    write_numbers(root)
    assert "needs meta.mat" in refusal(root)
    write_meta(root)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("449\n450\nfish\n442\n")
    assert "one number of meta.mat per line" in refusal(root)


def test_class_that_train_has_not(folders: Folders) -> None:
    root = folders(*TRAIN[:2], *FLAT)
    write_kaggle(root)
    assert "a class 'n01484850' that train does not have" in refusal(root)
