"""The learning rate at every step."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, pi

from effnet.training.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """The learning rate of ``recipe`` over ``epochs`` of ``steps`` batches each.

    Sources: exponential, as the official ``build_learning_rate``: decay in stairs from the very first step, and during
    the warm-up a linear rise in its place; cosine: arXiv:1608.03983 without restarts, after the warm-up.
    """

    recipe: Recipe
    epochs: int
    steps: float  # in an epoch; no whole number where pictures do not fill the last batch

    def at(self, step: int) -> float:
        """The learning rate of the batch after ``step`` others."""
        return self.recipe.peak * self._share(step)

    def _share(self, step: int) -> float:
        recipe = self.recipe
        warm_up = recipe.warm_up if recipe.schedule == "exponential" else min(recipe.warm_up, self.epochs / 2)
        rising = int(warm_up * self.steps)
        if step < rising:
            return step / rising
        if recipe.schedule == "exponential":
            return recipe.decay ** floor(step / (recipe.decay_epochs * self.steps))
        if recipe.schedule == "constant":
            return 1.0
        rest = self.epochs * self.steps - rising
        return (1 + cos(pi * min((step - rising) / rest, 1))) / 2 if rest > 0 else 1.0
