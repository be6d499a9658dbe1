"""What plots have in common: matplotlib without a screen, and figures as SVG text in the page's colour and font."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is written
UNIT = 72  # matplotlib's points an inch, which become the SVG's units
FONT = 11.0


@contextmanager
def drawing() -> Iterator[type[Figure]]:
    """Matplotlib's `Figure`, with our settings in this block whatever the user's own are."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install matplotlib") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page's font draws it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "font.size": FONT,
                "text.parse_math": False,  # a class may be called $x$
                "text.color": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
            }
        )
        yield Figure


def bare(axes: Axes) -> None:
    """Nothing drawn that carries no number."""
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set(color=INK, alpha=0.35)
    axes.tick_params(length=0, pad=5)


def as_svg(figure: Figure, title: str, numbers: object) -> str:
    """The figure as one ``<svg>``: no size of its own beyond a limit, the page's ink and font, ids that are its own."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = sha256(repr(numbers).encode("utf-8", "replace")).hexdigest()
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    _, _, inside = out.getvalue().partition("<svg")
    _, _, inside = inside.partition(">")
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<[^>]*>", lambda tag: _cleaned(tag[0]), inside)  # tags alone: names of classes stay as they are
    width, height = (side * UNIT for side in figure.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="stroke-linejoin: round; width: 100%; height: auto; '
        f'min-width: {0.7 * width:.0f}px; max-width: {1.4 * width:.0f}px">{inside.strip()}'
    )


def _cleaned(tag: str) -> str:
    tag = re.sub(r"\s+", " ", tag)
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)  # figure_1 is in every plot, and nothing refers to it
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)  # as matplotlib before 3.11 writes it
    return tag.replace(INK, "currentColor").replace("xlink:href", "href")


@dataclass(frozen=True)
class Drawing:
    """A plot in both forms: ``svg`` to put into a page, ``png`` on white."""

    svg: str
    png: bytes

    @property
    def alone(self) -> str:
        """The SVG as a file of its own: on white, with a font."""
        return self.svg.replace('style="', 'style="background: white; color: #1b1e23; font-family: sans-serif; ', 1)


def drawn(figure: Figure, title: str, numbers: object) -> Drawing:
    """The figure in both forms; ``title`` is for those who cannot see, the same ``numbers`` give the same SVG."""
    bitmap = BytesIO()
    figure.savefig(bitmap, format="png", dpi=2 * UNIT, facecolor="white")
    return Drawing(as_svg(figure, title, numbers), bitmap.getvalue())
