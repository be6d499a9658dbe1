"""Class folders: one folder per class, perhaps below ``train``, ``val`` and ``test``, or below an archive's folder."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from effnet.data import dataset, imagenet
from effnet.data.storage.file_names import normalize_name
from effnet.metadata import Labels

log = logging.getLogger("effnet")

IsClass = Callable[[str], bool]  # whether a folder of this name is a class

SPLIT_FOLDER_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Words that say nothing about what is in a folder: "training_set" and "test images" are splits, "seg_train" may be one
_SET_WORDS = ("dataset", "datasets", "data", "set", "images", "image", "photos", "files", "folder", "split")
_SET_WORD = "|".join(_SET_WORDS)
_SPLIT_WORD = re.compile(rf"(?:{_SET_WORD})?({'|'.join(SPLIT_FOLDER_NAMES)})(?:{_SET_WORD})?")
_CLASSES_CALLED_AS_SPLITS = ("train", "valid")  # a vehicle; the opposite of invalid
# The only folder of a split without labels, as in test/unknown/1.jpg
_NAMES_OF_NO_CLASS = (*_SET_WORDS, "all", "unknown", "unlabeled")

# Files that lie among images. Every other file counts as an image, with any suffix or none, so that a photo in an
# unreadable format is reported by `check_images` and never left out silently.
NON_IMAGE_SUFFIXES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst", ".html", ".log",
    ".py", ".ipynb", ".sh", ".mat", ".db",
))  # fmt: skip
_NO_CLASS_FOLDERS = "{} has no class folders: put the images of each class into a folder with its name"
_MAX_WRAPPERS = 8  # folders around the one that holds the classes
_IGNORED_FOLDERS = frozenset(("__macosx", "@eadir", "__pycache__", "lost+found", "$recycle.bin"))


def open_folder(root: Path, is_class: IsClass | None = None) -> dataset.Splits:
    """Open the class folders in ``root``, or splits of such, or ImageNet as it is distributed.

    ``is_class``: which names are classes of a model that is evaluated on the images. Then ``root`` may be a folder of a
    single class, classes may be empty, and each split may have its own ones.
    """
    name = normalize_name(Path(os.path.abspath(root)).name)
    if is_class and is_class(name) and not any(_knows(is_class, folder) for folder in _list_folders(root)):
        log.info("%s: its images are those of the class %s", root, name)
        return dataset.Splits(_list_items(root, [(name, root)], Labels((name,)), complete=True))
    root = _unwrap(root, is_class)
    if imagenet.contains_imagenet(root, "val"):
        return dataset.Splits(val=imagenet.open_imagenet_validation(root, root.parent))
    listed = _list_folders(root)
    folders = _find_split_folders(root, listed)
    if not folders:
        within = _open_splits_within_classes(root, listed)
        return within or dataset.Splits(_open_class_folders(root, listed, is_class=is_class))
    beside = [folder for folder in listed if folder not in folders.values()]
    splits: dict[str, dataset.ImageDataset] = {}
    labels = None
    if "train" not in folders and beside and _hold_classes_of(folders.values(), beside):
        splits["train"] = _open_class_folders(root, beside, is_class=is_class)
        labels = None if is_class else splits["train"].labels
    elif beside:
        log.info("%s: using %s, passing over %s", root, _join_names(folders.values()), _join_names(beside))
    for split in ("train", "val", "test"):
        if split in folders and (found := _open_split(folders[split], root, split, labels, is_class)):
            splits[split] = found
            labels = labels or (None if is_class else found.labels)
    if not splits:
        raise ValueError(_NO_CLASS_FOLDERS.format(next(iter(folders.values()))))
    return dataset.Splits(**splits)


def list_image_files(folder: Path) -> Iterator[Path]:
    """Yield all files below ``folder``, sorted by folder, except hidden ones, texts and tables.

    Links to folders are followed, each folder once: not those that lead up again, nor those to a folder that is found
    below ``folder`` anyway.
    """
    top, reached = os.path.realpath(folder), set[str]()
    for path, folders, files in os.walk(folder, onerror=_raise_error, followlinks=True):
        inside = os.path.relpath(path, folder)
        below = sorted(name for name in folders if not _is_ignored(name))
        folders[:] = [name for name in below if _leads_on(os.path.join(path, name), inside, top, reached)]
        for name in sorted(files):
            if not name.startswith(".") and may_be_image(name):
                yield Path(path, name)


def may_be_image(name: str) -> bool:
    """Return whether ``name`` does not end as a text or table does."""
    return os.path.splitext(name)[1].lower() not in NON_IMAGE_SUFFIXES


def _unwrap(root: Path, is_class: IsClass | None = None) -> Path:
    """Return the folder that holds the classes or splits: ``root``, or one that is all that ``root`` holds.

    Archives are packed with a folder around everything, and unpacked into another: ``training_set/training_set/CLASS``.
    """
    for _ in range(_MAX_WRAPPERS):
        folders = _list_folders(root)
        if len(folders) != 1 or _holds_images(root) or not _is_wrapper(folders[0], root, is_class):
            break
        root = folders[0]
        log.info("%s: the classes are the folders in it", root)
    return root


def _is_wrapper(folder: Path, parent: Path, is_class: IsClass | None) -> bool:
    """Return whether ``folder``, the only one in ``parent``, is neither a class nor the only split."""
    below = _list_folders(folder)
    if not below or _holds_images(folder) or _knows(is_class, folder):
        return False
    if _are_equal(folder.name, parent.name):
        return True
    if _split_of(folder.name):
        return False
    if any(_knows(is_class, each) for each in below):
        return True
    # A class may keep its images in one folder, as n01443537/images of Tiny ImageNet
    first = below[0]
    return (
        len(below) > 1
        or _are_equal(first.name, folder.name)
        or bool(_split_of(first.name))
        or _is_wrapper(first, folder, is_class)
    )


def _are_equal(name: str, other: str) -> bool:
    return name.casefold() == other.casefold() or _split_of(name) == _split_of(other) is not None


def _split_of(name: str) -> str | None:
    """Return the split that a folder is named for and nothing else ("Training_set": train), or None."""
    split, rest = _parse_split_name(name)
    return None if rest else split


def _parse_split_name(name: str) -> tuple[str | None, str]:
    """Return the split in a name, and what else it says: ("train", "seg") for seg_train; (None, …) without just one."""
    words = re.findall(r"[^\W\d_]+|\d+", name.casefold())
    found = [match[1] for word in words if (match := _SPLIT_WORD.fullmatch(word))]
    rest = [word for word in words if word not in _SET_WORDS and not _SPLIT_WORD.fullmatch(word)]
    return (SPLIT_FOLDER_NAMES[found[0]] if len(found) == 1 else None), " ".join(rest)


def _find_split_folders(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the train, val and test folders among ``folders``; none if they are classes of such a name.

    They are called so; or, if no other is, ``training_set`` or similar; or all share their other words (``seg_train``,
    ``seg_test``). A class may be called "train": a folder of that name among others, with images but no folders in it.
    """
    plain = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDER_NAMES]
    longer = [folder for folder in folders if _split_of(folder.name) and folder not in plain]
    found = (
        _name_splits(root, longer) | _name_splits(root, plain) if plain or longer else _find_prefixed_splits(folders)
    )
    nested = any(_list_folders(folder) or imagenet.contains_imagenet(folder, "val") for folder in found.values())
    return found if nested or len(found) > 1 or len(found) == len(folders) else {}


def _name_splits(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        split = _split_of(folder.name)
        assert split
        if split in found:
            both = f"{found[split].name}/ and {folder.name}/"
            raise ValueError(f"{root} has both {both}: keep one of them as its {split}")
        found[split] = folder
    return found


def _find_prefixed_splits(folders: Sequence[Path]) -> dict[str, Path]:
    """Return folders such as seg_train and seg_test, which differ in the split alone; nothing for a class of each."""
    groups: dict[str, dict[str, Path]] = {}
    for folder in folders:
        split, rest = _parse_split_name(folder.name)
        if split:
            groups.setdefault(rest, {})[split] = folder
    pairs = [group for group in groups.values() if len(group) > 1 and "train" in group]
    if len(pairs) > 1:
        raise ValueError(
            f"{folders[0].parent} has folders such as {_join_names(pairs[0].values())} and "
            f"{_join_names(pairs[1].values())}: put the classes into folders train and test"
        )
    return pairs[0] if pairs and all(map(_list_folders, pairs[0].values())) else {}


def _hold_classes_of(splits: Iterable[Path], folders: Sequence[Path]) -> bool:
    """Return whether ``folders`` are the classes that ``splits``, which lie beside them, hold images of."""
    held = {normalize_name(folder.name) for split in splits for folder in _list_folders(_unwrap(split))}
    return bool(held) and held <= {normalize_name(folder.name) for folder in folders}


def _open_split(
    folder: Path, root: Path, split: str, labels: Labels | None, is_class: IsClass | None
) -> dataset.ImageDataset | None:
    """Open a split with train's ``labels``; None if it has none, as ImageNet's test images, never published."""
    if imagenet.contains_imagenet(folder, "val"):
        return imagenet.open_imagenet_validation(folder, root, labels)
    if imagenet.contains_imagenet(folder, "test"):
        return None
    known = labels.names.__contains__ if labels else is_class
    classes = _unwrap(folder, known)
    folders = _list_folders(classes)
    if split != "train" and _have_no_labels(folders, known):
        log.warning("%s has no class folders: passing over its images, which have no labels", folder)
        return None
    return _open_class_folders(classes, folders, labels, is_class)


def _have_no_labels(folders: Sequence[Path], is_class: IsClass | None) -> bool:
    """Return whether a split with these folders has no classes: none at all, or only "images" or "unknown"."""
    if len(folders) != 1 or _knows(is_class, folders[0]):
        return not folders
    return folders[0].name.casefold() in _NAMES_OF_NO_CLASS or _split_of(folders[0].name) is not None


def _open_class_folders(
    root: Path, folders: Sequence[Path], labels: Labels | None = None, is_class: IsClass | None = None
) -> dataset.ImageDataset:
    """Open the class ``folders`` in ``root``: some of ``labels``, if given; otherwise each must contain images."""
    if not folders:
        raise ValueError(_NO_CLASS_FOLDERS.format(root))
    _check_class_folders(root, folders, labels.names.__contains__ if labels else is_class)
    classes = [(normalize_name(folder.name), folder) for folder in folders]
    names = labels.names if labels else tuple(sorted({name for name, _ in classes}))
    return _list_items(root, classes, Labels(names), complete=labels is None and is_class is None)


def _list_items(
    root: Path, folders: Iterable[tuple[str, Path]], labels: Labels, complete: bool
) -> dataset.ImageDataset:
    """List the images in ``folders`` of a class each; ``complete``: each must contain some."""
    index = {normalize_name(name): label for label, name in enumerate(labels.names)}
    items: list[dataset.Item] = []
    taken: set[str] = set()
    for name, folder in folders:
        if name not in index:
            raise ValueError(f"{root} has a class {name!r} that train does not have")
        files = list_image_files(folder)
        found = [dataset.Item(file, index[name], _name_item(file.relative_to(root), taken)) for file in files]
        if not found and complete:
            raise ValueError(f"class {name!r} in {root} has no images: add some or remove the folder")
        items += found
    if not items:
        raise ValueError(f"{root} has no images")
    return dataset.ImageDataset(tuple(items), labels)


def _name_item(path: Path, taken: set[str]) -> str:
    """Return what to call an image, which is not ``taken``: two files may have one name in two Unicode forms."""
    name = normalize_name(path.as_posix())
    name = next(other for number in count(1) if (other := name if number == 1 else f"{name} ({number})") not in taken)
    taken.add(name)
    return name


def _knows(is_class: IsClass | None, folder: Path) -> bool:
    return bool(is_class and is_class(normalize_name(folder.name)))


def _check_class_folders(root: Path, folders: Sequence[Path], is_class: IsClass | None) -> None:
    """Raise ``ValueError`` if ``folders`` may not be the classes: where it is not sure, nothing is trained on."""
    if all(_knows(is_class, folder) for folder in folders):
        return
    names = {folder.name for folder in folders}
    for folder in folders:
        called_so = folder.name.lower() in _CLASSES_CALLED_AS_SPLITS or _knows(is_class, folder)
        if _split_of(folder.name) and not called_so:
            raise ValueError(
                f"{folder} lies among the classes of {root}, but is called as a split: move it away, put the classes "
                "into a folder train beside it, or rename it if it is a class"
            )
    below = {
        folder: inner
        for folder in folders
        if (inner := {each.name for each in _list_folders(folder)}) and not _holds_images(folder)
    }
    owners: dict[str, list[Path]] = {}
    for folder, inner in below.items():
        if inner < names:
            raise ValueError(
                f"{folder} holds folders called as the classes beside it ({_join_names(_list_folders(folder))}): "
                "remove it if it is a copy of them, or pass it instead"
            )
        for name in inner:
            owners.setdefault(name, []).append(folder)
    shared = sorted(name for name, folders in owners.items() if len(folders) > 1)
    if len(shared) > 1:
        first, second = owners[shared[0]][:2]
        raise ValueError(
            f"{first} and {second} hold no images but the same folders ({', '.join(shared[:3])}): if these are the "
            f"classes, pass {first}, or put the two into folders train and test; if they are not, move the images up "
            "into the folder of their class"
        )
    several = [folder for folder, inner in below.items() if len(inner) > 1]
    if several:
        log.warning(
            "%s: %s hold only folders: %r is one class, with %s in it; to make these the classes, move them up",
            *(root, "1 class" if len(several) == 1 else f"{len(several)} classes", several[0].name),
            _join_names(_list_folders(several[0])),
        )


def _open_splits_within_classes(root: Path, folders: Sequence[Path]) -> dataset.Splits | None:
    """Open ``CLASS/train``, ``CLASS/test``, …; None unless all that every class holds is called so."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for folder in folders:
        below = _list_folders(folder)
        if not below or _holds_images(folder) or not all(_split_of(each.name) for each in below):
            return None
        for split, inner in _name_splits(folder, below).items():
            found.setdefault(split, []).append((normalize_name(folder.name), inner))
    if "train" not in found:
        return None
    labels = Labels(tuple(sorted({normalize_name(folder.name) for folder in folders})))
    return dataset.Splits(**{split: _list_items(root, found[split], labels, split == "train") for split in found})


def _list_folders(root: Path) -> list[Path]:
    """List the folders in ``root`` by name, links too, without hidden ones and what archivers leave behind.

    Raises ``ValueError`` for a link whose folder is missing: its images would be missing unnoticed.
    """
    found, top = [], os.path.realpath(root)
    with os.scandir(root) as entries:
        for entry in entries:
            if _is_ignored(entry.name):
                continue
            if not entry.is_symlink():
                if entry.is_dir():
                    found.append(Path(entry.path))
            elif not os.path.isdir(entry.path):
                if not os.path.exists(entry.path) and not os.path.splitext(entry.name)[1]:
                    target = os.readlink(entry.path)
                    raise ValueError(f"{entry.path} is a link to {target}, which does not exist: remove or mend it")
            elif not _is_above(os.path.realpath(entry.path), top):
                found.append(Path(entry.path))
    return sorted(found)


def _leads_on(path: str, inside: str, top: str, reached: set[str]) -> bool:
    """Return whether to list the folder ``path``, in the folder ``inside`` the one whose real path is ``top``.

    ``reached`` collects the real paths of folders elsewhere, to which links lead.
    """
    real = os.path.realpath(path)
    if real == os.path.normpath(os.path.join(top, inside, os.path.basename(path))):
        return True
    if _is_above(real, top):
        log.warning("%s is a link to a folder that it lies in: not followed", path)
        return False
    beyond = os.path.relpath(real, top).split(os.sep) if _is_above(top, real) else [os.pardir]
    if real in reached or not any(part == os.pardir or _is_ignored(part) for part in beyond):
        return False  # listed already, or where it really lies
    reached.add(real)
    return True


def _is_above(folder: str, path: str) -> bool:
    """Return whether ``path`` is ``folder`` or lies in it; both are real paths."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _holds_images(folder: Path) -> bool:
    """Return whether there is an image, or what may be one, in ``folder`` itself."""
    with os.scandir(folder) as entries:
        return any(not entry.name.startswith(".") and may_be_image(entry.name) and entry.is_file() for entry in entries)


def _join_names(folders: Iterable[Path]) -> str:
    names = [folder.name for folder in folders]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _is_ignored(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _IGNORED_FOLDERS


def _raise_error(error: OSError) -> None:
    """A folder without permission is an error: otherwise its images would be missing unnoticed."""
    raise error
