"""What the cells of a table's label column mean: a class, several, values, a list as pandas writes it, 0 and 1."""

import logging
import re
from ast import literal_eval
from collections import Counter
from collections.abc import Sequence
from math import isfinite

from effnet.arch.serde import check_choice
from effnet.data.dataset import Label
from effnet.data.storage.file_names import normalize_name
from effnet.data.tables.table_reader import LabelTable, join_first, suggest_column
from effnet.metadata import TASKS, Labels

log = logging.getLogger("effnet")

_MULTI_LABEL_HEADINGS = frozenset(("labels", "targets", "classes", "tags"))  # cells may well hold several labels
_LABEL_SEPARATORS, _COMMAS, _SPACES = re.compile(r"[|;]"), re.compile(r"\s*,\s*"), re.compile(r"\s")
_MISSING_VALUES = frozenset(("nan", "null", "<na>", "n/a", "#n/a", "#ref!", "#value!", "#name?"))  # pandas, SQL, Excel
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_AMBIGUOUS_COMMA = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # 1,234 is 1234 to some and 1.234 to others
_NUMPY_GAP, _NUMPY_NUMBERS = re.compile(r"(['\"])\s+(?=['\"])"), re.compile(r"\[[\d.\s+-]+\]")


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
    cells = [normalize_name(cell) for cell in table.column(column)]
    if task == "regression":
        values = _parse_numbers(cells)
        for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
            if cell and value is None:
                ambiguous = ": write it with a point, or without" if _AMBIGUOUS_COMMA.fullmatch(cell) else ""
                raise ValueError(
                    f"{table.place(row)}: {cell!r} is not a number, which --task regression needs{ambiguous}"
                )
        return Labels((column,), "regression"), [None if value is None else (value,) for value in values]
    lists = _parse_lists(table, column, cells)
    if lists is not None:
        return _encode_lists(table, column, lists, task)
    separator = _detect_separator(column, cells, task)
    if separator is not None:
        return _parse_multi_label(cells, separator)
    return _parse_single_label(table, column, cells, task)


def _parse_single_label(
    table: LabelTable, column: str, cells: Sequence[str], task: str | None
) -> tuple[Labels, list[Label | None]]:
    """Read a column of classes. Fractional numbers are classes only if ``task`` is given."""
    numbers = [number for number in _parse_numbers(cells) if number is not None]
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
            cells = ["" if number is None else f"{int(number)}" for number in _parse_numbers(cells)]
    names = _sort_label_names(set(cells) - {""})
    missing = next((name for name in names if name.casefold() in _MISSING_VALUES), None)
    if missing:
        log.warning(
            "%s: the label %r is read as a class; if it means that there is none, leave the cell empty",
            *(table.path.name, missing),
        )
    index = {name: label for label, name in enumerate(names)}
    return Labels(names), [index.get(cell) for cell in cells]


def _parse_multi_label(cells: Sequence[str], separator: re.Pattern[str]) -> tuple[Labels, list[Label | None]]:
    """Read a column with several labels per cell; an empty cell means that none is present."""
    present = [{name for part in separator.split(cell) if (name := part.strip())} for cell in cells]
    names = _sort_label_names(set().union(*present))
    index = {name: label for label, name in enumerate(names)}
    return Labels(names, "multilabel"), [tuple(sorted(index[name] for name in row)) for row in present]


def _parse_lists(table: LabelTable, column: str, cells: Sequence[str]) -> list[list[str] | None] | None:
    """Return the labels of a column of lists, ``['cat', 'dog']``, as pandas writes them; None if there is no list.

    Raises ``ValueError`` for a cell in brackets that is none: its parts would become classes such as ``['cat',``.
    """
    found: list[list[str] | None] = []
    is_list = False
    for row, cell in enumerate(cells):
        labels = _parse_list(cell)
        is_list |= labels is not None
        if labels is None and cell[:1] in ("[", "{"):
            raise ValueError(
                f"{table.place(row)}: {cell!r} in the column {column!r} is not a list: write a|b, or ['a', 'b'] in "
                "quotes"
            )
        found.append(labels if labels is not None or not cell else [cell])
    if not is_list:
        return None
    widths = {len(row) for row in found if row is not None}
    if len(widths) == 1 and {name for row in found for name in row or ()} <= {"0", "1"} and widths.pop() > 1:
        raise ValueError(
            f"{table.path}: the column {column!r} holds lists of 0 and 1, whose classes have no names: write one "
            "column per class"
        )
    return found


def _parse_list(cell: str) -> list[str] | None:
    """Return the names in a list of Python's, JSON's or numpy's; None if ``cell`` is none, or holds something else."""
    if cell[:1] not in ("[", "{", "(") or cell[-1:] not in ("]", "}", ")"):
        return None
    text = _NUMPY_GAP.sub(r"\1, ", cell)  # ['cat' 'dog'], which Python would join
    if _NUMPY_NUMBERS.fullmatch(text):  # [3 14]
        text = re.sub(r"(?<=[\d.])\s+(?=[\d+-])", ", ", text)
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, (list, tuple, set)) or not all(isinstance(part, (str, int, float)) for part in value):
        return None
    names = [f"{part:g}" if isinstance(part, float) else str(part).strip() for part in value]
    return None if "" in names else sorted(names) if isinstance(value, set) else names


def _encode_lists(
    table: LabelTable, column: str, lists: Sequence[list[str] | None], task: str | None
) -> tuple[Labels, list[Label | None]]:
    """Encode a list of labels per row: several, or if every row has one, that one."""
    names = _sort_label_names({name for row in lists for name in row or ()})
    index = {name: label for label, name in enumerate(names)}
    present = [None if row is None else tuple(sorted({index[name] for name in row})) for row in lists]
    if task != "multilabel" and all(row is None or len(row) == 1 for row in present):
        log.info("%s: every list in %r has one label", table.path.name, column)
        return Labels(names), [None if row is None else row[0] for row in present]
    if task == "classification":
        row = next(row for row, labels in enumerate(present) if labels is not None and len(labels) != 1)
        raise ValueError(f"{table.place(row)}: {len(present[row] or ())} labels: --task multilabel allows any number")
    return Labels(names, "multilabel"), [row or () for row in present]


def _detect_separator(column: str, cells: Sequence[str], task: str | None) -> re.Pattern[str] | None:
    """Return what separates the labels in a cell, or None. Spaces and commas may be in names: some columns tell."""
    if task == "classification":
        return None
    if any(_LABEL_SEPARATORS.search(cell) for cell in cells):
        return _LABEL_SEPARATORS
    for separator in (_COMMAS, _SPACES):  # "golden retriever, pug"
        several = [cell for cell in cells if separator.search(cell)]
        if several and (task == "multilabel" or column.lower() in _MULTI_LABEL_HEADINGS):
            return separator
        single = set(cells).difference(several)
        ambiguous = next((cell for cell in several if single.issuperset(separator.split(cell))), None)
        if ambiguous:
            log.warning("%r is read as one label; if it is several, use --task multilabel", ambiguous)
            return None
    return _SPACES if task == "multilabel" else None


def _parse_label_columns(
    table: LabelTable, task: str | None, unused_columns: Sequence[str]
) -> tuple[Labels, list[Label | None]]:
    """Read one column of 0 and 1 per class, or for regression one column per value."""
    columns = {name: _parse_numbers(table.column(name)) for name in unused_columns}
    regression = task == "regression"
    chosen = {
        name: cells
        for name, cells in columns.items()
        if all(cell is not None and (regression or cell in (0, 1)) for cell in cells)
    }
    if len(chosen) < (1 if regression else 2):
        raise ValueError(
            f"{table.path} has no column label (or target, class), nor one column of 0 and 1 per class, only "
            f"{', '.join(table.columns)}{suggest_column(unused_columns, 'label')}"
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
    subject = f"the labels {join_first(single)} occur" if len(single) > 1 else f"the label {single[0]} occurs"
    if labels.task == "multilabel":
        log.warning("%s: %s only once: for training or for validation, not for both", table.path.name, subject)
        return
    numeric = all(parse_number(name) is not None for name in labels.names)
    remedy = ", or use --task regression to predict the numbers as such" if numeric else ""
    raise ValueError(
        f"{table.path}: {subject} only once, but training and validation need an image each: add another image or "
        f"delete the row{remedy}"
    )


def parse_number(cell: str, decimal_commas: bool = False) -> float | None:
    """Return the number in ``cell``, also 0,5; but 1,234 only with ``decimal_commas``, as it may be 1234."""
    if _DECIMAL_COMMA.fullmatch(cell) and (decimal_commas or not _AMBIGUOUS_COMMA.fullmatch(cell)):
        cell = cell.replace(",", ".")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in cell else None  # Python reads 1_0 as 10


def _parse_numbers(cells: Sequence[str]) -> list[float | None]:
    """Return the numbers of a column, None for any other cell; what a comma means, another cell may tell."""
    commas = any(_DECIMAL_COMMA.fullmatch(cell) and not _AMBIGUOUS_COMMA.fullmatch(cell) for cell in cells)
    return [parse_number(cell, commas) for cell in cells]


def _sort_label_names(names: set[str]) -> tuple[str, ...]:
    """Sort by name, or by number if all are numbers."""
    numbers = {name: parse_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))
