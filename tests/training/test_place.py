"""Where training runs: what several devices share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import effnet
from effnet.engines.eager import Eager
from effnet.net import create
from effnet.training.optimise import optimiser
from effnet.training.place import ALONE_LEAST, Place
from effnet.training.recipe import Recipe

RECIPE = Recipe(name="test", epochs=1)


def ready(model: effnet.EfficientNet, ranks: int, device: str, batch: int) -> nn.Module:
    """``model`` as it would be called on so many devices, of which none need be there."""
    place = Place("cpu")
    place.ranks, place.device = ranks, torch.device(device)
    called, _ = place.ready(model, optimiser(model, RECIPE), batch)
    return called


@pytest.mark.parametrize(
    ("ranks", "device", "batch", "shared"),
    [
        (2, "cuda", ALONE_LEAST - 1, True),
        (2, "cuda", ALONE_LEAST, False),
        (1, "cuda", ALONE_LEAST - 1, False),
        (2, "cpu", ALONE_LEAST - 1, False),
    ],
)
def test_statistics_are_taken_over_all_devices_where_each_has_few_pictures(
    ranks: int, device: str, batch: int, shared: bool
) -> None:
    called = ready(create("nano", 5), ranks, device, batch)
    norms = [module for module in called.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) == shared for norm in norms)


def test_shared_batch_norm_is_frozen_folded_and_exported_as_any(tmp_path: Path) -> None:
    model = create("nano", 5).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = Eager(model, "cpu").run(pictures)
    ready(model, 2, "cuda", ALONE_LEAST - 1)
    model.frozen_norms = True
    assert not any(norm.training for norm in model.train().modules() if isinstance(norm, nn.SyncBatchNorm))
    assert np.array_equal(Eager(model, "cpu").run(pictures), expected)
    assert effnet.export(model.eval(), tmp_path / "model.onnx").same_top1 == 6
