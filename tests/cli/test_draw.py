"""``effnet draw``: networks and blocks, as text, files and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

import effnet
from tests.cli.conftest import Run


def test_text_without_output(run: Run) -> None:
    done = run("draw", "b0")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("b0 at 224×224: 5.29 M params, 386 M MACs\n")
    assert "stage7" in done.out


def test_files(run: Run, tmp_path: Path) -> None:
    svg, png = tmp_path / "new" / "b0.svg", tmp_path / "b0.PNG"
    done = run("draw", "b0", "--output", svg, "--output", png)
    assert (done.status, done.out) == (0, "")
    assert str(svg) in done.err
    assert ElementTree.parse(svg).getroot()[0].get("fill") == "white"
    with Image.open(png) as image:
        assert image.size[0] > 1500
    repeated = run("draw", "b0", "--output", svg)
    assert repeated.status == 2
    assert "--force" in repeated.err
    assert run("draw", "lite0", "--output", svg, "--force").status == 0
    assert "lite0" in svg.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("b0", "--detail", "layers"),
        ("b0", "--detail", "operations"),
        ("b0", "--view", "modules"),
        ("b0", "--against", "b3"),
        ("b0", "--narrow"),
        ("b0", "--block", "stage3.1"),
        ("b0", "--size", "197x251"),
        ("mbconv", "--in", "3", "--expand", "4", "--stride", "1", "--out-channels", "16"),
        ("fused", "--in", "24", "--kernel", "5", "--squeeze", "0.25", "--size", "7x9"),
        ("squeeze_excite", "--in", "24"),
    ],
)
def test_views(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    text, data = run("draw", *words), run("draw", *words, "--json")
    assert text.status == data.status == 0
    assert len(text.out.splitlines()) > 8
    assert json.loads(data.out)
    written = run("draw", *words, "--output", tmp_path / "x.svg")
    assert written.status == 0, written.err
    ElementTree.parse(tmp_path / "x.svg")


def test_rows(run: Run) -> None:
    found = json.loads(run("draw", "b0", "--json").out)
    assert sum(row["params"] for row in found["stages"]) == found["params"] == 5_288_548
    layers = json.loads(run("draw", "b0", "--detail", "operations", "--json").out)["layers"]
    assert [row["name"] for row in layers] == [layer.name for layer in effnet.layers(effnet.ARCHS["b0"])]
    assert all(sum(each["macs"] for each in row["operations"]) == row["macs"] for row in layers)
    modules = json.loads(run("draw", "b0", "--view", "modules", "--json").out)
    assert [block["letter"] for block in modules["sub_blocks"]] == ["A", "B", "C"]
    assert modules["stages"][5]["made_of"][1]["layers"] == ["stage6.1", "stage6.2", "stage6.3"]


def test_differences(run: Run) -> None:
    rows = json.loads(run("draw", "b0", "--against", "lite0", "--json").out)["differences"]
    facts = {(row["of"], row["fact"]): (row["first"], row["second"]) for row in rows}
    assert facts["network", "activation"] == ("silu", "relu6")
    assert facts["stage3", "squeeze"] == (0.25, 0.0)
    assert ("stage3", "channels") not in facts
    assert json.loads(run("draw", "b0", "--against", "b0", "--json").out)["differences"] == []


def test_block_json(run: Run) -> None:
    found = json.loads(run("draw", "mbconv", "--in", "3", "--expand", "4", "--out-channels", "16", "--json").out)
    assert found["params"] == 453
    assert [row["kind"] for row in found["operations"]] == ["expand", "depthwise", "reduce", "excite", "project"]
    assert {row["part"]: row["holds"] for row in found["conditions"]}["residual"] is False


def test_files_with_a_network(run: Run, tmp_path: Path, weights: Path) -> None:
    assert run("scale", "b0", "--phi", "1.7", "--output", tmp_path / "n.json").status == 0
    assert "b0_phi1.7" in run("draw", tmp_path / "n.json").out
    assert "b0_phi1.7" in run("draw", "b0", "--against", tmp_path / "n.json").out
    assert json.loads(run("draw", weights, "--json").out)["stages"][-1]["channels"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("b9",), "did you mean b8"),
        (("b0", "--output", "b0.jpg"), "must end in .svg or .png"),
        (("b0", "--out-channels", "16"), "--out-channels applies to blocks"),
        (("b0", "--expand", "4"), "--expand applies to blocks"),
        (("mbconv",), "Missing option '--in-channels'"),
        (("mbconv", "--in", "3", "--detail", "layers"), "--detail applies to networks"),
        (("mbconv", "--in", "3", "--kernel", "4"), "odd"),
        (("b0", "--against", "b3", "--view", "modules"), "--against cannot be combined with --view modules"),
        (("b0", "--block", "stage9.0"), "available are stage1.0"),
        (("b0", "--detail", "atoms"), "stages"),
    ],
)
def test_errors(run: Run, words: tuple[str, ...], message: str) -> None:
    done = run("draw", *words)
    assert done.status in (1, 2)
    assert message in done.err
    assert done.out == ""


def test_imports_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    words = ["effnet", "draw", "b0", "--output", str(tmp_path / "b0.svg"), "--output", str(tmp_path / "b0.png")]
    code = (
        f"import sys; from effnet.cli.app import main; sys.argv = {words!r}; "
        "assert main() == 0; print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
