"""Duplicates are found by bytes and by pixels, and folds never separate them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import ImageDataset, Item, Splits, check_images
from effnet.data.dataset import Fingerprints
from effnet.data.duplicates import (
    DuplicatePair,
    compute_fingerprints,
    describe_label_conflicts,
    describe_split_overlap,
    find_duplicates,
    find_label_conflicts,
    group_duplicates,
    log_label_conflicts,
)
from effnet.data.splits import make_folds
from effnet.metadata import Labels
from tests.data.conftest import encode

LABELS = Labels(("a", "b"))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8))


def dataset(root: Path, *names: str, label: int = 0) -> ImageDataset:
    return ImageDataset(tuple(Item(root / name, label, name) for name in names), LABELS)


def find(images: ImageDataset, others: ImageDataset | None = None, decoded: bool = True) -> list[DuplicatePair]:
    known = compute_fingerprints((images, others) if others else (images,), decoded)
    return find_duplicates(images, known, others)


def describe(splits: Splits) -> list[str]:
    return describe_split_overlap(splits, compute_fingerprints(splits.available.values()))


def pair_names(pairs: list[tuple[Item, Item]]) -> list[tuple[str, str]]:
    return [(one.name, other.name) for one, other in pairs]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """1 and its copies: as it is, with other metadata, and among PNGs with another compression."""
    for seed in range(1, 4):
        noise(seed).save(tmp_path / f"{seed}.jpg")
        noise(seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "1.jpg").read_bytes())
    plain = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "tagged.jpg").write_bytes(plain[:2] + b"\xff\xfe\x00\x08my own" + plain[2:])  # a comment
    noise(2).save(tmp_path / "2 again.png", compress_level=1)
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "broken too.jpg").write_bytes(b"nothing")
    return tmp_path


def test_between_two_datasets(root: Path) -> None:
    train = dataset(root, "1.jpg", "2.png", "3.jpg", "broken.jpg")
    val = dataset(root, "copy.jpg", "tagged.jpg", "2 again.png", "3.png", "broken too.jpg", "no such file.jpg")
    by_pixels = [("1.jpg", "copy.jpg"), ("1.jpg", "tagged.jpg"), ("2.png", "2 again.png")]
    assert pair_names(find(train, val)) == by_pixels
    by_bytes = [("1.jpg", "copy.jpg"), ("broken.jpg", "broken too.jpg")]
    assert pair_names(find(train, val, decoded=False)) == by_bytes
    assert find(dataset(root, "1.jpg"), dataset(root, "2.jpg")) == []


def test_fingerprints_of_the_check_are_used(root: Path) -> None:
    train = dataset(root, "1.jpg", "2.png", "3.jpg", "broken.jpg")
    val = dataset(root, "copy.jpg", "tagged.jpg", "2 again.png", "3.png")
    expected, by_bytes = find(train, val), compute_fingerprints((train, val), decoded=False)
    known = Fingerprints()
    for each in (train, val):
        check_images(each, fingerprints=known)
    assert known == compute_fingerprints((train, val))
    for file in root.iterdir():
        file.unlink()
    assert find_duplicates(train, known, val) == expected
    assert pair_names(find_duplicates(train, by_bytes, val)) == [("1.jpg", "copy.jpg")]
    (sentence,) = describe_split_overlap(Splits(train, val), fingerprints=known)
    assert sentence.startswith("3 images of val are in train as well: ")


def test_within_a_dataset(root: Path) -> None:
    images = dataset(root, "copy.jpg", "1.jpg", "2.jpg", "tagged.jpg")
    assert pair_names(find(images)) == [("copy.jpg", "1.jpg"), ("copy.jpg", "tagged.jpg")]
    assert pair_names(find(images, decoded=False)) == [("copy.jpg", "1.jpg")]


def test_images_that_are_not_files() -> None:
    class Packed:
        name = "in a tar"

        def read(self) -> bytes:
            return encode(noise(1), "PNG")

    items = Item(np.asarray(noise(1)), 0, "array"), Item(Packed(), 0, "tar"), Item(Packed(), 0, "tar 2")
    images = ImageDataset(items, LABELS)
    assert pair_names(find(images)) == [("array", "tar"), ("array", "tar 2")]
    assert pair_names(find(images, decoded=False)) == [("tar", "tar 2")]


def test_folds_keep_duplicates_together(root: Path) -> None:
    for seed in range(10, 30):
        noise(seed).save(root / f"{seed}.png")
        (root / f"{seed}b.png").write_bytes((root / f"{seed}.png").read_bytes())
    images = dataset(root, *(f"{seed}{which}.png" for which in ("", "b") for seed in range(10, 30)))
    pairs = find(images, decoded=False)
    assert len(pairs) == 20
    for fold in make_folds(group_duplicates(images, pairs), 5, seed=0):
        train, val = ({item.name.rstrip("b.png") for item in part.items} for part in fold)
        assert not train & val
    assert group_duplicates(images, []) is images


def test_groups_are_joined_through_duplicates() -> None:
    blank = np.zeros((4, 4, 3), np.uint8)
    groups = {"a": "g", "b": "g", "c": "h", "d": "h", "e": "", "f": ""}
    items = tuple(Item(blank, 0, name, group=group) for name, group in groups.items())
    joined = group_duplicates(ImageDataset(items, LABELS), [(items[1], items[2]), (items[4], items[0])])
    *joined_groups, alone = [item.group for item in joined.items]
    assert joined_groups[0]
    assert len(set(joined_groups)) == 1
    assert alone == ""


def test_sentences(root: Path) -> None:
    train, val = dataset(root, "1.jpg", "2.jpg"), dataset(root, "3.jpg", "copy.jpg")
    splits = Splits(train, val, dataset(root, "2.jpg", label=1))
    assert describe(splits) == [
        "1 image of val is in train as well: 1.jpg = copy.jpg; results on val will look better than they are",
        "1 image of test is in train as well: 2.jpg = 2.jpg; results on test will look better than they are",
    ]
    assert describe(Splits(val=val)) == describe(Splits(train)) == []


def conflicts(splits: Splits, decoded: bool = True) -> list[list[tuple[str, str, str]]]:
    known = compute_fingerprints(splits.available.values(), decoded)
    return [[tuple(copy) for copy in copies] for copies in find_label_conflicts(splits.available, known)]  # type: ignore[misc]


def both(root: Path, first: tuple[str, ...], second: tuple[str, ...]) -> ImageDataset:
    items = dataset(root, *first).items + dataset(root, *second, label=1).items
    return ImageDataset(items, LABELS)


def test_the_same_image_under_two_labels(root: Path) -> None:
    train = both(root, ("1.jpg", "2.jpg", "3.jpg"), ("copy.jpg", "tagged.jpg"))
    copies = [("1.jpg", "a", "train"), ("copy.jpg", "b", "train"), ("tagged.jpg", "b", "train")]
    assert conflicts(Splits(train)) == [copies]  # within a split
    assert conflicts(Splits(train), decoded=False) == [copies[:2]]
    assert conflicts(Splits(dataset(root, "1.jpg", "copy.jpg", "tagged.jpg"))) == []
    # in validation or test alone, between these two, and hidden behind a copy with the right label
    assert conflicts(Splits(dataset(root, "2.jpg"), val=train))[0][0] == ("1.jpg", "a", "val")
    apart = Splits(dataset(root, "2.jpg"), dataset(root, "1.jpg"), dataset(root, "copy.jpg", label=1))
    assert conflicts(apart) == [[("1.jpg", "a", "val"), ("copy.jpg", "b", "test")]]
    hidden = Splits(both(root, ("1.jpg", "copy.jpg"), ()), dataset(root, "tagged.jpg", label=1))
    assert [len(found) for found in conflicts(hidden)] == [3]


def test_several_labels_of_other_tasks(root: Path) -> None:
    for task, labels in (("multilabel", [(0,), (0, 1), (0,)]), ("regression", [(0.5, 1.0), (0.5, 2.0), (0.5, 1.0)])):
        names = ("1.jpg", "copy.jpg", "tagged.jpg")
        items = tuple(Item(root / name, label, name) for name, label in zip(names, labels, strict=True))
        found = conflicts(Splits(ImageDataset(items, Labels(("a", "b"), task))))
        assert [[copy[1] for copy in copies] for copies in found] == [
            ["a", "a|b", "a"] if task == "multilabel" else ["0.5|1", "0.5|2", "0.5|1"]
        ]


def test_several_labels_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = both(root, ("1.jpg", "2.png"), ("copy.jpg", "2 again.png"))
    found = find_label_conflicts({"train": train}, compute_fingerprints([train]))
    expected = "2 images have several labels: 1.jpg (a) = copy.jpg (b), 2.png (a) = 2 again.png (b)"
    assert describe_label_conflicts(found) == [expected]
    assert describe_label_conflicts(found[:1]) == ["1 image has several labels: 1.jpg (a) = copy.jpg (b)"]
    assert describe_label_conflicts(found * 2)[0].endswith(", …")
    assert describe_label_conflicts([]) == []
    log_label_conflicts({"train": train})
    assert "1 image has several labels: 1.jpg (a) = copy.jpg (b)" in caplog.text  # by the files' bytes
