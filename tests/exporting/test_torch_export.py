"""Exported torch programs: agreement at a fixed size and at any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.arch import ARCHS
from effnet.exporting.torch_export import min_side, write_torch_export
from effnet.exporting.verify import open_torch_runner
from effnet.metadata import Numerics
from effnet.runtime.io_spec import IOSpec, read_metadata
from tests.exporting.networks import DEEP, MIXED, SYMMETRIC, agreement, network


def test_any_size(tmp_path: Path) -> None:
    model, io_spec, path = network(DEEP, MIXED), IOSpec(output="logits", embedding=True), tmp_path / "m.pt2"
    write_torch_export(path, model, io_spec)
    run = open_torch_runner(path)
    assert agreement(run, model, io_spec, (64, 64), (33, 70), (61, 48)).difference < 1e-5
    assert min_side(DEEP) == min_side(ARCHS["b7"]) == 33
    with pytest.raises(AssertionError, match="33"):
        run(np.zeros((1, 32, 64, 3), np.uint8))


@pytest.mark.parametrize(("input", "numerics"), [("pixels", Numerics()), ("normalized", SYMMETRIC)])
def test_fixed_size(input: str, numerics: Numerics, tmp_path: Path) -> None:
    model, io_spec, path = network(DEEP, numerics), IOSpec(input, size=(21, 30)), tmp_path / "m.pt2"
    write_torch_export(path, model, io_spec)
    assert agreement(open_torch_runner(path), model, io_spec, (21, 30)).difference < 1e-5
    files = dict.fromkeys(("effnet", "effnet.interface"), "")
    torch.export.load(path, extra_files=files)
    assert read_metadata(files, path) == (model.metadata, io_spec)
