from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from effnet.prediction import Prediction
from effnet.prediction.parts import Part, Parts
from effnet.prediction.results import COLUMNS, writer

ROWS = [
    Prediction("a/ö.jpg", ("tench, Tinca tinca", "cat"), (0.75, 0.25)),
    Prediction("b.jpg", error="b.jpg is empty"),
    Prediction(os.fsdecode(b"\xff.jpg"), ("cat", 'a "dog"'), (0.5, 1e-9)),
]


def test_csv(tmp_path: Path) -> None:
    writer(".csv")(tmp_path / "r.csv", ROWS)
    content = (tmp_path / "r.csv").read_bytes()
    header, first, second, third = csv.reader(content.decode("utf-8", "surrogateescape").splitlines())
    assert tuple(header) == COLUMNS == ("path", "label", "probability", "labels", "probabilities", "error")
    assert first[:3] == ["a/ö.jpg", "tench, Tinca tinca", "0.75"]
    assert json.loads(first[3]) == ["tench, Tinca tinca", "cat"]
    assert json.loads(first[4]) == [0.75, 0.25]
    assert second == ["b.jpg", "", "", "", "", "b.jpg is empty"]
    assert os.fsencode(third[0]) == b"\xff.jpg"
    assert json.loads(third[3])[1] == 'a "dog"'


def test_jsonl(tmp_path: Path) -> None:
    writer(".jsonl")(tmp_path / "r.jsonl", ROWS)
    first, second, third = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert tuple(first) == COLUMNS
    assert first["probabilities"] == [0.75, 0.25]
    assert second == dict(zip(COLUMNS, ("b.jpg", "", None, [], [], "b.jpg is empty"), strict=True))
    assert os.fsencode(third["path"]) == b"\xff.jpg"


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.prediction.results._ROWS", 2)
    writer(".parquet")(tmp_path / "r.parquet", ROWS)
    assert parquet.ParquetFile(tmp_path / "r.parquet").num_row_groups == 2
    first, second, third = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert tuple(first) == COLUMNS
    assert first["labels"] == ["tench, Tinca tinca", "cat"]
    assert (second["probability"], second["labels"], second["error"]) == (None, [], "b.jpg is empty")
    assert third["path"] == "\\xff.jpg"
    assert third["probabilities"] == pytest.approx([0.5, 1e-9])
    writer(".parquet")(tmp_path / "none.parquet", [])
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[tables\]", or ask for \.csv'):
        writer(".parquet")
    assert writer(".csv")


def test_parts_keep_every_row(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "r.csv")
    with parts.alone():
        parts.begin({})
        part = Part("0" * 32, 0, ".last", list(ROWS))
        parts.write(part.name, part.text)
        assert list(parts.rows(["0" * 32])) == ROWS
        parts.clear()
    assert list(tmp_path.iterdir()) == []
