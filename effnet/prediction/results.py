"""Predictions as a table in a file, a row a picture: ``.parquet``, ``.csv`` or ``.jsonl``, written as they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from effnet.prediction.predictor import Prediction

COLUMNS = ("path", "label", "probability", "labels", "probabilities", "error")
_ROWS = 2**16  # of a row group: what is held at once


def writer(suffix: str) -> Callable[[Path, Iterable[Prediction]], None]:
    """What writes such a file. Raises ``ValueError`` for any other, ``ImportError`` for parquet without pyarrow."""
    if suffix not in WRITERS:
        raise ValueError(f"a result ends in {', '.join(WRITERS)}, not in {suffix or 'nothing'}")
    if suffix == ".parquet":
        _pyarrow()
    return WRITERS[suffix]


def _csv(path: Path, rows: Iterable[Prediction]) -> None:
    """Comma-separated, UTF-8; the two lists as JSON, for labels have commas in them."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(COLUMNS)
        for row in rows:
            shares = "" if row.error else f"{row.probability:.7g}"
            lists = (json.dumps(list(row.labels), ensure_ascii=False), json.dumps(row.probabilities))
            write((row.picture, row.label, shares, *(("", "") if row.error else lists), row.error))


def _jsonl(path: Path, rows: Iterable[Prediction]) -> None:
    """An object a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            values = (row.picture, row.label, None if row.error else row.probability)
            said = dict(zip(COLUMNS, (*values, row.labels, row.probabilities, row.error), strict=True))
            file.write(json.dumps(said) + "\n")


def _parquet(path: Path, rows: Iterable[Prediction]) -> None:
    """float32 probabilities; lists are lists."""
    pa, parquet = _pyarrow()
    types = (pa.string(), pa.string(), pa.float32(), pa.list_(pa.string()), pa.list_(pa.float32()), pa.string())
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    coming = iter(rows)
    with parquet.ParquetWriter(path, schema) as file:
        while group := list(islice(coming, _ROWS)):
            columns = (
                [_text(row.picture) for row in group],
                [row.label for row in group],
                [None if row.error else row.probability for row in group],
                [row.labels for row in group],
                [row.probabilities for row in group],
                [_text(row.error) for row in group],
            )
            arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
            file.write_batch(pa.record_batch(arrays, schema=schema))


WRITERS = MappingProxyType({".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl})


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
