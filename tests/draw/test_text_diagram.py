"""Networks and blocks as text for a terminal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from effnet.arch import ARCHS, count
from effnet.draw.block_diagram import make_block_spec
from effnet.draw.text_diagram import block_text, comparison_text, modules_text, network_text, text_bar


@pytest.mark.parametrize("name", ARCHS)
def test_every_network_in_a_terminal(name: str) -> None:
    counted = count(name)
    stages, layers = network_text(counted).splitlines(), network_text(counted, detail="layers").splitlines()
    assert max(map(len, stages)) <= 112
    assert len(layers) == 4 + len(counted.layers)
    for row in counted.layers:
        (line,) = [line for line in layers if line.startswith(f"{row.name} ")]
        assert ("+ input" in line) == row.layer.residual
    repeated = any(replace(a.layer, name="", drop_path=0.0) == replace(b.layer, name="", drop_path=0.0)
                   for a, b in pairwise(counted.layers))  # fmt: skip
    assert ("× " in network_text(counted, detail="operations")) == repeated
    assert modules_text(counted)


def test_maps_are_to_scale() -> None:
    found = network_text(count("b0")).splitlines()
    lines = {line.split()[0]: line for line in found if line and line.split()[0] != "operator"}
    assert lines["image"].split()[1] == "█" * 24
    assert lines["stem"].split()[1] == "█" * 12
    assert lines["stage2"].split()[1] == "█" * 6
    assert lines["stage1"].endswith("16  1.45 k  10.0 M  █▏")


def test_bars() -> None:
    assert text_bar(1, 4) == "████"
    assert text_bar(0.5, 3) == "█▌"
    assert text_bar(0, 4) == text_bar(1e-9, 4) == "▏"


def test_equal_layers_are_one_run() -> None:
    found = network_text(count("b0"), detail="operations")
    assert "stage6.1–3: MBConv6, × 3, each, + input" in found
    assert "  depthwise 5×5, stride 2" in found


def test_modules_in_words() -> None:
    found = modules_text(count("b0"))
    assert "B (3×3, stride 2) → C × 2 (3×3)" in found
    assert "A  depthwise → squeeze-excite → project" in found


def test_comparison_shows_both() -> None:
    found = comparison_text(count("b0"), count("lite0"))
    assert "SiLU → ReLU6" in found
    assert found.count("0.25 → –") == 7
    assert "→" not in "\n".join(comparison_text(count("b0"), count("b0")).splitlines()[2:])
    assert "none" in comparison_text(count("b0"), count("v2_s"))


def test_blocks() -> None:
    lines = block_text(make_block_spec("mbconv", 24)).splitlines()
    assert lines[2:5] == ["  in", "╭─│ 56×56×24", lines[4]]
    assert lines[4].startswith("│ expand 1×1 ")
    assert any(line.startswith("╰►+") for line in lines)
    assert "╭" not in block_text(make_block_spec("fused", 24, 48)).replace("├──╮", "")
    assert "○ No residual: There are 24 input and 48 output channels." in block_text(make_block_spec("fused", 24, 48))


def test_unknown_detail() -> None:
    with pytest.raises(ValueError, match="use one of stages"):
        network_text(count("b0"), detail="atoms")
