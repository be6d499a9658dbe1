"""Rounding of scaled channels, layers and resolution."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import ARCHS, Arch, Stage
from effnet.arch.rounding_rules import RESOLUTION_STEP, round_channels, round_layers, round_resolution, stage_depths
from effnet.arch.variants import RELEASED_ARCHS


@given(st.integers(1, 4096), st.floats(0.05, 8), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([1, 2, 5, 8]))
def test_rounded_channels(channels: int, width: float, floor: float, divisor: int) -> None:
    rounded = round_channels(channels, width, floor, divisor)
    want = channels * width
    assert rounded % divisor == 0
    assert rounded >= max(divisor, floor * want)
    assert abs(rounded - want) <= (divisor if floor or want < divisor / 2 else divisor / 2)


def test_the_floor_matters_once() -> None:
    # facts of google/automl: only w = 1.2 with 16 channels, so B3's first stage has 24 channels and V2-B3's 16
    assert round_channels(16, 1.2, 0.9) == 24
    assert round_channels(16, 1.2, 0.0) == 16
    differing = {
        (arch.width, row.channels)
        for arch in RELEASED_ARCHS
        for row in arch.stages
        if round_channels(row.channels, arch.width, 0.9) != round_channels(row.channels, arch.width, 0.0)
    }
    assert differing == {(1.2, 16)}


@pytest.mark.parametrize(("layers", "depth", "rounded"), [(1, 1.0, 1), (2, 1.1, 3), (4, 3.1, 13), (2, 0.4, 1)])
def test_layers_are_rounded_up(layers: int, depth: float, rounded: int) -> None:
    assert round_layers(layers, depth) == rounded


@given(st.floats(1, 4096))
def test_resolution_is_the_nearest_multiple(pixels: float) -> None:
    rounded = round_resolution(pixels)
    assert rounded % RESOLUTION_STEP == 0
    assert rounded >= RESOLUTION_STEP
    assert abs(rounded - pixels) <= RESOLUTION_STEP / 2 or pixels < RESOLUTION_STEP


def test_depths_of_published_networks() -> None:
    # Table 1 of arXiv:1905.11946, and B7's depth of 3.1
    assert stage_depths(ARCHS["b0"]) == (1, 2, 2, 3, 3, 4, 1)
    assert stage_depths(ARCHS["b7"]) == (4, 7, 7, 10, 10, 13, 4)
    # Lite4 has B4's rows, but its first and last stage keep their layers
    assert stage_depths(ARCHS["lite4"]) == (1, *stage_depths(ARCHS["b4"])[1:-1], 1)


def test_a_stage_has_at_least_one_layer() -> None:
    row = Stage("mbconv", 6, 3, 2, 24, 2, squeeze=0.25)
    assert stage_depths(replace(Arch("net", (row, row)), depth=0.01)) == (1, 1)
