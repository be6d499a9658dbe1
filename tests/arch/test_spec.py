"""Rows, tables of rows, and the one walk over them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import ARCHS, Arch, Layer, Stage, block_layer, layers
from effnet.arch.rounding_rules import round_channels, stage_depths
from tests.strategies import archs

ROW = Stage("mbconv", 6, 3, 2, 24, 2, squeeze=0.25)
NET = Arch("net", (ROW,))
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        {"block": "MBConv"},
        {"block": None},
        {"expand": 0},
        {"expand": True},
        {"expand": "6"},
        {"kernel": 2},
        {"kernel": 0},
        {"kernel": -3},
        {"kernel": 3.0},
        {"stride": 0},
        {"stride": 3},
        {"stride": True},
        {"stride": 2.0},
        {"stride": "2"},
        {"channels": 0},
        {"channels": -8},
        {"channels": 24.0},
        {"channels": False},
        {"layers": 0},
        {"layers": None},
        {"squeeze": -0.1},
        {"squeeze": 1.5},
        {"squeeze": NAN},
        {"squeeze": True},
        {"residual": 1},
        {"residual": "yes"},
        {"expand_from": -1},
        {"expanded": (48,)},
        {"expanded": (48, 0)},
        {"expanded": [48, 62]},
        {"squeezed": (4, 6, 6)},
        {"squeezed": (4, 6), "squeeze": 0.0},
    ],
    ids=str,
)
def test_stage_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(ROW, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": 5},
        {"stages": ()},
        {"stages": [ROW]},
        {"stages": (1,)},
        {"stages": ROW},
        {"width": 0},
        {"width": -1.0},
        {"width": NAN},
        {"width": INF},
        {"width": True},
        {"width": "1.0"},
        {"width": 10**400},
        {"depth": 0},
        {"depth": NAN},
        {"resolution": 0},
        {"resolution": 224.0},
        {"resolution": True},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"drop_path": 1},
        {"drop_path": NAN},
        {"stem": 0},
        {"head": None},
        {"activation": "swish"},
        {"stem_stride": 3},
        {"stem_stride": True},
        {"round_floor": 1.1},
        {"divisor": 0},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_arch_refuses(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match="stride" if field == "stem_stride" else field):
        replace(NET, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "dense"},
        {"inputs": 0},
        {"channels": 0},
        {"kernel": 4},
        {"stride": 3},
        {"expand": 0},
        {"squeeze": 2},
        {"drop_path": 1.0},
    ],
    ids=str,
)
def test_block_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        block_layer(**{"kind": "mbconv", "inputs": 16, "channels": 16, **wrong})


def test_layer_refuses_a_residual_that_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="residual"):
        Layer("block", "mbconv", 1, 16, 24, expanded=16, residual=True)


@pytest.mark.parametrize("wrong", [{"classes": -1}, {"classes": True}, {"classes": 1.0}, {"channels": 0}], ids=str)
def test_layers_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        list(layers(NET, **wrong))


def test_archs_are_values() -> None:
    twin = Arch("net", (Stage("mbconv", 6, 3, 2, 24, 2, squeeze=0.25),))
    assert twin == NET
    assert hash(twin) == hash(NET)
    assert replace(NET, head=640) != NET
    assert len({twin, NET, replace(NET, head=640)}) == 2
    with pytest.raises(AttributeError):
        NET.head = 640  # type: ignore[misc]


@given(archs(), st.integers(0, 20), st.integers(1, 5))
def test_walk(arch: Arch, classes: int, channels: int) -> None:
    walk = list(layers(arch, classes, channels))
    assert [layer.kind for layer in walk if layer.kind not in ("mbconv", "fused")] == [
        "stem",
        "head",
        *(["classifier"] if classes else []),
    ]
    assert walk[0].inputs == channels
    assert all(before.channels == after.inputs for before, after in pairwise(walk))
    assert len({layer.name for layer in walk}) == len(walk)
    assert not classes or walk[-1].channels == classes
    blocks = [layer for layer in walk if layer.kind in ("mbconv", "fused")]
    assert len(blocks) == sum(stage_depths(arch))
    assert [layer.drop_path for layer in blocks] == sorted(layer.drop_path for layer in blocks)
    assert blocks[0].drop_path == 0
    assert blocks[-1].drop_path == pytest.approx(arch.drop_path * (len(blocks) - 1) / len(blocks))
    for layer in blocks:
        row = arch.stages[layer.stage - 1]
        first = layer.name.endswith(".0")
        assert layer.kind == row.block
        assert layer.stride == (row.stride if first else 1)
        assert layer.residual == (row.residual and layer.stride == 1 and layer.inputs == layer.channels)
        assert layer.channels == round_channels(row.channels, arch.width, arch.round_floor, arch.divisor)
        if not row.squeezed:
            assert layer.squeezed == (max(1, int(layer.inputs * row.squeeze)) if row.squeeze else 0)
        if not row.expand_from and not row.expanded:
            assert layer.expanded == (layer.inputs * row.expand if row.expand > 1 else 0)


def test_ends_stay_when_they_are_not_scaled() -> None:
    grown = Arch("net", (ROW, ROW, ROW), width=2.0, depth=3.0, scale_ends=False)
    walk = list(layers(grown))
    assert stage_depths(grown) == (2, 6, 2)
    assert walk[0].channels == 32
    assert walk[-1].inputs == 1280
    assert walk[1].channels == 48


def test_squeeze_is_of_the_blocks_input() -> None:
    assert block_layer("mbconv", 40, 80, expand=6, squeeze=0.25).squeezed == 10
    assert block_layer("mbconv", 3, 80, expand=6, squeeze=0.25).squeezed == 1


LISTED = Stage("mbconv", 6, 3, 2, 12, 3, squeeze=0.25, expanded=(48, 62, 40), squeezed=(4, 6, 7))


def test_listed_channels_take_the_place_of_ratios() -> None:
    arch = Arch("listed", (LISTED,), divisor=1)
    assert [(layer.expanded, layer.squeezed) for layer in layers(arch) if layer.stage == 1] == [
        (48, 4),
        (62, 6),
        (40, 7),
    ]
    halved = replace(arch, width=0.5)
    assert [layer.expanded for layer in layers(halved) if layer.stage == 1] == [24, 31, 20]
    deeper = replace(arch, depth=1.5)
    assert [layer.expanded for layer in layers(deeper) if layer.stage == 1] == [48, 62, 40, 40, 40]
    shallower = replace(arch, depth=0.3)
    assert [layer.squeezed for layer in layers(shallower) if layer.stage == 1] == [4]


def test_with_layers_keeps_what_is_listed() -> None:
    assert LISTED.with_layers(2).expanded == (48, 62)
    assert LISTED.with_layers(5).squeezed == (4, 6, 7, 7, 7)
    assert ROW.with_layers(7) == replace(ROW, layers=7)


def test_an_expansion_by_one_has_a_projection() -> None:
    blocks = [layer for layer in layers(Arch("net", (replace(ROW, expand=1, expand_from=24),))) if layer.stage == 1]
    assert [block.expanded for block in blocks] == [24, 24]


def test_edge_row_expands_its_outputs_and_never_skips() -> None:
    first = next(layer for layer in layers(ARCHS["edge_s"]) if layer.stage == 1)
    assert (first.inputs, first.expanded, first.channels, first.residual) == (32, 96, 24, False)
    assert not block_layer("fused", 24, 24, expand=4, residual=False, expand_from=24).residual
