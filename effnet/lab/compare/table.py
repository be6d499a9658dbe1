"""One figure of a table: what was computed, what was measured, and what is quoted, side by side and never mixed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from effnet.data.storage.atomic_write import atomic_write
from effnet.draw.figure import RenderedPlot

FigureKind = Literal["computed", "measured", "quoted"]


Amount = float | str


FIGURE_KINDS: tuple[FigureKind, ...] = ("computed", "measured", "quoted")


_UNIT_FACTORS = {"": 1.0, "M": 1e6, "B": 1e9, "%": 0.01, "x": 1.0, "s": 1.0}


_PRINTED_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?\s*([MBxs%]?)")


@dataclass(frozen=True)
class PrintedFigure:
    """A figure as a paper prints it, "26M", "0.39B", "77.1%", "4.9x" or "0.554s"; or words."""

    text: str

    @property
    def value(self) -> Amount:
        """As a number, shares as fractions; words stay words."""
        found = _PRINTED_NUMBER.fullmatch(self.text)
        # through text: 77.1 × 0.01 is 0.7709999999999999
        return float(f"{float(self.text.rstrip('MBxs%')) * _UNIT_FACTORS[found[3]]:.12g}") if found else self.text

    @property
    def last_digit(self) -> float:
        """What one in its last digit is worth; 0 for words."""
        found = _PRINTED_NUMBER.fullmatch(self.text)
        return _UNIT_FACTORS[found[3]] * 10.0 ** -len(found[2] or "") if found else 0.0

    def matches(self, amount: Amount, tolerance: float) -> bool:
        """Whether ``amount`` rounds to what is printed, or is as near to it as the share ``within``."""
        value = self.value
        if isinstance(value, str) or isinstance(amount, str):
            return value == amount
        return abs(amount - value) <= max(self.last_digit / 2 * (1 + 1e-9), tolerance * value)


@dataclass(frozen=True)
class TableValue:
    """One figure. ``note``: why what is computed and what is quoted disagree, or why one of them is not there."""

    computed: Amount | None = None
    measured: Amount | None = None
    quoted: PrintedFigure | None = None
    note: str = ""

    def amount(self, kind: FigureKind) -> Amount | None:
        """The figure of that kind; None where there is none."""
        if kind == "quoted":
            return self.quoted.value if self.quoted else None
        return self.computed if kind == "computed" else self.measured

    def to_dict(self, kinds: tuple[FigureKind, ...]) -> dict[str, Any]:
        """The figures of ``kinds``, None where there is none, and the note where there is one."""
        return {kind: self.amount(kind) for kind in kinds} | ({"note": self.note} if self.note else {})


def quoted_value(text: str | None) -> TableValue:
    """A figure that is only in print; ``None`` and "-" for one that is not."""
    return TableValue(quoted=PrintedFigure(text) if text and text != "-" else None)


def compare_values(
    computed: Amount | None, text: str | None, tolerance: float = 0.0, reason: str = "", note: str = ""
) -> TableValue:
    """What is computed beside what is printed; ``text`` None or "-" where nothing is.

    Where they disagree by more than the share ``within`` and more than rounding does, the note says by how much, and
    ``why``. ``note`` stands there anyway.
    """
    printed = PrintedFigure(text) if text and text != "-" else None
    if computed is None or printed is None or printed.matches(computed, tolerance):
        return TableValue(computed, quoted=printed, note=note)
    value, far = printed.value, ""
    if not isinstance(computed, str) and not isinstance(value, str):
        share = computed / value - 1
        far = f"{abs(share):.1%} {'above' if share > 0 else 'below'} what is quoted; "
    told = (far + (reason or "no reason is known")).rstrip(".")
    return TableValue(computed, quoted=printed, note="; ".join(filter(None, (told, note))))


# A table of a paper, reproduced: rows of figures, each computed, measured or quoted.


Unit = Literal["", "M", "G", "%", "×", "ms"]


NO_VALUE = TableValue()


@dataclass(frozen=True)
class Column:
    """A column: its ``key`` in JSON and CSV, its heading, and which kinds of figures it holds.

    ``unit`` says how numbers are shown; they are kept as numbers, shares as fractions, and times in seconds.
    """

    key: str
    title: str
    unit: Unit = ""
    kinds: tuple[FigureKind, ...] = ("quoted",)

    def format(self, value: TableValue, kind: FigureKind) -> str:
        """The figure of that kind for a person; what is quoted stands as it is printed. A dash where there is none."""
        if kind == "quoted" and value.quoted:
            return value.quoted.text
        amount = value.amount(kind)
        return "–" if amount is None else self._format_unit(amount)

    def _format_unit(self, amount: Amount) -> str:
        if isinstance(amount, str):
            return amount
        match self.unit:
            case "M":
                return f"{amount / 1e6:.2f} M" if amount >= 1e5 else f"{amount:,.0f}"
            case "G":
                return f"{amount / 1e9:#.3g} G".replace(". ", " ")
            case "%":
                return f"{amount:.1%}"
            case "×":
                return f"{amount:.2f}×" if amount < 10 else f"{amount:.1f}×"
            case "ms":
                return f"{amount:.2f} s" if amount >= 1 else f"{amount * 1e3:#.3g} ms".replace(". ", " ")
            case _:
                return f"{amount:g}"


@dataclass(frozen=True)
class TableRow:
    """A row: its name, and a figure for each column's key; keys that are left out have none."""

    name: str
    values: Mapping[str, TableValue]

    def __getitem__(self, key: str) -> TableValue:
        return self.values.get(key, NO_VALUE)


@dataclass(frozen=True)
class Table:
    """A table of a paper. ``source``: the paper, its version and the place in it that the quoted figures are from."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({})
    )  # the machine of what is measured

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``rows`` of ``{"name": …, KEY: {"computed": …, "quoted": …, "note": …}, …}``."""
        return {
            "table": self.name,
            "title": self.title,
            "source": self.source,
            "rows": [
                {"name": row.name} | {column.key: row[column.key].to_dict(column.kinds) for column in self.columns}
                for row in self.rows
            ],
            "notes": list(self.notes),
            **self.environment,
        }

    def printed_columns(self) -> tuple[tuple[Column, FigureKind], ...]:
        """One for each column and each kind that some row has of it: what stands beside each other on paper."""
        return tuple(
            (column, kind)
            for column in self.columns
            for kind in column.kinds
            if any(row[column.key].amount(kind) is not None for row in self.rows)
        )

    def is_text_column(self, column: Column) -> bool:
        """Whether the column holds no number."""
        amounts = [row[column.key].amount(kind) for row in self.rows for kind in column.kinds]
        return all(amount is None or isinstance(amount, str) for amount in amounts)

    def headings(self) -> tuple[str, ...]:
        """The heading of each part: with its kind."""
        return tuple(f"{column.title}, {kind}" for column, kind in self.printed_columns())

    def format_rows(self) -> Iterator[tuple[str, ...]]:
        """Each row as shown: its name, then each part; "[3]" behind a figure that the third remark is on."""
        numbers = {key: number for number, key in enumerate(self._rows_by_note(), start=1)}
        last = {
            column.key: kind for column, kind in self.printed_columns()
        }  # the number stands at a column's last part
        for row in self.rows:
            shown = [row.name]
            for column, kind in self.printed_columns():
                value = row[column.key]
                number = numbers.get((column.key, value.note)) if last[column.key] == kind else None
                shown.append(column.format(value, kind) + (f" [{number}]" if number else ""))
            yield tuple(shown)

    def footnotes(self) -> tuple[str, ...]:
        """The notes on single figures, in their order, each once; and then those on the whole table."""
        titles = {column.key: column.title for column in self.columns}
        of: list[str] = []
        for (key, note), names in self._rows_by_note().items():
            name = f"{names[0]}, {titles[key]}" if len(names) == 1 else titles[key]
            of.append(f"[{len(of) + 1}] {name}: {note}.")
        return (*of, *self.notes)

    def _rows_by_note(self) -> dict[tuple[str, str], list[str]]:
        """The notes that are shown, (column's key, text), in their order, and the rows that each is on."""
        found: dict[tuple[str, str], list[str]] = {}
        keys = list(dict.fromkeys(column.key for column, _ in self.printed_columns()))
        for row in self.rows:
            for key in keys:
                if row[key].note:
                    found.setdefault((key, row[key].note), []).append(row.name)
        return found


# Tables and figures as files: Markdown, CSV, JSON, and drawings as SVG and PNG.


TEXT_SUFFIXES = ("md", "csv", "json")


IMAGE_SUFFIXES = ("svg", "png")


def to_markdown(table: Table) -> str:
    """The table with its source, each kind of figure in a column of its own, and the remarks below it."""
    lines = [
        f"### {table.title}",
        "",
        f"Quoted figures: {table.source}.",
        "",
        "| " + " | ".join(("", *table.headings())) + " |",
        "|---|" + "".join("---|" if table.is_text_column(column) else "--:|" for column, _ in table.printed_columns()),
        *("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in table.format_rows()),
        "",
        *(f"- {remark}" for remark in table.footnotes()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """A line for each row; a column KEY_KIND for each kind of figure, plain numbers, and KEY_note."""
    out = StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    noted = {column.key for column in table.columns for row in table.rows if row[column.key].note}
    heading, fields = ["name"], []
    for column in table.columns:
        heading += [f"{column.key}_{kind}" for kind in column.kinds]
        heading += [f"{column.key}_note"] if column.key in noted else []
        fields.append((column, column.key in noted))
    write(heading)
    for row in table.rows:
        line: list[object] = [row.name]
        for column, with_note in fields:
            amounts = [row[column.key].amount(kind) for kind in column.kinds]
            line += ["" if amount is None else amount for amount in amounts]
            line += [row[column.key].note] if with_note else []
        write(line)
    return out.getvalue()


def table_paths(name: str, folder: Path, with_drawing: bool) -> list[Path]:
    """What `write` writes."""
    return [folder / f"{name}.{suffix}" for suffix in (*TEXT_SUFFIXES, *(IMAGE_SUFFIXES if with_drawing else ()))]


def write_table(table: Table, folder: Path, drawing: RenderedPlot | None = None) -> list[Path]:
    """The table as ``.md``, ``.csv`` and ``.json`` in ``folder``, and its drawing as ``.svg`` and ``.png``; the paths.

    Raises ``OSError`` with one sentence where they cannot be written.
    """
    contents = {
        "md": to_markdown(table).encode(),
        "csv": to_csv(table).encode(),
        "json": (json.dumps(table.to_dict(), indent=2, ensure_ascii=False) + "\n").encode(),
    }
    if drawing:
        contents |= {"svg": drawing.standalone_svg.encode(), "png": drawing.png}
    written = table_paths(table.name, folder, drawing is not None)
    for path in written:
        with atomic_write(path) as beside:
            beside.write_bytes(contents[path.suffix[1:]])
    return written


def write_csv(path: Path, heading: Sequence[str], lines: Iterable[Sequence[object]]) -> Path:
    """Writes a CSV."""
    with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(heading)
        write.writerows(lines)
    return path


def write_drawing(stem: Path, drawing: RenderedPlot) -> list[Path]:
    """Writes ``stem.svg`` and ``stem.png``."""
    contents = {".svg": drawing.standalone_svg.encode(), ".png": drawing.png}
    for suffix, content in contents.items():
        with atomic_write(stem.with_suffix(suffix)) as beside:
            beside.write_bytes(content)
    return [stem.with_suffix(suffix) for suffix in contents]
