"""The pieces of a self-contained page: HTML as text, escaped, with one style for screen, phone, night and print."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from effnet.data import ImageError, read_image
from effnet.data.image_io import ImageSource, load_input
from effnet.draw.html_page import render_page as whole
from effnet.explanation import class_activation_maps, overlay
from effnet.net import EfficientNet

MAX_ROWS = 40  # shown before the rest is folded away


T = TypeVar("T")


def render_page(title: str, parts: Iterable[str]) -> str:
    """The whole page, of ``parts`` that are HTML already."""
    return whole(title, _STYLE, "\n".join(filter(None, parts)))


def section(title: str, body: str) -> str:
    """A part under its title, left away where it is empty."""
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """The first ``names`` columns hold texts, the others numbers."""
    kinds = [' class="name"' if column < names else "" for column in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))
    cells = ("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def definition_list(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, one under the other; ``rows`` are HTML already."""
    return f'<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)}</dl>'


def bullet_list(texts: Iterable[str]) -> str:
    """Texts as a list."""
    return f"<ul>{''.join(f'<li>{escape_html(text)}</li>' for text in texts)}</ul>"


def collapsible(rows: Sequence[T], render: Callable[[Sequence[T]], str]) -> str:
    """``rows`` as ``shown`` draws them, those beyond `ROWS_MOST` behind a line to open."""
    first, rest = rows[:MAX_ROWS], rows[MAX_ROWS:]
    return render(first) + (f"<details><summary>{len(rest):,} more</summary>{render(rest)}</details>" if rest else "")


def stat_tiles(shown: Iterable[tuple[str, str, str]]) -> str:
    """Figures to be seen at once: (name, figure, what it is), which are HTML already."""
    cells = "".join(f"<div><dt>{name}</dt><dd><b>{value}</b> {note}</dd></div>" for name, value, note in shown)
    return f'<dl class="tiles">{cells}</dl>'


def plot_grid(drawn: Sequence[tuple[str, str]], caption: str) -> str:
    """Plots in two columns where there is room, (title, SVG) each, and ``words`` on them in the place that is left."""
    shown = "".join(f"<figure><h3>{title}</h3>{svg}</figure>" for title, svg in drawn)
    inside, below = (f"<p>{caption}</p>", "") if len(drawn) % 2 else ("", f"<p>{caption}</p>")
    return f'<div class="pair">{shown}{inside}</div>{below}'


def format_count(number: float) -> str:
    """4,011,391 as 4.01 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}" if number < 999.5 * size else f"{number / size:,.0f} {letter}"
    return f"{number:g}"


def format_duration(seconds: float) -> str:
    """5025 as 1 h 24 min."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def share_bar(share: float, kind: str) -> str:
    """A share as a bar and in percent; ``kind`` is right or wrong."""
    return f'<span class="bar {kind}"><i style="width:{share:.0%}"></i></span><span class="share">{share:.1%}</span>'


def escape_html(value: object) -> str:
    """``value`` as text in which nothing is HTML."""
    return escape(str(value))


_STYLE = """
@media screen { main { max-width: 58rem } }
h1 { font-size: clamp(3rem, 12vw, 4.5rem); line-height: 1; font-weight: 650; letter-spacing: -.03em; margin: 0 }
h1 small { font-size: .4em; font-weight: 400; letter-spacing: 0 } small { color: var(--soft) }
h2 { font-size: 1.25rem; font-weight: 620; margin: 0 0 .75rem; break-after: avoid } h3 { font-size: .9rem; margin: 0 }
section { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--line) }
p { margin: .75rem 0; max-width: 44rem } section > p, .pair > p, .tiles dd, dt, th, summary { color: var(--soft) }
.lead { font-size: 1.15rem } dl, dd { margin: 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0 }
.tiles div { background: var(--pale); border-radius: .6rem; padding: .8rem; font-size: .85rem; line-height: 1.4 }
.tiles b { display: block; font-size: 1.25rem; font-weight: 620; color: var(--ink); letter-spacing: -.01em }
.facts div { display: grid; grid-template-columns: 9rem 1fr; gap: 1rem; padding: .3rem 0; break-inside: avoid }
.columns { columns: 22rem; column-gap: 3rem; font-size: .9rem }
.columns .facts div { grid-template-columns: 1fr 1fr; border-bottom: 1px solid var(--line) }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 2rem }
.pair > p { align-self: center } .facts + .scroll { margin-top: 1rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .92rem } th { font-weight: 500 }
th, td { text-align: right; padding: .35rem 0 .35rem 1rem; border-bottom: 1px solid var(--line); white-space: nowrap }
.name { text-align: left; white-space: normal; min-width: 7rem } .name:first-child { padding-left: 0 }
.share, .bar { display: inline-block } .share { min-width: 3.4rem }
.bar { width: 5rem; height: .5rem } .right i { background: #3b7dd8 } .wrong i { background: #d9772b }
.cards { list-style: none; padding: 0; margin: 1rem 0 0; display: grid; gap: 1.5rem 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 16.5rem), 1fr)); font-size: .88rem; line-height: 1.4 }
.cards .seen { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; margin-bottom: .4rem }
.cards img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--pale);
  border-radius: .5rem }
pre { background: var(--pale); padding: .8rem 1rem; border-radius: .6rem; white-space: pre-wrap; font-size: .88rem }
ul { padding-left: 1.2rem } summary { cursor: pointer; padding: .6rem 0 } svg { display: block; margin: .5rem 0 }
@media (max-width: 34rem) { .facts div { grid-template-columns: 1fr; gap: 0 } .bar { display: none }
  .columns .facts div { grid-template-columns: 1fr 1fr } th, td { padding-left: .6rem } table { font-size: .85rem }
  .name { min-width: 5rem } }
@media print { body { font-size: 10pt } section { margin-top: 1.5rem } svg { min-width: 0 !important }
  .scroll { overflow: visible } pre, .tiles div { print-color-adjust: exact } li, tr, figure { break-inside: avoid }
  ::details-content { content-visibility: visible } }
"""


# Pictures in the page: a small copy of each, and beside it where the network saw what it answered.


THUMBNAIL_SIZE = 160  # pixels


class ImageGallery:
    """The pictures that were judged, by their names, and the network that judged them."""

    def __init__(self, model: EfficientNet, images: Mapping[str, ImageSource]) -> None:
        self.model, self.images = model, images

    def card(self, name: str, caption: str, class_name: str) -> str:
        """A picture, the class activation map of the class ``explained``, and what is ``told`` of it, as HTML.

        Without images where the picture is not at hand or cannot be read any more.
        """
        images = "".join(
            f'<img alt="{escape(words)}" src="data:image/jpeg;base64,{_encode_jpeg(image)}">'
            for words, image in self._thumbnails(name, class_name)
        )
        seen = f'<div class="seen">{images}</div>' if images else ""
        return f"<li>{seen}{caption}<br><small>{escape(name)}</small></li>"

    def _thumbnails(self, name: str, class_name: str) -> list[tuple[str, Image.Image]]:
        if name not in self.images:
            return []
        source = self.images[name]
        try:
            whole = read_image(source, (THUMBNAIL_SIZE // 2, THUMBNAIL_SIZE // 2))
            seen = load_input(source, replace(self.model.preprocess, decode="exact"))
        except ImageError:
            return []
        found = [("", _make_thumbnail(whole))]
        if class_name in self.model.labels.names:
            values = class_activation_maps(self.model, seen, [self.model.labels.names.index(class_name)])[0]
            below = _make_thumbnail(Image.fromarray(seen.clip(0, 255).astype(np.uint8)))
            found.append((f"what speaks for {class_name}", overlay(np.asarray(below), values)))
        return found


def card_list(shown: list[str]) -> str:
    """Cards beside each other."""
    return f'<ul class="cards">{"".join(shown)}</ul>'


def _make_thumbnail(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    if (times := THUMBNAIL_SIZE // max(image.size)) > 1:  # of digits of 8 × 8 every pixel is to be seen
        image = image.resize((image.width * times, image.height * times), Resampling.NEAREST)
    return image


def _encode_jpeg(image: Image.Image) -> str:
    out = BytesIO()
    image.save(out, "JPEG", quality=80)
    return b64encode(out.getvalue()).decode()
