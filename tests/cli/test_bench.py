"""``effnet bench``: the tables, JSON, files, and wrong commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

QUICK = ("--engine", "eager", "--threads", 1, "--runs", 3, "--seconds", 1)


def test_table(run: Run, tmp_path: Path) -> None:
    done = run("bench", "nano", *QUICK, "--batch", "1,2", "--against", "none", "--out", tmp_path / "out")
    assert done.status == 0
    assert "of peak" in done.out
    assert done.out.count("nano") == 2
    assert "bench.json, bench.csv, bench.svg, bench.png are written to" in done.err
    assert (tmp_path / "out" / "bench.png").is_file()


def test_json(run: Run) -> None:
    done = run("bench", "nano", *QUICK, "--against", "none", "--json")
    told = json.loads(done.out)
    assert [row["engine"] for row in told["rows"]] == ["eager"]
    assert told["machine"]["cores"] >= 1


def test_why(run: Run, weights: Path) -> None:
    done = run("bench", "--why", weights, *QUICK)
    assert done.status == 0, done.err
    assert all(part in done.out for part in ("stage3", "kind of step", "slowest step", "\n1. "))
    told = json.loads(run("bench", "--why", weights, *QUICK, "--json").out)
    assert told["engine"] == "eager"
    assert sum(part["time"] for part in told["groups"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "words",
    [("--threads", "0"), ("--batch", "two"), ("--seconds", "0"), ("--why", "--batch", "1,2"), ("--size", "big")],
)
def test_a_wrong_command_is_2(run: Run, words: tuple[str, ...]) -> None:
    done = run("bench", "nano", *words)
    assert done.status == 2
    assert "Usage: " in done.err


def test_an_unknown_engine(run: Run) -> None:
    done = run("bench", "nano", "--engine", "tensorrt")
    assert done.status == 1
    assert done.err.startswith("effnet: engine must be one of eager, compiled")
