"""Datasets by name: scikit-learn's digits, and those of the paper's transfer learning (Table 5) through torchvision."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.serde import import_extra
from effnet.data import huggingface_datasets, image_io, splits
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.storage import cache_dir, errors
from effnet.metadata import Labels

DATA_DIR_VARIABLE = "EFFNET_DATA"  # environment variable: the folder that contains such datasets


@dataclass(frozen=True)
class _DatasetSource:
    """torchvision's class, the folder that it expects, and the value of its argument for each split."""

    class_name: str
    folder: str
    splits: Mapping[str, object]
    split_argument: str = "split"
    hub_source: str = ""  # if torchvision cannot download it


_TWO_SPLITS, _THREE_SPLITS = {"train": "train", "test": "test"}, {"train": "train", "val": "val", "test": "test"}
_DATASET_SOURCES = {
    "cifar10": _DatasetSource("CIFAR10", "cifar-10-batches-py", {"train": True, "test": False}, "train"),
    "cifar100": _DatasetSource("CIFAR100", "cifar-100-python", {"train": True, "test": False}, "train"),
    "flowers102": _DatasetSource("Flowers102", "flowers-102", _THREE_SPLITS),
    "pets": _DatasetSource("OxfordIIITPet", "oxford-iiit-pet", {"train": "trainval", "test": "test"}),
    "food101": _DatasetSource("Food101", "food-101", _TWO_SPLITS),
    "cars": _DatasetSource("StanfordCars", "stanford_cars", _TWO_SPLITS, hub_source="hub:tanganke/stanford_cars"),
    "aircraft": _DatasetSource("FGVCAircraft", "fgvc-aircraft-2013b", _THREE_SPLITS),
    "birdsnap": _DatasetSource("", "birdsnap", {}),  # neither torchvision nor the hub has its photos
}
BUILTIN_DATASET_NAMES = ("digits", *_DATASET_SOURCES)


def open_digits() -> Splits:
    """Open scikit-learn's 1,797 handwritten digits, uint8 (8, 8, 3), of which a fifth is always the same test split."""
    digits = import_extra("sklearn.datasets", "train", "digits requires", "scikit-learn").load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), from 0 to 16
    rgb = np.repeat(gray[..., None], 3, axis=-1)  # (N, 8, 8, 3)
    items = tuple(
        Item(image, int(label), f"digits/{index:04}")
        for index, (image, label) in enumerate(zip(rgb, digits.target, strict=True))
    )
    dataset = ImageDataset(items, Labels(tuple("0123456789")), allow_flip=False)
    train, test = splits.holdout(dataset, 0.2, seed=1797)  # never to change: accuracies on digits refer to these images
    return Splits(train, test=test)


def find_builtin_name(source: str) -> str | None:
    """Return the name of the dataset that ``source`` names or contains as it is distributed, or None.

    A folder of that name in the working directory comes first: it is the user's own.
    """
    root = Path(source)
    for name, dataset in _DATASET_SOURCES.items() if root.is_dir() else ():
        if dataset.class_name and (root.name == dataset.folder or (root / dataset.folder).is_dir()):
            return name
    return source if source in BUILTIN_DATASET_NAMES and not root.is_dir() else None


def open_builtin_dataset(name: str, source: str, open_path: Callable[[Path], Splits]) -> Splits:
    """Open the dataset ``name``: from ``source``, ``$EFFNET_DATA`` or the cache, or else download it to the cache.

    A copy is laid out as torchvision does, or as ``open_path`` can open it. Raises ``OSError`` if there is none.
    """
    if name == "digits":
        return open_digits()
    dataset = _DATASET_SOURCES[name]
    parent = os.environ.get(DATA_DIR_VARIABLE)
    configured = (Path(os.path.expanduser(parent)) / name, Path(os.path.expanduser(parent))) if parent else ()
    cached = cache_dir.writable_cache_dir() / "data" / name
    for folder in filter(Path.is_dir, (Path(source), *configured, cached)):
        if dataset.class_name and folder.name == dataset.folder:
            return _read_torchvision_dataset(name, folder.parent)
        if dataset.class_name and (folder / dataset.folder).is_dir():
            return _read_torchvision_dataset(name, folder)
        if folder.name == name and any(entry.is_dir() for entry in folder.iterdir()):
            return open_path(folder.resolve())
    remedy = f"put it into a folder {name} and set {DATA_DIR_VARIABLE} to the folder that contains it"
    if not dataset.class_name:
        raise OSError(f"{name} cannot be downloaded: ask its authors for it, and {remedy}; class folders are enough")
    if cache_dir.is_offline():
        raise OSError(f"{name} is not on this disk and offline mode is on: {remedy}")
    try:
        if dataset.hub_source:
            return huggingface_datasets.open_huggingface_dataset(dataset.hub_source)
        return _read_torchvision_dataset(name, cached, download=True)
    except (OSError, ImportError) as error:
        reason = errors.describe_error(error)
        raise OSError(f"{name} is not available: {reason}; {remedy}, as torchvision expects it") from None


def _read_torchvision_dataset(name: str, root: Path, download: bool = False) -> Splits:
    from effnet.data.torchvision_compat import import_torchvision

    datasets = import_torchvision("datasets", name)
    source = _DATASET_SOURCES[name]
    found: dict[str, ImageDataset] = {}
    for split, value in source.splits.items():
        options = {source.split_argument: value, "download": download}
        try:
            dataset = getattr(datasets, source.class_name)(str(root), **options)
        except RuntimeError as error:  # its own: "not found or corrupted"
            incomplete = f"{name} in {root / source.folder} is incomplete"
            raise OSError(f"{incomplete}: remove it, or download it again ({error})") from None
        items = [
            Item(image, label, f"{split}/{image.name if isinstance(image, Path) else f'{number:05}'}")
            for number, (image, label) in enumerate(_iter_labeled_images(dataset))
        ]
        found[split] = ImageDataset(tuple(items), Labels(tuple(dataset.classes)))
    return Splits(**found)


def _iter_labeled_images(dataset: Any) -> Iterator[tuple[Path | image_io.Pixels, int]]:
    """Yield the images and classes of a torchvision dataset without its own way of opening files."""
    if hasattr(dataset, "data"):  # CIFAR: uint8 (N, 32, 32, 3)
        yield from zip(np.asarray(dataset.data), map(int, dataset.targets), strict=True)
    elif hasattr(dataset, "_samples"):
        yield from ((Path(file), int(label)) for file, label in dataset._samples)
    else:
        files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
        yield from zip(map(Path, files), map(int, dataset._labels), strict=True)
