"""Random networks that are timed: their numbers stay of a usual size, however deep they are."""

from __future__ import annotations

import pytest
import torch

from effnet.arch import ARCHS
from effnet.bench.network import random_network
from effnet.data.normalise import normalise


@pytest.mark.parametrize("name", ["b0", "b4", "lite4", "v2_s"])
def test_answers_to_noise_are_exact(name: str) -> None:
    model = random_network(name, classes=10)
    side = ARCHS[name].resolution // 2
    pictures = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = normalise(pictures, model.preprocess)
    with torch.inference_mode():
        single, exact = model(x), model.double()(x.double())
    assert exact.abs().max() < 50  # settled on other noise B4's came to 266, and B7's rounding to 2 % of them
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()
