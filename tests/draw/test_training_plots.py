"""Plots as SVG text: what they show, and what must not be in them."""

from __future__ import annotations

import re
from math import inf, nan
from xml.etree import ElementTree

import pytest

from effnet.draw.training_plots import plot_confusion_matrix, plot_curves

NAMES = ("cat", "$x$ & <b>", "猫猫\x07\udcff")
TABLE = ((31, 0, 2), (0, 47, 0), (0, 0, 0))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_curves_name_their_lines() -> None:
    svg = plot_curves({"training": (2.0, 1.5, 1.0), "held out": (1.9, 1.0, 1.2)}, "losses", marked=(2, "kept"))
    assert {"training", "held out", "epoch", "kept", "1", "2", "3"} <= set(texts(svg))


@pytest.mark.parametrize("values", [(0.5,), (0.5, nan, 0.7), (inf, 1.0), (nan,)], ids=str)
def test_curves_of_few_or_broken_values(values: tuple[float, ...]) -> None:
    svg = plot_curves({"held out": values}, "top-1", percent=True, marked=(1, "kept"))
    assert "nan" not in svg.replace('"', " ").split()
    assert "0" not in texts(svg)  # there is no epoch 0


def test_confusion_counts_pictures() -> None:
    found = texts(plot_confusion_matrix(TABLE, NAMES, "matrix"))
    assert {"31", "47", "2", "cat", "$x$ & <b>", "猫猫??", "true", "predicted"} <= set(found)
    assert "0" not in found


def test_long_names_are_cut_where_they_differ() -> None:
    ends = texts(
        plot_confusion_matrix(
            [[1, 0], [0, 1]], ["the same long beginning, one", "the same long beginning, two"], "matrix"
        )
    )
    assert any(text.endswith(", one") for text in ends)
    begins = texts(
        plot_confusion_matrix([[1, 0], [0, 1]], ["one and its long, long ending", "two and its long, long ending"], "m")
    )
    assert any(text.startswith("one and") and text.endswith("…") for text in begins)


@pytest.mark.parametrize(
    "svg",
    [plot_curves({"a": (1.0, 2.0), "b": (2.0, 1.0)}, "t", marked=(1, "x")), plot_confusion_matrix(TABLE, NAMES, "t")],
    ids=["curves", "confusion"],
)
def test_fits_into_any_page(svg: str) -> None:
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"#000000|#010203|#ffffff|font-family|<style|<metadata", svg)
    assert "currentColor" in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'#([^")]*)[")]', svg)) & set(ids) == {name for name in ids if f"#{name}" in svg}


def test_the_same_numbers_give_the_same_text_and_others_other_ids() -> None:
    one, again, other = (plot_curves({"a": (1.0, last)}, "t") for last in (2.0, 2.0, 3.0))
    assert one == again
    assert not set(re.findall(r' id="([^"]*)"', one)) & set(re.findall(r' id="([^"]*)"', other))


def test_title_is_escaped_and_the_users_settings_stay() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0}):
        loud = plot_curves({"a": (1.0, 2.0)}, 'a "<title>"')
        assert matplotlib.rcParams["font.size"] == 30.0
    assert 'aria-label="a &quot;&lt;title&gt;&quot;"' in loud
    assert loud == plot_curves({"a": (1.0, 2.0)}, 'a "<title>"')
    assert dict(matplotlib.rcParams) == before
