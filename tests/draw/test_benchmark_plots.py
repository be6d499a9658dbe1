"""Accuracy against cost: what the plot shows, and that labels do not overlap."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from effnet.arch import ARCHS
from effnet.draw.benchmark_plots import AccuracyPoint, plot_accuracy
from effnet.lab.compare.comparison_table import PrintedFigure
from effnet.lab.compare.published_numbers import TABLE2

SIZE = 8.5


def networks(key: str) -> list[AccuracyPoint]:
    found = []
    for line in TABLE2:
        cost, top1 = PrintedFigure(getattr(line, key)).value, PrintedFigure(line.top1).value
        if isinstance(cost, float) and isinstance(top1, float):
            found.append(AccuracyPoint(line.title, cost, top1, line.key in ARCHS))
    return found


def test_every_network_is_labeled_in_both_panels_without_overlap() -> None:
    panels = [("params", 1e6, networks("params")), ("MACs", 1e9, networks("macs"))]
    drawn = plot_accuracy(panels, "a & b")
    root = ElementTree.fromstring(drawn.svg)
    texts = [element for element in root.iter() if element.tag.endswith("}text")]
    shown = [element.text for element in texts]
    for label, _, points in panels:
        assert label in shown
        for one in points:
            assert one.name in shown
    boxes = [box for element in texts if (box := text_box(element)) and element.text in {each.title for each in TABLE2}]
    assert len(boxes) == 24 + 23
    for index, (left, top, right, bottom) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom in boxes[:index]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart


def text_box(element: ElementTree.Element) -> tuple[float, float, float, float] | None:
    """About the box of the text in SVG units: letters are narrower than .62 of their height."""
    place = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
    x, y = (float(place[1]), float(place[2])) if place else (float(element.get("x", 0)), float(element.get("y", 0)))
    wide = 0.56 * SIZE * len(element.text or "")
    anchor = re.search(r"text-anchor: (\w+)", element.get("style", ""))
    shift = {"middle": wide / 2, "end": wide}.get(anchor[1], 0.0) if anchor else 0.0
    return x - shift, y - 0.72 * SIZE, x - shift + wide, y


def test_the_same_numbers_give_the_same_svg() -> None:
    points = [
        AccuracyPoint("B0", 5e6, 0.77, True),
        AccuracyPoint("B1", 7e6, 0.79, True),
        AccuracyPoint("C", 9e6, 0.76, False),
    ]
    first, second = (plot_accuracy([("params", 1e6, points)], "t") for _ in range(2))
    assert first.svg == second.svg
    assert "currentColor" in first.svg
    assert first.png.startswith(b"\x89PNG")
