"""Learning rate schedules: cosine, exponential and constant, with linear warmup."""

from dataclasses import dataclass
from math import cos, floor, pi

import torch

from effnet.training.recipes import Recipe


@dataclass(frozen=True)
class LRSchedule:
    """The learning rate of ``recipe`` at every step of ``epochs``.

    Exponential is the official ``build_learning_rate``: staircase decay counted from the very first step, replaced by a
    linear rise during warmup. Cosine is arXiv:1608.03983 without restarts, after the warmup.
    """

    recipe: Recipe
    epochs: int
    steps_per_epoch: float  # fractional where the images do not fill the last batch

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate at ``step``, counted from 0."""
        return self.recipe.peak_learning_rate * self._factor_at(step)

    def _factor_at(self, step: int) -> float:
        recipe = self.recipe
        warmup_epochs = recipe.warmup_epochs
        if recipe.schedule != "exponential":
            warmup_epochs = min(warmup_epochs, self.epochs / 2)
        warmup_steps = int(warmup_epochs * self.steps_per_epoch)
        if step < warmup_steps:
            return step / warmup_steps
        if recipe.schedule == "exponential":
            return recipe.lr_decay ** floor(step / (recipe.lr_decay_epochs * self.steps_per_epoch))
        if recipe.schedule == "constant":
            return 1.0
        cosine_steps = self.epochs * self.steps_per_epoch - warmup_steps
        return (1 + cos(pi * min((step - warmup_steps) / cosine_steps, 1))) / 2 if cosine_steps > 0 else 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every parameter group, times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
