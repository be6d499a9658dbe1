"""``effnet bench``: the tables, JSON, files, and usage errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

QUICK = ("--engine", "eager", "--threads", 1, "--runs", 3, "--seconds", 1)


def test_table(run: Run, tmp_path: Path) -> None:
    done = run("bench", "nano", *QUICK, "--batch-size", "1,2", "--against", "none", "--output", tmp_path / "out")
    assert done.status == 0
    assert "of peak" in done.out
    assert done.out.count("nano") == 2
    assert "wrote bench.json, bench.csv, bench.svg, bench.png to" in done.err
    assert (tmp_path / "out" / "bench.png").is_file()


def test_json(run: Run) -> None:
    done = run("bench", "nano", *QUICK, "--against", "none", "--json")
    data = json.loads(done.out)
    assert [row["engine"] for row in data["rows"]] == ["eager"]
    assert data["machine"]["cores"] >= 1


def test_why(run: Run, weights: Path) -> None:
    done = run("bench", "--why", weights, *QUICK)
    assert done.status == 0, done.err
    assert all(part in done.out for part in ("stage3", "kind of step", "slowest step", "\n1. "))
    data = json.loads(run("bench", "--why", weights, *QUICK, "--json").out)
    assert data["engine"] == "eager"
    assert sum(part["time_fraction"] for part in data["groups"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "words",
    [
        ("--threads", "0"),
        ("--batch-size", "two"),
        ("--seconds", "0"),
        ("--why", "--batch-size", "1,2"),
        ("--size", "big"),
    ],
)
def test_usage_error(run: Run, words: tuple[str, ...]) -> None:
    done = run("bench", "nano", *words)
    assert done.status == 2
    assert "Usage: " in done.err


def test_unknown_engine(run: Run) -> None:
    done = run("bench", "nano", "--engine", "tensorrt")
    assert done.status == 1
    assert done.err.startswith("effnet: engine must be one of eager, compiled")
