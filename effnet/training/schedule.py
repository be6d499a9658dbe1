"""The learning rate at every step."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, pi

from torch.optim import Optimizer

from effnet.training.recipes import Recipe


@dataclass(frozen=True)
class LRSchedule:
    """The learning rate of ``recipe`` over ``epochs`` of ``steps`` batches each.

    Sources: exponential, as the official ``build_learning_rate``: decay in stairs from the very first step, and during
    the warm-up a linear rise in its place; cosine: arXiv:1608.03983 without restarts, after the warm-up.
    """

    recipe: Recipe
    epochs: int
    steps_per_epoch: float  # in an epoch; no whole number where pictures do not fill the last batch

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the batch after ``step`` others."""
        return self.recipe.peak_learning_rate * self._factor_at(step)

    def _factor_at(self, step: int) -> float:
        recipe = self.recipe
        warm_up = (
            recipe.warmup_epochs if recipe.schedule == "exponential" else min(recipe.warmup_epochs, self.epochs / 2)
        )
        rising = int(warm_up * self.steps_per_epoch)
        if step < rising:
            return step / rising
        if recipe.schedule == "exponential":
            return recipe.lr_decay ** floor(step / (recipe.lr_decay_epochs * self.steps_per_epoch))
        if recipe.schedule == "constant":
            return 1.0
        rest = self.epochs * self.steps_per_epoch - rising
        return (1 + cos(pi * min((step - rising) / rest, 1))) / 2 if rest > 0 else 1.0


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of every group, each by its share."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
