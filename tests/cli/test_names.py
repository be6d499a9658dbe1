"""Names that others chose: nothing in them reaches a terminal, a page or a spreadsheet as a command."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.cli import printing
from effnet.draw.text import printable, printable_page
from tests.cli.conftest import Run

EVIL = "\x1b]0;owned\x07\x1b[31m\u202egpj.\x9b2J\b"
ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain.jpg", "plain.jpg"),
        ("naïve 한국어 😀 👩\u200d🔬", "naïve 한국어 😀 👩\u200d🔬"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r\b\x7f", r"a\nb\tc\r\x08\x7f"),
        ("\u202egpj.exe\u2069", r"\u202egpj.exe\u2069"),
        (os.fsdecode(b"\xff\x9b"), r"\xff\x9b"),
        ("\x9b2J\u2028", r"\x9b2J\u2028"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected
    assert printable_page(f"<p>\n\t{text}") == "<p>\n\t" + expected.replace(r"\n", "\n").replace(r"\t", "\t")


def test_our_own_lines_are_kept() -> None:
    assert printable("refused:\n  first\n  second", keep_lines=True) == "refused:\n  first\n  second"
    assert printable("no\neffnet: done", keep_lines=True) == r"no\neffnet: done"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = effnet.create(replace(effnet.ARCHS["nano"], name=f"net{EVIL}"), classes=2)
    network.labels = effnet.Labels((f"=a{EVIL}", f"@b{EVIL}"))
    path: Path = effnet.save(network, tmp_path / "model.safetensors")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number in range(4):
        path = (
            root / (f"@b{EVIL}" if number % 2 else f"=a{EVIL}") / f"=1\n{number}{EVIL}{os.fsdecode(bytes([255]))}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(file, "PNG")
        (path.parent / f"broken{EVIL}").write_text("no image")
    return root


def test_every_verb(run: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    commands = {
        "predict": ("predict", folder, "-m", model),
        "json": ("predict", folder, "-m", model, "--json"),
        "missing": ("predict", f"{tmp_path}/no{EVIL}", "-m", model),
        "evaluate": ("evaluate", model, folder),
        "evaluate json": ("evaluate", model, folder, "--json"),
        "explain": ("explain", model, folder, "-o", tmp_path / "maps"),
        "bulk": ("predict", folder, "-m", model, "-o", tmp_path / "all.csv"),
        "shard": ("shard", folder, tmp_path / "shards"),
        "show": ("show", model),
        "no model": ("predict", folder, "-m", f"{tmp_path}/no{EVIL}.pth"),
        "no data": ("evaluate", model, f"{tmp_path}/no{EVIL}"),
    }
    for name, command in commands.items():
        done = run(*command)
        for text in (done.out, done.err):
            assert not ACTIVE.search(text), (name, ACTIVE.search(text), text)
        assert "codec" not in done.err, (name, done.err)
        assert (done.status == 0) == ("no" not in name and name != "missing"), (name, done.err)
    for page in (tmp_path / "maps").glob("*.html"):
        assert not ACTIVE.search(page.read_text("utf-8"))
    for path in (tmp_path / "all.csv", tmp_path / "maps" / "index.csv"):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))
        assert len(rows) > 6
        assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)
        assert any(cell.startswith(("'=", "'@")) for row in rows for cell in row)


def test_exact_cells(run: Run, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CSV_CELLS", "safe")  # to be restored, since the option sets it
    out = tmp_path / "all.csv"
    assert run("predict", folder, "-m", model, "-o", out, "--csv-cells", "exact").status == 0
    assert re.search(f",(=a|@b){re.escape(EVIL)},", out.read_text("utf-8", "surrogateescape"))
    assert run("predict", folder, "-m", model, "--csv-cells", "some").status == 2


def test_tables_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    table = printing.new_table("image", f"head{EVIL}\nof two", rows=[(f"a{EVIL}", "1")])
    table.add_row(f"b{EVIL}", "2")
    printing.print_results(table, f"line{EVIL}")
    printing.note(f"note{EVIL}\nspoofed")
    shown = capsys.readouterr()
    assert not ACTIVE.search(shown.out + shown.err)
    assert shown.err.count("\n") == 1
