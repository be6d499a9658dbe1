"""Short texts of numbers, layers and operations, and the font of diagrams: DejaVu Sans, which comes with matplotlib.

It is the same everywhere, and one of the widest sans-serif fonts: what fits in it fits in a page's own font too.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from effnet.arch import Arch, Layer, Operation

ACTIVATION_NAMES = {"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6"}
ASCENT, DESCENT = 0.76, 0.24  # of letters, digits and brackets, relative to the font size
_REFERENCE_SIZE = 500


def format_si(value: float, unit: str = "") -> str:
    """Return ``value`` with three digits and a prefix: ``464``, ``5.29 M``, ``1.03 G``, with a unit ``19.3 MB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{f'{value / factor:#.3g}'.rstrip('.')} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def format_percent(fraction: float) -> str:
    """Return a fraction with about two significant digits: ``33 %``, ``4.1 %``, ``<0.1 %``."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"


def format_size(size: tuple[int, int]) -> str:
    """Return (height, width) as ``224×224``."""
    return f"{size[0]}×{size[1]}"


def format_shape(size: tuple[int, int], channels: int) -> str:
    """Return a map's shape as the papers write it: ``112×112×32``."""
    return f"{format_size(size)}×{channels}"


def format_output(kind: str, size: tuple[int, int], channels: int) -> str:
    """Return the output shape of a layer of that kind: `format_shape`, or the classifier's number of outputs."""
    return str(channels) if kind == "classifier" else format_shape(size, channels)


def format_costs(params: int, macs: int, separator: str = ", ") -> str:
    """Return ``5.29 M params, 386 M MACs``."""
    return f"{format_si(params)} params{separator}{format_si(macs)} MACs"


def arch_title(arch: "Arch") -> str:
    """Return the arch's name, which anyone may choose, on one printable line."""
    return clean_text(arch.name)


def operator_name(layer: "Layer", expand: int) -> str:
    """Return a layer's operator as the papers write it: ``MBConv6``, ``Fused-MBConv4``, ``Conv``, ``Linear``.

    An ``expand`` of 0 (its row lists the channels) gives ``MBConv``.
    """
    ratio = expand or ""
    operators = {"mbconv": f"MBConv{ratio}", "fused": f"Fused-MBConv{ratio}", "classifier": "Linear"}
    return operators.get(layer.kind, "Conv")


def format_kernel(layer: "Layer") -> str:
    """Return the kernel as ``5×5``; empty for the classifier."""
    return "" if layer.kind == "classifier" else f"{layer.kernel}×{layer.kernel}"


def operation_kind(operation: "Operation") -> str:
    """Return the last part of the operation's name: expand, depthwise, …; "excite" for the squeeze-excite's expand."""
    *path, last = operation.name.split(".")
    return "excite" if last == "expand" and path and path[-1] == "squeeze_excite" else last


def describe_operation(operation: "Operation") -> str:
    """Return a short text such as ``expand 1×1``, ``depthwise 5×5, stride 2`` or ``squeeze: pool, linear``."""
    kind = operation_kind(operation)
    linear = {"reduce": "squeeze: pool, linear", "excite": "excite: linear, scale", "classifier": "pool, linear"}
    if kind in linear:
        return linear[kind]
    name = {"stem": "conv", "head": "conv", "fused": "fused conv"}.get(kind, kind)
    stride = f", stride {operation.stride}" if operation.stride > 1 else ""
    return f"{name} {operation.kernel}×{operation.kernel}{stride}"


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of one line of ``text`` at font ``size``, without kerning."""
    return sum(_letter_width(letter, bold) for letter in text) * size


def truncate_measured(text: str, max_width: float, measure: Callable[[str], float]) -> str:
    """Return the beginning of ``text`` of which ``measure`` is at most ``max_width``, with an ellipsis if cut off."""
    if measure(text) <= max_width:
        return text
    while text and measure(f"{text}…") > max_width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def fit_font_size(text: str, max_width: float, size: float, bold: bool = False) -> float:
    """Return the font size at which ``text`` fits into ``max_width``: ``size``, or less."""
    return min(size, max_width / max(text_width(text, 1.0, bold), 1e-9))


def wrap_text(text: str, max_width: float, size: float) -> list[str]:
    """Break ``text`` between words into lines of at most ``max_width``."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= max_width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# Controls, unpaired surrogates, what ends lines besides \n, and what reorders text (evil\u202egpj.exe seems a .jpg)
_ACTIVE = r"\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_IN_LINES, _IN_MESSAGES, _IN_PAGES = (re.compile(f"{more}[{_ACTIVE}]") for more in (r"[\n\t]|", r"\n(?!  )|\t|", ""))


def printable(text: str, keep_lines: bool = False) -> str:
    r"""Return ``text`` with all that a terminal would act on instead of showing it as Python writes it: ``\x1b``.

    These are controls, marks that reorder text, and bytes of file names that are no UTF-8. Names of files, labels and
    networks are chosen by others. ``keep_lines``: keep line ends that our own messages have, those before two spaces.
    """
    return (_IN_MESSAGES if keep_lines else _IN_LINES).sub(_escape_letter, text)


def printable_page(html: str) -> str:
    """Return a whole page with the same escaped, but for its line ends and tabs."""
    return _IN_PAGES.sub(_escape_letter, html)


def _escape_letter(match: re.Match[str]) -> str:
    letter = match[0]
    if "\udc80" <= letter <= "\udcff":  # a byte, as Python puts it into a file's name
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def clean_text(text: str) -> str:
    """Return ``text`` on one line without characters that XML cannot contain: controls and unpaired surrogates."""
    return "".join("?" if category(letter) in ("Cc", "Cs", "Cn") else letter for letter in " ".join(text.split()))


@lru_cache(maxsize=256)
def load_font(pixels: int, bold: bool = False) -> "FreeTypeFont":
    """Load the font, without kerning as `text_width` measures it. Raises ``ImportError`` without matplotlib."""
    from PIL import ImageFont

    return ImageFont.truetype(str(_default_font_path(bold)), pixels, layout_engine=ImageFont.Layout.BASIC)


def load_font_for(pixels: int, *texts: str) -> "FreeTypeFont":
    """Load a font with kerning: the default, or if it lacks letters of ``texts`` (as Chinese), one that has them."""
    from PIL import ImageFont

    letters = {ord(letter) for letter in "".join(texts) if letter.isprintable()}
    default = _default_font_path()
    path = default if _font_has(default, letters) else _find_font_with(letters) or default
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
