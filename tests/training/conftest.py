from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.training.callbacks import Callback, EpochMetrics


class Recorder(Callback):
    """Record every call."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.progress: list[tuple[str, int, int]] = []
        self.epochs: list[EpochMetrics] = []

    def on_progress(self, phase: str, done: int, total: int) -> None:
        assert 0 < done <= total
        self.progress.append((phase, done, total))

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def paint(folder: Path, name: str, brightness: int, count: int, seed: int = 0) -> None:
    """``count`` noisy images of 40×36 pixels of about this brightness, in a class folder."""
    rng = np.random.default_rng(seed + brightness)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = rng.normal(brightness, 25, (36, 40, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(folder / name / f"{index:02d}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of twenty images that the eye tells apart at once."""
    folder = tmp_path / "photos"
    paint(folder, "dark", 70, 20)
    paint(folder, "light", 180, 20)
    return folder
