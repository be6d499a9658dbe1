from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.cli.predict import print_predictions_csv, write_embeddings
from effnet.data.storage.csv_files import csv_writer, read_cell, read_records, read_rows
from effnet.lab.compare.comparison_table import write_csv
from effnet.metadata import Labels
from effnet.prediction import Prediction, bulk
from effnet.prediction.out_of_fold import OutOfFold
from effnet.training.run_dir import ImageRow, write_rows
from effnet.training.run_dir import read_rows as read_image_rows

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("x")',
    "--1",
    "-",
    "＝1",
]
HARMLESS = ["a=b", "-0.5", "+3", "-1e-7", "cat", "'quoted'", "", " =1", "2-1", "#N/A", "naïve.jpg"]


def written(*cells: object, how: str = "safe") -> list[str]:
    file = io.StringIO(newline="")
    csv_writer(file, how)(cells)
    return next(csv.reader(io.StringIO(file.getvalue(), newline="")))


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_texts(cell: str) -> None:
    assert written("a", cell) == ["a", f"'{cell}"]
    assert read_cell(f"'{cell}") == cell
    assert written(cell, how="exact") == [cell]


@pytest.mark.parametrize("cell", HARMLESS)
def test_other_cells_stay(cell: str) -> None:
    assert written("a", cell, -1, -0.25) == ["a", cell, "-1", "-0.25"]
    assert read_cell(cell) == cell


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_every_text_is_read_back(cells: list[str]) -> None:
    file = io.StringIO(newline="")
    csv_writer(file)(["name", *cells])
    assert read_rows(io.StringIO(file.getvalue(), newline=""))[0] == ["name", *cells]


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CSV_CELLS", "exact")
    assert written("=1") == ["=1"]
    monkeypatch.setenv("EFFNET_CSV_CELLS", "safe")
    assert written("=1", how="exact") == ["'=1"]
    monkeypatch.setenv("EFFNET_CSV_CELLS", "both")
    with pytest.raises(ValueError, match="EFFNET_CSV_CELLS"):
        written("=1")


def test_every_table_that_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, label = "=cmd|' /C calc'!A0.png", "@label"
    prediction = Prediction(name, (label, "b"), (0.75, 0.25))
    print_predictions_csv([prediction], Labels((label, "b")), 2)
    tables = [capsys.readouterr().out]
    bulk.table_writer(".csv")(tmp_path / "bulk.csv", [prediction])
    write_embeddings(tmp_path / "embeddings.csv", [(name, np.zeros(2, np.float32))])
    write_rows(tmp_path / "split.csv", [ImageRow(name, label, "train")])
    one = np.ones((1, 2))
    oof = OutOfFold(Labels((label, "b")), (name,), np.zeros(1, np.int64), np.eye(1, 2), one)
    oof.write(tmp_path / "oof.csv")
    write_csv(tmp_path / "lab.csv", ("network", label), [(name, -1.5)])
    tables += [path.read_text() for path in sorted(tmp_path.glob("*.csv"))]
    assert len(tables) == 6
    for text in tables:
        for row in csv.reader(io.StringIO(text, newline="")):
            assert not any(cell.startswith(("=", "@")) for cell in row), text
        assert f"'{name}" in text
    assert read_image_rows(tmp_path / "split.csv") == [ImageRow(name, label, "train")]
    again = OutOfFold.read(tmp_path / "oof.csv")
    assert (again.ids, again.labels.names) == ((name,), (label, "b"))
    assert read_records(io.StringIO("a,b\n'=1,2\n")) == [{"a": "=1", "b": "2"}]
