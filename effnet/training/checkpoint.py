"""The state of a run on disk: written whole or not at all, the newest two kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from effnet.data.storage.atomic_write import atomic_write

MAX_CHECKPOINTS = 2


class Checkpoints:
    """The checkpoints in ``folder``, each named by the epoch and batch that comes next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for leftover in folder.glob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()

    def save(self, state: dict[str, Any], epoch: int, batch: int = 0) -> None:
        """Writes ``state`` (tensors, numbers, texts) and then lets older ones go.

        Raises ``OSError`` where the disk is full; the last good checkpoint stays.
        """
        with atomic_write(self.folder / f"{epoch:05d}-{batch:07d}.pt") as beside, beside.open("wb") as file:
            torch.save(state, file)
        for old in self._newest_first()[MAX_CHECKPOINTS:]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None."""
        for path in self._newest_first():
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
                continue
            return state
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)
