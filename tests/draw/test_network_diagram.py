"""Networks as diagrams: every text in its place, everything to scale, every number the count's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnet.arch import ARCHS, Arch, count
from effnet.draw.diagram import CHANGED_COLOR, Diagram, Group, Rect, Shape
from effnet.draw.layer_diagram import draw_modules
from effnet.draw.network_diagram import draw_comparison, draw_network
from tests.draw.legible import faults
from tests.strategies import archs

VIEWS: dict[str, Callable[[Arch], Diagram]] = {
    "stages": draw_network,
    "narrow": lambda arch: draw_network(arch, narrow=True),
    "layers": lambda arch: draw_network(arch, detail="layers"),
    "operations": lambda arch: draw_network(arch, detail="operations"),
    "modules": lambda arch: draw_modules(count(arch)),
    "compared with b0": lambda arch: draw_comparison(count("b0"), count(arch)),
}


def texts(drawn: Diagram) -> list[str]:
    return [text.text for text in drawn.texts()]


def groups(drawn: Diagram) -> dict[str, Group]:
    return {item.title: item for item in drawn.items if isinstance(item, Group)}


@pytest.mark.usefixtures("frozen_gc")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ARCHS)
def test_every_network_is_legible(name: str, view: str) -> None:
    start = time.process_time()
    drawn = VIEWS[view](ARCHS[name])
    root = ElementTree.fromstring(drawn.standalone_svg)
    assert time.process_time() - start < 1
    assert faults(drawn) == []
    written = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert written == texts(drawn)
    assert any(name in each for each in written)
    unlike = view == "layers" or name.endswith("_pruned")  # no run of equal layers
    assert len(drawn.standalone_svg) < (110_000 if unlike else 60_000)  # for README and pages


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(archs(), st.sampled_from([None, 1, (7, 3000)]), st.sampled_from([0, 10, 21_843]), st.sampled_from([1, 12]))
def test_any_network_is_legible(arch: Arch, size: int | None, classes: int, channels: int) -> None:
    shape = (size, classes, channels)
    for drawn in (
        *(draw_network(arch, *shape, detail) for detail in ("stages", "layers", "operations")),
        draw_network(arch, *shape, narrow=True),
        draw_modules(count(arch, *shape)),
        draw_comparison(count("edge_s"), count(arch, *shape)),
    ):
        ElementTree.fromstring(drawn.standalone_svg)
        assert faults(drawn) == []


def test_absurd_networks_are_legible() -> None:
    rows = tuple(replace(stage, expand=24, kernel=131, layers=3 * stage.layers) for stage in ARCHS["v2_s"].stages)
    large = replace(ARCHS["v2_s"], name="a very long name, " * 12 + "猫\x07", stages=rows, width=60.0, resolution=9999)
    for view, draw in VIEWS.items():
        assert faults(draw(large)) == [], view


@pytest.mark.usefixtures("frozen_gc")
@pytest.mark.parametrize("view", ["stages", "layers", "operations", "modules"])
def test_png_within_a_second(view: str) -> None:
    drawn = VIEWS[view](ARCHS["v2_xl"])
    start = time.process_time()
    assert drawn.png.startswith(b"\x89PNG")
    assert time.process_time() - start < 1


def cuboid(drawn: Diagram, name: str) -> tuple[float, float, float]:
    """Height, length and depth of a part's cuboid, read off its faces."""
    (group,) = [
        group
        for title, group in groups(drawn).items()
        if title.startswith(f"{name}:") and "of the network" not in title
    ]
    front, top, _ = [item for item in group.items if isinstance(item, Shape)]
    (x0, y0), (x1, _), (_, y2), _ = front.points
    return y0 - y2, x1 - x0, top.points[2][0] - top.points[1][0]


@pytest.mark.parametrize("draw", [draw_network, lambda name: draw_comparison(count(name), count("b1"))])
def test_strip_is_to_scale(draw: Callable[[str], Diagram]) -> None:
    drawn = draw("b0") if draw is draw_network else draw_network("b0", scale_with="b7")
    high, _, deep = cuboid(drawn, "image")
    _, unit, _ = cuboid(drawn, "head")  # 1280 channels
    # Table 1 of arXiv:1905.11946v5: resolution that leaves, channels, layers
    for name, side, channels, layers in (("stage2", 56, 24, 2), ("stage4", 14, 80, 3), ("stage6", 7, 192, 4)):
        tall, long, back = cuboid(drawn, name)
        assert tall == pytest.approx(high * side / 224)
        assert back == pytest.approx(deep * side / 224)
        assert long == pytest.approx(unit * channels * layers / 1280)


def test_two_networks_are_on_one_scale() -> None:
    drawn = draw_comparison(count("b0"), count("b3"))
    images = [item for item in drawn.items if isinstance(item, Group) and item.title.startswith("image")]
    heights = [y0 - y1 for group in images for (_, y0), _, (_, y1), _ in [group.items[0].points]]  # type: ignore[union-attr]
    assert heights[0] / heights[1] == pytest.approx(224 / 300)
    one, other = draw_network("b0", scale_with="b7"), draw_network("b7", scale_with="b7")
    assert cuboid(one, "image")[0] / cuboid(other, "image")[0] == pytest.approx(224 / 600)
    assert cuboid(one, "stage1")[1] / cuboid(other, "stage1")[1] <= 1


def test_strip_shows_the_papers_table_and_the_count() -> None:
    drawn = draw_network("b0")
    columns: dict[str, list[str]] = {}
    headings = {t.text: t for t in drawn.texts() if t.bold and t.anchor == "middle"}
    for text in drawn.texts():
        for name, heading in headings.items():
            if text.anchor == "middle" and text.x == heading.x and text is not heading:
                columns.setdefault(name, []).append(text.text)
    # Table 1 of arXiv:1905.11946v5, the maps as they leave; 1.45 k = 352 + 264 + 288 + 544 by hand
    assert columns["stage1"] == ["MBConv1", "3×3", "0.25", "1", "× 1", "112×112", "16", "1.45 k", "10.0 M"]
    assert columns["stage6"] == ["MBConv6", "5×5", "0.25", "2", "× 4", "7×7", "192", "2.03 M", "91.5 M"]
    assert columns["image"] == ["224×224", "3"]
    assert columns["classifier"] == ["Linear", "1000", "1.28 M", "1.28 M"]
    assert {"5.29 M params", "386 M MACs", "224×224", "SiLU"} <= set(texts(drawn))
    shares = [title for title in groups(drawn) if title.endswith("of the network")]
    params = [int(title.split(": ")[1].split(" params")[0].replace(",", "")) for title in shares if " params" in title]
    assert sum(params) == 5_288_548


def marks(drawn: Diagram) -> int:
    return sum(isinstance(item, Rect) and item.fill == CHANGED_COLOR for item in drawn.items)


def test_differences_are_marked() -> None:
    assert marks(draw_comparison(count("b0"), count("b0"))) == 0
    # Lite0: no squeeze-excite in seven stages, ReLU6, and fewer params and MACs for it
    assert marks(draw_comparison(count("b0"), count("lite0"))) == 7 + 1 + 2
    wider = replace(ARCHS["b0"], name="wider", head=1536)
    assert marks(draw_comparison(count("b0"), count(wider))) == 1 + 2
    gone = replace(ARCHS["b0"], name="short", stages=ARCHS["b0"].stages[:-1])
    assert "–" in texts(draw_comparison(count("b0"), count(gone)))


def test_layers_and_operations() -> None:
    layers = [group for title, group in groups(draw_network("b3", detail="layers")).items()]
    assert len(layers) == len(count("b3").layers)
    drawn = draw_network("b0", detail="operations")
    assert [title.split(":")[0] for title in groups(drawn)] == [
        *("stem", "stage1.0", "stage2.0", "stage2.1", "stage3.0", "stage3.1", "stage4.0", "stage4.1–2", "stage5.0"),
        *("stage5.1–2", "stage6.0", "stage6.1–3", "stage7.0", "head", "classifier"),
    ]
    card = [item.text for item in groups(drawn)["stage1.0: MBConv1"].items if hasattr(item, "text")]
    # by hand: 32·9 + 2·32, 32·8 + 8, 8·32 + 32, 32·16 + 2·16; times 112² where it is a map
    assert card[-16:] == [
        *("depthwise 3×3", "112×112×32", "352", "3.61 M"),
        *("squeeze: pool, linear", "1×1×8", "264", "256"),
        *("excite: linear, scale", "1×1×32", "288", "256"),
        *("project 1×1", "112×112×16", "544", "6.42 M"),
    ]


def test_repeats_are_grouped() -> None:
    titles = list(groups(draw_modules(count("b0"))))
    assert titles[1:8] == [
        "stage1: 1 × A",
        *(f"stage{stage}: 1 × B, then {repeats} × C" for stage, repeats in ((2, 1), (3, 1), (4, 2), (5, 2), (6, 3))),
        "stage7: 1 × B",
    ]
    assert {
        "MBConv without expansion, without residual",
        "MBConv with expansion, without residual",
        "MBConv with expansion, with residual",
    } <= set(texts(draw_modules(count("b0"))))
    assert "Fused-MBConv without expansion, with residual" in texts(draw_modules(count("v2_s")))
    assert "squeeze-excite" not in texts(draw_modules(count("lite0")))


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="use one of stages, layers, operations"):
        draw_network("b0", detail="atoms")
    with pytest.raises(ValueError, match="narrow and scale_with require"):
        draw_network("b0", detail="layers", narrow=True)
    with pytest.raises(ValueError, match="no EfficientNet is called"):
        draw_network("b99")
