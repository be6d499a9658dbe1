"""What each epoch of a run brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.training.callbacks import EpochMetrics


@dataclass(frozen=True)
class EpochMetrics:
    """One line of the history. ``loss`` is of training, smoothed labels and all; the others of the selection split."""

    epoch: int
    train_loss: float
    selection_loss: float
    selection_metric: float
    learning_rate: float
    seconds: float = 0.0


# Who is told how training goes.


class Callback:
    """Hears what happens and says nothing. The command line shows it; a notebook may do as it likes."""

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``stage`` (pictures, batches) are through."""

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """An epoch has ended."""

    def on_message(self, text: str) -> None:
        """A sentence for the user."""


class FoldCallback(Callback):
    """Tells another of a fold's run, saying which fold it is."""

    def __init__(self, callback: Callback, number: int, count: int) -> None:
        self._callback, self._name = callback, f"fold {number + 1}/{count}"

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """As of any."""
        self._callback.on_progress(f"{self._name}, {phase}", done, total)

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """As of any."""
        self._callback.on_epoch_end(metrics)

    def on_message(self, text: str) -> None:
        """As of any."""
        self._callback.on_message(f"{self._name}: {text}")
