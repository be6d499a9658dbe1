"""Recipes: what they promise, and their stretches."""

from __future__ import annotations

import pytest

from effnet.arch import ARCHS
from effnet.data.augment import Augment
from effnet.training.dry_run import simulate_recipe
from effnet.training.recipes import RECIPES, ProgressiveLearning, Recipe, get_recipe, override_settings


@pytest.mark.parametrize("name", list(RECIPES))
def test_json_both_ways(name: str) -> None:
    assert RECIPES[name].name == name
    assert Recipe.from_json(RECIPES[name].to_json()) == RECIPES[name]


def test_paper_settings() -> None:
    recipe = get_recipe("paper_b7", pretrained=False)
    assert (recipe.optimizer, recipe.rmsprop_alpha, recipe.momentum, recipe.rmsprop_eps) == ("rmsprop", 0.9, 0.9, 1e-3)
    assert (recipe.weight_decay, recipe.ema_decay, recipe.label_smoothing) == (1e-5, 0.9999, 0.1)
    assert recipe.augment == Augment(min_crop_area=0.08, policy="autoaugment")
    assert round(1_281_167 * recipe.selection_fraction) == 25_022
    rehearsal = simulate_recipe(recipe, ARCHS["b7"])
    assert [one.dropout for one in rehearsal.epochs] == [0.5] * 350
    rates = [rate for _, rate in rehearsal.drop_path]
    assert rates == pytest.approx([0.2 * index / 55 for index in range(55)])


def test_v2_phases() -> None:
    recipe = get_recipe("v2_m", pretrained=False)
    phases = recipe.phases(350)
    assert [(one.start_epoch, one.end_epoch) for one in phases] == [(0, 88), (88, 175), (175, 262), (262, 350)]
    assert [one.image_size for one in phases] == [128, 212, 296, 380]
    assert [one.augment.randaugment_magnitude for one in phases] == [5, 10, 15, 20]
    assert [one.dropout for one in phases] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [one.augment.mixup for one in phases] == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])


def test_gradual_unfreezing() -> None:
    recipe = Recipe(name="test", epochs=12, unfreeze_every_epochs=1.0)
    frozen = [one.frozen_until for one in simulate_recipe(recipe, ARCHS["b0"]).epochs]
    assert frozen == ["head", *(f"stage{number}" for number in range(7, 0, -1)), "stem", "", "", ""]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be one of adamw, rmsprop, sgd"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"batch_norm": "thawed"}, "batch_norm must be one of auto, train, frozen, estimated"),
        ({"drop_path": 1.0}, "drop_path must be"),
        ({"progressive": ProgressiveLearning}, "Progress"),
    ],
)
def test_invalid_settings(settings: dict[str, object], message: str) -> None:
    if settings.get("progressive"):
        with pytest.raises(ValueError, match="steps must be"):
            ProgressiveLearning(1, (128, 300), (5, 15), (0.1, 0.3))
        return
    with pytest.raises(ValueError, match=message):
        Recipe(name="test", epochs=1, **settings)  # type: ignore[arg-type]


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'paper_b9'; did you mean"):
        get_recipe("paper_b9", pretrained=False)


def test_override_settings() -> None:
    recipe = override_settings(RECIPES["scratch"], ["balance=sampler", "augment.mixup=0.2", "patience=3"])
    assert recipe.balance == "sampler"
    assert recipe.augment.mixup == 0.2
    assert recipe.patience == 3
    assert recipe.augment.min_crop_area == RECIPES["scratch"].augment.min_crop_area
    for wrong, message in (
        ("balanse=loss", "unknown field 'balanse'; did you mean"),
        ("augment.mixup=-1", "mixup must be"),
        ("balance", "is not a setting: write name=value"),
        ("patience=soon", "patience must be"),
    ):
        with pytest.raises(ValueError, match=message):
            override_settings(recipe, [wrong])
