"""Training callbacks (progress, messages, the metrics of each epoch), the best epoch and early stopping."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class EpochMetrics:
    """One line of the history. The training loss includes augmentation and label smoothing."""

    epoch: int
    train_loss: float
    selection_loss: float
    selection_metric: float  # the task's headline metric
    learning_rate: float
    seconds: float = 0.0


def best_epoch(history: Sequence[EpochMetrics]) -> EpochMetrics:
    """Return the epoch with the lowest selection loss, the first of several."""
    return min(history, key=lambda metrics: metrics.selection_loss)


def should_stop_early(history: Sequence[EpochMetrics], patience: int) -> bool:
    """Return whether ``patience`` epochs have brought no lower selection loss; 0: never."""
    if not 0 < patience < len(history):
        return False
    best = best_epoch(history)
    return isfinite(best.selection_loss) and len(history) - best.epoch >= patience


class Callback:
    """Receives the progress of a run and does nothing with it. Subclass it to show or record it."""

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """``done`` of the ``total`` images or batches of ``phase`` are processed."""

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """An epoch has ended."""

    def on_message(self, text: str) -> None:
        """Called with a sentence for the user."""


class ForwardingCallback(Callback):
    """Passes everything on to ``callback``, with ``prefix`` before phases and messages."""

    def __init__(self, callback: Callback, prefix: str = "") -> None:
        self._callback, self._prefix = callback, prefix

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """As in `Callback`."""
        self._callback.on_progress(f"{self._prefix}{phase}", done, total)

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """As in `Callback`."""
        self._callback.on_epoch_end(metrics)

    def on_message(self, text: str) -> None:
        """As in `Callback`."""
        self._callback.on_message(f"{self._prefix}{text}")
