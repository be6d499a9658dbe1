"""A base grown four ways to the same MACs: what grows, what stays, and how near the MACs come."""

from __future__ import annotations

from math import log

import pytest

from effnet.arch import ARCHS, Arch, count
from effnet.arch.spec import stage_layers
from effnet.search.directions import WAYS, Grown, directions
from effnet.search.grid import Point
from effnet.search.study import SMALL


@pytest.fixture(scope="module")
def small() -> tuple[Grown, ...]:
    return directions(SMALL, classes=10)


def test_every_size_has_all_ways_at_nearly_the_same_macs(small: tuple[Grown, ...]) -> None:
    assert [(one.way, one.times) for one in small] == [
        ("base", 1.0),
        *((way, times) for times in (2.0, 4.0, 8.0) for way in WAYS),
    ]
    own = count(SMALL, classes=10).macs
    for one in small:
        assert one.macs == count(one.arch, classes=10).macs
        assert abs(one.off) < 0.04
        assert one.macs == pytest.approx(one.times * own, rel=0.17)  # 16 px of 12 are 1.78 times the pixels, 17 2.01


def test_each_way_grows_its_own_dimension_alone(small: tuple[Grown, ...]) -> None:
    layers, side = sum(stage_layers(SMALL)), SMALL.resolution
    for one in small[1:]:
        grown = (
            sum(stage_layers(one.arch)) > layers,
            one.arch.width > SMALL.width,
            one.arch.resolution > side,
        )
        want = {"depth": (True, False, False), "width": (False, True, False), "resolution": (False, False, True)}
        assert grown == want.get(one.way, (True, True, True)), one.way
        assert (one.arch.dropout, one.arch.drop_path) == (0.0, 0.0)


def test_compound_stays_on_the_line(small: tuple[Grown, ...]) -> None:
    for one in (each for each in small if each.way == "compound"):
        phi = log(one.times) / log(1.2 * 1.1**2 * 1.15**2)
        assert abs(sum(stage_layers(one.arch)) - 6 * 1.2**phi) < 1
        assert abs(one.arch.resolution - 12 * 1.15**phi) < 1
        assert one.arch.width / SMALL.width == pytest.approx(1.1**phi, rel=0.06)


def test_b0_as_the_paper_scales_it() -> None:
    four = {one.way: one.arch for one in directions(ARCHS["b0"], (4,))}
    assert four["resolution"].resolution == 448  # twice 224
    assert four["width"].width == pytest.approx(2, rel=0.05)
    assert sum(stage_layers(four["depth"])) / 16 == pytest.approx(4, rel=0.15)
    compound = four["compound"]
    assert compound.width == pytest.approx(1.2, abs=0.05)  # Table 7: 1.4, 1.2, 1.3
    assert compound.resolution / 224 == pytest.approx(1.3, abs=0.05)


def test_a_triple_that_leaves_the_width(tiny: Arch) -> None:
    two = {one.way: one for one in directions(tiny, (2,), Point.of(1.4, 1, 1.2), 3)}
    assert two["compound"].arch.width == tiny.width
    assert abs(two["compound"].off) < 0.3  # a network this small has few layers to choose from


@pytest.mark.parametrize("times", [(), (1,), (4, 2), (2, 2), (2, 32)], ids=str)
def test_sizes_that_are_none(tiny: Arch, times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="in rising order"):
        directions(tiny, times)


def test_a_triple_that_grows_nothing(tiny: Arch) -> None:
    with pytest.raises(ValueError, match="grow nothing"):
        directions(tiny, (2,), Point.of(1, 1, 1))
