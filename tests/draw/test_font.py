"""The font of diagrams and captions, fallbacks for other scripts, and truncated texts."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from effnet.draw import text as module
from effnet.draw.text import load_font, load_font_for, text_width, truncate_measured

FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")


def name(found: ImageFont.FreeTypeFont) -> str:
    return Path(str(found.path)).name


def test_the_same_font_everywhere() -> None:
    assert name(load_font_for(12, "ant", "αβγ", "муравей")) == name(load_font(12)) == "DejaVuSans.ttf"
    assert Path(str(load_font(12).path)) == FONTS / "DejaVuSans.ttf"
    assert name(load_font(12, bold=True)) == "DejaVuSans-Bold.ttf"
    assert load_font_for(20).size == load_font(20).size == 20


def test_another_font_is_used_for_missing_letters() -> None:
    usual, other = (set(FT2Font(str(FONTS / file)).get_charmap()) for file in ("DejaVuSans.ttf", "STIXGeneral.ttf"))
    lacking = next(chr(code) for code in sorted(other - usual) if chr(code).isprintable())
    found = load_font_for(12, "bee", lacking)
    assert name(found) != "DejaVuSans.ttf"
    assert {ord(letter) for letter in f"bee{lacking}"} <= set(FT2Font(str(found.path)).get_charmap())


def test_letters_that_no_font_has() -> None:
    assert name(load_font_for(12, "\N{EGYPTIAN HIEROGLYPH A001}蜂\N{CUNEIFORM SIGN A}")) == "DejaVuSans.ttf"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"effnet\[plots\]\""):
        load_font_for(12, "ant")


def test_long_texts_are_truncated() -> None:
    face, long = load_font_for(12), "a name that is much too long for the place"
    assert truncate_measured("ant", 100, face.getlength) == "ant"
    short = truncate_measured(long, 100, face.getlength)
    assert short.endswith("…")
    assert 80 < face.getlength(short) <= 100
    assert truncate_measured("ant", 0, face.getlength) == "…"
    assert text_width(truncate_measured(long, 100, lambda text: text_width(text, 12)), 12) <= 100
