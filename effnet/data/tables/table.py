"""Labeled images from a CSV or TSV file, as competitions hand them out: ``path,label[,fold,group,weight,split]``."""

import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.folders import SPLIT_FOLDER_NAMES
from effnet.data.tables.table_labels import check_images_per_label, parse_number, parse_table_labels
from effnet.data.tables.table_reader import COLUMN_ALIASES, URL, LabelTable, join_first, read_table

log = logging.getLogger("effnet")

IMAGE_EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")

_IMAGE_FOLDERS = ("images", "imgs", "pictures")  # words: allow
_TRAIN_FOLDERS = ("train", "train_images", "training", *_IMAGE_FOLDERS)
_TEST_FOLDERS = ("test", "test_images", "testing", *_IMAGE_FOLDERS)
_SPLIT_NAMES = {**SPLIT_FOLDER_NAMES, "": "train"}
_OTHER_MACHINE = re.compile(r"[A-Za-z]:[\\/]|\\\\|/|~")  # how an absolute path begins, here and on Windows


def is_table(source: str | Path) -> bool:
    """Return whether ``source`` ends in ``.csv`` or ``.tsv``."""
    return Path(source).suffix.lower() in (".csv", ".tsv")


def open_table(path: str | Path, task: str | None = None, evaluated: bool = False) -> Splits:
    """Open the labeled images of a ``.csv`` or ``.tsv`` file with one image per row.

    The columns, under these names or those in `COLUMN_ALIASES`:

    - ``path``: the image file, relative to the table's folder or to ``train/``, ``train_images/`` or ``images/`` beside
      the table; the extension may be omitted;
    - ``label``: a class; or several, separated by ``|``, ``;``, commas or spaces (these two only with
      ``task="multilabel"`` or in a column called ``labels`` or ``tags``), or as a list, ``['a', 'b']``. Without such a
      column: the only one left, or a column of 0 and 1 per class;
    - ``fold``, ``group``, ``weight``: as in `Item`;
    - ``split``: train, val or test.

    Class names are sorted, numbers as numbers; columns of 0 and 1 keep their order. Without ``task``, it is
    classification or multi-label. For regression the values come from the label column, or else from every numeric
    column without another role. ``evaluated``: a trained model is evaluated on the images, of which a label needs one.

    Raises ``ValueError`` for a table that cannot be understood, images that do not exist or occur twice, a label that
    occurs once, and fractional numbers as labels without ``task``.
    """
    table = read_table(path)
    names = _read_image_names(table)
    roles = {role: table.find_column(role) for role in COLUMN_ALIASES if role != "path"}
    cells = {role: table.column(name) if name else [""] * len(table) for role, name in roles.items()}
    used = {table.image_column, *filter(None, roles.values())}
    unused = [column for column in table.columns if column not in used]
    if roles["label"] is not None:
        _log_unused_columns(table, unused)
    labels, row_labels = parse_table_labels(table, task, unused)
    split_of_row = _parse_splits(table, cells["split"])
    rows = {name: [row for row, split in enumerate(split_of_row) if split == name] for name in ("train", "val", "test")}
    if labels.task == "multilabel" and not any(row_labels[row] for row in rows["test"]):  # empty cells: not known
        row_labels = [None if at == "test" else label for at, label in zip(split_of_row, row_labels, strict=True)]
    if labels.task != "regression" and not evaluated:
        check_images_per_label(table, labels, [row_labels[row] for row in rows["train"] or range(len(table))])
    unlabeled = [row for row, label in enumerate(row_labels) if label is None]
    for row in unlabeled:
        if split_of_row[row] != "test":
            raise ValueError(f"{table.place(row)}: {names[row]} has no label: add one or delete the row")
    if unlabeled:
        log.info("%s: skipping %d test images without a label", table.path.name, len(unlabeled))
    paths = _find_image_files(table, names, _TRAIN_FOLDERS)
    items = [
        Item(
            paths[row],
            0 if (label := row_labels[row]) is None else label,
            names[row],
            _parse_weight(table, row, cells["weight"][row]),
            cells["group"][row],
            _parse_fold(table, row, cells["fold"][row]),
        )
        for row in range(len(table))
    ]
    chosen = {name: [items[row] for row in rows[name] if row_labels[row] is not None] for name in rows}
    splits = Splits(**{name: ImageDataset(tuple(found), labels) for name, found in chosen.items() if found})
    if not evaluated:
        _check_labels_in_train(table, splits)
    return splits


def open_unlabeled_table(path: str | Path) -> list[tuple[str, Path]]:
    """Return (name in the table, file) of every image; the files lie beside it, or in ``test/`` or similar there."""
    table = read_table(path)
    names = _read_image_names(table)
    return list(zip(names, _find_image_files(table, names, _TEST_FOLDERS), strict=True))


def _find_image_files(table: LabelTable, names: Sequence[str], folders: Sequence[str]) -> list[Path]:
    """Return the file of every image in ``names``, whose extension may be missing.

    They are searched beside the table and in those of ``folders`` there, or if none exists in every folder there; last
    of all also by other spellings (see `_FolderListing`).
    """
    root = table.path.parent
    url = next((row for row, name in enumerate(names) if URL.match(name)), None)
    if url is not None:
        raise ValueError(f"{table.place(url)}: {names[url]} is a URL: download the images and name the files")
    candidates = dict.fromkeys((table.path.stem, f"{table.path.stem}_images", *folders))
    known = [folder for folder in map(root.joinpath, candidates) if folder.is_dir()]
    if not known:
        known = sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    searched, listing = [root, *known], _FolderListing()
    found: list[Path] = []
    missing: list[str] = []
    respelled: list[str] = []
    likely, extension = root, ""  # where the last one was: most lie together
    for name in names:
        file = _find_file(likely, name, (extension,)) if name else None
        for folder in searched if name and file is None else ():
            if file := _find_file(folder, name):
                likely, extension = folder, file.name[len(Path(name).name) :]
                break
        if name and file is None:
            file = next(filter(None, (listing.find(folder, name) for folder in searched)), None)
            respelled += [] if file is None else [f"{name} ({os.path.relpath(file, root)})"]
        if file is None:
            missing.append(name or "(an empty cell)")
        else:
            found.append(file)
    if missing:
        elsewhere = all(map(_OTHER_MACHINE.match, missing))
        reason = ": they are paths of another machine; write them relative to the table" if elsewhere else ""
        raise ValueError(
            f"{len(missing)} of the {len(names)} images that {table.path} names do not exist: {join_first(missing)} "
            f"(searched in {', '.join(map(str, searched))}, also with .jpg or .png appended){reason}"
        )
    if respelled:
        log.info(
            "%s: %d images are found by another spelling: %s", *(table.path.name, len(respelled), join_first(respelled))
        )
    return found


class _FolderListing:
    """Finds files whose names a table spells otherwise: ``images\\a.JPG``, é in another Unicode form."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}  # of each folder: by key, also without the extension

    def find(self, folder: Path, name: str) -> Path | None:
        """Return the only file in ``folder`` that ``name`` may mean, or None."""
        for part in filter(lambda part: part not in ("", "."), re.split(r"[\\/]", name)):
            if part == os.pardir or not folder.is_dir():
                folder = folder.parent if part == os.pardir else folder
                continue
            matches = self._list(folder).get(_spelling_key(part), [])
            if len(matches) != 1:
                return None
            folder = folder / matches[0]
        return folder if folder.is_file() else None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)):
                stem, extension = os.path.splitext(name)
                keys = {name, stem} if extension.lower() in IMAGE_EXTENSIONS else {name}
                for key in set(map(_spelling_key, keys)):
                    names.setdefault(key, []).append(name)
            self._names[folder] = names
        return self._names[folder]


def _spelling_key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _find_file(folder: Path, name: str, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> Path | None:
    base = os.path.join(folder, name)
    return next((Path(base + extension) for extension in extensions if os.path.isfile(base + extension)), None)


def _parse_weight(table: LabelTable, row: int, cell: str) -> float:
    value = parse_number(cell) if cell else 1.0
    if value is None or value < 0:
        raise ValueError(f"{table.place(row)}: a weight must be a number of at least 0, not {cell!r}")
    return value


def _parse_fold(table: LabelTable, row: int, cell: str) -> int | None:
    """Return the fold, or None for an empty cell and for −1, by which competitors mark what is always trained on."""
    value = parse_number(cell) if cell else -1.0
    if value is None or not value.is_integer() or value < -1:
        raise ValueError(f"{table.place(row)}: a fold must be a whole number, not {cell!r}")
    return None if value == -1 else int(value)


def _parse_splits(table: LabelTable, cells: Sequence[str]) -> list[str]:
    splits = [_SPLIT_NAMES.get(cell.lower(), "") for cell in cells]
    if "" in splits:
        row = splits.index("")
        raise ValueError(f"{table.place(row)}: a split must be train, val or test, not {cells[row].lower()!r}")
    return splits


def _log_unused_columns(table: LabelTable, unused_columns: Sequence[str]) -> None:
    free_roles = [role for role in COLUMN_ALIASES if table.find_column(role) is None]
    near = {column: get_close_matches(column.lower(), free_roles, 1, 0.8) for column in unused_columns}
    notes = [
        f"{column} (rename it if it is meant to be {role[0]})" if role else column for column, role in near.items()
    ]
    if notes:
        log.info("%s: ignoring the columns %s", table.path.name, ", ".join(notes))


def _read_image_names(table: LabelTable) -> list[str]:
    """Return the image of every row. Raises ``ValueError`` if one occurs twice."""
    names = table.column(table.image_column)
    first_line: dict[str, int] = {}
    for line, name in zip(table.line_numbers, names, strict=True):
        if name in first_line:
            raise ValueError(
                f"{table.path}: {name} is in line {first_line[name]} and in line {line}: keep one; several labels of "
                "an image go into one cell, separated by |"
            )
        first_line[name] = line
    return names


def _check_labels_in_train(table: LabelTable, splits: Splits) -> None:
    if splits.train is None or splits.train.labels.task == "regression":
        return
    train_counts = splits.train.class_counts()
    for other in filter(None, (splits.val, splits.test)):
        for name, in_train, in_other in zip(other.labels.names, train_counts, other.class_counts(), strict=True):
            if in_other and not in_train:
                raise ValueError(f"{table.path}: the label {name!r} is on no training image, only on held-out ones")
