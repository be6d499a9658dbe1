"""Learning rates, against the official formulas."""

from __future__ import annotations

from math import floor

import pytest

from effnet.training.recipe import Recipe
from effnet.training.recipes.paper import PAPER
from effnet.training.schedule import Schedule


def cosine(epochs: int, warm_up: float, steps: float = 10) -> Schedule:
    return Schedule(Recipe(name="test", epochs=epochs, learning_rate=1.0, warm_up=warm_up), epochs, steps)


def test_cosine_rises_and_falls() -> None:
    schedule = cosine(10, 2)
    assert [schedule.at(step) for step in (0, 10, 20)] == [0, 0.5, 1]
    assert schedule.at(60) == pytest.approx(0.5)
    assert schedule.at(100) == pytest.approx(0)
    assert 0 < cosine(1, 5).at(4) <= 1  # a warm-up longer than the run takes half of it
    assert cosine(10, 0).at(0) == 1


def test_the_rate_goes_with_the_batch() -> None:
    small, large = (Recipe(name="test", epochs=1, learning_rate=0.1, rate_batch=256, batch=n) for n in (64, 1024))
    assert (small.peak, large.peak) == (0.025, 0.4)
    assert PAPER[0].peak == pytest.approx(0.256)


def test_the_papers_schedule_at_every_step() -> None:
    """As ``build_learning_rate`` of the official code has it, for its 1,281,167 pictures in batches of 4,096."""
    steps = 1_281_167 / 4096
    schedule = Schedule(PAPER[0], 350, steps)
    warm_up = int(5 * steps)
    for step in range(int(350 * steps)):
        expected = 0.256 * 0.97 ** floor(step / (steps * 2.4)) if step >= warm_up else 0.256 * step / warm_up
        assert schedule.at(step) == pytest.approx(expected, rel=1e-12), step
    assert schedule.at(int(349.9 * steps)) == pytest.approx(0.256 * 0.97**145)
