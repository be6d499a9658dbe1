"""CSV files: written so that a spreadsheet shows their cells and computes none of them."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import IO, Any

from effnet.arch.serde import check_choice

CELLS_VARIABLE = "EFFNET_CSV_CELLS"
CELL_MODES = ("safe", "exact")
# With these a cell begins that a spreadsheet takes for a formula; the last four are = + - @ of East Asian keyboards
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")

RowWriter = Callable[[Iterable[Any]], Any]


def csv_writer(file: IO[str], cells: str = "safe") -> RowWriter:
    """Return a function that writes a row: cells separated by commas, quoted where needed.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, unless it is a number: a file
    called ``=HYPERLINK(…).jpg`` must not run where a table of predictions is opened. `read_cell` takes it off.

    Args:
        file: Opened for writing text, with ``newline=""``.
        cells: "safe", or "exact" for programs: every cell as it is. ``EFFNET_CSV_CELLS`` in the environment, which
            ``--csv-cells`` sets, decides instead.

    Raises:
        ValueError: If it is neither.
    """
    cells = os.environ.get(CELLS_VARIABLE) or cells
    check_choice(CELLS_VARIABLE, cells, CELL_MODES)
    # Python quotes a cell for the characters of the line end alone: with \r\n for both, of which \n is written
    rows = SimpleNamespace(write=lambda row: file.write(f"{row[:-2]}\n"))
    write = csv.writer(rows, lineterminator="\r\n").writerow
    if cells == "exact":
        return write
    return lambda row: write([_make_safe(cell) if isinstance(cell, str) else cell for cell in row])


def read_cell(cell: str) -> str:
    """Return a cell as it was before `csv_writer` made it safe."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_rows(file: Iterable[str]) -> list[Sequence[str]]:
    """Return the rows of a table that `csv_writer` wrote."""
    return [[read_cell(cell) for cell in row] for row in csv.reader(file)]


def read_records(file: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of such a table by its headings."""
    headings, *rows = read_rows(file) or [[]]
    return [dict(zip(headings, row, strict=False)) for row in rows]


def _make_safe(cell: str) -> str:
    if not _FORMULA.match(cell):
        return cell
    if cell[0] in "+-" and cell[1:2] not in ("+", "-"):
        with suppress(ValueError):
            float(cell)
            return cell  # a number
    return f"'{cell}"
