"""Class folders: one folder per class, perhaps below ``train``, ``val`` and ``test``."""

import os
from collections.abc import Iterator
from pathlib import Path

from effnet.data import dataset, imagenet
from effnet.metadata import Labels

SPLIT_FOLDER_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Files that lie among images. Every other file counts as an image, with any suffix or none, so that a photo in an
# unreadable format is reported by `check_images` and never left out silently.
NON_IMAGE_SUFFIXES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst", ".html", ".log",
    ".py", ".ipynb", ".sh", ".mat", ".db",
))  # fmt: skip
_IGNORED_FOLDERS = frozenset(("__macosx", "@eadir", "__pycache__"))


def open_folder(root: Path) -> dataset.Splits:
    """Open the class folders in ``root``, or splits of such, or ImageNet as it is distributed."""
    if imagenet.contains_imagenet(root, "val"):
        return dataset.Splits(val=imagenet.open_imagenet_validation(root, root.parent))
    folders = _find_split_folders(root)
    if not folders:
        return dataset.Splits(_open_class_folders(root))
    splits: dict[str, dataset.ImageDataset] = {}
    labels = None
    for split in ("train", "val", "test"):
        if split in folders and (found := _open_split(folders[split], root, labels)):
            splits[split], labels = found, labels or found.labels
    return dataset.Splits(**splits)


def list_image_files(folder: Path) -> Iterator[Path]:
    """Yield all files below ``folder``, sorted, except hidden ones, texts and tables."""
    for path, folders, files in os.walk(folder, onerror=_raise_error):
        folders[:] = sorted(name for name in folders if not _is_ignored(name))
        for name in sorted(files):
            if not name.startswith(".") and may_be_image(name):
                yield Path(path, name)


def may_be_image(name: str) -> bool:
    """Return whether ``name`` does not end as a text or table does."""
    return os.path.splitext(name)[1].lower() not in NON_IMAGE_SUFFIXES


def _find_split_folders(root: Path) -> dict[str, Path]:
    """Return the train, val and test folders of ``root``; none if they are classes of such a name.

    A class may be called "train": a folder of that name among other folders, with images but no folders in it.
    """
    found: dict[str, Path] = {}
    folders = _list_folders(root)
    for folder in folders:
        split = SPLIT_FOLDER_NAMES.get(folder.name.lower())
        if split in found:
            both = f"{found[split].name}/ and {folder.name}/"
            raise ValueError(f"{root} has both {both}: keep one of them as its {split}")
        if split:
            found[split] = folder
    nested = any(_list_folders(folder) or imagenet.contains_imagenet(folder, "val") for folder in found.values())
    return found if nested or len(found) > 1 or len(found) == len(folders) else {}


def _open_split(folder: Path, root: Path, labels: Labels | None) -> dataset.ImageDataset | None:
    """Open a split with train's ``labels``; None for ImageNet's test images, whose labels were never published."""
    if imagenet.contains_imagenet(folder, "val"):
        return imagenet.open_imagenet_validation(folder, root, labels)
    if imagenet.contains_imagenet(folder, "test"):
        return None
    return _open_class_folders(folder, labels)


def _open_class_folders(root: Path, labels: Labels | None = None) -> dataset.ImageDataset:
    """Open the class folders in ``root``: some of ``labels``, if given; otherwise each must contain images."""
    folders = _list_folders(root)
    if not folders:
        raise ValueError(f"{root} has no class folders: put the images of each class into a folder with its name")
    names = labels.names if labels else tuple(folder.name for folder in folders)
    index = {name: label for label, name in enumerate(names)}
    items: list[dataset.Item] = []
    for folder in folders:
        if folder.name not in index:
            raise ValueError(f"{root} has a class {folder.name!r} that train does not have")
        label = index[folder.name]
        found = [dataset.Item(file, label, file.relative_to(root).as_posix()) for file in list_image_files(folder)]
        if not found and labels is None:
            raise ValueError(f"class {folder.name!r} in {root} has no images: add some or remove the folder")
        items += found
    if not items:
        raise ValueError(f"{root} has no images")
    return dataset.ImageDataset(tuple(items), Labels(names))


def _list_folders(root: Path) -> list[Path]:
    """List the folders in ``root`` by name, without hidden ones and what archivers leave behind."""
    return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not _is_ignored(entry.name))


def _is_ignored(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _IGNORED_FOLDERS


def _raise_error(error: OSError) -> None:
    """A folder without permission is an error: otherwise its images would be missing unnoticed."""
    raise error
