"""A judge of networks on some pictures, each through its own preprocessing, and its finding put into the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from effnet.data import PictureError, Pictures
from effnet.engines.eager import Eager
from effnet.net import EfficientNet
from effnet.prediction.pipeline import outputs
from effnet.training.judging import Score, Truth

BATCH = 32


def examiner(pictures: Pictures, device: str | None = None, decode: str = "reduced") -> Callable[[EfficientNet], Score]:
    """A function that says how good a network is on ``pictures``, at the size that its ``preprocess`` names.

    ``device``: None for the fastest that is there. It raises the ``PictureError`` of a picture that cannot be read.
    """
    truth = Truth.of(pictures)

    def judge(model: EfficientNet) -> Score:
        named = ((item.name, item.picture) for item in pictures.items)
        rows = []
        for _, row in outputs(Eager(model, device).run, named, replace(model.preprocess, decode=decode), BATCH):
            if isinstance(row, PictureError):
                raise row
            rows.append(row)
        return truth.score(np.stack(rows).astype(np.float64))

    return judge


def scale_head(model: EfficientNet, gain: float) -> None:
    """Multiplies the logits, so that probabilities mean what they say; no prediction changes."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
        model.classifier.bias.mul_(gain)
