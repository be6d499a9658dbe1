"""A table of a paper, reproduced: rows of figures, each computed, measured or quoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from effnet.compare.value import Amount, Kind, Value

Unit = Literal["", "M", "G", "%", "×", "ms"]
NONE = Value()


@dataclass(frozen=True)
class Column:
    """A column: its ``key`` in JSON and CSV, its heading, and which kinds of figures it holds.

    ``unit`` says how numbers are shown; they are kept as numbers, shares as fractions, and times in seconds.
    """

    key: str
    title: str
    unit: Unit = ""
    kinds: tuple[Kind, ...] = ("quoted",)

    def shown(self, value: Value, kind: Kind) -> str:
        """The figure of that kind for a person; what is quoted stands as it is printed. A dash where there is none."""
        if kind == "quoted" and value.quoted:
            return value.quoted.text
        amount = value.amount(kind)
        return "–" if amount is None else self._in_unit(amount)

    def _in_unit(self, amount: Amount) -> str:
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
class Row:
    """A row: its name, and a figure for each column's key; keys that are left out have none."""

    name: str
    values: Mapping[str, Value]

    def __getitem__(self, key: str) -> Value:
        return self.values.get(key, NONE)


@dataclass(frozen=True)
class Table:
    """A table of a paper. ``source``: the paper, its version and the place in it that the quoted figures are from."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # the machine of what is measured

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
            **self.about,
        }

    def parts(self) -> tuple[tuple[Column, Kind], ...]:
        """One for each column and each kind that some row has of it: what stands beside each other on paper."""
        return tuple(
            (column, kind)
            for column in self.columns
            for kind in column.kinds
            if any(row[column.key].amount(kind) is not None for row in self.rows)
        )

    def words(self, column: Column) -> bool:
        """Whether the column holds no number."""
        amounts = [row[column.key].amount(kind) for row in self.rows for kind in column.kinds]
        return all(amount is None or isinstance(amount, str) for amount in amounts)

    def headings(self) -> tuple[str, ...]:
        """The heading of each part: with its kind."""
        return tuple(f"{column.title}, {kind}" for column, kind in self.parts())

    def lines(self) -> Iterator[tuple[str, ...]]:
        """Each row as shown: its name, then each part; "[3]" behind a figure that the third remark is on."""
        numbers = {key: number for number, key in enumerate(self._noted(), start=1)}
        last = {column.key: kind for column, kind in self.parts()}  # the number stands at a column's last part
        for row in self.rows:
            shown = [row.name]
            for column, kind in self.parts():
                value = row[column.key]
                number = numbers.get((column.key, value.note)) if last[column.key] == kind else None
                shown.append(column.shown(value, kind) + (f" [{number}]" if number else ""))
            yield tuple(shown)

    def remarks(self) -> tuple[str, ...]:
        """The notes on single figures, in their order, each once; and then those on the whole table."""
        titles = {column.key: column.title for column in self.columns}
        of: list[str] = []
        for (key, note), names in self._noted().items():
            name = f"{names[0]}, {titles[key]}" if len(names) == 1 else titles[key]
            of.append(f"[{len(of) + 1}] {name}: {note}.")
        return (*of, *self.notes)

    def _noted(self) -> dict[tuple[str, str], list[str]]:
        """The notes that are shown, (column's key, text), in their order, and the rows that each is on."""
        found: dict[tuple[str, str], list[str]] = {}
        keys = list(dict.fromkeys(column.key for column, _ in self.parts()))
        for row in self.rows:
            for key in keys:
                if row[key].note:
                    found.setdefault((key, row[key].note), []).append(row.name)
        return found
