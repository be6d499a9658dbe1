from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of three classes with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = effnet.create("nano", classes=3)
    model.labels = effnet.Labels(("ant", "bee, small", "wasp"))
    path: Path = effnet.save(model, tmp_path_factory.mktemp("model") / "model.safetensors")
    return path


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    """Different small images, as the bytes of their files."""
    from io import BytesIO

    noise, made = np.random.default_rng(0), []
    for _ in range(8):
        file = BytesIO()
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(file, "JPEG")
        made.append(file.getvalue())
    return made
