"""A run that is killed again and again ends with the bits of one that never was."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.kill_at_file import KILL_AT_FILE
from tests.training.conftest import paint

MAX_DELAY = 0.1  # seconds from a file to the kill: some batches

# Checkpoints within an epoch as well, as a long one has them. The process kills itself ``delay`` seconds after its n-th
# file is in place: by files, not by the clock, so that a busy machine is killed at the same moments as a quiet one.
COMMAND = (
    """
import sys
from pathlib import Path
from effnet.training import loop
from effnet.training.recipes import Recipe
from effnet.training.config import Resources
from effnet.training.train import train
from effnet.data.augment import Augment
photos, out, (workers, kill_after, delay) = sys.argv[1], Path(sys.argv[2]), map(float, sys.argv[3:])
"""
    + KILL_AT_FILE
    + """
loop.CHECKPOINT_SECONDS, loop.CLOCK_CHECK_BATCHES = 0.02, 1
augment = Augment(mixup=0.2, color_jitter=0.2)
recipe = Recipe(name="quick", epochs=4, batch_size=8, bn_momentum=0.3, ema_decay=0.9, augment=augment)
resources = Resources(workers=int(workers))
train(photos, recipe, out=out, model="nano", weights="none", seed=3, resume=True, resources=resources)
out.with_name("files").write_text(str(files))
"""
)


def start(photos: Path, out: Path, workers: int, kill_after: int = 0, delay: float = 0.0) -> subprocess.Popen[bytes]:
    arguments = map(str, (photos, out, workers, kill_after, delay))
    command = [sys.executable, "-W", "ignore", "-c", COMMAND, *arguments]
    return subprocess.Popen(command)


def kill_runs(photos: Path, folder: Path, workers: int, kills: int) -> str:
    """Kills runs at random moments, ``kills`` times; every one that ends must end as the first, undisturbed one did."""
    assert start(photos, folder / "untouched", 0).wait() == 0
    files = int((folder / "files").read_text())
    expected = load_file(folder / "untouched" / "model.safetensors")
    rng, killed, runs = random.Random(workers), 0, 1
    out = folder / "killed-1"
    while killed < kills:
        run = start(photos, out, workers, rng.randint(1, files), rng.random() * MAX_DELAY)
        if run.wait() == -signal.SIGKILL:
            killed += 1
            continue
        # A resumed run has less to write: it ended before the kill. The next kills fall on a new run
        assert run.returncode == 0
        assert_same_weights(expected, out)
        runs += 1
        out = folder / f"killed-{runs}"
    assert start(photos, out, workers).wait() == 0
    assert_same_weights(expected, out)
    return f"{killed} kills hit {runs} runs of {files} files each with {workers} workers; all ended with the same bits"


def assert_same_weights(expected: dict[str, torch.Tensor], out: Path) -> None:
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert not list(out.rglob("*.part"))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", "dark", 70, 60)
    paint(tmp_path / "photos", "light", 180, 60)
    return tmp_path / "photos"


def test_kills_change_no_bit(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = kill_runs(many, tmp_path, 2, 2)
    with capsys.disabled():
        print(f"\n{outcome}")


@pytest.mark.sweep
@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills(workers: int, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = kill_runs(many, tmp_path, workers, 20)
    with capsys.disabled():
        print(f"\n{outcome}")


@pytest.mark.sweep
def test_a_process_that_dies_stops_the_others_and_the_run_resumes(many: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "out"
    script.write_text(COMMAND)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(script), str(many), str(out), "0", "0", "0"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while len(list(out.glob("checkpoints/*.pt"))) < 2:
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < limit, "no checkpoint was written"
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
    second = next(pid for pid in children if rank(pid) == "1")
    os.kill(int(second), signal.SIGKILL)
    begun = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert run.returncode != 0
    assert re.search(r"rank\s*:\s*1 .*\n.*exitcode\s*:\s*-9", said), said
    assert not (out / "result.json").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "result.json").exists()


def rank(pid: str) -> str:
    """Of a process that torchrun started."""
    content = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((one.decode().partition("=")[2] for one in content if one.startswith(b"RANK=")), "")
