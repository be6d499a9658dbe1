"""Who is told how training goes."""

from __future__ import annotations

from effnet.training.history import Epoch


class Watch:
    """Hears what happens and says nothing. The command line shows it; a notebook may do as it likes."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``stage`` (pictures, batches) are through."""

    def epoch(self, line: Epoch) -> None:
        """An epoch has ended."""

    def say(self, text: str) -> None:
        """A sentence for the user."""
