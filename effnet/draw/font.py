"""The font of drawings and captions, and how wide a text is in it: DejaVu Sans, which comes with matplotlib.

So it is there everywhere. It is among the widest sans-serif fonts: what fits in it fits in a page's own font too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

ASCENT, DESCENT = 0.76, 0.24  # what letters, digits and brackets reach above and below the baseline, of their size
_REFERENCE_SIZE = 500


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Units that ``text`` takes on a line at font ``size``, without kerning."""
    return sum(_letter_width(letter, bold) for letter in text) * size


def truncate(text: str, most: float, size: float, bold: bool = False) -> str:
    """The beginning of ``text`` that stays within ``most`` units, with an ellipsis where something is left out."""
    return truncate_measured(text, most, lambda part: text_width(part, size, bold))


def truncate_measured(text: str, most: float, wide: Callable[[str], float]) -> str:
    """`cut` where ``wide`` says how wide a text is, as the ``getlength`` of a font."""
    if wide(text) <= most:
        return text
    while text and wide(f"{text}…") > most:
        text = text[:-1]
    return f"{text.rstrip()}…"


def fit_font_size(text: str, most: float, size: float, bold: bool = False) -> float:
    """The font size at which ``text`` stays within ``most`` units: ``size``, or less."""
    return min(size, most / max(text_width(text, 1.0, bold), 1e-9))


def wrap_text(text: str, most: float, size: float, bold: bool = False) -> list[str]:
    """``text`` on as many lines as it needs at ``most`` units a line, broken between words."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size, bold) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def clean_text(text: str) -> str:
    """``text`` on one line and without what no XML can hold: control characters and halves of surrogates."""
    return "".join("?" if category(letter) in ("Cc", "Cs", "Cn") else letter for letter in " ".join(text.split()))


@lru_cache(maxsize=256)
def load_font(pixels: int, bold: bool = False) -> FreeTypeFont:
    """The font at a size in pixels, without kerning, as `width` measures.

    Raises ``ImportError`` where matplotlib, which brings it, is not installed.
    """
    from PIL import ImageFont

    return ImageFont.truetype(str(_default_font_path(bold)), pixels, layout_engine=ImageFont.Layout.BASIC)


def load_font_for(pixels: int, *texts: str) -> FreeTypeFont:
    """A font with kerning that has the letters of ``texts``: the usual one, or else the first here that has all.

    DejaVu Sans has Latin, Greek, Cyrillic, Arabic and more, but no Chinese; where nothing has all letters, it shows
    boxes in the place of those that it lacks. Raises ``ImportError`` as `font` does.
    """
    from PIL import ImageFont

    usual = _default_font_path()
    letters = {ord(letter) for letter in "".join(texts) if letter.isprintable()}
    return ImageFont.truetype(usual if _font_has(usual, letters) else _find_font_with(letters) or usual, pixels)


def _default_font_path(bold: bool = False) -> Path:
    found = find_spec("matplotlib")
    if found is None or not found.origin:
        raise ImportError("drawings and captions need the font that comes with matplotlib: pip install matplotlib")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name


def _find_font_with(letters: set[int]) -> Path | None:
    """The first font on this machine that has all ``letters``."""
    from matplotlib.font_manager import fontManager

    # Unicode's Last Resort font, which matplotlib brings along, has a box for every letter
    paths = sorted({Path(entry.fname) for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")})
    return next((path for path in paths if _font_has(path, letters)), None)


def _font_has(path: Path, letters: set[int]) -> bool:
    """Whether the font has all ``letters``; False where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return letters <= FT2Font(str(path)).get_charmap().keys()
    except (RuntimeError, OSError):
        return False


@lru_cache(maxsize=4096)
def _letter_width(letter: str, bold: bool) -> float:
    if east_asian_width(letter) in "WF":
        return 1.05  # not in this font: as wide as it is in those that have it
    return load_font(_REFERENCE_SIZE, bold).getlength(letter) / _REFERENCE_SIZE
