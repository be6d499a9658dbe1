"""What the label columns of a table mean: one label a picture, several, or values."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from math import isfinite

from effnet.arch.record import choice, did_you_mean
from effnet.contract import KINDS, Labels
from effnet.data.columns import ALIASES, Table

Label = int | tuple[int, ...] | tuple[float, ...]

log = logging.getLogger("effnet")

_SEVERAL = frozenset(("labels", "targets", "classes", "tags"))  # headings whose cells may well hold several labels
_MARKS = re.compile(r"[|;]")


def labelling(table: Table, kind: str | None, spare: Sequence[str]) -> tuple[Labels, list[Label | None]]:
    """The labels of ``table``, and that of each row; None for a row whose cells are empty.

    ``spare``: the columns that have no other role. ``kind`` None: as `effnet.data.table.open_table` says. Raises
    ``ValueError`` where there is no column of labels, or it cannot be understood.
    """
    if kind is not None:
        choice("kind", kind, KINDS)
    single = table.named("label") or (spare[0] if len(spare) == 1 else None)
    if single is None:
        return _several_columns(table, kind, spare)
    if table.named("label") is None:
        log.info("%s: the labels are taken from the column %r", table.path.name, single)
    cells = table.column(single)
    if kind == "value":
        return Labels((single,), "value"), [
            None if not cell else (_value(table, cell, row),) for row, cell in enumerate(cells)
        ]
    apart = _separator(single, cells, kind)
    if apart is not None:
        return _any(cells, apart)
    return _one(table, single, cells, kind)


def _one(table: Table, column: str, cells: Sequence[str], kind: str | None) -> tuple[Labels, list[Label | None]]:
    """A column of classes; of numbers only those that are whole, unless ``kind`` says that they are classes."""
    numbers = [number for cell in cells if cell and (number := _number(cell)) is not None]
    if numbers and len(numbers) == sum(map(bool, cells)) and kind is None:
        rough = [number for number in numbers if not number.is_integer()]
        if rough:
            raise ValueError(
                f"{table.path}: the column {column!r} holds numbers such as {rough[0]:g}, {len(set(numbers))} different"
                " ones: --kind value learns to predict them, --kind one takes each for a class"
            )
        written = next((cell for cell in cells if cell and not cell.lstrip("+-").isdigit()), None)
        if written is not None:
            whole = "%s: the column %r holds whole numbers, written as %s: they are taken for classes"
            log.info(whole, table.path.name, column, written)
            cells = [cell and f"{int(float(cell))}" for cell in cells]
    names = _sorted(set(cells) - {""})
    index = {name: label for label, name in enumerate(names)}
    return Labels(names), [index.get(cell) for cell in cells]


def _any(cells: Sequence[str], apart: re.Pattern[str]) -> tuple[Labels, list[Label | None]]:
    """A column with several labels a cell: of an empty one none is right."""
    found = [sorted({name for part in apart.split(cell) if (name := part.strip())}) for cell in cells]
    names = _sorted({name for row in found for name in row})
    index = {name: label for label, name in enumerate(names)}
    return Labels(names, "any"), [tuple(sorted(index[name] for name in row)) for row in found]


def _separator(column: str, cells: Sequence[str], kind: str | None) -> re.Pattern[str] | None:
    """What stands between the labels of a cell; None where each has one.

    A space is no separator by itself, since names have spaces in them, but in a column that is called ``labels``.
    """
    if kind == "one":
        return None
    if any(_MARKS.search(cell) for cell in cells):
        return _MARKS
    spaced = any(" " in cell for cell in cells)
    if kind == "any":
        return re.compile(r"\s")
    if spaced and column.lower() in _SEVERAL:
        return re.compile(r"\s")
    if spaced:
        alone = {cell for cell in cells if " " not in cell}
        mixed = next((cell for cell in cells if " " in cell and alone.issuperset(cell.split())), None)
        if mixed:
            log.warning("%r is taken for one label; where its words are several, say --kind any", mixed)
    return None


def _several_columns(table: Table, kind: str | None, spare: Sequence[str]) -> tuple[Labels, list[Label | None]]:
    """A column a class with 0 and 1 in it, or with ``kind`` "value" a column a value."""
    numbers = {column: [_number(cell) for cell in table.column(column)] for column in spare}
    wanted = {
        column: cells
        for column, cells in numbers.items()
        if all(cell is not None and (kind == "value" or cell in (0, 1)) for cell in cells)
    }
    if len(wanted) < (1 if kind == "value" else 2):
        raise ValueError(_no_labels(table, spare))
    passed = [column for column in spare if column not in wanted]
    if passed:
        log.info("%s: passed over: %s", table.path.name, ", ".join(passed))
    rows = list(zip(*wanted.values(), strict=True))
    names = tuple(wanted)
    if kind == "value":
        return Labels(names, "value"), [tuple(float(cell) for cell in row if cell is not None) for row in rows]
    if kind != "any" and all(sum(map(bool, row)) == 1 for row in rows):
        log.info(
            "%s: one of the columns %s is 1 in every row: each picture has one label", table.path.name, ", ".join(names)
        )
        return Labels(names), [next(index for index, cell in enumerate(row) if cell) for row in rows]
    if kind == "one":
        raise ValueError(f"{table.path}: several of the columns {', '.join(names)} are 1 in a row: --kind any")
    return Labels(names, "any"), [tuple(index for index, cell in enumerate(row) if cell) for row in rows]


def _no_labels(table: Table, spare: Sequence[str]) -> str:
    nearest = [near for column in spare if (near := did_you_mean(column, list(ALIASES["label"])))]
    return (
        f"{table.path} has no column label (or target, class), nor columns of 0 and 1, one a class; it has "
        f"{', '.join(table.columns)}" + (nearest[0] if nearest else "")
    )


def refuse_lone(table: Table, labels: Labels, found: Sequence[Label | None]) -> None:
    """Raises ``ValueError`` for a class of one picture; where any label may be right it is only said."""
    counts = Counter(one for label in found for one in (label if isinstance(label, tuple) else (label,)))
    lone = [name for index, name in enumerate(labels.names) if counts[index] == 1]
    if not lone:
        return
    which = ", ".join(map(repr, lone[:3])) + (", …" if len(lone) > 3 else "")
    if labels.kind == "any":
        log.warning("%s: %s occur only once: they can be learned or judged, not both", table.path.name, which)
        return
    numbers = all(_number(name) is not None for name in labels.names)
    told = f"the labels {which} occur" if len(lone) > 1 else f"the label {which} occurs"
    remedy = ", or say --kind value where the numbers are to be predicted as such" if numbers else ""
    raise ValueError(
        f"{table.path}: {told} only once, and a picture "
        f"to learn from and one to judge by are needed: add another, or take the row out{remedy}"
    )


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _value(table: Table, cell: str, row: int) -> float:
    number = _number(cell)
    if number is None:
        raise ValueError(f"{table.path}, line {table.lines[row]}: {cell!r} is no number, as --kind value needs")
    return number


def _sorted(names: set[str]) -> tuple[str, ...]:
    """By name; where all are numbers, by number."""
    numbers = {name: _number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))
