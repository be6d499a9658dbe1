"""Plots of agreement with the truth."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from effnet.draw.training_plots import CORRECT_COLOR, WRONG_COLOR, plot_reliability, plot_true_vs_predicted

BINS = [(0, 0.0, 0.0)] * 10 + [(7, 0.7, 0.5), (0, 0.0, 0.0), (1234, 0.81, 0.9), (120_000, 0.9, 0.9), (1, 1.0, 1.0)]

LEGEND = 25  # units from the top that the legend takes


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def drawn_in(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The corners of every path of this colour, in the SVG's units, downwards."""
    found = []
    for element in ElementTree.fromstring(svg).iter():
        if colour in element.get("style", "") and element.tag.endswith("path"):
            points = re.findall(r"[ML] ?([\d.]+) ([\d.]+)", element.get("d", ""))
            found.append([(float(x), float(y)) for x, y in points])
    return found


def test_reliability_has_a_bar_and_a_line_for_every_bin_with_pictures() -> None:
    svg = plot_reliability(BINS, "reliability")
    assert {"7", "1.2k", "120k", "1", "right", "sure", "how many", "0%", "100%"} <= set(texts(svg))
    bars = [path for path in drawn_in(svg, CORRECT_COLOR) if min(y for _, y in path) > LEGEND]
    lines = [path for path in drawn_in(svg, WRONG_COLOR) if len(path) == 2]
    assert len(bars) == 4
    base = max(y for path in bars for _, y in path)
    heights = sorted(base - min(y for _, y in path) for path in bars)
    full = heights[-1]
    assert [height / full for height in heights] == pytest.approx([0.5, 0.9, 0.9, 1.0], abs=0.01)
    across = sorted((base - path[0][1]) / full for path in lines if path[0][1] > LEGEND)
    assert across == pytest.approx([0.7, 0.81, 0.9, 1.0], abs=0.01)


def test_reliability_of_a_single_bin() -> None:
    assert "3" in texts(plot_reliability([(3, 0.5, 1 / 3)], "one"))


@pytest.mark.parametrize("pairs", [[(1.0, 2.0)], [(5.0, 5.0)] * 3, [(-1e6, 1e6), (0.0, 0.5)]], ids=str)
def test_scatter_shows_every_pair(pairs: list[tuple[float, float]]) -> None:
    svg = plot_true_vs_predicted(pairs, "scatter")
    assert {"true", "predicted"} <= set(texts(svg))
    marks = [element for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("use")]
    assert len([mark for mark in marks if CORRECT_COLOR in mark.get("style", "")]) == len(pairs)


def test_fits_into_any_page() -> None:
    for svg in (plot_reliability(BINS, 'a "<title>"'), plot_true_vs_predicted([(0.0, 1.0)], 'a "<title>"')):
        assert 'aria-label="a &quot;&lt;title&gt;&quot;"' in svg
        assert "currentColor" in svg
        assert not re.search(r"#000000|#010203|#ffffff|font-family|<style|<metadata", svg)
    assert plot_reliability(BINS, "t") == plot_reliability(BINS, "t")
