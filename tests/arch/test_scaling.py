"""φ, and what rounding makes of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch import ARCHS, Arch, count, layers, rounding, scale
from effnet.arch.rounding_rules import stage_depths
from effnet.arch.scaling import ALPHA, BETA, GAMMA
from tests.strategies import archs

phis = st.floats(-4, 4)


def test_the_papers_coefficients() -> None:
    assert (ALPHA, BETA, GAMMA) == (1.2, 1.1, 1.15)
    assert round(ALPHA * BETA**2 * GAMMA**2, 2) == 1.92


@pytest.mark.parametrize("name", ARCHS)
def test_phi_zero_is_the_arch_itself(name: str) -> None:
    assert scale(name, 0) is ARCHS[name]
    assert scale(ARCHS[name], 0.0) is ARCHS[name]


def test_phi_one_by_hand() -> None:
    grown = scale("b0", 1)
    assert (grown.depth, grown.width, grown.resolution) == (1.2, 1.1, 256)  # 224 · 1.15 = 257.6
    assert grown.dropout == pytest.approx(0.2 + 0.3 / 7, abs=0.001)
    assert grown.stages == ARCHS["b0"].stages
    assert grown.name != "b0"


def test_dropout_follows_the_paper() -> None:
    assert scale("b0", 7).dropout == 0.5  # section 5.2: .2 for B0 to .5 for B7
    assert scale("b0", 12).dropout == 0.5
    assert scale("b0", -12).dropout == 0


def test_half_and_minus_two() -> None:
    small = scale("b0", -2)
    assert small.resolution == 168  # 224 / 1.15² = 169.4
    assert stage_depths(small) == (1, 2, 2, 3, 3, 3, 1)
    walk = list(layers(small))
    assert [next(layer.channels for layer in walk if layer.stage == stage) for stage in range(1, 8)] == [
        *(16, 24, 32, 64, 96, 160, 264)
    ]
    assert 0.25 < count(small).macs / count(ARCHS["b0"]).macs < 0.5
    assert count(small).params < count(scale("b0", -1)).params < count(ARCHS["b0"]).params


@given(st.sampled_from(list(ARCHS)), phis, phis)
@settings(max_examples=60)
def test_macs_grow_with_phi(name: str, one: float, other: float) -> None:
    small, large = (count(scale(name, phi)) for phi in sorted((one, other)))
    assert small.macs <= large.macs
    assert small.params <= large.params
    assert small.bytes <= large.bytes


def test_a_step_costs_about_twice() -> None:
    costs = [count(scale("b0", phi)).macs for phi in range(8)]
    assert all(1.6 < large / small < 2.4 for small, large in pairwise(costs))


@given(archs(), phis)
@settings(max_examples=60)
def test_any_arch_scales(arch: Arch, phi: float) -> None:
    scaled = scale(arch, phi)
    assert Arch.from_json(scaled.to_json()) == scaled
    assert scaled.width == pytest.approx(arch.width * 1.1**phi)
    assert scaled.depth == pytest.approx(arch.depth * 1.2**phi)
    assert 0 <= scaled.dropout <= max(0.5, arch.dropout) + 0.001  # rounded
    if phi:
        assert scaled.resolution % 4 == 0
        assert scaled.resolution >= 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"phi": float("nan")},
        {"phi": float("inf")},
        {"phi": "1"},
        {"phi": True},
        {"phi": None},
        {"phi": 21},
        {"alpha": 0.9},
        {"beta": 0},
        {"gamma": float("nan")},
        {"gamma": -1.15},
    ],
    ids=str,
)
def test_scale_refuses(wrong: dict[str, Any]) -> None:
    for function in (scale, rounding):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            function("b0", **{"phi": 1, **wrong})


def test_single_dimensions() -> None:
    deep = scale("b0", 1, alpha=2, beta=1, gamma=1)
    assert (deep.depth, deep.width, deep.resolution) == (2, 1, 224)
    assert stage_depths(deep) == (2, 4, 4, 6, 6, 8, 2)
    large = scale("b0", 1, alpha=1, beta=1, gamma=2)
    assert (large.depth, large.width, large.resolution) == (1, 1, 448)


def test_rounding_report() -> None:
    report = rounding("b0", 1)
    assert report.base is ARCHS["b0"]
    assert report.arch == scale("b0", 1)
    assert report.phi == 1
    assert report.requested.width == pytest.approx(1.1)
    assert report.requested.depth == pytest.approx(1.2)
    assert report.requested.resolution == pytest.approx(257.6)
    assert report.requested.macs / count(ARCHS["b0"]).macs == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert report.actual.resolution == 256
    assert report.actual.depth == (2 + 3 + 3 + 4 + 4 + 5 + 2) / 16
    assert report.actual.width == (16 + 24 + 48 + 88 + 120 + 208 + 352) / (16 + 24 + 40 + 80 + 112 + 192 + 320)
    assert report.actual.macs == count(report.arch).macs
    first = report.stages[0]
    assert (first.channels_requested, first.channels) == (pytest.approx(17.6), 16)
    assert (first.layers_requested, first.layers) == (1.2, 2)


def test_rounding_at_phi_zero_changes_nothing() -> None:
    report = rounding("b0", 0)
    assert report.actual == report.requested
    assert all((s.channels, s.layers) == (s.channels_requested, s.layers_requested) for s in report.stages)


@given(archs(), phis)
@settings(max_examples=40)
def test_rounding_goes_to_the_nearest(arch: Arch, phi: float) -> None:
    report = rounding(arch, phi)
    for stage in report.stages:
        assert stage.channels % arch.divisor == 0
        assert stage.channels == arch.divisor or abs(stage.channels - stage.channels_requested) <= arch.divisor
        assert 0 <= stage.layers - stage.layers_requested < 1 or not arch.scale_ends


@pytest.mark.parametrize("phi", [0, 0.5, 1, 2, 3.5, 5, 6, 7])  # B0 to B7's, as a community fit has them
def test_the_formula_at_the_released_networks_phis(phi: float) -> None:
    grown = scale("b0", phi)
    assert (grown.depth, grown.width) == (1.2**phi, 1.1**phi)
    assert abs(grown.resolution - 224 * 1.15**phi) <= 2
    report = rounding("b0", phi)
    for stage, built in zip(ARCHS["b0"].stages, report.stages, strict=True):
        wanted = stage.channels * 1.1**phi  # by hand: the nearest multiple of 8 that is not below 90 %
        nearest = min((8 * n for n in range(1, 200) if 8 * n >= 0.9 * wanted), key=lambda n: (abs(n - wanted), -n))
        assert built.channels == nearest
        assert built.layers - 1 < stage.layers * 1.2**phi <= built.layers


def test_large_coefficients() -> None:
    assert scale("b0", 1, 8, 1, 1).depth == 8
    with pytest.raises(ValueError, match="depth must be above 0 and at most 100"):
        scale("b0", 20, 100)
