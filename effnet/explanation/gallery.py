"""A caption below a picture."""

from __future__ import annotations

import csv
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from effnet.draw.font import clean_text, load_font_for, truncate_measured
from effnet.draw.html_page import render_page as whole
from effnet.explanation.explainer import Explanation, scale_photo
from effnet.explanation.heatmap import COLOR_STOPS

CAPTION_BACKGROUND, CAPTION_COLOR, CAPTION_SOFT_COLOR = (
    "#15181d",
    "#f2f3f5",
    "#9aa3b2",
)  # it goes with light pages and dark ones


def add_caption(image: Image.Image, left: str, right: str = "") -> Image.Image:
    """``picture`` with a line below it: ``left`` is shortened where there is no room for both."""
    size = max(11, min(22, image.width // 26))
    face, edge = load_font_for(size, left, right), size // 2
    high = round(size * 2)
    made = Image.new("RGB", (image.width, image.height + high), CAPTION_BACKGROUND)
    made.paste(image, (0, 0))
    draw, middle = ImageDraw.Draw(made), image.height + high / 2
    room = image.width - 2 * edge - (face.getlength(right) + size if right else 0)
    draw.text(
        (edge, middle), truncate_measured(clean_text(left), room, face.getlength), CAPTION_COLOR, face, anchor="lm"
    )
    draw.text((image.width - edge, middle), right, CAPTION_SOFT_COLOR, face, anchor="rm")
    return made


# Explanations as a self-contained page: every picture with its maps. No script, and nothing from a network.


PAGE_IMAGE_SIDE = 400  # pixels of a picture's longer side


_METHOD_DESCRIPTIONS = {
    "cam": "Class activation maps: a map sums to the {what} without its bias, so each colour is a share of it.",
    "gradcam": "Grad-CAM of the part {at}: where stronger features would raise the {what}, to first order.",
    "occlusion": "Occlusion: how much is lost where that part of the picture is covered.",
}


def render_page(
    title: str, method: str, layer: str, task: str, articles: Iterable[str], before: str = "", after: str = ""
) -> str:
    """The whole page, for labels of that ``kind``; ``before`` and ``after``: files of its neighbours, if there are."""
    what, which = ("value", "of a map") if task == "regression" else ("class’s logit", "of all maps of a picture")
    links = [
        f'<a href="{quote(file)}">{escape(words)}</a>'
        for file, words in ((before, "← pictures before"), (after, "more pictures →"))
        if file
    ]
    nav = f"<nav>{''.join(links)}</nav>" if links else ""
    stops = ", ".join(f"rgb{colour} {place:.0%}" for place, colour in COLOR_STOPS)
    legend = (
        f'<p class="legend"><span>speaks for it: a little</span><i style="background: '
        f'linear-gradient(to right, {stops})"></i><span>most</span></p>'
    )
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(_METHOD_DESCRIPTIONS[method].format(at=layer, what=what))} The brightest "
        f"colour is the largest {which}; without colour, nothing speaks for it. What is darker was cut away before the "
        "network saw it.</p>"
        f"{legend}</header>\n{nav}{chr(10).join(articles)}\n{nav}"
    )
    return whole(title, _PAGE_STYLE, body)


def render_article(found: Explanation, files: Sequence[str]) -> str:
    """A picture and its maps, each a link to its file."""
    photo = f'<figure><img alt="the photo" src="{_data_url(scale_photo(found.photo, PAGE_IMAGE_SIDE))}"></figure>'
    shown = "".join(_render_figure(found, index, file) for index, file in enumerate(files))
    return f"<article><h2>{escape(found.image)}</h2><div>{photo}{shown}</div></article>"


def render_unreadable(image: str, why: str) -> str:
    """A picture that could not be read, and why."""
    return f'<article class="unread"><h2>{escape(image)}</h2><p>{escape(why)}</p></article>'


def _render_figure(found: Explanation, index: int, file: str) -> str:
    name, image = found.names[index], _data_url(found.overlay(index, PAGE_IMAGE_SIDE))
    bar = (
        ""
        if found.labels.task == "regression"
        else f'<i class="bar"><i style="width: {found.scores[index]:.1%}"></i></i>'
    )
    return (
        f'<figure><a href="{quote(file)}"><img alt="what speaks for {escape(name)}" src="{image}"></a>'
        f"<figcaption><b>{escape(name)}</b><span>{found.format_score(index)}</span>{bar}</figcaption></figure>"
    )


def _data_url(image: Image.Image) -> str:
    out = BytesIO()
    image.save(out, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"


_PAGE_STYLE = """
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


# A folder of explanations: a picture for each map, a page to look through, a table, and the maps themselves.


PAGE_FILE, TABLE_FILE = "index.html", "index.csv"


IMAGES_PER_PAGE = 100  # or a browser would have to hold hundreds of megabytes


GALLERY_COLUMNS = (
    "picture",
    "rank",
    "label",
    "answer",
    "logit",
    "overlay",
    "maps",
    "left",
    "top",
    "right",
    "bottom",
    "error",
)


_MAX_NAME_BYTES = 60  # bytes of a picture's or a label's name in a file's


_GALLERY_FILES = re.compile(r"index(-\d+)?\.html|index\.csv|\d{4,}-.*\.(png|npy)")


class Gallery:
    """Writes explanations into ``folder`` as they are added; to be used in a ``with`` block, at whose end it is whole.

    - ``0001-NAME-1-LABEL.png`` …: the map over the photo, with the label and the answer below it;
    - ``0001-NAME.npy`` with ``raw``: the maps, float32 (classes, height, width);
    - ``index.html``, and for every further 100 pictures ``index-2.html`` …: all of them, self-contained;
    - ``index.csv``: a line a map, by `COLUMNS`, or a line that says why a picture could not be read.

    Raises ``FileExistsError`` at once where the folder is a file, or is not empty; with ``force`` only where not all
    that is in it was left there by an album. With the first picture the folder is made, and an earlier album removed.
    """

    def __init__(
        self, folder: Path, title: str, method: str, layer: str, raw: bool = False, force: bool = False
    ) -> None:
        self.folder, self.title, self.method, self.layer, self.raw = folder, title, method, layer, raw
        self.images, self._kind = 0, "classification"
        self._articles: list[str] = []
        self._page = 1
        self._file: TextIO | None = None
        self._earlier = _check_folder(folder, force)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()
            self._write_page(last=True)

    def add(self, found: Explanation) -> list[str]:
        """Writes one explanation. The names of its files: one a map, and with ``raw`` that of the maps."""
        self._start_image()
        self._kind = found.labels.task
        stem = f"{self.images:04}-{_safe_file_name(Path(found.image).stem or found.image)}"
        files = [f"{stem}-{rank}-{_safe_file_name(name)}.png" for rank, name in enumerate(found.names, start=1)]
        raw = f"{stem}.npy" if self.raw else ""
        for index, file in enumerate(files):
            add_caption(found.overlay(index), found.names[index], found.format_score(index)).save(self.folder / file)
            row = (found.image, index + 1, found.names[index], f"{found.scores[index]:.6g}")
            box = (f"{side:.2f}" for side in found.box)
            self._write_row(*row, f"{found.logits[index]:.6g}", file, raw, *box, "")
        if raw:
            np.save(self.folder / raw, found.maps)
        self._articles.append(render_article(found, files))
        return [*files, *([raw] if raw else [])]

    def add_unreadable(self, image: str, why: str) -> None:
        """Says in the page and in the table that a picture could not be read."""
        self._start_image()
        self._write_row(image, *[""] * (len(GALLERY_COLUMNS) - 2), why)
        self._articles.append(render_unreadable(image, why))

    def _start_image(self) -> None:
        """Counts a picture; begins with the first, and turns the page where it is full."""
        if self._file is None:
            for one in self._earlier:
                one.unlink()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / TABLE_FILE).open("w", newline="", encoding="utf-8", errors="backslashreplace")
            self._write_row(*GALLERY_COLUMNS)
        if self.images and self.images % IMAGES_PER_PAGE == 0:
            self._write_page(last=False)
        self.images += 1

    def _write_row(self, *cells: object) -> None:
        assert self._file
        csv.writer(self._file, lineterminator="\n").writerow(cells)
        self._file.flush()

    def _write_page(self, last: bool) -> None:
        before, after = _page_file(self._page - 1), "" if last else _page_file(self._page + 1)
        text = render_page(self.title, self.method, self.layer, self._kind, self._articles, before, after)
        (self.folder / _page_file(self._page)).write_text(text, encoding="utf-8", errors="backslashreplace")
        self._articles, self._page = [], self._page + 1


def _check_folder(folder: Path, force: bool) -> list[Path]:
    """The files of an earlier album in ``folder``, to be removed; raises unless there is nothing else in it."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder that is empty or does not exist")
    within = sorted(folder.iterdir()) if folder.is_dir() else []
    if within and not force:
        raise FileExistsError(f"{folder} is not empty: give another folder, or --force to replace an earlier result")
    others = [one.name for one in within if not _GALLERY_FILES.fullmatch(one.name) or not one.is_file()]
    if others or (within and not (folder / TABLE_FILE).is_file()):
        other = others[0] if others else within[0].name
        raise FileExistsError(f"{folder} holds {other}, which is no earlier result of this: give another folder")
    return within


def _page_file(number: int) -> str:
    """The file of page ``number``; empty for the one before the first."""
    return {0: "", 1: PAGE_FILE}.get(number, f"index-{number}.html")


def _safe_file_name(name: str) -> str:
    """``name`` as a part of a file's name on any system."""
    plain = re.sub(r"[^\w.@+-]+", "_", name).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return plain.strip("._") or "picture"
