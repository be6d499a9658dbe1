"""Learning rates, against the official formulas."""

from __future__ import annotations

from math import floor

import pytest

from effnet.training.recipes import PAPER_RECIPES, Recipe
from effnet.training.schedule import LRSchedule


def cosine(epochs: int, warm_up: float, steps: float = 10) -> LRSchedule:
    return LRSchedule(Recipe(name="test", epochs=epochs, learning_rate=1.0, warmup_epochs=warm_up), epochs, steps)


def test_cosine() -> None:
    schedule = cosine(10, 2)
    assert [schedule.learning_rate_at(step) for step in (0, 10, 20)] == [0, 0.5, 1]
    assert schedule.learning_rate_at(60) == pytest.approx(0.5)
    assert schedule.learning_rate_at(100) == pytest.approx(0)
    assert 0 < cosine(1, 5).learning_rate_at(4) <= 1  # a warm-up longer than the run takes half of it
    assert cosine(10, 0).learning_rate_at(0) == 1


def test_learning_rate_scales_with_batch_size() -> None:
    small, large = (
        Recipe(name="test", epochs=1, learning_rate=0.1, lr_reference_batch=256, batch_size=n) for n in (64, 1024)
    )
    assert (small.peak_learning_rate, large.peak_learning_rate) == (0.025, 0.4)
    assert PAPER_RECIPES[0].peak_learning_rate == pytest.approx(0.256)


def test_exponential_equals_the_official_code_at_every_step() -> None:
    """As ``build_learning_rate`` of the official code has it, for its 1,281,167 images in batches of 4,096."""
    steps = 1_281_167 / 4096
    schedule = LRSchedule(PAPER_RECIPES[0], 350, steps)
    warm_up = int(5 * steps)
    for step in range(int(350 * steps)):
        expected = 0.256 * 0.97 ** floor(step / (steps * 2.4)) if step >= warm_up else 0.256 * step / warm_up
        assert schedule.learning_rate_at(step) == pytest.approx(expected, rel=1e-12), step
    assert schedule.learning_rate_at(int(349.9 * steps)) == pytest.approx(0.256 * 0.97**145)
