"""A run that is killed again and again ends with the bits of one that never was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

KILLS = 10
COMMAND = """
import sys
from effnet.training.run import train
train("digits", out=sys.argv[1], model="nano", weights="none", epochs=3, batch=128, seed=3, resume=True)
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", COMMAND, str(out)])


def finish(out: Path) -> float:
    begun = time.monotonic()
    assert start(out).wait() == 0
    return time.monotonic() - begun


def test_ten_kills_change_no_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untouched = tmp_path / "untouched"
    whole = finish(untouched)
    expected = load_file(untouched / "model.safetensors")

    dice, struck, runs = random.Random(1), 0, 1
    out = tmp_path / "killed-1"
    while struck < KILLS:
        run, begun = start(out), time.monotonic()
        try:
            run.wait(timeout=dice.random() * whole)
        except subprocess.TimeoutExpired:
            run.kill()
            assert run.wait() == -signal.SIGKILL
            struck += 1
        else:  # it was through before the kill: what it left is looked at, and the next kills fall on a new run
            assert run.returncode == 0
            whole = min(whole, time.monotonic() - begun)  # the first may have been slow for another's work
            _same(expected, out)
            runs += 1
            out = tmp_path / f"killed-{runs}"
    finish(out)
    _same(expected, out)
    with capsys.disabled():
        print(f"\n{struck} kills struck {runs} runs of {whole:.1f} s each; every one ended with the same bits")


def _same(expected: dict[str, torch.Tensor], out: Path) -> None:
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert not list(out.rglob("*.part"))
