"""A paper's table reproduced, with computed, measured and quoted figures, as Markdown, CSV and JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from effnet.data.storage.atomic_write import atomic_write, write_text
from effnet.data.storage.csv_files import csv_writer
from effnet.draw import diagram, plotting

FigureKind = Literal["computed", "measured", "quoted"]
Unit = Literal["", "M", "G", "%", "×", "ms"]
Amount = float | str
Drawing = plotting.RenderedPlot | diagram.Diagram
TEXT_SUFFIXES = ("md", "csv", "json")
IMAGE_SUFFIXES = ("svg", "png")

_UNIT_FACTORS = {"": 1.0, "M": 1e6, "B": 1e9, "%": 0.01, "x": 1.0, "s": 1.0}
_PRINTED_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?\s*([MBxs%]?)")


@dataclass(frozen=True)
class PrintedFigure:
    """A figure as a paper prints it: "26M", "0.39B", "77.1%", "4.9x", "0.554s", or words."""

    text: str

    @property
    def value(self) -> Amount:
        """The number, percentages as fractions; words as they are."""
        match = _PRINTED_NUMBER.fullmatch(self.text)
        # Through text, since 77.1 × 0.01 is 0.7709999999999999
        return float(f"{float(self.text.rstrip('MBxs%')) * _UNIT_FACTORS[match[3]]:.12g}") if match else self.text

    @property
    def last_digit(self) -> float:
        """The value of one in its last digit; 0 for words."""
        match = _PRINTED_NUMBER.fullmatch(self.text)
        return _UNIT_FACTORS[match[3]] * 10.0 ** -len(match[2] or "") if match else 0.0

    def matches(self, amount: Amount, tolerance: float) -> bool:
        """Return whether ``amount`` rounds to the printed figure, or is within a relative ``tolerance`` of it."""
        value = self.value
        if isinstance(value, str) or isinstance(amount, str):
            return value == amount
        return abs(amount - value) <= max(self.last_digit / 2 * (1 + 1e-9), tolerance * value)


@dataclass(frozen=True)
class TableValue:
    """A figure of up to three kinds; ``note``: why computed and quoted ones disagree, or why one is missing."""

    computed: Amount | None = None
    measured: Amount | None = None
    quoted: PrintedFigure | None = None
    note: str = ""

    def amount(self, kind: FigureKind) -> Amount | None:
        """Return the figure of that kind; None if there is none."""
        if kind == "quoted":
            return self.quoted.value if self.quoted else None
        return self.computed if kind == "computed" else self.measured

    def to_dict(self, kinds: tuple[FigureKind, ...]) -> dict[str, Any]:
        """Return the figures of ``kinds``, and the note if there is one."""
        return {kind: self.amount(kind) for kind in kinds} | ({"note": self.note} if self.note else {})


def quoted_value(text: str | None, measured: Amount | None = None) -> TableValue:
    """Return a quoted figure, perhaps beside a measured one; ``None`` and "-" mean that it is not printed."""
    return TableValue(measured=measured, quoted=PrintedFigure(text) if text and text != "-" else None)


def compare_values(
    computed: Amount | None, text: str | None, tolerance: float = 0.0, reason: str = "", note: str = ""
) -> TableValue:
    """Return a computed figure beside a printed one; ``text`` None or "-" if nothing is printed.

    Beyond ``tolerance`` (relative) and rounding, a note says by how much they differ, and the ``reason``.
    """
    printed = quoted_value(text).quoted
    if computed is None or printed is None or printed.matches(computed, tolerance):
        return TableValue(computed, quoted=printed, note=note)
    value, deviation = printed.value, ""
    if not isinstance(computed, str) and not isinstance(value, str):
        relative = computed / value - 1
        deviation = f"{abs(relative):.1%} {'above' if relative > 0 else 'below'} the quoted figure; "
    explanation = (deviation + (reason or "no reason is known")).rstrip(".")
    return TableValue(computed, quoted=printed, note="; ".join(filter(None, (explanation, note))))


@dataclass(frozen=True)
class Column:
    """A column: its ``key`` in JSON and CSV, where percentages are fractions and times seconds, and how it is shown."""

    key: str
    title: str
    unit: Unit = ""
    kinds: tuple[FigureKind, ...] = ("quoted",)

    def format(self, value: TableValue, kind: FigureKind) -> str:
        """Format a figure for people; quoted ones as printed, missing ones as a dash."""
        if kind == "quoted" and value.quoted:
            return value.quoted.text
        amount = value.amount(kind)
        if amount is None or isinstance(amount, str):
            return amount or "–"
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
    """A row: its name, and a figure for each column's key; missing keys have none."""

    name: str
    values: Mapping[str, TableValue]

    def __getitem__(self, key: str) -> TableValue:
        return self.values.get(key, TableValue())


@dataclass(frozen=True)
class Table:
    """A table; ``source``: where the quoted figures are. ``environment``: what else to store, such as the machine."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: ``rows`` of ``{"name": …, KEY: {"computed": …, "quoted": …, "note": …}, …}``."""
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
        """Return the columns as printed: one for each column and kind that any row has."""
        return tuple(
            (column, kind)
            for column in self.columns
            for kind in column.kinds
            if any(row[column.key].amount(kind) is not None for row in self.rows)
        )

    def is_text_column(self, column: Column) -> bool:
        """Return whether the column has no numbers."""
        amounts = [row[column.key].amount(kind) for row in self.rows for kind in column.kinds]
        return all(amount is None or isinstance(amount, str) for amount in amounts)

    def format_rows(self) -> Iterator[tuple[str, ...]]:
        """Yield each row as printed: its name, then the printed columns, with "[3]" after a figure with note 3."""
        numbers = {key: number for number, key in enumerate(self._rows_by_note(), start=1)}
        last = {column.key: kind for column, kind in self.printed_columns()}  # where a column's number goes
        for row in self.rows:
            cells = [row.name]
            for column, kind in self.printed_columns():
                value = row[column.key]
                number = numbers.get((column.key, value.note)) if last[column.key] == kind else None
                cells.append(column.format(value, kind) + (f" [{number}]" if number else ""))
            yield tuple(cells)

    def footnotes(self) -> tuple[str, ...]:
        """Return the notes on single figures, each once, and then those on the whole table."""
        titles = {column.key: column.title for column in self.columns}
        footnotes = []
        for number, ((key, note), names) in enumerate(self._rows_by_note().items(), start=1):
            subject = f"{names[0]}, {titles[key]}" if len(names) == 1 else titles[key]
            footnotes.append(f"[{number}] {subject}: {note}.")
        return (*footnotes, *self.notes)

    def _rows_by_note(self) -> dict[tuple[str, str], list[str]]:
        """Return (column's key, note) of the printed columns, with the rows of each."""
        found: dict[tuple[str, str], list[str]] = {}
        keys = list(dict.fromkeys(column.key for column, _ in self.printed_columns()))
        for row in self.rows:
            for key in keys:
                if row[key].note:
                    found.setdefault((key, row[key].note), []).append(row.name)
        return found


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, with its source above and its footnotes below."""
    columns = table.printed_columns()
    lines = [
        f"### {table.title}",
        "",
        f"Quoted figures: {table.source}.",
        "",
        "| " + " | ".join(("", *(f"{column.title}, {kind}" for column, kind in columns))) + " |",
        "|---|" + "".join("---|" if table.is_text_column(column) else "--:|" for column, _ in columns),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.format_rows()),
        "",
        *(f"- {note}" for note in table.footnotes()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV: a column KEY_KIND of plain numbers for each kind of figure, and KEY_note."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        parts = {column.key: row[column.key].to_dict(column.kinds) for column in table.columns}
        rows.append({"name": row.name} | {f"{key}_{part}": parts[key][part] for key in parts for part in parts[key]})
    names = [f"{column.key}_{part}" for column in table.columns for part in (*column.kinds, "note")]
    heading = ["name", *(name for name in names if any(name in row for row in rows))]
    return _format_csv(heading, ([row.get(name) for name in heading] for row in rows))


def _format_csv(heading: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = StringIO()
    write_row = csv_writer(text)
    for row in (heading, *rows):
        write_row(row)
    return text.getvalue()


def table_paths(name: str, folder: Path, with_drawing: bool) -> list[Path]:
    """Return the paths that `write_table` writes."""
    return [folder / f"{name}.{suffix}" for suffix in (*TEXT_SUFFIXES, *(IMAGE_SUFFIXES if with_drawing else ()))]


def write_table(table: Table, folder: Path, drawing: Drawing | None = None) -> list[Path]:
    """Write ``.md``, ``.csv`` and ``.json``, and the drawing as ``.svg`` and ``.png``; return the paths."""
    write_text(folder / f"{table.name}.md", to_markdown(table))
    write_text(folder / f"{table.name}.csv", to_csv(table))
    write_json(folder / f"{table.name}.json", table.to_dict())
    if drawing:
        write_drawing(folder / table.name, drawing)
    return table_paths(table.name, folder, drawing is not None)


def write_json(path: Path, data: Mapping[str, Any]) -> Path:
    """Write a JSON file."""
    return write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, heading: Sequence[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV file."""
    return write_text(path, _format_csv(heading, rows))


def write_drawing(stem: Path, drawing: Drawing) -> list[Path]:
    """Write ``stem.svg`` and ``stem.png``; return the paths."""
    contents = {".svg": drawing.standalone_svg.encode(), ".png": drawing.png}
    for suffix, content in contents.items():
        with atomic_write(stem.with_suffix(suffix)) as partial_path:
            partial_path.write_bytes(content)
    return [stem.with_suffix(suffix) for suffix in contents]
