"""Snapshots of every ``--help`` and of the messages for wrong commands.

``EFFNET_UPDATE_SNAPSHOTS=1 pytest tests/cli/test_snapshots.py`` updates them; ``git diff`` shows what users will see.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run

SNAPSHOTS = Path(__file__).parent / "snapshots"
COMMANDS = (
    *("", "models", "show", "draw", "scale", "predict", "explain", "train", "evaluate", "convert", "export"),
    *("bench", "reproduce", "shard", "serve", "doctor", "search", "search coefficients", "search network", "version"),
)
WRONG_COMMANDS = (
    # missing
    "predict photo.jpg",
    "predict --model b0",
    "show",
    "train",
    "scale",
    "draw mbconv",
    "models --bundle weights.zip",
    "explain b0 photo.jpg",
    "reproduce",
    "reproduce scaling",
    "reproduce table8 --models b0",
    "reproduce fig7 photo.jpg",
    "reproduce fig7 photo.jpg --models b0",
    # in conflict
    "predict photo.jpg --model b0 --ensemble runs/a",
    "predict photo.jpg --ensemble runs/a --embeddings x.npz",
    "predict photo.jpg --model b0 --json --csv",
    "predict photo.jpg --model b0 --output x.csv --json",
    "predict photo.jpg --model b0 --force",
    "predict photo.jpg --model b0 --ray",
    "predict photo.jpg --model b0 --probabilities",
    "scale --phi 1 --macs 1G",
    "scale --macs 1G --threads 2",
    "explain b0 photo.jpg --output x --patch 8",
    "explain b0 photo.jpg --output x --layer stage2 --method cam",
    "explain b0 photo.jpg --output x.png --beside b1 --raw",
    "explain b0 photo.jpg --output x --beside b1",
    "export b0 b0.onnx --precision int8",
    "export b0 b0.onnx --precision int8 --images photos --embedding",
    "export b0 b0.onnx --max-drop 1",
    "draw mbconv --in 3 --detail layers",
    "draw b0 --expand 4",
    "draw b0 --against b3 --view modules",
    "train photos --output runs/a --name b",
    "train photos --task regression",
    "bench --why --batch-size 1,2",
    "reproduce table1 photo.jpg",
    "reproduce table2 --models b0",
    "reproduce table2 --data photos",
    "reproduce table1 --seeds 3",
    # without a value, where the next option would be taken for it
    "predict photo.jpg --model --output x.csv",
    "predict photo.jpg --ray --output x.txt",
    "show b0 --size",
    # not understood
    "shwo",
    "show b0 --nonsense",
    "show b0 --size big",
    "scale --macs much",
    "scale --memory 5X",
    "scale --latency 20",
    "train photos --lr fast --dry-run",
    "bench --threads 0",
    "predict photo.jpg --model b0 --embeddings x.txt",
    "predict photo.jpg --model b0 --every 0",
    "draw b0 --output b0.jpg",
    "doctor model.pth --fix x.pth",
    "reproduce scaling photos --coefficients 1.2,1.1",
)


def compare(name: str, text: str) -> None:
    path = SNAPSHOTS / name
    if os.environ.get("EFFNET_UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"x")


def test_help(run: Run) -> None:
    texts = []
    for command in COMMANDS:
        done = run(*command.split(), "--help")
        assert (done.status, done.err) == (0, "")
        texts.append(f"$ effnet {command} --help\n{done.out}" if command else f"$ effnet --help\n{done.out}")
    compare("help.txt", "\n".join(texts))


def test_messages(run: Run) -> None:
    texts = []
    for command in WRONG_COMMANDS:
        done = run(*command.split())
        assert done.status in (1, 2), command
        assert done.out == "", command
        message = re.sub(r"^Usage: .*\nTry .*\n\n", "", done.err)
        texts.append(f"$ effnet {command}  # {done.status}\n{message}")
    compare("messages.txt", "\n".join(texts))
    assert "Invalid value" not in "".join(text for text in texts if "\nError: Missing" in text)
