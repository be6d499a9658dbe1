"""Training plots: what they show, and that their SVG fits into any page."""

from __future__ import annotations

import re
from math import inf, nan
from xml.etree import ElementTree

import matplotlib
import pytest

from effnet.draw.plotting import RenderedPlot
from effnet.draw.report_plots import (
    CORRECT_COLOR,
    WRONG_COLOR,
    plot_confusion_matrix,
    plot_curves,
    plot_lr_finder,
    plot_lr_schedule,
    plot_reliability,
    plot_true_vs_predicted,
)
from tests.draw.legible import svg_texts

NAMES = ("cat", "$x$ & <b>", "猫猫\x07\udcff")
TABLE = ((31, 0, 2), (0, 47, 0), (0, 0, 0))
BINS = [(0, 0.0, 0.0)] * 10 + [(7, 0.7, 0.5), (0, 0.0, 0.0), (1234, 0.81, 0.9), (120_000, 0.9, 0.9), (1, 1.0, 1.0)]
LEGEND_HEIGHT = 25

TITLE = 'a "<title>"'
PLOTS = {
    "curves": lambda: plot_curves({"a": (1.0, 2.0), "b": (2.0, 1.0)}, TITLE, marked=(1, "x")),
    "confusion": lambda: plot_confusion_matrix(TABLE, NAMES, TITLE),
    "reliability": lambda: plot_reliability(BINS, TITLE),
    "scatter": lambda: plot_true_vs_predicted([(0.0, 1.0)], TITLE),
    "lr finder": lambda: plot_lr_finder([0.01, 0.1, 1.0], [2.0, 1.0, 9.0], [2.0, 1.2, 3.0], TITLE, 0.1),
    "schedule": lambda: plot_lr_schedule([(0, 0.1), (1, 0.0)], {"size": [128.0]}, TITLE),
}


@pytest.mark.parametrize("name", PLOTS)
def test_svg_fits_into_any_page(name: str) -> None:
    plot = PLOTS[name]()
    svg = plot.svg
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert 'aria-label="a &quot;&lt;title&gt;&quot;"' in svg
    assert not re.search(r"#000000|#010203|#ffffff|font-family|<style|<metadata", svg)
    assert "currentColor" in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'#([^")]*)[")]', svg)) & set(ids) == {id_ for id_ in ids if f"#{id_}" in svg}
    assert plot == PLOTS[name]()  # the same numbers give the same SVG
    assert plot.__html__() == svg
    assert plot.png.startswith(b"\x89PNG")
    assert "background: white" in plot.standalone_svg


def test_other_numbers_give_other_ids() -> None:
    one, other = (plot_curves({"a": (1.0, last)}, "t").svg for last in (2.0, 3.0))
    assert not set(re.findall(r' id="([^"]*)"', one)) & set(re.findall(r' id="([^"]*)"', other))


def test_the_users_matplotlib_settings_have_no_effect_and_stay() -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0}):
        plot = plot_curves({"a": (1.0, 2.0)}, "t")
        assert matplotlib.rcParams["font.size"] == 30.0
    assert plot == plot_curves({"a": (1.0, 2.0)}, "t")
    assert dict(matplotlib.rcParams) == before


def test_curves_are_labeled() -> None:
    plot = plot_curves({"training": (2.0, 1.5, 1.0), "held out": (1.9, 1.0, 1.2)}, "losses", marked=(2, "kept"))
    assert {"training", "held out", "epoch", "kept", "1", "2", "3"} <= set(svg_texts(plot))


@pytest.mark.parametrize("values", [(0.5,), (0.5, nan, 0.7), (inf, 1.0), (nan,)], ids=str)
def test_curves_with_few_or_non_finite_values(values: tuple[float, ...]) -> None:
    plot = plot_curves({"held out": values}, "top-1", percent=True, marked=(1, "kept"))
    assert "nan" not in plot.svg.replace('"', " ").split()
    assert "0" not in svg_texts(plot)  # there is no epoch 0


def test_confusion_matrix_counts_images() -> None:
    texts = svg_texts(plot_confusion_matrix(TABLE, NAMES, "matrix"))
    assert {"31", "47", "2", "cat", "$x$ & <b>", "猫猫??", "true", "predicted"} <= set(texts)
    assert "0" not in texts


def test_long_names_are_shortened_where_they_agree() -> None:
    names = ["the same long beginning, one", "the same long beginning, two"]
    texts = svg_texts(plot_confusion_matrix([[1, 0], [0, 1]], names, "matrix"))
    assert any(text.endswith(", one") for text in texts)
    names = ["one and its long, long ending", "two and its long, long ending"]
    texts = svg_texts(plot_confusion_matrix([[1, 0], [0, 1]], names, "matrix"))
    assert any(text.startswith("one and") and text.endswith("…") for text in texts)


def paths_in_color(plot: RenderedPlot, color: str) -> list[list[tuple[float, float]]]:
    """The corners of every path of this color, in SVG units, y downwards."""
    paths = []
    for element in ElementTree.fromstring(plot.svg).iter():
        if color in element.get("style", "") and element.tag.endswith("path"):
            points = re.findall(r"[ML] ?([\d.]+) ([\d.]+)", element.get("d", ""))
            paths.append([(float(x), float(y)) for x, y in points])
    return paths


def test_reliability_has_a_bar_and_a_line_for_every_bin_with_images() -> None:
    plot = plot_reliability(BINS, "reliability")
    expected = {"7", "1.2k", "120k", "1", "accuracy", "mean confidence", "confidence", "images", "0%", "100%"}
    assert expected <= set(svg_texts(plot))
    bars = [path for path in paths_in_color(plot, CORRECT_COLOR) if min(y for _, y in path) > LEGEND_HEIGHT]
    lines = [path for path in paths_in_color(plot, WRONG_COLOR) if len(path) == 2]
    assert len(bars) == 4
    base = max(y for path in bars for _, y in path)
    heights = sorted(base - min(y for _, y in path) for path in bars)
    full = heights[-1]
    assert [height / full for height in heights] == pytest.approx([0.5, 0.9, 0.9, 1.0], abs=0.01)
    confidences = sorted((base - path[0][1]) / full for path in lines if path[0][1] > LEGEND_HEIGHT)
    assert confidences == pytest.approx([0.7, 0.81, 0.9, 1.0], abs=0.01)


def test_reliability_of_a_single_bin() -> None:
    assert "3" in svg_texts(plot_reliability([(3, 0.5, 1 / 3)], "one"))


@pytest.mark.parametrize("pairs", [[(1.0, 2.0)], [(5.0, 5.0)] * 3, [(-1e6, 1e6), (0.0, 0.5)]], ids=str)
def test_scatter_shows_every_pair(pairs: list[tuple[float, float]]) -> None:
    plot = plot_true_vs_predicted(pairs, "scatter")
    assert {"true", "predicted"} <= set(svg_texts(plot))
    markers = [element for element in ElementTree.fromstring(plot.svg).iter() if element.tag.endswith("use")]
    assert len([marker for marker in markers if CORRECT_COLOR in marker.get("style", "")]) == len(pairs)


def test_the_suggested_learning_rate_is_marked() -> None:
    assert {"0.1", "learning rate", "loss"} <= set(svg_texts(PLOTS["lr finder"]()))


def test_the_schedule_has_a_panel_for_each_setting() -> None:
    assert {"learning rate", "size", "epoch", TITLE} <= set(svg_texts(PLOTS["schedule"]()))
