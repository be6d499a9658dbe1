"""What takes part in a contest: a network and a way to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from effnet.data.normalise import normalise
from effnet.net import EfficientNet

Pictures = NDArray[np.uint8]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Contestant:
    """``run`` does the work that is timed; ``logits`` says what came of it, as float32 (N, classes)."""

    engine: str
    precision: str
    run: Callable[[], object]
    logits: Callable[[], Logits]
    same: bool = True  # whether it computes the very network that it is compared with

    @property
    def name(self) -> str:
        """Unlike every other in its contest."""
        return f"{self.engine}, {self.precision}"


def pictures(batch: int, size: tuple[int, int], channels: int = 3) -> Pictures:
    """Noise as pictures come: uint8 (batch, height, width, channels)."""
    made: Pictures = np.random.default_rng(0).integers(0, 256, (batch, *size, channels), np.uint8)
    return made


def reference(model: EfficientNet, seen: Pictures) -> Logits:
    """What torch answers in float32, with nothing folded: (N, classes)."""
    with torch.inference_mode():
        return as_logits(model.eval()(normalise(torch.from_numpy(seen), model.preprocess)))


def as_logits(answer: torch.Tensor) -> Logits:
    """Any tensor as float32 numpy."""
    made: Logits = answer.float().cpu().numpy()
    return made


def difference(answer: Logits, right: Logits) -> float:
    """The largest difference, over the largest of the right ones."""
    return float(np.abs(answer - right).max() / np.abs(right).max())
