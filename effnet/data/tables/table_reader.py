"""Reading a table of images: its headings by their roles, its cells, and the ways in which programs write them."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from effnet.arch.serde import did_you_mean

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
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?[ ,;\t]*\r?\n", re.IGNORECASE)  # Excel's, in the first line
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")


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
        first = zip(self.columns, self.rows[0], strict=True)
        if url := next((column for column, cell in first if URL.match(cell)), None):
            raise ValueError(
                f"{self.path} has no column path; {url!r} holds URLs: download the images and name the files"
            )
        if self.columns[0] and (self.path.parent / self.columns[0]).is_file():
            raise ValueError(f"{self.path} has no headings: its first line should be path,label")
        raise ValueError(
            f"{self.path} has no column path (or image, image_id, filename, id), only {', '.join(self.columns)}"
            + suggest_column(self.columns, "path")
        )


def read_table(path: str | Path) -> LabelTable:
    """Read a UTF-8 table (or Excel's UTF-16), without blank lines, spaces around cells, and columns without anything.

    Cells are separated by what a first line ``sep=;`` says, or else by commas, semicolons or tabs, whichever the first
    line has most of. Raises ``ValueError`` for an empty table, rows of another length than the headings, and repeated
    headings.
    """
    path = Path(path)
    text = _decode_table(path)
    stated = _SEPARATOR_LINE.match(text)
    text = text[stated.end() :] if stated else text
    first_line = text.lstrip().partition("\n")[0]
    separator = stated[1] if stated else max(",;\t", key=first_line.count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(tuple(cell.strip() for cell in row))
                lines.append(reader.line_num + bool(stated))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num + bool(stated)}: {error}") from None
    if not rows:
        raise ValueError(f"{path} is empty: its first line should be path,label, with one line per image below")
    rows = _drop_empty_columns(rows)
    columns = rows[0]
    if not rows[1:]:
        raise ValueError(f"{path} has headings ({', '.join(columns)}) but no rows below them")
    for line, cells in zip(lines, rows, strict=True):
        if len(cells) != len(columns):
            quote = f': a cell with {separator!r} in it must be in "quotes"' if len(cells) > len(columns) else ""
            raise ValueError(f"{path}, line {line}: {len(cells)} cells under {len(columns)} headings{quote}")
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{path} has two columns {repeated[0]!r}: rename one of them")
    return LabelTable(path, columns, tuple(rows[1:]), tuple(lines[1:]))


def _decode_table(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"  # Excel's "Unicode text"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8 with commas") from None


def _drop_empty_columns(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out columns with neither a heading nor a cell, as Excel appends them."""
    width = max(map(len, rows))
    used = [any(cells[column : column + 1] not in ((), ("",)) for cells in rows) for column in range(width)]
    if all(used):
        return rows
    return [tuple(cell for cell, keep in zip(cells, used, strict=False) if keep) for cells in rows]


def suggest_column(columns: Iterable[str], role: str) -> str:
    """Return " (did you mean …?)" for the first of ``columns`` that is nearly called as its ``role``, or nothing."""
    return next((near for column in columns if (near := did_you_mean(column, list(COLUMN_ALIASES[role])))), "")


def join_first(names: Sequence[str]) -> str:
    """Return the first three: "a, b, c, …"."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
