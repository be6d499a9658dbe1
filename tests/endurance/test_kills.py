"""Bulk prediction that is killed again and again ends with the rows of one that never was.

Training has its own twenty kills: `tests/training/test_resume.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import effnet
from tests.exporting.networks import network
from tests.kill_at_file import KILL_AT_FILE

IMAGES, KILLS = 600, 20

# Small parts, so that a run writes many files. The process kills itself a moment after its n-th file is in place: by
# files, not by the clock, so that a busy machine is killed at the same moments as a quiet one.
COMMAND = (
    """
import sys
from effnet.cli.app import main
from effnet.prediction import bulk_chunks
bulk_chunks.NAMES_PER_CHUNK, bulk_chunks._MAX_NAMES_PER_CHUNK, bulk_chunks.IMAGES_PER_PART = 32, 64, 16
kill_after, delay = int(sys.argv.pop(1)), float(sys.argv.pop(1))
"""
    + KILL_AT_FILE
    + """
status = main()
print("files", files)
sys.exit(status)
"""
)


@pytest.mark.sweep
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_twenty_kills_of_bulk_prediction(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, model = tmp_path / "photos", effnet.save(network(), tmp_path / "model.safetensors")
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(photos / f"{index:04}.png")
    (photos / "0007.png").write_bytes(b"no image")

    def run(out: Path, kill_after: int = 0, delay: float = 0.0) -> subprocess.CompletedProcess[str]:
        words = ["predict", str(photos), "--model", str(model), "--output", str(out), "--engine", "eager"]
        words += ["--threads", "1", "--batch-size", "1"]  # sums have another order in another batch
        command = [sys.executable, "-c", COMMAND, str(kill_after), str(delay), *words]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    untouched = tmp_path / "untouched" / f"a{suffix}"
    untouched.parent.mkdir()
    done = run(untouched)
    assert done.returncode == 0, done.stderr
    files, expected = int(done.stdout.rpartition("files ")[2]), read_rows(untouched)
    assert len(expected) >= IMAGES
    moments, killed, runs = random.Random(0), 0, 1
    begun = time.monotonic()
    while killed < KILLS:
        assert time.monotonic() - begun < 1800, f"{killed} kills in {runs} runs"
        out = tmp_path / f"killed-{runs}" / f"a{suffix}"
        out.parent.mkdir(exist_ok=True)
        ended = run(out, moments.randint(1, max(2, files // 3)), moments.random() * 0.1)
        if ended.returncode == -signal.SIGKILL:
            killed += 1
            continue
        assert ended.returncode == 0, ended.stderr
        assert_finished(out, expected)
        runs += 1
    out = tmp_path / f"killed-{runs}" / f"a{suffix}"
    out.parent.mkdir(exist_ok=True)
    ended = run(out)
    assert ended.returncode == 0, ended.stderr
    assert_finished(out, expected)
    with capsys.disabled():
        print(f"\n{killed} kills hit {runs} runs of {files} files each; all ended with the same {len(expected)} rows")


def assert_finished(out: Path, expected: list[str]) -> None:
    assert read_rows(out) == expected
    assert {path.name for path in out.parent.iterdir()} == {out.name, f"{out.name}.json"}


def read_rows(path: Path) -> list[str]:
    """Return the table's rows in the order of their names."""
    if path.suffix == ".parquet":
        return sorted(map(str, parquet.read_table(path).to_pylist()))
    return sorted(path.read_text().splitlines())
