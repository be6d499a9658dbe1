"""The grid of α, β, γ: which points are in it, and what a base becomes by them."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from effnet.arch import ARCHS, count, layers
from effnet.arch.spec import stage_depths
from effnet.lab.search.coefficients import PAPER_COEFFICIENTS, CompoundCoefficients, coefficient_grid, grow


def test_the_papers_grid() -> None:
    whole = 20**5  # in whole numbers: twentieths
    expected = {
        CompoundCoefficients(Fraction(a, 20), Fraction(b, 20), Fraction(c, 20))
        for a, b, c in product(range(20, 41), repeat=3)
        if 10 * abs(a * b * b * c * c - 2 * whole) < whole
    }
    points = coefficient_grid()
    assert set(points) == expected
    assert len(points) == 108
    assert PAPER_COEFFICIENTS in points
    assert PAPER_COEFFICIENTS.growth == Fraction("1.92027")
    assert (
        CompoundCoefficients.parse(1.9, 1, 1) not in points
    )  # |1.9 − 2| is not below .1, whatever binary floats make of it
    assert list(points) == sorted(points)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"low": "0.9"}, "at least 1"),
        ({"low": "1.9"}, "smaller step"),
        ({"step": "0"}, "above 0"),
        ({"within": "-1"}, "above 0"),
        ({"step": "0.7", "within": "0.01"}, "tolerance"),
        ({"within": "1"}, "no growth at all"),
        ({"step": "0.001"}, "more than 100 values"),
        ({"step": "1/0"}, "no decimal"),
        ({"within": "1e400"}, "no decimal"),
    ],
)
def test_bad_grids(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coefficient_grid(**given)


@pytest.mark.parametrize("name", ["b0", "nano", "lite0"])
def test_grown_networks_cost_what_the_triple_says(name: str) -> None:
    base = ARCHS[name]
    before = sum(stage_depths(base))
    for point in coefficient_grid(step="0.1"):
        alpha, beta, gamma = point.triple
        made = grow(base, alpha, beta, gamma)
        fixed = 0 if base.scale_ends else base.stages[0].layers + base.stages[-1].layers
        assert abs(sum(stage_depths(made)) - fixed - alpha * (before - fixed)) <= 0.5
        assert made.resolution == pytest.approx(base.resolution * gamma, abs=0.5)
        for row, wide in zip(base.stages, made.stages, strict=True):
            assert abs(made.scale_channels(wide.channels) - row.channels * beta) <= 0.5
            assert row.layers <= wide.layers <= row.layers * 2
        if name == "b0":
            assert count(made).macs / count(base).macs == pytest.approx(float(point.growth), rel=0.14)


def test_depth_goes_to_who_lacks_most() -> None:
    made = grow(ARCHS["nano"], 1.5, 1, 1)  # 1, 2, 3 layers become 1.5, 3, 4.5: nine in all
    assert [stage.layers for stage in made.stages] == [2, 3, 4]
    assert [layer.channels for layer in layers(made)] == [16, 16, 16, 24, 24, 24, 48, 48, 48, 48, 192, 1000]


def test_one_is_the_base_itself() -> None:
    made = grow(ARCHS["b0"], 1, 1, 1)
    assert list(layers(made)) == list(layers(ARCHS["b0"]))
    assert made.resolution == 224
