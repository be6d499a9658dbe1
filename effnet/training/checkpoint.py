"""Checkpoints of a run: written atomically, the newest two kept. Their content is `Trainer.state_dict`."""

import pickle
from pathlib import Path
from typing import Any

import torch

from effnet.data.storage.atomic_write import atomic_write

MAX_CHECKPOINTS = 2


class Checkpoints:
    """The checkpoints in ``directory``, each named by the epoch and batch that comes next."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for leftover in directory.glob(".*.part"):  # of a process that was killed while writing
            leftover.unlink()

    def save(self, state: dict[str, Any], epoch: int, batch_index: int = 0) -> None:
        """Write ``state``, then delete older checkpoints; if the disk is full, the last good one stays."""
        path = self.directory / f"{epoch:05d}-{batch_index:07d}.pt"
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
        for old in self._newest_first()[MAX_CHECKPOINTS:]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """Return the newest readable state, or None."""
        for path in self._newest_first():
            try:
                return dict(torch.load(path, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
                continue
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("*.pt"), reverse=True)
