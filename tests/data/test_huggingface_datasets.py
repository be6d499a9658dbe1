from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.data import ImageDataset, check_images, open_data, read_image
from effnet.metadata import Labels
from tests.data.conftest import encode

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def huggingface_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def jpeg(shade: int) -> bytes:
    return encode(Image.new("RGB", (9, 7), (shade, 90, 30)), "JPEG")


def table(count: int = 6, **columns: tuple[Any, list[Any]]) -> Any:
    """Images of the shades 0, 10, …, beside ``columns``, each a feature and its values."""
    held = [{"bytes": jpeg(10 * n), "path": None} for n in range(count)]
    features = {"img": datasets.Image()} | {name: feature for name, (feature, _) in columns.items()}
    values = {"img": held} | {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def classes() -> Any:
    return datasets.ClassLabel(names=["wasp", "ant", "bee"])


def shades(dataset: ImageDataset | None) -> list[int]:
    return [round(float(np.asarray(read_image(item.image))[..., 0].mean()), -1) for item in dataset.items]


@pytest.mark.parametrize("layout", ["save_to_disk", "parquet", "parquet in data"])
def test_a_folder(tmp_path: Path, layout: str) -> None:
    train = table(label=(classes(), [0, 1, 2, 2, 1, 0]))
    val = table(2, label=(classes(), [1, 0]))
    root = tmp_path / "set"
    if layout == "save_to_disk":
        datasets.DatasetDict({"train": train, "validation": val}).save_to_disk(root)
    else:
        place = root / "data" if "data" in layout else root
        place.mkdir(parents=True)
        train.to_parquet(place / "train-00000-of-00001.parquet")
        val.to_parquet(place / "validation-00000-of-00001.parquet")
    splits = open_data(root)
    assert splits.test is None
    assert splits.train.labels == splits.val.labels == Labels(("wasp", "ant", "bee"))
    assert splits.train.targets.tolist() == [0, 1, 2, 2, 1, 0]
    assert splits.val.targets.tolist() == [1, 0]
    assert shades(splits.train) == [0, 10, 20, 30, 40, 50]
    assert splits.train.items[1].image.read() == jpeg(10)  # type: ignore[union-attr]
    assert not check_images(splits.train)[1]


def test_one_split_is_for_training(tmp_path: Path) -> None:
    table(label=(classes(), [0, 1, 2, 2, -1, 0])).save_to_disk(tmp_path / "set")
    train = open_data(tmp_path / "set").train
    assert train is not None
    good, errors = check_images(train)
    assert good.targets.tolist() == [0, 1, 2, 2, 0]
    assert [str(error) for error in errors] == [f"{tmp_path / 'set'}, train, row 4 has no label"]


def test_secret_labels(tmp_path: Path) -> None:
    tables = {"train": table(2, label=(classes(), [0, 1])), "test": table(2, label=(classes(), [-1, -1]))}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "set")
    splits = open_data(tmp_path / "set")
    assert splits.train is not None
    assert splits.test is None


def test_other_labels(tmp_path: Path) -> None:
    several = datasets.Sequence(classes())
    table(3, tags=(several, [[0, 2], [], [1]])).save_to_disk(tmp_path / "a")
    train = open_data(tmp_path / "a").train
    assert train.labels == Labels(("wasp", "ant", "bee"), "multilabel")
    assert [item.label for item in train.items] == [(0, 2), (), (1,)]
    table(2, target=(datasets.Value("float32"), [0.5, 2.0])).save_to_disk(tmp_path / "b")
    train = open_data(tmp_path / "b").train
    assert train.labels.task == "regression"
    assert [item.label for item in train.items] == [(0.5,), (2.0,)]
    table(2, label=(datasets.Value("string"), ["x", "b"])).save_to_disk(tmp_path / "c")
    train = open_data(tmp_path / "c").train
    assert train.labels == Labels(("b", "x"))


def test_which_column_is_the_label(tmp_path: Path) -> None:
    root = tmp_path / "set"
    table(2, coarse=(classes(), [0, 1]), fine=(classes(), [2, 1])).save_to_disk(root)
    with pytest.raises(ValueError, match=rf"may be the label \(coarse, fine\): choose one, as in {root}#fine"):
        open_data(root)
    train = open_data(f"{root}#coarse").train
    assert train.targets.tolist() == [0, 1]
    with pytest.raises(ValueError, match="has no column shape, only img, coarse, fine"):
        open_data(f"{root}#shape")
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(ValueError, match="has no image column, only text, label"):
        open_data(tmp_path / "texts")


def test_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"^hub:nobody/nothing is not cached and offline mode is on"):
        open_data("hub:nobody/nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[hub\]"'):
        open_data("hub:cifar10")


@pytest.mark.parametrize("content", [b"", b"PAR1 100% damaged", b"PAR1" + b"%s" * 40 + b"PAR1"])
def test_a_damaged_table_is_told_in_one_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises((OSError, ValueError), match=r"is not available|cannot be opened"):
        open_data(tmp_path)
    assert "Traceback" not in capsys.readouterr().err
