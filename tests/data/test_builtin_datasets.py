from __future__ import annotations

import logging
import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from effnet.data import ImageDataset, open_data, read_image
from effnet.data.builtin_datasets import BUILTIN_DATASET_NAMES
from effnet.data.dataset_sources import may_have_labels
from effnet.data.webdataset_writer import write_shards
from effnet.metadata import Labels


def test_digits() -> None:
    splits = open_data("digits")
    assert splits.val is None
    assert len(splits.train) + len(splits.test) == 1797
    for part in (splits.train, splits.test):
        assert part.labels.names == tuple("0123456789")
        assert not part.allow_flip
        for item in part.items:
            assert isinstance(item.image, np.ndarray)
            assert item.image.shape == (8, 8, 3)
            assert item.image.dtype == np.uint8
    everything = np.stack([np.asarray(item.image) for item in splits.train.items])
    assert everything.min() == 0
    assert everything.max() == 255
    assert read_image(splits.train.items[0].image).size == (8, 8)


def test_the_test_split_of_digits_never_changes() -> None:
    test = open_data("digits").test
    assert all(30 <= count <= 40 for count in test.class_counts())
    names = [item.name for item in test.items]
    assert names == sorted(names)
    assert len(names) == 359
    assert sha256(" ".join(names).encode()).hexdigest()[:16] == "83a808535eac22eb"


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EFFNET_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def write_photo(path: Path, shade: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, shade, shade)).save(path)


@pytest.mark.parametrize("name", BUILTIN_DATASET_NAMES)
def test_a_folder_of_the_user_comes_first(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in ("cat/1.png", "dog/2.png"):
        write_photo(tmp_path / name / file)
    for source in (name, Path(name), f"{name}/", f"./{name}", tmp_path / name):
        assert open_data(source).train.labels.names == ("cat", "dog"), source
    with caplog.at_level(logging.INFO, "effnet"):
        open_data(name)
    assert caplog.text.count(f"using the folder {name} of {tmp_path}, not the dataset of that name") == 1


@pytest.mark.parametrize("name", ["digits", "pets", "cars"])
def test_a_folder_that_cannot_be_used_is_not_replaced(name: str, tmp_path: Path) -> None:
    write_photo(tmp_path / name / "1.png")
    with pytest.raises(ValueError, match=f"{name} has no class folders"):
        open_data(name)
    assert not may_have_labels(name)
    (tmp_path / "elsewhere" / "cat").mkdir(parents=True)
    (tmp_path / name).rename(tmp_path / "old")
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(ValueError, match=f"class 'cat' in {name} has no images"):
        open_data(name)


def test_shards_of_a_name(tmp_path: Path) -> None:
    for file in ("cat/1.png", "dog/2.png"):
        write_photo(tmp_path / "photos" / file)
    write_shards(open_data("photos"), tmp_path / "digits")
    assert len(open_data("digits").train) == 2
    (tmp_path / "digits.txt").touch()
    assert may_have_labels("digits")
    assert not may_have_labels("digits.txt")
    assert len(open_data("photos").train) == 2


def write_cifar(root: Path, hundred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of CIFAR as they are distributed, with other contents."""
    kind = datasets.CIFAR100 if hundred else datasets.CIFAR10
    key, count = ("fine_labels", 100) if hundred else ("labels", 10)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for number, (name, _) in enumerate(kind.train_list + kind.test_list):
        data = np.full((2, 3072), number, np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, key: [number, 9]}))
    names = [f"class {number}" for number in range(count)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "train_list", [[name, None] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, None] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})


def read_labels(dataset: ImageDataset | None) -> list[int]:
    for item in dataset.items:
        read_image(item.image)
    return dataset.targets.tolist()


@pytest.mark.parametrize("hundred", [False, True])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hundred: bool) -> None:
    name = "cifar100" if hundred else "cifar10"
    root = tmp_path / "sets" / name
    write_cifar(root, hundred, monkeypatch)
    monkeypatch.setenv("EFFNET_DATA", str(tmp_path / "sets"))
    for source in (name, root, root / ("cifar-100-python" if hundred else "cifar-10-batches-py")):
        splits = open_data(source)
        assert read_labels(splits.train) == ([0, 9] if hundred else [n for batch in range(5) for n in (batch, 9)])
        assert read_labels(splits.test) == [1 if hundred else 5, 9]
        assert splits.val is None
        assert splits.train.labels == Labels(tuple(f"class {n}" for n in range(100 if hundred else 10)))
        assert np.asarray(splits.train.items[-1].image).shape == (32, 32, 3)


def test_a_wrong_file_of_cifar(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"other")
    with pytest.raises(OSError, match=r"cifar10 in .*cifar-10-batches-py is incomplete: remove it, or download"):
        open_data("cifar10")


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 7):
        write_photo(root / "jpg" / f"image_{number:05}.jpg")
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 102, 3, 1, 2, 3]])})
    numbers = {"trnid": [[6, 1, 2]], "valid": [[3, 4]], "tstid": [[5, 4]]}
    savemat(root / "setid.mat", {split: np.array(rows) for split, rows in numbers.items()})
    held = datasets.Flowers102._file_dict
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {key: (name, None) for key, (name, _) in held.items()})


def test_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_flowers(tmp_path / "flowers-102", monkeypatch)
    splits = open_data(tmp_path)
    assert [read_labels(one) for one in (splits.train, splits.val, splits.test)] == [[2, 0, 101], [2, 0], [1, 0]]
    assert len(splits.train.labels.names) == 102
    assert splits.train.labels.names[0] == "pink primrose"
    assert splits.train.items[0].name == "train/image_00006.jpg"


def test_pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "sets" / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    rows = {"trainval": ["Abyssinian_2 1 1 1", "yorkshire_terrier_9 2 2 1"], "test": ["yorkshire_terrier_1 2 2 1"]}
    rows["test"].insert(0, "Abyssinian_1 1 1 1")
    for split, lines in rows.items():
        (root / "annotations" / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            write_photo(root / "images" / f"{line.split()[0]}.jpg")
    monkeypatch.setenv("EFFNET_DATA", str(tmp_path / "sets"))
    splits = open_data("pets")
    assert (read_labels(splits.train), splits.val, read_labels(splits.test)) == ([0, 1], None, [0, 1])
    assert splits.train.labels == Labels(("Abyssinian", "Yorkshire Terrier"))


def test_food(tmp_path: Path) -> None:
    root = tmp_path / "food101" / "food-101"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "train.json").write_text('{"waffles": ["waffles/1"], "apple_pie": ["apple_pie/2"]}')
    (root / "meta" / "test.json").write_text('{"waffles": ["waffles/3"], "apple_pie": ["apple_pie/4"]}')
    for name in ("waffles/1", "apple_pie/2", "waffles/3", "apple_pie/4"):
        write_photo(root / "images" / f"{name}.jpg")
    splits = open_data("food101")  # a folder of that name lies here
    assert (read_labels(splits.train), read_labels(splits.test)) == ([1, 0], [1, 0])
    assert splits.train.labels == Labels(("apple_pie", "waffles"))


def test_aircraft(tmp_path: Path) -> None:
    root = tmp_path / "fgvc-aircraft-2013b" / "data"
    write_photo(root / "images" / "0034309.jpg")
    (root / "variants.txt").write_text("707-320\nA300B4\n")
    for split in ("train", "val", "test"):
        (root / f"images_variant_{split}.txt").write_text("0034309 A300B4\n")
    splits = open_data(tmp_path / "fgvc-aircraft-2013b")
    assert [read_labels(one) for one in (splits.train, splits.val, splits.test)] == [[1], [1], [1]]


def test_cars(tmp_path: Path) -> None:
    root = tmp_path / "stanford_cars"
    kind = [("fname", object), ("class", object)]
    (root / "devkit").mkdir(parents=True)
    for place, file in (("cars_train", "devkit/cars_train_annos.mat"), ("cars_test", "cars_test_annos_withlabels.mat")):
        for number in (1, 2):
            write_photo(root / place / f"{number:05}.jpg")
        rows = np.array([("00001.jpg", 2), ("00002.jpg", 1)], kind)
        savemat(root / file, {"annotations": rows})
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura", "BMW"], object)})
    splits = open_data(tmp_path)
    assert (read_labels(splits.train), read_labels(splits.test)) == ([1, 0], [1, 0])
    assert splits.train.labels == Labels(("Acura", "BMW"))


def test_class_folders_instead_of_the_distributed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Acadian_Flycatcher", "American_Crow"):
        write_photo(tmp_path / "sets" / "birdsnap" / name / "1.jpg")
    monkeypatch.setenv("EFFNET_DATA", str(tmp_path / "sets"))
    train = open_data("birdsnap").train
    assert train.labels == Labels(("Acadian_Flycatcher", "American_Crow"))


def test_not_available() -> None:
    with pytest.raises(OSError, match="birdsnap cannot be downloaded: ask its authors for it, and put"):
        open_data("birdsnap")
    remedy = "put it into a folder cifar10 and set EFFNET_DATA to the folder that contains it"
    with pytest.raises(OSError, match=f"cifar10 is not on this disk and offline mode is on: {remedy}"):
        open_data("cifar10")
