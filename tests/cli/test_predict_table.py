from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pyarrow import parquet

import effnet
from tests.cli.conftest import Run


@pytest.fixture
def spoiled(photos: Path) -> Path:
    """The same folder with a truncated JPEG."""
    whole = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "bee" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return photos


def test_out(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.parquet"
    done = run("predict", spoiled, "-m", weights, "--output", out, "--top", 2)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"effnet: wrote 5 images to {out}; 1 could not be read, and their rows say why\n"
    rows = parquet.read_table(out).to_pylist()
    assert [Path(row["path"]).name for row in rows] == ["1.jpg", "[2].png", "3.jpg", "cut.jpg", "4.jpg"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, False]
    expected = effnet.Predictor(weights)(rows[0]["path"], top=2)[0]
    assert (rows[0]["label"], tuple(rows[0]["labels"])) == (expected.label, expected.labels)
    assert rows[0]["probabilities"] == pytest.approx(expected.probabilities, rel=1e-3)

    repeated = run("predict", spoiled, "-m", weights, "--output", out, "--top", 2)
    assert repeated.status == 0
    assert f"{out} is already complete, with 5 images" in repeated.err
    other = run("predict", spoiled, "-m", weights, "--output", out, "--top", 1)
    assert other.status == 1
    assert "was made with another --top" in other.err
    assert len(other.err.splitlines()) == 1
    assert run("predict", spoiled, "-m", weights, "--output", out, "--top", 1, "--force").status == 0
    assert parquet.read_table(out).to_pylist()[0]["labels"] == list(expected.labels[:1])


def test_status(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    assert run("predict", spoiled, "-m", weights, "--output", tmp_path / "a.csv", "--strict").status == 1
    assert len(list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))) == 5
    assert run("predict", spoiled / "bee" / "cut.jpg", "-m", weights, "--output", tmp_path / "b.csv").status == 1
    (tmp_path / "x.tar").write_bytes(b"no archive at all" * 100)
    done = run("predict", tmp_path / "x.tar", spoiled, "-m", weights, "--output", tmp_path / "c.jsonl")
    assert done.status == 1
    assert "1 shards could not be read completely" in done.err
    assert "not a tar archive" in json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])["error"]


def test_usage_errors(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "r.csv")
    for wrong in ((*out, "--json"), (*out, "--csv"), (*out, "--embeddings", "e.npz"), ("--force",), ("--ray", "local")):
        assert run("predict", photos, "-m", weights, *wrong).status == 2
    done = run("predict", photos, "-m", weights, "--output", tmp_path / "r.txt")
    assert done.status == 1
    assert "must end in .parquet, .csv, .jsonl, not in .txt" in done.err
    assert "does not exist" in run("predict", tmp_path / "no", "-m", weights, *out).err
