"""Several processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("one_step.py")


def stepped(out: Path, processes: int, pieces: int = 1) -> dict[str, Any]:
    out.mkdir()
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, str(SCRIPT), str(out), str(pieces)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(out / "step.pt")
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return stepped(tmp_path_factory.mktemp("alone") / "one", 1)


@pytest.mark.parametrize(("processes", "pieces"), [(2, 1), (1, 3), (2, 2)])
def test_the_same_gradients(processes: int, pieces: int, alone: dict[str, Any], tmp_path: Path) -> None:
    """Of one process with the whole batch, of two with a share each, and of a batch in parts."""
    found = stepped(tmp_path / "many", processes, pieces)
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-12)
    for name, gradient in alone["gradients"].items():
        assert (found["gradients"][name] - gradient).abs().max() <= 1e-10, name
    assert found["judged"] == list(range(13))
    assert found["mine"] == list(range(0, 13, processes))
