"""Training callbacks: progress, messages and the metrics of each epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """One line of the history. The training loss includes augmentation and label smoothing."""

    epoch: int
    train_loss: float
    selection_loss: float
    selection_metric: float  # the task's headline metric
    learning_rate: float
    seconds: float = 0.0


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
