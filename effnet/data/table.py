"""A table as text: its separator, its columns by the names that people give them, and the pictures that it names."""

from __future__ import annotations

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
from types import MappingProxyType

from effnet.arch.serde import check_choice, did_you_mean
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.metadata import TASKS, Labels

TABLE_SUFFIXES = (".csv", ".tsv")


IMAGE_EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")


_MAX_NAMES_SHOWN = 3  # of many, in a message


# What a column may be called, whatever its case; where there are several, the first of these is meant.
COLUMN_ALIASES = MappingProxyType(
    {
        "path": (
            *("path", "image_path", "filepath", "file_path", "filename", "file_name", "file", "image", "image_id"),
            *("image_name", "img", "picture", "id_code", "id"),
        ),
        "label": ("label", "target", "class", "labels", "targets", "classes", "tags", "class_name", "category"),
        "fold": ("fold", "folds", "kfold"),
        "group": ("group", "groups", "group_id", "patient", "patient_id"),
        "weight": ("weight", "weights", "sample_weight"),
        "split": ("split", "subset"),
    }
)


@dataclass(frozen=True)
class LabelTable:
    """A table with a line of headings: ``rows`` are as long as ``columns``; ``lines`` are the rows' lines in it."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    line_numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def find_column(self, role: str) -> str | None:
        """The heading of the column that has this role (a key of `ALIASES`), or None."""
        by_name = {column.lower(): column for column in reversed(self.columns)}
        return next((by_name[alias] for alias in COLUMN_ALIASES[role] if alias in by_name), None)

    def column(self, name: str) -> list[str]:
        """The cells of the column with this heading, from top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    @property
    def image_column(self) -> str:
        """The heading of the column that names the pictures. Raises ``ValueError`` where there is none."""
        found = self.find_column("path")
        if found is not None:
            return found
        if _find_file(self.path.parent, self.columns[0], IMAGE_EXTENSIONS[:1]):
            raise ValueError(f"{self.path} has no headings: let its first line be path,label")
        nearest = [near for column in self.columns if (near := did_you_mean(column, list(COLUMN_ALIASES["path"])))]
        raise ValueError(
            f"{self.path} has no column path (or image, image_id, filename, id); it has {', '.join(self.columns)}"
            + (nearest[0] if nearest else "")
        )


def is_table(source: str | Path) -> bool:
    """Whether ``source`` is called as a table is: ``.csv`` or ``.tsv``."""
    return Path(source).suffix.lower() in TABLE_SUFFIXES


def read_table(path: str | Path) -> LabelTable:
    """The table in a file of UTF-8 text, its cells without the spaces around them; empty lines are passed over.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most of. Raises ``ValueError`` for
    an empty table, a row that is shorter or longer than the headings, and headings that occur twice;
    ``FileNotFoundError`` where there is no such file.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no UTF-8 text: save it as UTF-8 with commas") from None
    head = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=head.count)
    found: list[tuple[str, ...]] = []
    lines: list[int] = []
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                found.append(tuple(cell.strip() for cell in row))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    if not found:
        raise ValueError(f"{path} is empty: its first line should be path,label, with a line a picture below")
    columns, rows = found[0], found[1:]
    if not rows:
        raise ValueError(f"{path} has headings ({', '.join(columns)}) and no rows below them")
    for line, cells in zip(lines[1:], rows, strict=True):
        if len(cells) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells under {len(columns)} headings")
    if twice := _find_repeated(columns):
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename one of them")
    return LabelTable(path, columns, tuple(rows), tuple(lines[1:]))


def find_image_files(table: LabelTable, names: Sequence[str], folders: Iterable[str]) -> list[Path]:
    """The file of every picture in ``names``, whose ending may be left out.

    They are looked for beside the table and in those of ``folders`` that lie there too, or, where none of these does,
    in every folder there. Raises ``ValueError`` for those that are nowhere.
    """
    root = table.path.parent
    places = [place for place in (root / name for name in dict.fromkeys(folders)) if place.is_dir()]
    places = [root, *(places or _list_subfolders(root))]
    found: list[Path] = []
    missing: list[str] = []
    likely, ending = root, ""  # where the last one was: most lie together
    for name in names:
        file = _find_file(likely, name, (ending,)) if name else None
        for place in places if name and file is None else ():
            if file := _find_file(place, name):
                likely, ending = place, file.name[len(Path(name).name) :]
                break
        if file is None:
            missing.append(name or "(an empty cell)")
        else:
            found.append(file)
    if missing:
        which = ", ".join(missing[:_MAX_NAMES_SHOWN]) + (", …" if len(missing) > _MAX_NAMES_SHOWN else "")
        raise ValueError(
            f"{len(missing)} of the {len(names)} pictures that {table.path} names do not exist: {which} "
            f"(looked for in {', '.join(map(str, places))}, also with .jpg or .png at the end)"
        )
    return found


def _find_file(folder: Path, name: str, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> Path | None:
    base = os.path.join(folder, name)
    return next((Path(base + ending) for ending in extensions if os.path.isfile(base + ending)), None)


def _list_subfolders(root: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _find_repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


# What the label columns of a table mean: one label a picture, several, or values.


_TableLabel = int | tuple[int, ...] | tuple[float, ...]


log = logging.getLogger("effnet")


_MULTI_LABEL_HEADINGS = frozenset(
    ("labels", "targets", "classes", "tags")
)  # headings whose cells may well hold several labels


_LABEL_SEPARATORS = re.compile(r"[|;]")


def parse_table_labels(
    table: LabelTable, task: str | None, unused_columns: Sequence[str]
) -> tuple[Labels, list[_TableLabel | None]]:
    """The labels of ``table``, and that of each row; None for a row whose cells are empty.

    ``spare``: the columns that have no other role. ``kind`` None: as `effnet.data.table.open_table` says. Raises
    ``ValueError`` where there is no column of labels, or it cannot be understood.
    """
    if task is not None:
        check_choice("task", task, TASKS)
    single = table.find_column("label") or (unused_columns[0] if len(unused_columns) == 1 else None)
    if single is None:
        return _parse_label_columns(table, task, unused_columns)
    if table.find_column("label") is None:
        log.info("%s: the labels are taken from the column %r", table.path.name, single)
    cells = table.column(single)
    if task == "regression":
        return Labels((single,), "regression"), [
            None if not cell else (_parse_value(table, cell, row),) for row, cell in enumerate(cells)
        ]
    apart = _detect_separator(single, cells, task)
    if apart is not None:
        return _parse_multi_label(cells, apart)
    return _parse_single_label(table, single, cells, task)


def _parse_single_label(
    table: LabelTable, column: str, cells: Sequence[str], task: str | None
) -> tuple[Labels, list[_TableLabel | None]]:
    """A column of classes; of numbers only those that are whole, unless ``kind`` says that they are classes."""
    numbers = [number for cell in cells if cell and (number := _parse_number(cell)) is not None]
    if numbers and len(numbers) == sum(map(bool, cells)) and task is None:
        rough = [number for number in numbers if not number.is_integer()]
        if rough:
            raise ValueError(
                f"{table.path}: the column {column!r} holds numbers such as {rough[0]:g}, {len(set(numbers))} different"
                " ones: --task regression predicts them, --task classification takes each as a class"
            )
        written = next((cell for cell in cells if cell and not cell.lstrip("+-").isdigit()), None)
        if written is not None:
            whole = "%s: the column %r holds whole numbers, written as %s: they are taken for classes"
            log.info(whole, table.path.name, column, written)
            cells = [cell and f"{int(float(cell))}" for cell in cells]
    names = _sort_label_names(set(cells) - {""})
    index = {name: label for label, name in enumerate(names)}
    return Labels(names), [index.get(cell) for cell in cells]


def _parse_multi_label(cells: Sequence[str], separator: re.Pattern[str]) -> tuple[Labels, list[_TableLabel | None]]:
    """A column with several labels a cell: of an empty one none is right."""
    found = [sorted({name for part in separator.split(cell) if (name := part.strip())}) for cell in cells]
    names = _sort_label_names({name for row in found for name in row})
    index = {name: label for label, name in enumerate(names)}
    return Labels(names, "multilabel"), [tuple(sorted(index[name] for name in row)) for row in found]


def _detect_separator(column: str, cells: Sequence[str], task: str | None) -> re.Pattern[str] | None:
    """What stands between the labels of a cell; None where each has one.

    A space is no separator by itself, since names have spaces in them, but in a column that is called ``labels``.
    """
    if task == "classification":
        return None
    if any(_LABEL_SEPARATORS.search(cell) for cell in cells):
        return _LABEL_SEPARATORS
    spaced = any(" " in cell for cell in cells)
    if task == "multilabel":
        return re.compile(r"\s")
    if spaced and column.lower() in _MULTI_LABEL_HEADINGS:
        return re.compile(r"\s")
    if spaced:
        alone = {cell for cell in cells if " " not in cell}
        mixed = next((cell for cell in cells if " " in cell and alone.issuperset(cell.split())), None)
        if mixed:
            log.warning("%r is taken for one label; where its words are several, say --task multilabel", mixed)
    return None


def _parse_label_columns(
    table: LabelTable, task: str | None, unused_columns: Sequence[str]
) -> tuple[Labels, list[_TableLabel | None]]:
    """A column a class with 0 and 1 in it, or with ``kind`` "regression" a column a value."""
    numbers = {column: [_parse_number(cell) for cell in table.column(column)] for column in unused_columns}
    wanted = {
        column: cells
        for column, cells in numbers.items()
        if all(cell is not None and (task == "regression" or cell in (0, 1)) for cell in cells)
    }
    if len(wanted) < (1 if task == "regression" else 2):
        raise ValueError(_no_label_column_message(table, unused_columns))
    passed = [column for column in unused_columns if column not in wanted]
    if passed:
        log.info("%s: passed over: %s", table.path.name, ", ".join(passed))
    rows = list(zip(*wanted.values(), strict=True))
    names = tuple(wanted)
    if task == "regression":
        return Labels(names, "regression"), [tuple(float(cell) for cell in row if cell is not None) for row in rows]
    if task != "multilabel" and all(sum(map(bool, row)) == 1 for row in rows):
        log.info(
            "%s: one of the columns %s is 1 in every row: each picture has one label", table.path.name, ", ".join(names)
        )
        return Labels(names), [next(index for index, cell in enumerate(row) if cell) for row in rows]
    if task == "classification":
        raise ValueError(f"{table.path}: several of the columns {', '.join(names)} are 1 in a row: --task multilabel")
    return Labels(names, "multilabel"), [tuple(index for index, cell in enumerate(row) if cell) for row in rows]


def _no_label_column_message(table: LabelTable, unused_columns: Sequence[str]) -> str:
    nearest = [near for column in unused_columns if (near := did_you_mean(column, list(COLUMN_ALIASES["label"])))]
    return (
        f"{table.path} has no column label (or target, class), nor columns of 0 and 1, one a class; it has "
        f"{', '.join(table.columns)}" + (nearest[0] if nearest else "")
    )


def check_images_per_label(table: LabelTable, labels: Labels, row_labels: Sequence[_TableLabel | None]) -> None:
    """Raises ``ValueError`` for a class of one picture; where any label may be right it is only said."""
    counts = Counter(one for label in row_labels for one in (label if isinstance(label, tuple) else (label,)))
    lone = [name for index, name in enumerate(labels.names) if counts[index] == 1]
    if not lone:
        return
    which = ", ".join(map(repr, lone[:3])) + (", …" if len(lone) > 3 else "")
    if labels.task == "multilabel":
        log.warning("%s: %s occur only once: they can be learned or judged, not both", table.path.name, which)
        return
    numbers = all(_parse_number(name) is not None for name in labels.names)
    told = f"the labels {which} occur" if len(lone) > 1 else f"the label {which} occurs"
    remedy = ", or say --task regression where the numbers are to be predicted as such" if numbers else ""
    raise ValueError(
        f"{table.path}: {told} only once, and a picture "
        f"to learn from and one to judge by are needed: add another, or take the row out{remedy}"
    )


def _parse_number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _parse_value(table: LabelTable, cell: str, row: int) -> float:
    number = _parse_number(cell)
    if number is None:
        raise ValueError(
            f"{table.path}, line {table.line_numbers[row]}: {cell!r} is no number, as --task regression needs"
        )
    return number


def _sort_label_names(names: set[str]) -> tuple[str, ...]:
    """By name; where all are numbers, by number."""
    numbers = {name: _parse_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))


# Labelled pictures from a CSV, as competitions hand them out: ``path,label[,fold,group,weight,split]``.


log = logging.getLogger("effnet")


_TRAIN_FOLDERS = ("train", "train_images", "training", "images", "imgs", "pictures")


_TEST_FOLDERS = ("test", "test_images", "testing", "images", "imgs", "pictures")


_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", ""), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def open_table(path: str | Path, task: str | None = None) -> Splits:
    """The labelled pictures of a ``.csv`` or ``.tsv``, a row a picture; the columns may be called as `ALIASES` says.

    - ``path``: the file, from the table's folder on or from ``train/``, ``train_images/`` or ``images/`` beside it; its
      ending may be left out;
    - ``label``: a class; or several with ``|`` or ``;`` between them, or spaces (task "multilabel", or a column that is called
      ``labels`` or ``tags``). Where no column is called so: the only one that is left, or a column a class of 0 and 1;
    - ``fold``, ``group``, ``weight``: as in `Item`; ``split``: train, val or test.

    ``kind`` is that of the labels (see `Labels`); None finds "classification" or "multilabel". With "regression" the labels are numbers to be
    predicted, from the label column or else from every column of numbers that has no other role. Labels are sorted by
    name, numbers by number; columns of 0 and 1 stay in their order.
    Raises ``ValueError`` for what cannot be understood, pictures that do not exist or come twice, a label that occurs
    once, and labels that are numbers with fractions while ``kind`` does not say what they are.
    """
    table = read_table(path)
    key = table.image_column
    names = table.column(key)
    _check_unique_images(table, names)
    roles = {role: table.find_column(role) for role in COLUMN_ALIASES if role != "path"}
    taken = {key, *filter(None, roles.values())}
    spare = [column for column in table.columns if column not in taken]
    if roles["label"] is not None:
        _log_unused_columns(table, spare)
    labels, found = parse_table_labels(table, task, spare)
    parts = _parse_splits(table, roles["split"])
    found_by_part = {part: [row for row, at in enumerate(parts) if at == part] for part in ("train", "val", "test")}
    if not any(found[row] for row in found_by_part["test"]) and labels.task == "multilabel":  # empty cells: not known
        found = [None if at == "test" else label for at, label in zip(parts, found, strict=True)]
    if labels.task == "classification" and len(labels.names) < 2:
        raise ValueError(f"{table.path} has only one label, {', '.join(labels.names)}: a classifier needs at least two")
    if labels.task != "regression":
        check_images_per_label(table, labels, [found[row] for row in found_by_part["train"] or range(len(found))])
    unlabelled = [row for row, label in enumerate(found) if label is None]
    if any(parts[row] != "test" for row in unlabelled):
        row = next(row for row in unlabelled if parts[row] != "test")
        raise ValueError(
            f"{table.path}, line {table.line_numbers[row]}: {names[row]} has no label: give it one or take it out"
        )
    if unlabelled:
        log.info("%s: %d pictures of test have no label and are passed over", table.path.name, len(unlabelled))
    paths = find_image_files(table, names, (table.path.stem, f"{table.path.stem}_images", *_TRAIN_FOLDERS))
    items = _build_items(table, names, paths, found, roles)

    def part(name: str) -> ImageDataset | None:
        rows = [items[row] for row in found_by_part[name] if found[row] is not None]
        return ImageDataset(tuple(rows), labels) if rows else None

    _check_labels_in_train(table, labels, part("train"), [part("val"), part("test")])
    return Splits(part("train"), part("val"), part("test"))


def open_unlabeled_table(path: str | Path) -> list[tuple[str, Path]]:
    """(what the table calls it, its file) of every picture of a table whose labels are not asked for.

    The files lie beside it or in ``test/``, ``test_images/`` or ``images/`` there. Raises ``ValueError`` as
    `open_table` does for columns and files.
    """
    table = read_table(path)
    names = table.column(table.image_column)
    _check_unique_images(table, names)
    return list(
        zip(
            names,
            find_image_files(table, names, (table.path.stem, f"{table.path.stem}_images", *_TEST_FOLDERS)),
            strict=True,
        )
    )


def _build_items(
    table: LabelTable,
    names: Sequence[str],
    paths: Sequence[Path],
    labels: Sequence[_TableLabel | None],
    roles: dict[str, str | None],
) -> list[Item]:
    """An item a row; one without a label gets a label that nobody sees."""
    cells = {role: table.column(name) if name else [""] * len(table) for role, name in roles.items()}
    return [
        Item(
            paths[row],
            0 if (label := labels[row]) is None else label,
            names[row],
            _parse_weight(table, row, cells["weight"][row]),
            cells["group"][row],
            _parse_fold(table, row, cells["fold"][row]),
        )
        for row in range(len(table))
    ]


def _parse_weight(table: LabelTable, row: int, cell: str) -> float:
    try:
        value = float(cell) if cell else 1.0
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise ValueError(
            f"{table.path}, line {table.line_numbers[row]}: a weight is a number of at least 0, not {cell!r}"
        )
    return value


def _parse_fold(table: LabelTable, row: int, cell: str) -> int | None:
    """Its number; None for an empty cell or −1, as competitors mark what is always learned from."""
    try:
        value = float(cell) if cell else -1.0
        fold = int(value)
    except (ValueError, OverflowError):
        value, fold = 0.5, -2
    if fold != value or fold < -1:
        raise ValueError(f"{table.path}, line {table.line_numbers[row]}: a fold is a whole number, not {cell!r}")
    return None if fold == -1 else fold


def _parse_splits(table: LabelTable, column: str | None) -> list[str]:
    """The split of every row."""
    if column is None:
        return ["train"] * len(table)
    cells = [cell.lower() for cell in table.column(column)]
    for line, cell in zip(table.line_numbers, cells, strict=True):
        if cell not in _SPLIT_NAMES:
            raise ValueError(f"{table.path}, line {line}: a split is train, val or test, not {cell!r}")
    return [_SPLIT_NAMES[cell] for cell in cells]


def _log_unused_columns(table: LabelTable, unused_columns: Sequence[str]) -> None:
    if unused_columns:
        known = [role for role in COLUMN_ALIASES if table.find_column(role) is None]
        near = {column: get_close_matches(column.lower(), known, 1, 0.8) for column in unused_columns}
        told = (
            f"{column} (rename it where it is meant as {found[0]})" if found else column
            for column, found in near.items()
        )
        log.info("%s: passed over: %s", table.path.name, ", ".join(told))


def _check_unique_images(table: LabelTable, names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for line, name in zip(table.line_numbers, names, strict=True):
        if name in seen:
            raise ValueError(
                f"{table.path}: {name} is in line {seen[name]} and in line {line}: keep one of them; several labels of "
                "a picture stand in one cell, with | between them"
            )
        seen[name] = line


def _check_labels_in_train(
    table: LabelTable, labels: Labels, train: ImageDataset | None, others: Sequence[ImageDataset | None]
) -> None:
    if train is None or labels.task == "regression":
        return
    known = train.class_counts()
    for other in filter(None, others):
        for name, here, there in zip(labels.names, known, other.class_counts(), strict=True):
            if there and not here:
                raise ValueError(
                    f"{table.path}: the label {name!r} is on no picture to learn from, only on held-out ones"
                )
