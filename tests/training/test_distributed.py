"""Where training runs: what several devices share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import effnet
from effnet.net import create
from effnet.runtime.torch import EagerEngine
from effnet.training.distributed import MIN_BATCH_FOR_LOCAL_BATCH_NORM, Distributed
from effnet.training.optim import make_optimizer
from effnet.training.recipes import Recipe

RECIPE = Recipe(name="test", epochs=1)


def prepare(model: effnet.EfficientNet, ranks: int, device: str, batch: int) -> nn.Module:
    """``model`` wrapped as for that many devices; none of them has to exist."""
    distributed = Distributed("cpu")
    distributed.world_size, distributed.device = ranks, torch.device(device)
    called, _ = distributed.prepare(model, make_optimizer(model, RECIPE), batch)
    return called


@pytest.mark.parametrize(
    ("ranks", "device", "batch", "shared"),
    [
        (2, "cuda", MIN_BATCH_FOR_LOCAL_BATCH_NORM - 1, True),
        (2, "cuda", MIN_BATCH_FOR_LOCAL_BATCH_NORM, False),
        (1, "cuda", MIN_BATCH_FOR_LOCAL_BATCH_NORM - 1, False),
        (2, "cpu", MIN_BATCH_FOR_LOCAL_BATCH_NORM - 1, False),
    ],
)
def test_batch_norm_is_synchronized_for_small_batches_per_device(
    ranks: int, device: str, batch: int, shared: bool
) -> None:
    called = prepare(create("nano", 5), ranks, device, batch)
    norms = [module for module in called.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) == shared for norm in norms)


def test_synchronized_batch_norm_can_be_frozen_folded_and_exported(tmp_path: Path) -> None:
    model = create("nano", 5).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = EagerEngine(model, "cpu").run(images)
    prepare(model, 2, "cuda", MIN_BATCH_FOR_LOCAL_BATCH_NORM - 1)
    model.frozen_batch_norm = True
    assert not any(norm.training for norm in model.train().modules() if isinstance(norm, nn.SyncBatchNorm))
    assert np.array_equal(EagerEngine(model, "cpu").run(images), expected)
    assert effnet.export(model.eval(), tmp_path / "model.onnx").same_predictions == 6


# Several processes train as one does.


SCRIPT = Path(__file__).with_name("one_step.py")


def run_one_step(out: Path, processes: int, pieces: int = 1) -> dict[str, Any]:
    out.mkdir()
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, str(SCRIPT), str(out), str(pieces)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    shared: dict[str, Any] = torch.load(out / "step.pt")
    return shared


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_one_step(tmp_path_factory.mktemp("alone") / "one", 1)


@pytest.mark.parametrize(("processes", "pieces"), [(2, 1), (1, 3), (2, 2)])
def test_same_gradients(processes: int, pieces: int, single: dict[str, Any], tmp_path: Path) -> None:
    """Of one process with the whole batch, of two with a share each, and of a batch in parts."""
    shared = run_one_step(tmp_path / "many", processes, pieces)
    assert shared["loss"] == pytest.approx(single["loss"], rel=1e-12)
    for name, gradient in single["gradients"].items():
        assert (shared["gradients"][name] - gradient).abs().max() <= 1e-10, name
    assert shared["gathered"] == list(range(13))
    assert shared["shard"] == list(range(0, 13, processes))
