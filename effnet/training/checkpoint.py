"""Checkpoints of a run, from which it resumes with the same bits: written atomically, the newest two kept."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from effnet.data.storage.atomic_write import atomic_write
from effnet.training.callbacks import EpochMetrics
from effnet.training.validation import SelectionScore

if TYPE_CHECKING:
    from effnet.training.loop import Trainer

MAX_CHECKPOINTS = 2
_PLAIN_STATE = ("best_state", "epochs", "epoch", "batch_index", "loss_sum", "seconds")  # of a `Trainer`


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
            except Exception:  # nosec B112  # a damaged pickle makes torch stumble in any way
                continue
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("*.pt"), reverse=True)


def trainer_state(trainer: "Trainer") -> dict[str, Any]:
    """Return everything that a resumed run needs to end with the same bits."""
    scaler = trainer.distributed.accelerator.scaler
    return {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.model.state_dict(),
        "ema_updates": trainer.ema.updates,
        "optimizer": trainer.step.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else {},  # of float16's gradients
        "history": [asdict(metrics) for metrics in trainer.history],
        "best_score": asdict(trainer.best_score),
        **{name: getattr(trainer, name) for name in _PLAIN_STATE},
        "learning_rate": trainer.recipe.learning_rate,
        "accumulation_steps": trainer.step.accumulation_steps,
        "elapsed_seconds": trainer.elapsed_seconds,
    }


def restore_trainer(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Let ``trainer`` continue from `trainer_state`."""
    trainer.model.load_state_dict(state["model"])
    trainer.ema.model.load_state_dict(state["ema"])
    trainer.ema.updates = state["ema_updates"]
    trainer.step.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and trainer.distributed.accelerator.scaler:
        trainer.distributed.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.history = [EpochMetrics(**metrics) for metrics in state["history"]]
    trainer.best_score = SelectionScore(**state["best_score"])
    vars(trainer).update({name: state[name] for name in _PLAIN_STATE})
    # The run may have been resumed with more steps since memory ran out
    requested = trainer.setup.config.resources.accumulation_steps
    trainer.step.accumulation_steps = max(state["accumulation_steps"], requested)
    trainer.seconds_before_resume = state["elapsed_seconds"]
