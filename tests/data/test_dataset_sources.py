from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effnet.data import ImageDataset, Item, check_images, holdout, open_data
from effnet.data.dataset import LabelEncoder
from effnet.metadata import Labels
from tests.data.conftest import SHARED

Folders = Callable[..., Path]


def names(dataset: ImageDataset | None) -> list[str]:
    return [item.name for item in dataset.items]


def blanks(counts: dict[str, int]) -> ImageDataset:
    """Blank images, for what depends on names and labels only."""
    blank = np.zeros((4, 4, 3), np.uint8)
    items = [Item(blank, label, f"{name}/{i}") for label, name in enumerate(counts) for i in range(counts[name])]
    return ImageDataset(tuple(items), Labels(tuple(counts)))


def test_class_folders_are_all_for_training(folders: Folders) -> None:
    splits = open_data(folders("dog/2.jpg", "dog/1.JPG", "cat/deep/er/3.png", "cat/4.jpeg"))
    assert splits.val is None
    assert splits.test is None
    assert splits.train.labels.names == ("cat", "dog")
    assert names(splits.train) == ["cat/4.jpeg", "cat/deep/er/3.png", "dog/1.JPG", "dog/2.jpg"]
    assert splits.train.targets.tolist() == [0, 0, 1, 1]
    assert splits.train.class_counts() == (2, 2)
    assert splits.train.allow_flip


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_train_val_test(folders: Folders, val: str) -> None:
    root = folders("train/a/1.jpg", "train/b/2.jpg", f"{val}/b/3.jpg", "test/a/4.jpg", "test/b/", "notes/x.jpg")
    splits = open_data(str(root))
    assert names(splits.train) == ["a/1.jpg", "b/2.jpg"]
    assert names(splits.val) == ["b/3.jpg"]
    assert splits.val.targets.tolist() == [1]
    assert splits.val.class_counts() == (0, 1)
    assert names(splits.test) == ["a/4.jpg"]


def test_without_train_the_classes_are_those_of_val(folders: Folders) -> None:
    splits = open_data(folders("val/a/1.jpg", "val/b/2.jpg", "test/b/3.jpg"))
    assert splits.train is None
    assert splits.val.labels == splits.test.labels == Labels(("a", "b"))


def test_a_class_may_be_called_train(folders: Folders) -> None:
    train = open_data(folders("train/1.jpg", "car/2.jpg")).train
    assert train.labels.names == ("car", "train")


def test_texts_and_tables_are_skipped_but_not_unknown_files(folders: Folders) -> None:
    root = folders("a/1.jpg", "a/Thumbs.db", "a/.DS_Store", "a/.hidden/2.jpg", "a/labels.TXT", "a/x.csv", "a/y.json",
                   "b/photo", "b/raw.heic", "__MACOSX/b/3.jpg", ".cache/4.jpg", "notes.txt", "lying.jpg")  # fmt: skip
    assert names(open_data(root).train) == ["a/1.jpg", "b/photo", "b/raw.heic"]


def test_hymenoptera() -> None:
    root = SHARED / "hymenoptera"
    if not root.is_dir():
        pytest.skip("no hymenoptera in shared/data")
    splits = open_data(root)
    assert splits.train.labels.names == splits.val.labels.names == ("ants", "bees")
    assert splits.train.class_counts() == (124, 121)
    assert splits.val.class_counts() == (70, 83)
    good, errors = check_images(splits.val)
    assert len(good) == 153
    assert errors == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), "no class folders"),
        (("1.jpg", "2.jpg"), "no class folders"),
        (("train/1.jpg", "test/2.jpg"), "train has no class folders"),
        (("train/1.jpg",), "train has no class folders"),
        (("a/1.jpg", "b/"), "class 'b' in .* has no images"),
        (("a/1.jpg", "b/notes.txt"), "class 'b' in .* has no images"),
        (("train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"), "val has a class 'c' that train does not have"),
        (("train/a/1.jpg", "train/b/1.jpg", "val/b/"), "val has no images"),
        (("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"), "both val/ and valid/"),
    ],
)
def test_refusals(folders: Folders, files: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_data(folders(*files))
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        open_data(tmp_path / "nowhere")
    (tmp_path / "a.zip").touch()
    with pytest.raises(ValueError, match=r"a\.zip is a file: use a folder"):
        open_data(tmp_path / "a.zip")


def test_holdout_is_stratified_and_complete() -> None:
    dataset = blanks({"a": 100, "b": 10, "c": 2, "d": 3})
    kept, held = holdout(dataset, 0.2, seed=3)
    assert held.class_counts() == (20, 2, 1, 1)
    assert kept.class_counts() == (80, 8, 1, 2)
    order = names(dataset)
    for part in (kept, held):
        assert [order.index(name) for name in names(part)] == sorted(order.index(name) for name in names(part))
    assert sorted(names(kept) + names(held)) == sorted(order)
    assert kept.labels is held.labels is dataset.labels


def test_holdout_depends_on_seed_and_names_alone() -> None:
    dataset = blanks({"a": 50, "b": 50})
    held = names(holdout(dataset, 0.3, seed=0)[1])
    assert held == names(holdout(dataset, 0.3, seed=0)[1])
    assert held != names(holdout(dataset, 0.3, seed=1)[1])
    assert set(held) == set(names(holdout(dataset.subset(range(99, -1, -1)), 0.3, seed=0)[1]))


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_both_sides_have_every_class(share: float) -> None:
    kept, held = holdout(blanks({"a": 9, "b": 2}), share, seed=0)
    assert min(kept.class_counts()) >= 1
    assert min(held.class_counts()) >= 1


def test_holdout_refuses() -> None:
    with pytest.raises(ValueError, match="class 'lone' has only one image"):
        holdout(blanks({"a": 9, "lone": 1}), 0.2, seed=0)
    for share in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fraction must be"):
            holdout(blanks({"a": 9, "b": 9}), share, seed=0)


def test_check_finds_damaged_files(folders: Folders) -> None:
    root = folders("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/4.png", "b/movie.mp4")
    (root / "a/2.jpg").write_bytes((root / "a/2.jpg").read_bytes()[:-200])
    train = open_data(root).train
    good, errors = check_images(train)
    assert names(good) == ["a/1.jpg", "a/3.jpg", "b/4.png"]
    assert good.labels == train.labels
    assert [str(error).partition(" is ")[0] for error in errors] == [str(root / "a/2.jpg"), str(root / "b/movie.mp4")]


def test_check_refuses_a_class_without_readable_images(folders: Folders) -> None:
    train = open_data(folders("a/1.jpg", "b/2.heic", "b/3.mp4")).train
    assert train is not None
    with pytest.raises(ValueError, match=r"none of the 2 images of class 'b' can be read; .*2\.heic is empty"):
        check_images(train)


def test_check_refuses_values_without_readable_images(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    dataset = ImageDataset((Item(tmp_path / "1.jpg", (3.7,), "1.jpg"),), Labels(("age",), "regression"))
    with pytest.raises(ValueError, match=r"none of the 1 images can be read; .*1\.jpg is empty"):
        check_images(dataset)


@pytest.mark.parametrize("raw", [1.7, [1], -1, 3, "fish"])
def test_labels_of_another_type_are_refused(raw: object) -> None:
    encoder = LabelEncoder.fit([0, 2, 1], None, "", "train")
    with pytest.raises(ValueError, match=r"7 has the label .*, which train does not have"):
        encoder.encode(raw, "7")


def test_check_takes_arrays_and_absent_classes() -> None:
    dataset = blanks({"a": 2, "absent": 0, "c": 2})
    good, errors = check_images(dataset, num_workers=1)
    assert len(good) == 4
    assert errors == []
    with pytest.raises(ValueError, match="workers"):
        check_images(dataset, num_workers=0)
