"""Scenes as SVG and as PNG, and the widths that they are laid out by."""

from __future__ import annotations

import re
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from effnet.draw.diagram import Box, Diagram, Group, Line, Rect, Shape, Text, centered_text, shrink_to_width
from effnet.draw.text import clean_text, fit_font_size, text_width, wrap_text
from tests.draw.legible import contains

BLUE = "#3b7dd8"


def drawing(*items: object) -> Diagram:
    return Diagram(100, 50, 'a "title" & more', items)  # type: ignore[arg-type]


def pixels(*items: object) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(drawing(*items).png)))


@pytest.mark.parametrize("text", ["MBConv6 5×5", "224×224×3", "5.29 M params · 386 M MACs", "Wij"])
@pytest.mark.parametrize("bold", [False, True])
def test_widths_are_matplotlibs(text: str, bold: bool) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    weight = "bold" if bold else "normal"
    theirs, _, _ = TextToPath().get_text_width_height_descent(
        text, FontProperties(family="DejaVu Sans", size=20, weight=weight), False
    )
    assert text_width(text, 20, bold) == pytest.approx(theirs, rel=0.03)


def test_texts_are_cut_wrapped_and_made_smaller() -> None:
    lines = wrap_text("one two three four five", 60, 10)
    assert " ".join(lines) == "one two three four five"
    assert all(text_width(line, 10) <= 60 for line in lines)
    assert wrap_text("indivisible", 5, 10) == ["indivisible"]
    assert fit_font_size("abc", 1000, 10) == 10
    assert text_width("abc", fit_font_size("abc", 7, 10)) == pytest.approx(7)
    assert shrink_to_width(Text(0, 0, "a text that is too long", 12), 50).box.width == pytest.approx(50)
    assert clean_text("a\n b\x07\udcff猫") == "a b??猫"
    assert text_width("猫", 10) == pytest.approx(10.5)


def test_text_boxes() -> None:
    wide = text_width("abc", 10)
    for anchor, left in (("start", 50.0), ("middle", 50 - wide / 2), ("end", 50 - wide)):
        box = Text(50, 20, "abc", 10, anchor).box
        assert (box.x, box.width) == (pytest.approx(left), pytest.approx(wide))
        assert box.y < 20 < box.bottom
    place = Box(10, 10, 80, 20)
    assert contains(place, centered_text(place, "in the middle of it, and far too long for it").box)


def test_svg_is_one_safe_element() -> None:
    drawn = drawing(Group("<b> & é", (Text(5, 20, "<script>&"), Line(((0, 0), (9, 9)), arrow=True))))
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("aria-label") == 'a "title" & more'
    texts = [element.text for element in root.iter() if element.tag.endswith(("text", "title"))]
    assert texts == ["<b> & é", "<script>&"]
    assert re.findall(r"https?://[^\"]*", drawn.svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r" id=|<style|<script|font-family|#000|#fff", drawn.svg)
    assert "currentColor" in drawn.svg
    alone = ElementTree.fromstring(drawn.standalone_svg)
    assert [alone.get(name) for name in ("viewBox", "width", "height")] == ["0 0 100 50", "100", "50"]
    assert (alone[0].get("fill"), alone.get("color")) == ("white", "#1b1e23")
    assert "style=" not in drawn.standalone_svg  # not all drawing programs read it


def test_png_has_two_pixels_per_unit() -> None:
    found = pixels(
        Rect(Box(10, 10, 20, 20), BLUE),
        Shape(((50, 10), (70, 10), (70, 30), (50, 30)), BLUE, 0.5),
        Text(80, 25, "M", 14),
    )
    assert found.shape == (100, 200, 3)
    assert tuple(found[40, 40]) == (0x3B, 0x7D, 0xD8)
    assert tuple(found[40, 120]) == pytest.approx(((0x3B + 255) / 2, (0x7D + 255) / 2, (0xD8 + 255) / 2), abs=1)
    assert tuple(found[2, 2]) == (255, 255, 255)
    letter = Text(80, 25, "M", 14).box
    ink = np.argwhere((found < 128).all(axis=2)) / 2
    assert len(ink) > 20
    assert (ink[:, 1] >= letter.x - 1).all()
    assert (ink[:, 1] <= letter.right + 1).all()
    assert (ink[:, 0] >= letter.y - 1).all()


def test_png_of_lines() -> None:
    found = pixels(Line(((10, 25), (90, 25)), opacity=1, width=2), Line(((10, 40), (90, 40)), dashed=True, arrow=True))
    assert (found[50, 30:170] < 100).all()
    dashes = found[80, 20:160, 0] < 200
    assert 0.4 < dashes.mean() < 0.8  # 4 on, 3 off
    rounded = pixels(Rect(Box(10, 10, 40, 30), BLUE, 0, 1, radius=15))
    assert tuple(rounded[20, 20]) == tuple(rounded[50, 60]) == (255, 255, 255)


def test_a_huge_drawing_stays_within_the_pixel_limit() -> None:
    drawn = Diagram(1000, 8000, "tall", (Rect(Box(0, 0, 10, 10), BLUE),))
    found = Image.open(BytesIO(drawn.png))
    assert found.width * found.height <= 12.1e6
    assert found.height / found.width == pytest.approx(8, rel=0.01)
