"""Predictions as a table in a file, a row a picture: ``.parquet``, ``.csv`` or ``.jsonl``, written as they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from effnet.prediction.prediction import Prediction

COLUMNS = ("path", "label", "probability", "labels", "probabilities", "error")
_ROWS = 2**16  # of a row group: what is held at once


def columns(values: Iterable[str] = ()) -> tuple[str, ...]:
    """A table's columns: `COLUMNS`, or for a model of values a column for each, called as it is, in the labels' place.

    A value that is called as another column is becomes "error (value)".
    """
    names = tuple(f"{name} (value)" if name in ("path", "error") else name for name in values)
    return ("path", *names, "error") if names else COLUMNS


def writer(suffix: str) -> Callable[[Path, Iterable[Prediction]], None]:
    """What writes such a file. Raises ``ValueError`` for any other, ``ImportError`` for parquet without pyarrow."""
    if suffix not in WRITERS:
        raise ValueError(f"a result ends in {', '.join(WRITERS)}, not in {suffix or 'nothing'}")
    if suffix == ".parquet":
        _pyarrow()
    return WRITERS[suffix]


def _csv(path: Path, rows: Iterable[Prediction]) -> None:
    """Comma-separated, UTF-8; the two lists as JSON, for labels have commas in them."""
    names, rows = _values(rows)
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(columns(names))
        for row in rows:
            if names:
                write(_cells(row, names))  # None is written as nothing, a float in as few digits as mean it
                continue
            share = f"{row.probability:.7g}" if row.labels else ""
            lists = (json.dumps(list(row.labels), ensure_ascii=False), json.dumps(row.probabilities))
            write((row.picture, row.label, share, *(("", "") if row.error else lists), row.error))


def _jsonl(path: Path, rows: Iterable[Prediction]) -> None:
    """An object a line."""
    names, rows = _values(rows)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(columns(names), _cells(row, names), strict=True))) + "\n")


def _parquet(path: Path, rows: Iterable[Prediction]) -> None:
    """float32 probabilities, float64 values; lists are lists."""
    pa, parquet = _pyarrow()
    names, rows = _values(rows)
    text, one, several = pa.string(), pa.float32(), pa.list_(pa.string())
    kinds = (text, text, one, several, pa.list_(one), text)
    if names:
        kinds = (text, *(pa.float64() for _ in names), text)
    schema = pa.schema(list(zip(columns(names), kinds, strict=True)))
    coming = iter(rows)
    with parquet.ParquetWriter(path, schema) as file:
        while group := [_as_text(row) for row in islice(coming, _ROWS)]:
            cells = zip(*(_cells(row, names) for row in group), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(cells, kinds, strict=True)]
            file.write_batch(pa.record_batch(arrays, schema=schema))


WRITERS = MappingProxyType({".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl})


def _values(rows: Iterable[Prediction]) -> tuple[tuple[str, ...], Iterable[Prediction]]:
    """The names of the model's values, none where it has labels; and all the rows again."""
    coming, unread = iter(rows), list[Prediction]()
    for row in coming:
        unread.append(row)
        if not row.error:
            break
    names = tuple(unread[-1].values) if unread else ()
    return names, chain(unread, coming)


def _cells(row: Prediction, names: tuple[str, ...]) -> tuple[Any, ...]:
    """What stands in a row's columns; None where nothing does."""
    if names:
        return (row.picture, *(row.values.get(name) for name in names), row.error)
    share = row.probability if row.labels else None
    return (row.picture, row.label, share, row.labels, row.probabilities, row.error)


def _as_text(row: Prediction) -> Prediction:
    picture, error = _text(row.picture), _text(row.error)
    return row if (picture, error) == (row.picture, row.error) else replace(row, picture=picture, error=error)


def _text(text: str) -> str:
    """A file's name that is no text, of bytes that are not UTF-8, with these as ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            'parquet is written by pyarrow, which is not here: pip install "effnet[tables]", or ask for .csv or .jsonl'
        ) from None
    return pa, parquet
