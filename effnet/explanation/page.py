"""Explanations as a self-contained page: every picture with its maps. No script, and nothing from a network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from urllib.parse import quote

from PIL import Image

from effnet.draw.page import page as whole
from effnet.explanation.explanation import Explanation, scaled
from effnet.explanation.overlay import STOPS

SIDE = 400  # pixels of a picture's longer side

_WORDS = {
    "cam": "Class activation maps: a map sums to the {what} without its bias, so each colour is a share of it.",
    "gradcam": "Grad-CAM of the part {at}: where stronger features would raise the {what}, to first order.",
    "occlusion": "Occlusion: how much is lost where that part of the picture is covered.",
}


def page(
    title: str, method: str, at: str, kind: str, articles: Iterable[str], before: str = "", after: str = ""
) -> str:
    """The whole page, for labels of that ``kind``; ``before`` and ``after``: files of its neighbours, if there are."""
    what, which = ("value", "of a map") if kind == "value" else ("class’s logit", "of all maps of a picture")
    links = [
        f'<a href="{quote(file)}">{escape(words)}</a>'
        for file, words in ((before, "← pictures before"), (after, "more pictures →"))
        if file
    ]
    nav = f"<nav>{''.join(links)}</nav>" if links else ""
    stops = ", ".join(f"rgb{colour} {place:.0%}" for place, colour in STOPS)
    legend = (
        f'<p class="legend"><span>speaks for it: a little</span><i style="background: '
        f'linear-gradient(to right, {stops})"></i><span>most</span></p>'
    )
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(_WORDS[method].format(at=at, what=what))} The brightest "
        f"colour is the largest {which}; without colour, nothing speaks for it. What is darker was cut away before the "
        "network saw it.</p>"
        f"{legend}</header>\n{nav}{chr(10).join(articles)}\n{nav}"
    )
    return whole(title, _STYLE, body)


def article(found: Explanation, files: Sequence[str]) -> str:
    """A picture and its maps, each a link to its file."""
    photo = f'<figure><img alt="the photo" src="{_data(scaled(found.photo, SIDE))}"></figure>'
    shown = "".join(_figure(found, index, file) for index, file in enumerate(files))
    return f"<article><h2>{escape(found.picture)}</h2><div>{photo}{shown}</div></article>"


def unread(picture: str, why: str) -> str:
    """A picture that could not be read, and why."""
    return f'<article class="unread"><h2>{escape(picture)}</h2><p>{escape(why)}</p></article>'


def _figure(found: Explanation, index: int, file: str) -> str:
    name, image = found.names[index], _data(found.overlay(index, SIDE))
    bar = (
        "" if found.labels.kind == "value" else f'<i class="bar"><i style="width: {found.answers[index]:.1%}"></i></i>'
    )
    return (
        f'<figure><a href="{quote(file)}"><img alt="what speaks for {escape(name)}" src="{image}"></a>'
        f"<figcaption><b>{escape(name)}</b><span>{found.told(index)}</span>{bar}</figcaption></figure>"
    )


def _data(image: Image.Image) -> str:
    out = BytesIO()
    image.save(out, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"


_STYLE = """
@media screen { main { max-width: 76rem } }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; font-weight: 650; letter-spacing: -.02em; margin: 0 }
h2 { font-size: .95rem; font-weight: 560; margin: 0 0 .6rem }
header p { color: var(--soft); max-width: 48rem; margin: .75rem 0 }
.legend { display: flex; gap: .6rem; align-items: center; font-size: .85rem; white-space: nowrap }
.legend i { flex: 0 1 9rem; height: .6rem; border-radius: 1rem }
article { border-top: 1px solid var(--line); padding-top: 1.1rem; margin-top: 1.75rem; break-inside: avoid }
article > div { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)) }
.unread p { color: var(--soft); margin: 0 }
figure a { display: block; border-radius: .5rem } img { display: block; width: 100%; border-radius: .5rem }
figcaption { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; font-size: .9rem; padding-top: .35rem }
figcaption b { font-weight: 560 } figcaption span { color: var(--soft) }
.bar { grid-column: 1 / -1; height: .35rem; margin-top: .3rem } .bar i { background: var(--mark) }
nav { display: flex; gap: 1.5rem; margin-top: 1.75rem }
@media (max-width: 40rem) { article > div { grid-template-columns: 1fr 1fr } }
@media print { .legend i { print-color-adjust: exact } }
"""
