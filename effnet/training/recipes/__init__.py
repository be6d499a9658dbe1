"""One file a recipe. Each docstring is a promise: what, source, cost, result, command."""

from __future__ import annotations

from effnet.arch.record import did_you_mean
from effnet.training.recipe import Recipe
from effnet.training.recipes.finetune import FINETUNE
from effnet.training.recipes.gradual import GRADUAL
from effnet.training.recipes.lite import LITE
from effnet.training.recipes.paper import PAPER
from effnet.training.recipes.probe import PROBE
from effnet.training.recipes.scratch import SCRATCH
from effnet.training.recipes.small_images import SMALL_IMAGES, SMALL_IMAGES_RESIZED
from effnet.training.recipes.v2 import V2

_OWN = (FINETUNE, GRADUAL, PROBE, SCRATCH, SMALL_IMAGES, SMALL_IMAGES_RESIZED)
RECIPES = {recipe.name: recipe for recipe in (*_OWN, *PAPER, LITE, *V2)}


def named(recipe: str | Recipe | None, pretrained: bool) -> Recipe:
    """The recipe of that name; None takes "finetune" for pretrained weights and "scratch" for random ones.

    Raises ``ValueError`` for an unknown name.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return FINETUNE if pretrained else SCRATCH
    if recipe not in RECIPES:
        close = did_you_mean(recipe, list(RECIPES))
        raise ValueError(f"no recipe is called {recipe!r}{close or '; there are ' + ', '.join(RECIPES)}")
    return RECIPES[recipe]
