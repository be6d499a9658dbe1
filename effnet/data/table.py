"""Labeled images from a CSV or TSV file, as competitions hand them out: ``path,label[,fold,group,weight,split]``."""

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from math import isfinite
from pathlib import Path

from effnet.arch.serde import check_choice, did_you_mean
from effnet.data.dataset import ImageDataset, Item, Label, Splits
from effnet.data.folders import SPLIT_FOLDER_NAMES
from effnet.metadata import TASKS, Labels

log = logging.getLogger("effnet")

IMAGE_EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")

# Names of a column by its role, in lower case; if a table has several of them, the first in this list counts.
COLUMN_ALIASES = {
    "path": (
        *("path", "image_path", "filepath", "file_path", "filename", "file_name", "file", "image", "image_id"),
        *("image_name", "img", "picture", "id_code", "id"),  # words: allow
    ),
    "label": ("label", "target", "class", "labels", "targets", "classes", "tags", "class_name", "category"),
    "fold": ("fold", "folds", "kfold"),
    "group": ("group", "groups", "group_id", "patient", "patient_id"),
    "weight": ("weight", "weights", "sample_weight"),
    "split": ("split", "subset"),
}
_IMAGE_FOLDERS = ("images", "imgs", "pictures")  # words: allow
_TRAIN_FOLDERS = ("train", "train_images", "training", *_IMAGE_FOLDERS)
_TEST_FOLDERS = ("test", "test_images", "testing", *_IMAGE_FOLDERS)
_SPLIT_NAMES = {**SPLIT_FOLDER_NAMES, "": "train"}
_MULTI_LABEL_HEADINGS = frozenset(("labels", "targets", "classes", "tags"))  # cells may well hold several labels
_LABEL_SEPARATORS = re.compile(r"[|;]")


def is_table(source: str | Path) -> bool:
    """Return whether ``source`` ends in ``.csv`` or ``.tsv``."""
    return Path(source).suffix.lower() in (".csv", ".tsv")


def open_table(path: str | Path, task: str | None = None) -> Splits:
    """Open the labeled images of a ``.csv`` or ``.tsv`` file with one image per row.

    The columns, under these names or those in `COLUMN_ALIASES`:

    - ``path``: the image file, relative to the table's folder or to ``train/``, ``train_images/`` or ``images/`` beside
      the table; the extension may be omitted;
    - ``label``: a class, or several separated by ``|``, ``;`` or spaces (spaces only with ``task="multilabel"`` or in a
      column called ``labels`` or ``tags``). Without such a column: the only one left, or a column of 0 and 1 per class;
    - ``fold``, ``group``, ``weight``: as in `Item`;
    - ``split``: train, val or test.

    Class names are sorted, numbers as numbers; columns of 0 and 1 keep their order. Without ``task``, it is
    classification or multi-label. For regression the values come from the label column, or else from every numeric
    column without another role. Raises ``ValueError`` for a table that cannot be understood, images that do not exist
    or occur twice, a label that occurs once, and fractional numbers as labels without ``task``.
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
    if labels.task != "regression":
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
    _check_labels_in_train(table, splits)
    return splits


def open_unlabeled_table(path: str | Path) -> list[tuple[str, Path]]:
    """Return (name in the table, file) of every image; the files lie beside it, or in ``test/`` or similar there."""
    table = read_table(path)
    names = _read_image_names(table)
    return list(zip(names, _find_image_files(table, names, _TEST_FOLDERS), strict=True))


@dataclass(frozen=True)
class LabelTable:
    """A table with headings."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # as long as ``columns``
    line_numbers: tuple[int, ...]  # of the rows in the file

    def __len__(self) -> int:
        return len(self.rows)

    def find_column(self, role: str) -> str | None:
        """Return the heading of the column with this role (a key of `COLUMN_ALIASES`), or None."""
        by_name = {column.lower(): column for column in reversed(self.columns)}
        return next((by_name[alias] for alias in COLUMN_ALIASES[role] if alias in by_name), None)

    def column(self, name: str) -> list[str]:
        """Return the cells below this heading, from top to bottom."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def place(self, row: int) -> str:
        """Return ``table.csv, line 3`` for a message."""
        return f"{self.path}, line {self.line_numbers[row]}"

    @property
    def image_column(self) -> str:
        """The heading of the column that names the images. Raises ``ValueError`` if there is none."""
        found = self.find_column("path")
        if found is not None:
            return found
        if _find_file(self.path.parent, self.columns[0], IMAGE_EXTENSIONS[:1]):
            raise ValueError(f"{self.path} has no headings: its first line should be path,label")
        raise ValueError(
            f"{self.path} has no column path (or image, image_id, filename, id), only {', '.join(self.columns)}"
            + _suggest(self.columns, "path")
        )


def read_table(path: str | Path) -> LabelTable:
    """Read a UTF-8 table, without blank lines and spaces around cells.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most of. Raises ``ValueError`` for
    an empty table, rows of another length than the headings, and repeated headings.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8 with commas") from None
    first_line = text.lstrip().partition("\n")[0]
    reader = csv.reader(StringIO(text, newline=""), delimiter=max(",;\t", key=first_line.count))
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(tuple(cell.strip() for cell in row))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{path} is empty: its first line should be path,label, with one line per image below")
    columns = rows[0]
    if not rows[1:]:
        raise ValueError(f"{path} has headings ({', '.join(columns)}) but no rows below them")
    for line, cells in zip(lines, rows, strict=True):
        if len(cells) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells under {len(columns)} headings")
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{path} has two columns {repeated[0]!r}: rename one of them")
    return LabelTable(path, columns, tuple(rows[1:]), tuple(lines[1:]))


def _suggest(columns: Iterable[str], role: str) -> str:
    return next((near for column in columns if (near := did_you_mean(column, list(COLUMN_ALIASES[role])))), "")


def _find_image_files(table: LabelTable, names: Sequence[str], folders: Sequence[str]) -> list[Path]:
    """Return the file of every image in ``names``, whose extension may be missing.

    They are searched beside the table and in those of ``folders`` there, or if none exists in every folder there.
    """
    root = table.path.parent
    candidates = dict.fromkeys((table.path.stem, f"{table.path.stem}_images", *folders))
    known = [folder for folder in map(root.joinpath, candidates) if folder.is_dir()]
    if not known:
        known = sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    searched = [root, *known]
    found: list[Path] = []
    missing: list[str] = []
    likely, extension = root, ""  # where the last one was: most lie together
    for name in names:
        file = _find_file(likely, name, (extension,)) if name else None
        for folder in searched if name and file is None else ():
            if file := _find_file(folder, name):
                likely, extension = folder, file.name[len(Path(name).name) :]
                break
        if file is None:
            missing.append(name or "(an empty cell)")
        else:
            found.append(file)
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(names)} images that {table.path} names do not exist: {_join_first(missing)} "
            f"(searched in {', '.join(map(str, searched))}, also with .jpg or .png appended)"
        )
    return found


def _join_first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _find_file(folder: Path, name: str, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> Path | None:
    base = os.path.join(folder, name)
    return next((Path(base + extension) for extension in extensions if os.path.isfile(base + extension)), None)


def parse_table_labels(
    table: LabelTable, task: str | None, unused_columns: Sequence[str]
) -> tuple[Labels, list[Label | None]]:
    """Return the labels of ``table`` and that of each row, None for an empty cell."""
    if task is not None:
        check_choice("task", task, TASKS)
    column = table.find_column("label") or (unused_columns[0] if len(unused_columns) == 1 else None)
    if column is None:
        return _parse_label_columns(table, task, unused_columns)
    if table.find_column("label") is None:
        log.info("%s: using the column %r as label", table.path.name, column)
    cells = table.column(column)
    if task == "regression":
        values = [_parse_number(cell) for cell in cells]
        for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
            if cell and value is None:
                raise ValueError(f"{table.place(row)}: {cell!r} is not a number, which --task regression needs")
        return Labels((column,), "regression"), [None if value is None else (value,) for value in values]
    separator = _detect_separator(column, cells, task)
    if separator is not None:
        return _parse_multi_label(cells, separator)
    return _parse_single_label(table, column, cells, task)


def _parse_single_label(
    table: LabelTable, column: str, cells: Sequence[str], task: str | None
) -> tuple[Labels, list[Label | None]]:
    """Read a column of classes. Fractional numbers are classes only if ``task`` is given."""
    numbers = [number for cell in cells if cell and (number := _parse_number(cell)) is not None]
    if numbers and len(numbers) == sum(map(bool, cells)) and task is None:
        fractions = [number for number in numbers if not number.is_integer()]
        if fractions:
            raise ValueError(
                f"{table.path}: the column {column!r} holds numbers such as {fractions[0]:g}, {len(set(numbers))} "
                "different ones: --task regression predicts them, --task classification makes each a class"
            )
        written = next((cell for cell in cells if cell and not cell.lstrip("+-").isdigit()), None)
        if written is not None:
            log.info("%s: the whole numbers in %r, written as %s, are classes", table.path.name, column, written)
            cells = [cell and f"{int(float(cell))}" for cell in cells]
    names = _sort_label_names(set(cells) - {""})
    index = {name: label for label, name in enumerate(names)}
    return Labels(names), [index.get(cell) for cell in cells]


def _parse_multi_label(cells: Sequence[str], separator: re.Pattern[str]) -> tuple[Labels, list[Label | None]]:
    """Read a column with several labels per cell; an empty cell means that none is present."""
    present = [{name for part in separator.split(cell) if (name := part.strip())} for cell in cells]
    names = _sort_label_names(set().union(*present))
    index = {name: label for label, name in enumerate(names)}
    return Labels(names, "multilabel"), [tuple(sorted(index[name] for name in row)) for row in present]


def _detect_separator(column: str, cells: Sequence[str], task: str | None) -> re.Pattern[str] | None:
    """Return what separates the labels in a cell, or None. Names contain spaces: these count only in some columns."""
    if task == "classification":
        return None
    if any(_LABEL_SEPARATORS.search(cell) for cell in cells):
        return _LABEL_SEPARATORS
    has_spaces = any(" " in cell for cell in cells)
    if task == "multilabel" or (has_spaces and column.lower() in _MULTI_LABEL_HEADINGS):
        return re.compile(r"\s")
    single_words = {cell for cell in cells if " " not in cell}
    ambiguous = next((cell for cell in cells if " " in cell and single_words.issuperset(cell.split())), None)
    if ambiguous:
        log.warning("%r is read as one label; if it is several, use --task multilabel", ambiguous)
    return None


def _parse_label_columns(
    table: LabelTable, task: str | None, unused_columns: Sequence[str]
) -> tuple[Labels, list[Label | None]]:
    """Read one column of 0 and 1 per class, or for regression one column per value."""
    columns = {name: [_parse_number(cell) for cell in table.column(name)] for name in unused_columns}
    regression = task == "regression"
    chosen = {
        name: cells
        for name, cells in columns.items()
        if all(cell is not None and (regression or cell in (0, 1)) for cell in cells)
    }
    if len(chosen) < (1 if regression else 2):
        raise ValueError(
            f"{table.path} has no column label (or target, class), nor one column of 0 and 1 per class, only "
            f"{', '.join(table.columns)}{_suggest(unused_columns, 'label')}"
        )
    ignored = [name for name in unused_columns if name not in chosen]
    if ignored:
        log.info("%s: ignoring the columns %s", table.path.name, ", ".join(ignored))
    rows = list(zip(*chosen.values(), strict=True))
    names = tuple(chosen)
    if regression:
        return Labels(names, "regression"), rows  # type: ignore[return-value]
    present = [tuple(index for index, cell in enumerate(row) if cell) for row in rows]
    if task != "multilabel" and all(len(indices) == 1 for indices in present):
        log.info("%s: exactly one of %s is 1 in every row: one label per image", table.path.name, ", ".join(names))
        return Labels(names), [index for (index,) in present]
    if task == "classification":
        raise ValueError(f"{table.path}: several of the columns {', '.join(names)} are 1 in a row: --task multilabel")
    return Labels(names, "multilabel"), list(present)


def check_images_per_label(table: LabelTable, labels: Labels, row_labels: Sequence[Label | None]) -> None:
    """Raise ``ValueError`` for a class with one image; for multi-label only warn."""
    counts = Counter(part for label in row_labels for part in (label if isinstance(label, tuple) else (label,)))
    single = [repr(name) for index, name in enumerate(labels.names) if counts[index] == 1]
    if not single:
        return
    subject = f"the labels {_join_first(single)} occur" if len(single) > 1 else f"the label {single[0]} occurs"
    if labels.task == "multilabel":
        log.warning("%s: %s only once: for training or for validation, not for both", table.path.name, subject)
        return
    numeric = all(_parse_number(name) is not None for name in labels.names)
    remedy = ", or use --task regression to predict the numbers as such" if numeric else ""
    raise ValueError(
        f"{table.path}: {subject} only once, but training and validation need an image each: add another image or "
        f"delete the row{remedy}"
    )


def _parse_number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in cell else None  # Python reads 1_0 as 10


def _sort_label_names(names: set[str]) -> tuple[str, ...]:
    """Sort by name, or by number if all are numbers."""
    numbers = {name: _parse_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))


def _parse_weight(table: LabelTable, row: int, cell: str) -> float:
    value = _parse_number(cell) if cell else 1.0
    if value is None or value < 0:
        raise ValueError(f"{table.place(row)}: a weight must be a number of at least 0, not {cell!r}")
    return value


def _parse_fold(table: LabelTable, row: int, cell: str) -> int | None:
    """Return the fold, or None for an empty cell and for −1, by which competitors mark what is always trained on."""
    value = _parse_number(cell) if cell else -1.0
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
