"""One file a recipe. Each docstring is a promise: what, source, cost, result, command."""

from __future__ import annotations

import json
from collections.abc import Iterable

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


def changed(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """``recipe`` with some of its settings changed, each as ``name=value``: "balance=sampler", "augment.mixup=0.2".

    Raises ``ValueError`` for a setting that it does not have, and for a value that it cannot take.
    """
    found = recipe.to_dict()
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"{setting!r} changes nothing: write name=value, as balance=sampler")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        inner = found["augment"] if name.startswith("augment.") else found
        inner[name.removeprefix("augment.")] = value
    return Recipe.from_dict(found)
