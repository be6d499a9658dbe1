"""The surface over shares: exact where values are one, and honest where they are none."""

from __future__ import annotations

import numpy as np
import pytest

from effnet.search.grid import PAPER, Point, grid
from effnet.search.surface import Surface, shares, surface


def test_shares_of_the_paper() -> None:
    depth, width, resolution = shares(PAPER)
    assert depth + width + resolution == pytest.approx(1)
    assert depth == pytest.approx(np.log(1.2) / np.log(1.92027), abs=1e-6)
    assert width == pytest.approx(2 * np.log(1.1) / np.log(1.92027), abs=1e-6)
    assert shares(Point.of(2, 1, 1)) == (1, 0, 0)


def test_a_quadratic_is_found_again() -> None:
    truth = Surface((0.3, 0.2, 0.1, 0.5, 0.4, 0.3), 1, 0)
    points = grid()
    found = surface(points, [truth.at(*shares(point)) for point in points])
    assert found
    assert found.terms == pytest.approx(truth.terms, abs=1e-6)
    assert found.explained == pytest.approx(1)
    assert found.chance == pytest.approx(0, abs=1e-9)
    top = found.top()
    assert sum(top) == pytest.approx(1)
    nearby = [truth.at(*shares(point)) for point in points]
    assert truth.at(*top) >= max(nearby) - 1e-6


def test_noise_is_no_surface() -> None:
    drawn = np.random.default_rng(0)
    points = grid()
    chances = []
    for _ in range(200):
        found = surface(points, drawn.normal(size=len(points)).tolist())
        assert found
        chances.append(found.chance)
    # of values without a pattern the F-test's chance is spread evenly over 0 … 1
    assert np.mean(chances) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(chances) < 0.05) == pytest.approx(0.05, abs=0.05)


def test_too_few_points_or_no_difference() -> None:
    assert surface(grid()[:7], [0.1 * number for number in range(7)]) is None
    assert surface(grid(), [0.5] * 108) is None
