"""Blocks as diagrams: shapes, counts and conditions, by hand; and each block of every network can be read."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch import ARCHS, count
from effnet.draw.block_diagram import BlockSpec, block_conditions, draw_block, find_block_spec, make_block_spec
from tests.draw.legible import faults


def parts_of(spec: BlockSpec) -> dict[str, bool]:
    return {condition.part: condition.holds for condition in block_conditions(spec)}


def test_mbconv_by_hand() -> None:
    found = make_block_spec("mbconv", 3, 16, expand=4)
    # expand 3·12 + 24, depthwise 9·12 + 24, squeeze 12·1 + 1, excite 1·12 + 12, project 12·16 + 32
    assert [operation.params for operation, _ in found.operations] == [60, 132, 13, 24, 224]
    assert [operation.macs(*size) for operation, size in found.operations] == [
        56**2 * 36,
        56**2 * 108,
        12,
        12,
        56**2 * 192,
    ]
    assert parts_of(found) == {
        "expansion": True, "stride": False, "squeeze-excite": True, "residual": False, "activation": False,
    }  # fmt: skip
    drawn = draw_block(found)
    texts = [text.text for text in drawn.texts()]
    arrows = ["56×56×3", "56×56×12", "56×56×12", "1×1×12", "1×1×1", "1×1×12", "56×56×12", "56×56×16"]
    assert [text for text in texts if re.fullmatch(r"\d+×\d+×\d+", text)] == arrows
    assert {"453 params · 1.05 M MACs", "batch norm, SiLU", "batch norm", "sigmoid"} <= set(texts)
    assert "residual" not in texts
    assert faults(drawn) == []


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (make_block_spec("mbconv", 16), {"expansion": True, "stride": False, "squeeze-excite": True, "residual": True}),
        (make_block_spec("mbconv", 16, stride=2), {"stride": True, "residual": False}),
        (
            make_block_spec("mbconv", 16, expand=1, squeeze=0),
            {"expansion": False, "squeeze-excite": False, "residual": True},
        ),
        (make_block_spec("fused", 24, 48, stride=2), {"expansion": True, "squeeze-excite": False, "residual": False}),
        (make_block_spec("fused", 24, expand=1), {"expansion": False, "residual": True}),
        (find_block_spec(ARCHS["edge_s"], "stage1.0"), {"expansion": True, "residual": False}),
        (find_block_spec(ARCHS["b0"], "stage3.1"), {"residual": True, "stride": False}),
    ],
)
def test_conditions(made: BlockSpec, expected: dict[str, bool]) -> None:
    assert parts_of(made).items() >= expected.items()
    assert all(condition.because.endswith(".") for condition in block_conditions(made))
    drawn = [text.text for text in draw_block(find_block_spec(ARCHS["b0"], "stage3.1")).texts()]
    assert "residual" in drawn


def test_edge_expands_other_channels() -> None:
    (expansion, *_) = block_conditions(find_block_spec(ARCHS["edge_s"], "stage1.0"))
    assert "24 × 4 = 96" in expansion.because
    assert "not the 32 input channels" in expansion.because


def test_rows_that_list_channels_say_so() -> None:
    found = find_block_spec(ARCHS["b1_pruned"], "stage2.1")
    expansion, _, squeeze, _, _ = block_conditions(found)
    assert expansion.because == "The row lists the channels of each block: a 1×1 convolution gives 62."
    assert squeeze.because == "The row lists the channels of each block: 6 here."
    assert found.title == "stage2.1: MBConv 3×3"


def test_squeeze_excite_alone() -> None:
    found = make_block_spec("squeeze_excite", 24, expand=6)
    assert [operation.params for operation, _ in found.operations] == [144 * 6 + 6, 6 * 144 + 144]
    assert found.channels == (144, 144)
    assert faults(draw_block(found)) == []


@pytest.mark.parametrize("name", ARCHS)
def test_every_block_of_every_network(name: str) -> None:
    counted = count(name)
    for row in counted.layers:
        if row.layer.kind in ("mbconv", "fused") and row.name.endswith((".0", ".1")):
            found = find_block_spec(ARCHS[name], row.name)
            assert (found.params, found.macs, found.size_out) == (row.params, row.macs, row.size_out)
            assert faults(draw_block(found)) == []


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["mbconv", "fused"]),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.integers(1, 60),
    st.sampled_from([1, 3, 5, 31]),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.001, 0.123456, 1.0]),
    st.sampled_from([1, 7, (4321, 1)]),
    st.sampled_from(["silu", "relu6"]),
)
def test_any_block(
    kind: str,
    inputs: int,
    channels: int,
    expand: int,
    kernel: int,
    stride: int,
    squeeze: float,
    size: int | tuple[int, int],
    activation: str,
) -> None:
    drawn = draw_block(make_block_spec(kind, inputs, channels, expand, kernel, stride, squeeze, size, activation))
    ElementTree.fromstring(drawn.standalone_svg)
    assert faults(drawn) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_block_spec("resnet", 3), "use one of mbconv, fused, squeeze_excite"),
        (lambda: make_block_spec("mbconv", 0), "inputs"),
        (lambda: make_block_spec("mbconv", 3, expand=0), "expand"),
        (lambda: make_block_spec("mbconv", 3, kernel=4), "odd"),
        (lambda: make_block_spec("mbconv", 3, activation="gelu"), "use one of silu"),
        (lambda: make_block_spec("squeeze_excite", 8, stride=2), "no stride"),
        (lambda: make_block_spec("squeeze_excite", 8, squeeze=0), "above 0"),
        (lambda: find_block_spec(ARCHS["b0"], "stage8.0"), r"available are stage1\.0, stage2\.0–1"),
        (lambda: find_block_spec(ARCHS["b0"], "stem"), "available are"),
    ],
)
def test_invalid_blocks(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
