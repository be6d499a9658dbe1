"""``effnet train``."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.training.conftest import paint


def test_dry_run_of_the_paper(run: Run, tmp_path: Path) -> None:
    done = run("train", "--recipe", "paper_b0", "--weights", "none", "--dry-run", "--output", tmp_path / "run")
    assert done.status == 0, done.err
    assert "350 epochs of 307 steps, batch size 4,096" in done.out
    assert "rmsprop, peak learning rate 0.256, exponential schedule" in done.out
    assert "stochastic depth from 0.000 (stage1.0) to 0.188 (stage7.0)" in done.out
    assert "every 9th epoch and the last are shown; --json prints all" in done.out
    drawing = (tmp_path / "run" / "schedule.svg").read_text()
    assert drawing.startswith("<svg")
    assert "learning rate" in drawing


def test_dry_run_of_few_epochs(run: Run) -> None:
    done = run("train", "--recipe", "scratch", "--weights", "none", "--dry-run", "--epochs", 40)
    assert done.status == 0, done.err
    assert "are shown" not in done.out


def test_dry_run_on_a_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "replace", full)
    done = run("train", "--recipe", "scratch", "--weights", "none", "--dry-run", "--output", tmp_path)
    message = f"{tmp_path / 'schedule.svg'} could not be written: the disk is full; the previous file is unchanged"
    assert done == (1, "", f"effnet: {message}\n")


def test_dry_run_json(run: Run) -> None:
    words = ("train", "digits", "--recipe", "v2_s", "--model", "v2_s", "--weights", "none", "--dry-run", "--json")
    done = run(*words, "--epochs", 8, "--batch-size", 64)
    found = json.loads(done.out)
    assert [one["image_size"] for one in found["epochs"]] == [128, 128, 185, 185, 243, 243, 300, 300]
    assert found["peak_learning_rate"] == pytest.approx(0.004)
    assert found["images"] == 1438


@pytest.mark.parametrize(("size", "expected", "shown"), [("48", 48, "48"), ("48x64", [48, 64], "48×64")])
def test_dry_run_at_another_image_size(run: Run, tmp_path: Path, size: str, expected: object, shown: str) -> None:
    words = ("train", "digits", "--recipe", "scratch", "--weights", "none", "--dry-run", "--image-size", size)
    epochs = json.loads(run(*words, "--json").out)["epochs"]
    assert all(epoch["image_size"] == expected for epoch in epochs)
    assert f" {shown} " in run(*words, "--output", tmp_path / "run").out
    words = ("train", "digits", "--recipe", "v2_s", "--weights", "none", "--dry-run", "--image-size", size)
    epochs = json.loads(run(*words, "--epochs", 8, "--json").out)["epochs"]
    assert epochs[0]["image_size"] == 128  # progressive learning sets it


def test_missing_data(run: Run) -> None:
    done = run("train")
    assert done.status == 2
    assert "Missing argument 'DATA'" in done.err


def test_task_requires_a_table(run: Run, photos: Path) -> None:
    done = run("train", photos, "--task", "regression")
    assert done.status == 2
    assert "--task requires a table of images and labels" in done.err


def test_torchrun(tmp_path: Path) -> None:
    """Two processes, as ``torchrun -m effnet train`` starts them, one of which prints."""
    paint(tmp_path / "photos", "dark", 70, 20)
    paint(tmp_path / "photos", "light", 180, 20)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "effnet"]
    words = ["train", "photos", "--model", "nano", "--weights", "none", "--epochs", "1", "--output", "out", "--json"]
    done = subprocess.run([*command, *words, "--workers", "0"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 8
    assert (tmp_path / "out" / "report.html").exists()
