"""The data sets of the paper's transfer learning (Table 5 of arXiv:1905.11946), by their names, through torchvision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from effnet.contract import Labels
from effnet.data import hub
from effnet.data.pictures import Item, Pictures, Splits
from effnet.data.pixels import Pixels
from effnet.data.storage.home import offline, store
from effnet.data.storage.reasons import reason

ROOT = "EFFNET_DATA"  # the environment variable that names the folder in which such sets lie


@dataclass(frozen=True)
class _Set:
    """A set: torchvision's class, the folder it looks for, the arguments of each split, and the hub's name of it."""

    maker: str
    folder: str
    splits: Mapping[str, object]
    argument: str = "split"
    hub: str = ""  # where torchvision cannot download it


_SETS = MappingProxyType(
    {
        "cifar10": _Set("CIFAR10", "cifar-10-batches-py", {"train": True, "test": False}, "train"),
        "cifar100": _Set("CIFAR100", "cifar-100-python", {"train": True, "test": False}, "train"),
        "flowers102": _Set("Flowers102", "flowers-102", {"train": "train", "val": "val", "test": "test"}),
        "pets": _Set("OxfordIIITPet", "oxford-iiit-pet", {"train": "trainval", "test": "test"}),
        "food101": _Set("Food101", "food-101", {"train": "train", "test": "test"}),
        "cars": _Set("StanfordCars", "stanford_cars", {"train": "train", "test": "test"}, hub="tanganke/stanford_cars"),
        "aircraft": _Set("FGVCAircraft", "fgvc-aircraft-2013b", {"train": "train", "val": "val", "test": "test"}),
        "birdsnap": _Set("", "birdsnap", {}),  # neither torchvision nor the hub has its photos
    }
)
NAMES = tuple(_SETS)


def meant(source: str) -> str | None:
    """The name of the set that ``source`` is, or that lies in the folder ``source`` as it is handed out; else None."""
    if source in _SETS:
        return source
    root = Path(source)
    if root.is_dir():
        for name, one in _SETS.items():
            if one.maker and (root.name == one.folder or (root / one.folder).is_dir()):
                return name
    return None


def splits(name: str, source: str, otherwise: Callable[[Path], Splits]) -> Splits:
    """The pictures of the set ``name``, from ``source`` where that is a folder.

    Otherwise a copy is taken where it lies: in a folder of that name here, in ``$EFFNET_DATA`` or in a folder of that
    name there, as torchvision lays it out or whatever ``otherwise`` opens; or it is downloaded to the store. Raises
    ``OSError`` with one sentence where it is nowhere and cannot be had.
    """
    one = _SETS[name]
    for place in _places(name, source):
        if one.maker and place.name == one.folder:
            return _read(name, place.parent)
        if one.maker and (place / one.folder).is_dir():
            return _read(name, place)
        if place.name == name and any(entry.is_dir() for entry in place.iterdir()):
            return otherwise(place.resolve())
    by_hand = f"put it into a folder {name} and set {ROOT} to the folder around that"
    if not one.maker:
        raise OSError(f"{name} cannot be downloaded: ask its authors for it, {by_hand}; a folder a class is enough")
    if offline():
        raise OSError(f"{name} is not on this disk, and the network is to be left alone: {by_hand}")
    try:
        return hub.splits(f"{hub.SCHEME}{one.hub}") if one.hub else _read(name, store() / "data" / name, download=True)
    except (OSError, ImportError) as error:
        raise OSError(f"{name} cannot be had: {reason(error)}; {by_hand}, as torchvision expects it") from None


def _places(name: str, source: str) -> Iterator[Path]:
    """The folders in which a copy may lie, as far as they exist."""
    around = os.environ.get(ROOT)
    beyond = (Path(around).expanduser() / name, Path(around).expanduser()) if around else ()
    for place in (Path(source), *beyond, store() / "data" / name):
        if place.is_dir():
            yield place


def _read(name: str, root: Path, download: bool = False) -> Splits:
    """The set in ``root``, by torchvision's own reading of its files."""
    from effnet.data.without_operators import declare_operators

    declare_operators()
    from torchvision import datasets

    one = _SETS[name]
    found: dict[str, Pictures] = {}
    for role, value in one.splits.items():
        try:
            made = getattr(datasets, one.maker)(str(root), **{one.argument: value}, download=download)
        except RuntimeError as error:  # its own: "not found or corrupted"
            folder = root / one.folder
            raise OSError(f"{name} in {folder} is not whole: remove it, or bring it again ({error})") from None
        items = [
            Item(picture, label, f"{role}/{picture.name if isinstance(picture, Path) else f'{number:05}'}")
            for number, (picture, label) in enumerate(_labelled(made))
        ]
        found[role] = Pictures(tuple(items), Labels(tuple(made.classes)))
    return Splits(found.get("train"), found.get("val"), found.get("test"))


def _labelled(made: Any) -> Iterator[tuple[Path | Pixels, int]]:
    """The pictures and classes that torchvision has found: it opens files only later, in ways of its own."""
    if hasattr(made, "data"):  # CIFAR: uint8 (N, 32, 32, 3)
        yield from zip(np.asarray(made.data), map(int, made.targets), strict=True)
    elif hasattr(made, "_samples"):
        yield from ((Path(file), int(label)) for file, label in made._samples)
    else:
        files = made._images if hasattr(made, "_images") else made._image_files
        yield from zip(map(Path, files), map(int, made._labels), strict=True)
