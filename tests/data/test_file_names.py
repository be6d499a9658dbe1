"""File names that are no text, and accented letters in two forms: in every layout and every verb."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import open_data, read_image
from effnet.data.class_names import match_classes
from effnet.data.dataset import LabelEncoder
from effnet.data.prediction_inputs import open_inputs
from effnet.data.storage.atomic_write import write_text
from effnet.data.storage.file_names import existing_path, normalize_name
from effnet.data.webdataset_writer import write_shards
from effnet.training.data_plan import fingerprint_splits

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # PIL would not take every name
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(file, "PNG")
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.jpg", "plain.jpg"),
        (NFD, NFC),
        (os.fsdecode(b"caf\xe9/\xff.jpg"), "caf\\xe9/\\xff.jpg"),
        ("한국어".encode().decode(), "한국어"),
        (unicodedata.normalize("NFD", "한국어"), "한국어"),
    ],
)
def test_names_are_texts(name: str, expected: str) -> None:
    found = normalize_name(name)
    assert found == expected == normalize_name(found)
    found.encode()


def test_a_path_in_the_other_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / NFD / f"{NFC}.png")
    for folder in (NFC, NFD):
        for name in (NFC, NFD):
            asked = tmp_path / folder / f"{name}.png"
            assert existing_path(asked) == file
            assert read_image(asked).size == (20, 20)
            assert [found for found, _ in open_inputs([asked])] == [str(file)]
    assert existing_path(tmp_path / NFC / "other.png") == tmp_path / NFC / "other.png"
    monkeypatch.chdir(tmp_path)
    assert existing_path(f"{NFC}/{NFD}.png") == Path(NFD, f"{NFC}.png")
    assert existing_path("nothing") == Path("nothing")


def test_two_forms_of_a_name_are_one_class(tmp_path: Path) -> None:
    for number, folder in enumerate((NFC, NFD, "zebra", "apple")):
        for name in ("a", NFC, NFD):
            save(tmp_path / folder / f"{name}.png", number)
    train = open_data(tmp_path).train
    assert train is not None
    assert train.labels.names == ("apple", NFC, "zebra")
    assert train.class_counts() == (3, 6, 3)
    assert len({item.name for item in train.items}) == 12
    assert {unicodedata.is_normalized("NFC", item.name) for item in train.items} == {True}
    # a set from another system, whose folder has the other form, has the same classes in the same order
    columns, _ = match_classes([NFD, "zebra"], train.labels.names, 3)
    assert columns == [1, 2]


def test_splits_and_tables_in_the_other_form(tmp_path: Path) -> None:
    for split, form in (("train", NFD), ("val", NFC)):
        for folder in (form, "zebra"):
            save(tmp_path / "data" / split / folder / "a.png", len(split))
    splits = open_data(tmp_path / "data")
    assert splits.train is not None
    assert splits.val is not None
    assert splits.train.labels == splits.val.labels
    for name in (NFD, "b", "c", "d"):
        save(tmp_path / "table" / f"{name}.png")
    rows = f"image,label\n{NFC}.png,{NFC}\nb.png,y\nc.png,{NFD}\nd.png,y\n"
    (tmp_path / "table" / "labels.csv").write_text(rows, encoding="utf-8")
    train = open_data(tmp_path / "table" / "labels.csv").train
    assert train is not None
    assert [read_image(item.image).size for item in train.items] == [(20, 20)] * 4
    assert (sorted(train.labels.names), train.class_counts()) == ([NFC, "y"], (2, 2))
    encoder = LabelEncoder.fit([NFD, "b", NFC], None, "", "shards")
    assert encoder.labels.names == ("b", NFC)
    assert [encoder.encode(name, "a") for name in (NFC, NFD)] == [1, 1]


def test_names_that_are_no_text_go_through_shards(tmp_path: Path) -> None:
    root = tmp_path / "data"
    odd, class_ = os.fsdecode(b"\xff.png"), os.fsdecode(b"caf\xe9")
    for folder in (class_, "b"):
        save(root / folder / odd)
        (root / folder / f"broken{odd}").write_bytes(b"no image")
    splits = open_data(root)
    assert splits.train is not None
    assert splits.train.labels.names == ("b", "caf\\xe9")
    fingerprint_splits(splits.available)
    summary = write_shards(splits, tmp_path / "shards")
    assert (summary.images, len(summary.skipped)) == (2, 2)
    assert write_shards(splits, tmp_path / "shards").already_complete
    again = open_data(str(tmp_path / "shards")).train
    assert again is not None
    assert again.labels == splits.train.labels
    assert [read_image(item.image).size for item in again.items] == [(20, 20)] * 2


def test_json_keeps_the_bytes_of_a_name(tmp_path: Path) -> None:
    import json

    name = os.fsdecode(b"\xff\xe9.png")
    path = write_text(tmp_path / "a.json", json.dumps({"name": name, "other": "é"}, ensure_ascii=False))
    assert json.loads(path.read_text("utf-8")) == {"name": name, "other": "é"}
