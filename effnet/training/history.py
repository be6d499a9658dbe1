"""What each epoch of a run brought."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One line of the history. ``loss`` is of training, smoothed labels and all; the others of the selection split."""

    epoch: int
    loss: float
    select_loss: float
    select_top1: float
    learning_rate: float
    seconds: float = 0.0
