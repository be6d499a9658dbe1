"""Labelled pictures from a CSV, as competitions hand them out: ``path,label[,fold,group,weight,split]``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

from effnet.contract import Labels
from effnet.data.columns import ALIASES, Table, files, read_table
from effnet.data.labelling import Label, labelling, refuse_lone
from effnet.data.pictures import Item, Pictures, Splits

log = logging.getLogger("effnet")

_TRAIN = ("train", "train_images", "training", "images", "imgs", "pictures")
_TEST = ("test", "test_images", "testing", "images", "imgs", "pictures")
_SPLITS = {
    **dict.fromkeys(("train", "training", ""), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def open_table(path: str | Path, kind: str | None = None) -> Splits:
    """The labelled pictures of a ``.csv`` or ``.tsv``, a row a picture; the columns may be called as `ALIASES` says.

    - ``path``: the file, from the table's folder on or from ``train/``, ``train_images/`` or ``images/`` beside it; its
      ending may be left out;
    - ``label``: a class; or several with ``|`` or ``;`` between them, or spaces (kind "any", or a column that is called
      ``labels`` or ``tags``). Where no column is called so: the only one that is left, or a column a class of 0 and 1;
    - ``fold``, ``group``, ``weight``: as in `Item`; ``split``: train, val or test.

    ``kind`` is that of the labels (see `Labels`); None finds "one" or "any". With "value" the labels are numbers to be
    predicted, from the label column or else from every column of numbers that has no other role. Labels are sorted by
    name, numbers by number; columns of 0 and 1 stay in their order.
    Raises ``ValueError`` for what cannot be understood, pictures that do not exist or come twice, a label that occurs
    once, and labels that are numbers with fractions while ``kind`` does not say what they are.
    """
    table = read_table(path)
    key = table.key
    names = table.column(key)
    _refuse_twice(table, names)
    roles = {role: table.named(role) for role in ALIASES if role != "path"}
    taken = {key, *filter(None, roles.values())}
    spare = [column for column in table.columns if column not in taken]
    if roles["label"] is not None:
        _say_spare(table, spare)
    labels, found = labelling(table, kind, spare)
    parts = _parts(table, roles["split"])
    found_by_part = {part: [row for row, at in enumerate(parts) if at == part] for part in ("train", "val", "test")}
    if not any(found[row] for row in found_by_part["test"]) and labels.kind == "any":  # empty cells: not known
        found = [None if at == "test" else label for at, label in zip(parts, found, strict=True)]
    if labels.kind == "one" and len(labels.names) < 2:
        raise ValueError(f"{table.path} has only one label, {', '.join(labels.names)}: a classifier needs at least two")
    if labels.kind != "value":
        refuse_lone(table, labels, [found[row] for row in found_by_part["train"] or range(len(found))])
    unlabelled = [row for row, label in enumerate(found) if label is None]
    if any(parts[row] != "test" for row in unlabelled):
        row = next(row for row in unlabelled if parts[row] != "test")
        raise ValueError(
            f"{table.path}, line {table.lines[row]}: {names[row]} has no label: give it one or take it out"
        )
    if unlabelled:
        log.info("%s: %d pictures of test have no label and are passed over", table.path.name, len(unlabelled))
    paths = files(table, names, (table.path.stem, f"{table.path.stem}_images", *_TRAIN))
    items = _items(table, names, paths, found, roles)

    def part(name: str) -> Pictures | None:
        rows = [items[row] for row in found_by_part[name] if found[row] is not None]
        return Pictures(tuple(rows), labels) if rows else None

    _refuse_unknown(table, labels, part("train"), [part("val"), part("test")])
    return Splits(part("train"), part("val"), part("test"))


def open_unlabelled(path: str | Path) -> list[tuple[str, Path]]:
    """(what the table calls it, its file) of every picture of a table whose labels are not asked for.

    The files lie beside it or in ``test/``, ``test_images/`` or ``images/`` there. Raises ``ValueError`` as
    `open_table` does for columns and files.
    """
    table = read_table(path)
    names = table.column(table.key)
    _refuse_twice(table, names)
    return list(zip(names, files(table, names, (table.path.stem, f"{table.path.stem}_images", *_TEST)), strict=True))


def _items(
    table: Table,
    names: Sequence[str],
    paths: Sequence[Path],
    labels: Sequence[Label | None],
    roles: dict[str, str | None],
) -> list[Item]:
    """An item a row; one without a label gets a label that nobody sees."""
    cells = {role: table.column(name) if name else [""] * len(table) for role, name in roles.items()}
    return [
        Item(
            paths[row],
            0 if (label := labels[row]) is None else label,
            names[row],
            _weight(table, row, cells["weight"][row]),
            cells["group"][row],
            _fold(table, row, cells["fold"][row]),
        )
        for row in range(len(table))
    ]


def _weight(table: Table, row: int, cell: str) -> float:
    try:
        value = float(cell) if cell else 1.0
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{table.path}, line {table.lines[row]}: a weight is a number of at least 0, not {cell!r}")
    return value


def _fold(table: Table, row: int, cell: str) -> int | None:
    """Its number; None for an empty cell or −1, as competitors mark what is always learned from."""
    try:
        value = float(cell) if cell else -1.0
        fold = int(value)
    except (ValueError, OverflowError):
        value, fold = 0.5, -2
    if fold != value or fold < -1:
        raise ValueError(f"{table.path}, line {table.lines[row]}: a fold is a whole number, not {cell!r}")
    return None if fold == -1 else fold


def _parts(table: Table, column: str | None) -> list[str]:
    """The split of every row."""
    if column is None:
        return ["train"] * len(table)
    cells = [cell.lower() for cell in table.column(column)]
    for line, cell in zip(table.lines, cells, strict=True):
        if cell not in _SPLITS:
            raise ValueError(f"{table.path}, line {line}: a split is train, val or test, not {cell!r}")
    return [_SPLITS[cell] for cell in cells]


def _say_spare(table: Table, spare: Sequence[str]) -> None:
    if spare:
        known = [role for role in ALIASES if table.named(role) is None]
        near = {column: get_close_matches(column.lower(), known, 1, 0.8) for column in spare}
        told = (
            f"{column} (rename it where it is meant as {found[0]})" if found else column
            for column, found in near.items()
        )
        log.info("%s: passed over: %s", table.path.name, ", ".join(told))


def _refuse_twice(table: Table, names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for line, name in zip(table.lines, names, strict=True):
        if name in seen:
            raise ValueError(
                f"{table.path}: {name} is in line {seen[name]} and in line {line}: keep one of them; several labels of "
                "a picture stand in one cell, with | between them"
            )
        seen[name] = line


def _refuse_unknown(table: Table, labels: Labels, train: Pictures | None, others: Sequence[Pictures | None]) -> None:
    if train is None or labels.kind == "value":
        return
    known = train.counts()
    for other in filter(None, others):
        for name, here, there in zip(labels.names, known, other.counts(), strict=True):
            if there and not here:
                raise ValueError(
                    f"{table.path}: the label {name!r} is on no picture to learn from, only on held-out ones"
                )
