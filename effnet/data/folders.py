"""Folders of class folders: the usual way in which labelled pictures lie on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from effnet.data import imagenet
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.metadata import Labels

SPLIT_FOLDER_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

# What lies about among pictures and is none. Everything else is taken for a picture, whatever its suffix (or without
# one), so that a photo in a format that cannot be read is reported by `check` and never left out in silence.
NON_IMAGE_SUFFIXES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst", ".html", ".log",
    ".py", ".ipynb", ".sh", ".mat", ".db",
))  # fmt: skip
_IGNORED_FOLDERS = frozenset(("__macosx", "@eadir", "__pycache__"))


def open_folder(root: Path) -> Splits:
    """The class folders, or the splits of such, in ``root``; or ImageNet as it is handed out.

    Raises ``ValueError`` as `effnet.data.open_data` does.
    """
    if imagenet.is_imagenet_validation(root):
        return Splits(None, imagenet.open_imagenet_validation(root, root.parent), None)
    roles = _find_split_folders(root)
    if not roles:
        return Splits(_open_class_folders(root), None, None)
    train = _open_class_folders(roles["train"]) if "train" in roles else None
    labels = train.labels if train else None
    val = _open_heldout_folder(roles["val"], root, labels) if "val" in roles else None
    if labels is None and val is not None:
        labels = val.labels
    test = _open_heldout_folder(roles["test"], root, labels) if "test" in roles else None
    return Splits(train, val, test)


def _find_split_folders(root: Path) -> dict[str, Path]:
    """The folders of ``root`` that are its train, val and test; none where they are classes of such a name.

    A class may well be called "train": alone among others, and with pictures but no folders in it, it is a class.
    """
    roles: dict[str, Path] = {}
    folders = _list_folders(root)
    for folder in folders:
        role = SPLIT_FOLDER_NAMES.get(folder.name.lower())
        if role and role in roles:
            raise ValueError(f"{root} has both {roles[role].name}/ and {folder.name}/: keep one of them as its {role}")
        if role:
            roles[role] = folder
    nested = any(_list_folders(folder) or imagenet.is_imagenet_validation(folder) for folder in roles.values())
    return roles if nested or len(roles) > 1 or len(roles) == len(folders) else {}


def _open_heldout_folder(folder: Path, root: Path, labels: Labels | None) -> ImageDataset | None:
    """The pictures of val or test, of train's classes. None for ImageNet's test, whose labels were never published."""
    if imagenet.is_imagenet_validation(folder):
        return imagenet.open_imagenet_validation(folder, root, labels)
    if imagenet.is_imagenet_test(folder):
        return None
    return _open_class_folders(folder, labels)


def _open_class_folders(root: Path, labels: Labels | None = None) -> ImageDataset:
    """The class folders in ``root``: with ``labels``, of those classes or fewer; without, each must have pictures."""
    folders = _list_folders(root)
    if not folders:
        raise ValueError(f"{root} has no class folders: put the pictures of each class into a folder with its name")
    names = labels.names if labels else tuple(folder.name for folder in folders)
    index = {name: label for label, name in enumerate(names)}
    for folder in folders:
        if folder.name not in index:
            raise ValueError(f"{root} has a class {folder.name!r} that train has not")
    items: list[Item] = []
    for folder in folders:
        found = [Item(file, index[folder.name], file.relative_to(root).as_posix()) for file in list_image_files(folder)]
        if not found and labels is None:
            raise ValueError(f"class {folder.name!r} in {root} has no pictures: add some or remove the folder")
        items += found
    if not items:
        raise ValueError(f"{root} has no pictures")
    if len(names) < 2:
        raise ValueError(f"{root} has only one class, {names[0]!r}: a classifier needs at least two")
    return ImageDataset(tuple(items), Labels(names))


def _list_folders(root: Path) -> list[Path]:
    """The folders in ``root``, by name, without hidden ones and what archivers leave behind."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name.lower() not in _IGNORED_FOLDERS
    )


def list_image_files(folder: Path) -> Iterator[Path]:
    """The files of a class, sorted, to the bottom of its folders."""
    for at, folders, files in os.walk(folder, onerror=_raise_error):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name.lower() not in _IGNORED_FOLDERS
        )
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() not in NON_IMAGE_SUFFIXES:
                yield Path(at, name)


def _raise_error(error: OSError) -> None:
    """A folder that may not be read is an error: nobody would miss its pictures."""
    raise error
