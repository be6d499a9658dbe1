"""The font of diagrams and captions, and the width of texts in it: DejaVu Sans, which comes with matplotlib.

It is the same everywhere, and one of the widest sans-serif fonts: what fits in it fits in a page's own font too.
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

ASCENT, DESCENT = 0.76, 0.24  # of letters, digits and brackets, relative to the font size
_REFERENCE_SIZE = 500


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of one line of ``text`` at font ``size``, without kerning."""
    return sum(_letter_width(letter, bold) for letter in text) * size


def truncate(text: str, max_width: float, size: float, bold: bool = False) -> str:
    """Return the beginning of ``text`` that fits into ``max_width``, with an ellipsis if something is omitted."""
    return truncate_measured(text, max_width, lambda part: text_width(part, size, bold))


def truncate_measured(text: str, max_width: float, measure: Callable[[str], float]) -> str:
    """Like `truncate`, with the width of a text given by ``measure``, such as the ``getlength`` of a font."""
    if measure(text) <= max_width:
        return text
    while text and measure(f"{text}…") > max_width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def fit_font_size(text: str, max_width: float, size: float, bold: bool = False) -> float:
    """Return the font size at which ``text`` fits into ``max_width``: ``size``, or less."""
    return min(size, max_width / max(text_width(text, 1.0, bold), 1e-9))


def wrap_text(text: str, max_width: float, size: float, bold: bool = False) -> list[str]:
    """Break ``text`` between words into lines of at most ``max_width``."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size, bold) <= max_width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def clean_text(text: str) -> str:
    """Return ``text`` on one line without characters that XML cannot contain: controls and unpaired surrogates."""
    return "".join("?" if category(letter) in ("Cc", "Cs", "Cn") else letter for letter in " ".join(text.split()))


@lru_cache(maxsize=256)
def load_font(pixels: int, bold: bool = False) -> FreeTypeFont:
    """Load the font at a size in pixels, without kerning, as `text_width` measures.

    Raises:
        ImportError: matplotlib, which contains the font, is not installed.
    """
    from PIL import ImageFont

    return ImageFont.truetype(str(_default_font_path(bold)), pixels, layout_engine=ImageFont.Layout.BASIC)


def load_font_for(pixels: int, *texts: str) -> FreeTypeFont:
    """Load a font with kerning that has the letters of ``texts``: the default, or the first installed one that has.

    DejaVu Sans has Latin, Greek, Cyrillic, Arabic and more, but no Chinese. If no font has all letters, the default
    shows boxes for the missing ones. Raises ``ImportError`` as `load_font`.
    """
    from PIL import ImageFont

    path = _default_font_path()
    letters = {ord(letter) for letter in "".join(texts) if letter.isprintable()}
    if not _font_has(path, letters):
        path = _find_font_with(letters) or path
    return ImageFont.truetype(path, pixels)


def _default_font_path(bold: bool = False) -> Path:
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or not matplotlib.origin:
        raise ImportError('diagrams and captions require the font in matplotlib: pip install "effnet[plots]"')
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / name


def _find_font_with(letters: set[int]) -> Path | None:
    from matplotlib.font_manager import fontManager

    # Unicode's Last Resort font, which matplotlib contains, has a box for every letter
    paths = sorted({Path(entry.fname) for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")})
    return next((path for path in paths if _font_has(path, letters)), None)


def _font_has(path: Path, letters: set[int]) -> bool:
    """Whether the font has all ``letters``; False if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return letters <= FT2Font(str(path)).get_charmap().keys()
    except (RuntimeError, OSError):
        return False


@lru_cache(maxsize=4096)
def _letter_width(letter: str, bold: bool) -> float:
    if east_asian_width(letter) in "WF":
        return 1.05  # not in this font: the width in fonts that have it
    return load_font(_REFERENCE_SIZE, bold).getlength(letter) / _REFERENCE_SIZE
