"""What a run took, and on what."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from effnet.arch import count
from effnet.clock import machine, versions
from effnet.net import EfficientNet
from effnet.training.history import Epoch
from effnet.training.report.page import duration, pairs, plain, short, tiles

PACKAGES = ("effnet", "torch", "torchvision", "accelerate", "numpy", "pillow")


@dataclass(frozen=True)
class Cost:
    """What the run took; zero or empty is what was not measured.

    ``seconds``: of the whole run, all its parts together where it was resumed. ``memory``: bytes that the process held
    at its worst moment; ``device_memory``: the same of the accelerator. ``device``: what computed, in words.
    ``devices``: how many of these took part.
    """

    seconds: float = 0.0
    memory: int = 0
    device_memory: int = 0
    device: str = ""
    devices: int = 1
    precision: str = ""


def spent(cost: Cost, history: Sequence[Epoch], model: EfficientNet) -> str:
    """The section's body: time, memory and size; what computed, and with what."""
    high, wide = model.preprocess.size
    size = count(model.arch, (high, wide), model.classes, model.channels)
    timed = [line.seconds for line in history if line.seconds > 0]
    shown = [
        ("The run", duration(cost.seconds) if cost.seconds else "", "from the first picture to the saved model"),
        ("Training", duration(sum(timed)) if timed else "", f"{len(timed)} epochs, without judging them"),
        ("An epoch", duration(median(timed)) if timed else "", "the median"),
        ("Peak memory", _bytes(cost.memory), "of the process"),
        ("On the device", _bytes(cost.device_memory), "peak memory there"),
        ("MACs", short(size.macs), f"a picture of {high}×{wide}; {short(size.params)} params"),
    ]
    device = f"{cost.devices} × {cost.device}" if cost.devices > 1 else cost.device
    found = {"python": platform.python_version()} | versions(PACKAGES)
    rows = [
        ("Machine", machine().in_words()),
        ("Computed on", ", ".join(filter(None, (device, cost.precision)))),
        ("Versions", ", ".join(f"{name} {which}" for name, which in found.items())),
    ]
    return tiles(tile for tile in shown if tile[1]) + pairs((name, plain(text)) for name, text in rows if text)


def _bytes(number: int) -> str:
    """2.1 GB; empty for none."""
    return f"{short(number)}B" if number else ""
