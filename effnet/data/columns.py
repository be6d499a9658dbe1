"""A table as text: its separator, its columns by the names that people give them, and the pictures that it names."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType

from effnet.arch.record import did_you_mean

SUFFIXES = (".csv", ".tsv")
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")
_NAMED = 3  # of many, in a message

# What a column may be called, whatever its case; where there are several, the first of these is meant.
ALIASES = MappingProxyType(
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
class Table:
    """A table with a line of headings: ``rows`` are as long as ``columns``; ``lines`` are the rows' lines in it."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def named(self, role: str) -> str | None:
        """The heading of the column that has this role (a key of `ALIASES`), or None."""
        by_name = {column.lower(): column for column in reversed(self.columns)}
        return next((by_name[alias] for alias in ALIASES[role] if alias in by_name), None)

    def column(self, name: str) -> list[str]:
        """The cells of the column with this heading, from top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    @property
    def key(self) -> str:
        """The heading of the column that names the pictures. Raises ``ValueError`` where there is none."""
        found = self.named("path")
        if found is not None:
            return found
        if _found(self.path.parent, self.columns[0], ENDINGS[:1]):
            raise ValueError(f"{self.path} has no headings: let its first line be path,label")
        nearest = [near for column in self.columns if (near := did_you_mean(column, list(ALIASES["path"])))]
        raise ValueError(
            f"{self.path} has no column path (or image, image_id, filename, id); it has {', '.join(self.columns)}"
            + (nearest[0] if nearest else "")
        )


def is_table(source: str | Path) -> bool:
    """Whether ``source`` is called as a table is: ``.csv`` or ``.tsv``."""
    return Path(source).suffix.lower() in SUFFIXES


def read_table(path: str | Path) -> Table:
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
    if twice := _repeated(columns):
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename one of them")
    return Table(path, columns, tuple(rows), tuple(lines[1:]))


def files(table: Table, names: Sequence[str], folders: Iterable[str]) -> list[Path]:
    """The file of every picture in ``names``, whose ending may be left out.

    They are looked for beside the table and in those of ``folders`` that lie there too, or, where none of these does,
    in every folder there. Raises ``ValueError`` for those that are nowhere.
    """
    root = table.path.parent
    places = [place for place in (root / name for name in dict.fromkeys(folders)) if place.is_dir()]
    places = [root, *(places or _folders(root))]
    found: list[Path] = []
    missing: list[str] = []
    likely, ending = root, ""  # where the last one was: most lie together
    for name in names:
        file = _found(likely, name, (ending,)) if name else None
        for place in places if name and file is None else ():
            if file := _found(place, name):
                likely, ending = place, file.name[len(Path(name).name) :]
                break
        if file is None:
            missing.append(name or "(an empty cell)")
        else:
            found.append(file)
    if missing:
        which = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise ValueError(
            f"{len(missing)} of the {len(names)} pictures that {table.path} names do not exist: {which} "
            f"(looked for in {', '.join(map(str, places))}, also with .jpg or .png at the end)"
        )
    return found


def _found(folder: Path, name: str, endings: Sequence[str] = ENDINGS) -> Path | None:
    base = os.path.join(folder, name)
    return next((Path(base + ending) for ending in endings if os.path.isfile(base + ending)), None)


def _folders(root: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
