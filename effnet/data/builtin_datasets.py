"""Scikit-learn's handwritten digits: 1,797 real pictures that come with the package, for work without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from effnet.data import huggingface_datasets
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.image_io import Pixels
from effnet.data.splits import holdout
from effnet.data.storage.cache_dir import is_offline, writable_cache_dir
from effnet.data.storage.errors import describe_error
from effnet.metadata import Labels

DIGITS_TEST_FRACTION = 0.2


DIGITS_TEST_SEED = 1797  # never to change: every accuracy on these digits is of the same test pictures


def load_digits_dataset() -> Splits:
    """The digits as uint8 (8, 8, 3) pictures, a fifth of each class for testing: always the same one."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    grey = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), from 0 to 16
    rgb = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8, 3)
    items = tuple(
        Item(picture, int(label), f"digits/{index:04}")
        for index, (picture, label) in enumerate(zip(rgb, loaded.target, strict=True))
    )
    pictures = ImageDataset(items, Labels(tuple("0123456789")), allow_flip=False)
    train, test = holdout(pictures, DIGITS_TEST_FRACTION, DIGITS_TEST_SEED)
    return Splits(train, None, test)


# The data sets of the paper's transfer learning (Table 5 of arXiv:1905.11946), by their names, through torchvision.


DATA_DIR_VARIABLE = "EFFNET_DATA"  # the environment variable that names the folder in which such sets lie


@dataclass(frozen=True)
class _DatasetSource:
    """A set: torchvision's class, the folder it looks for, the arguments of each split, and the hub's name of it."""

    class_name: str
    folder: str
    splits: Mapping[str, object]
    split_argument: str = "split"
    hub_id: str = ""  # where torchvision cannot download it


_DATASET_SOURCES = MappingProxyType(
    {
        "cifar10": _DatasetSource("CIFAR10", "cifar-10-batches-py", {"train": True, "test": False}, "train"),
        "cifar100": _DatasetSource("CIFAR100", "cifar-100-python", {"train": True, "test": False}, "train"),
        "flowers102": _DatasetSource("Flowers102", "flowers-102", {"train": "train", "val": "val", "test": "test"}),
        "pets": _DatasetSource("OxfordIIITPet", "oxford-iiit-pet", {"train": "trainval", "test": "test"}),
        "food101": _DatasetSource("Food101", "food-101", {"train": "train", "test": "test"}),
        "cars": _DatasetSource(
            "StanfordCars", "stanford_cars", {"train": "train", "test": "test"}, hub_id="tanganke/stanford_cars"
        ),
        "aircraft": _DatasetSource(
            "FGVCAircraft", "fgvc-aircraft-2013b", {"train": "train", "val": "val", "test": "test"}
        ),
        "birdsnap": _DatasetSource("", "birdsnap", {}),  # neither torchvision nor the hub has its photos
    }
)


BUILTIN_DATASET_NAMES = tuple(_DATASET_SOURCES)


def find_builtin_name(source: str) -> str | None:
    """The name of the set that ``source`` is, or that lies in the folder ``source`` as it is handed out; else None."""
    if source in _DATASET_SOURCES:
        return source
    root = Path(source)
    if root.is_dir():
        for name, one in _DATASET_SOURCES.items():
            if one.class_name and (root.name == one.folder or (root / one.folder).is_dir()):
                return name
    return None


def open_builtin_dataset(name: str, source: str, open_path: Callable[[Path], Splits]) -> Splits:
    """The pictures of the set ``name``, from ``source`` where that is a folder.

    Otherwise a copy is taken where it lies: in a folder of that name here, in ``$EFFNET_DATA`` or in a folder of that
    name there, as torchvision lays it out or whatever ``otherwise`` opens; or it is downloaded to the store. Raises
    ``OSError`` with one sentence where it is nowhere and cannot be had.
    """
    one = _DATASET_SOURCES[name]
    for place in _candidate_folders(name, source):
        if one.class_name and place.name == one.folder:
            return _read_torchvision_dataset(name, place.parent)
        if one.class_name and (place / one.folder).is_dir():
            return _read_torchvision_dataset(name, place)
        if place.name == name and any(entry.is_dir() for entry in place.iterdir()):
            return open_path(place.resolve())
    by_hand = f"put it into a folder {name} and set {DATA_DIR_VARIABLE} to the folder around that"
    if not one.class_name:
        raise OSError(f"{name} cannot be downloaded: ask its authors for it, {by_hand}; a folder a class is enough")
    if is_offline():
        raise OSError(f"{name} is not on this disk, and the network is to be left alone: {by_hand}")
    try:
        return (
            huggingface_datasets.open_huggingface_dataset(f"{huggingface_datasets.HUB_SCHEME}{one.hub_id}")
            if one.hub_id
            else _read_torchvision_dataset(name, writable_cache_dir() / "data" / name, download=True)
        )
    except (OSError, ImportError) as error:
        raise OSError(f"{name} cannot be had: {describe_error(error)}; {by_hand}, as torchvision expects it") from None


def _candidate_folders(name: str, source: str) -> Iterator[Path]:
    """The folders in which a copy may lie, as far as they exist."""
    around = os.environ.get(DATA_DIR_VARIABLE)
    beyond = (Path(around).expanduser() / name, Path(around).expanduser()) if around else ()
    for place in (Path(source), *beyond, writable_cache_dir() / "data" / name):
        if place.is_dir():
            yield place


def _read_torchvision_dataset(name: str, root: Path, download: bool = False) -> Splits:
    """The set in ``root``, by torchvision's own reading of its files."""
    from effnet.data.torchvision_compat import declare_operators

    declare_operators()
    from torchvision import datasets

    one = _DATASET_SOURCES[name]
    found: dict[str, ImageDataset] = {}
    for role, value in one.splits.items():
        try:
            made = getattr(datasets, one.class_name)(str(root), **{one.split_argument: value}, download=download)
        except RuntimeError as error:  # its own: "not found or corrupted"
            folder = root / one.folder
            raise OSError(f"{name} in {folder} is not whole: remove it, or bring it again ({error})") from None
        items = [
            Item(picture, label, f"{role}/{picture.name if isinstance(picture, Path) else f'{number:05}'}")
            for number, (picture, label) in enumerate(_iter_labeled_images(made))
        ]
        found[role] = ImageDataset(tuple(items), Labels(tuple(made.classes)))
    return Splits(found.get("train"), found.get("val"), found.get("test"))


def _iter_labeled_images(made: Any) -> Iterator[tuple[Path | Pixels, int]]:
    """The pictures and classes that torchvision has found: it opens files only later, in ways of its own."""
    if hasattr(made, "data"):  # CIFAR: uint8 (N, 32, 32, 3)
        yield from zip(np.asarray(made.data), map(int, made.targets), strict=True)
    elif hasattr(made, "_samples"):
        yield from ((Path(file), int(label)) for file, label in made._samples)
    else:
        files = made._images if hasattr(made, "_images") else made._image_files
        yield from zip(map(Path, files), map(int, made._labels), strict=True)
