"""Galleries of explanations (an image per map, HTML pages, a table, the maps themselves), and panels of networks."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO
from urllib.parse import quote

import numpy as np
from jinja2 import DictLoader
from PIL import Image, ImageDraw

from effnet.data.image_io import ImageSource
from effnet.data.storage.atomic_write import name_write_errors
from effnet.data.storage.csv_files import csv_writer
from effnet.draw import html_page
from effnet.draw.text import clean_text, load_font_for, printable_page, truncate_measured
from effnet.explanation import explainer, heatmap
from effnet.explanation.explainer import Explanation, explain, scale_photo
from effnet.net import EfficientNet
from effnet.prediction.predictor import name_images
from effnet.tasks import task_of

PAGE_FILE, TABLE_FILE = "index.html", "index.csv"
GALLERY_COLUMNS = (
    *("image", "rank", "label", "score", "logit", "overlay", "maps"),
    *("left", "top", "right", "bottom", "error"),
)
IMAGES_PER_PAGE = 100  # a browser would have to hold hundreds of megabytes otherwise
PAGE_IMAGE_SIDE = 400  # pixels of an image's longer side

# Captions go with light and dark pages
CAPTION_BACKGROUND, CAPTION_COLOR, CAPTION_SOFT_COLOR = "#15181d", "#f2f3f5", "#9aa3b2"

_MAX_NAME_BYTES = 60  # of an image's or a label's name within a file name
_OWN_FILES = re.compile(r"index(-\d+)?\.html|index\.csv|\d{4,}-.*\.(png|npy)")


class Gallery:
    """Writes explanations into ``folder`` as they are added; a context manager, at whose end the pages are complete.

    - ``0001-NAME-1-LABEL.png`` …: a map over the photo, with the label and the score below;
    - ``0001-NAME.npy`` with ``raw``: the maps, float32 (classes, height, width);
    - ``index.html``, and ``index-2.html`` … for every further 100 images: self-contained pages;
    - ``index.csv``: a row of `GALLERY_COLUMNS` per map, or a row with the error of an unreadable image.

    The folder is created, and an earlier gallery in it removed, with the first image. Raises ``FileExistsError`` if it
    is a file or not empty; with ``force`` only if it contains anything other than an earlier gallery.
    """

    def __init__(
        self, folder: Path, title: str, method: str, layer: str, raw: bool = False, force: bool = False
    ) -> None:
        self.folder, self.title, self.method, self.layer, self.raw = folder, title, method, layer, raw
        self.images, self._task = 0, "classification"
        self._entries: list[dict[str, Any]] = []  # of the current page
        self._page = 1
        self._table: TextIO | None = None
        self._earlier_files = _check_folder(folder, force)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._table:
            with name_write_errors(self.folder) if error[0] is None else suppress(OSError):
                self._table.close()
                self._write_page(last=True)

    def add(self, explanation: explainer.Explanation) -> list[str]:
        """Write an explanation; return the names of its files: one per map, and that of the raw maps.

        Raises ``OSError`` that names the folder if it cannot be written.
        """
        with name_write_errors(self.folder):
            return self._add(explanation)

    def _add(self, explanation: explainer.Explanation) -> list[str]:
        self._start_image()
        self._task = explanation.labels.task
        stem = f"{self.images:04}-{_safe_file_name(Path(explanation.image).stem or explanation.image)}"
        names = explanation.names
        files = [f"{stem}-{rank}-{_safe_file_name(name)}.png" for rank, name in enumerate(names, start=1)]
        raw = f"{stem}.npy" if self.raw else ""
        box = [f"{side:.2f}" for side in explanation.box]
        for index, (name, file) in enumerate(zip(names, files, strict=True)):
            captioned = add_caption(explanation.overlay(index), name, explanation.format_score(index))
            captioned.save(self.folder / file)
            numbers = (f"{explanation.scores[index]:.6g}", f"{explanation.logits[index]:.6g}")
            self._write_row(explanation.image, index + 1, name, *numbers, file, raw, *box, "")
        if raw:
            np.save(self.folder / raw, explanation.maps)
        self._entries.append(_page_entry(explanation, files))
        return [*files, *([raw] if raw else [])]

    def add_unreadable(self, image: str, error: str) -> None:
        """Report on the page and in the table that an image could not be read."""
        with name_write_errors(self.folder):
            self._start_image()
            self._write_row(image, *[""] * (len(GALLERY_COLUMNS) - 2), error)
        self._entries.append({"image": image, "error": error})

    def _start_image(self) -> None:
        if self._table is None:
            for path in self._earlier_files:
                path.unlink()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._table = (self.folder / TABLE_FILE).open("w", newline="", encoding="utf-8", errors="backslashreplace")
            self._write_row(*GALLERY_COLUMNS)
        if self.images and self.images % IMAGES_PER_PAGE == 0:
            self._write_page(last=False)
        self.images += 1

    def _write_row(self, *cells: object) -> None:
        assert self._table
        csv_writer(self._table)(cells)
        self._table.flush()

    def _write_page(self, last: bool) -> None:
        template = html_page.make_environment(DictLoader({"gallery.html": _TEMPLATE})).get_template("gallery.html")
        html = template.render(
            title=self.title,
            method=self.method,
            layer=self.layer,
            has_probabilities=task_of(self._task).has_probabilities,
            color_stops=", ".join(f"rgb{color} {stop:.0%}" for stop, color in heatmap.COLOR_STOPS),
            entries=self._entries,
            previous=_page_file(self._page - 1),
            following="" if last else _page_file(self._page + 1),
        )
        (self.folder / _page_file(self._page)).write_text(printable_page(html), encoding="utf-8")
        self._entries, self._page = [], self._page + 1


def _check_folder(folder: Path, force: bool) -> list[Path]:
    """Return the files of an earlier gallery in ``folder``, to be removed."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a directory that is empty or does not exist")
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if paths and not force:
        raise FileExistsError(f"{folder} is not empty: give another directory, or --force to replace an earlier result")
    others = [path.name for path in paths if not _OWN_FILES.fullmatch(path.name) or not path.is_file()]
    if others or (paths and not (folder / TABLE_FILE).is_file()):
        other = others[0] if others else paths[0].name
        raise FileExistsError(f"{folder} contains {other}, which is no earlier result: give another directory")
    return paths


def _page_file(number: int) -> str:
    """Return the file name of a page, "" for the one before the first."""
    return {0: "", 1: PAGE_FILE}.get(number, f"index-{number}.html")


def _safe_file_name(name: str) -> str:
    """Return ``name`` as part of a file name on any system."""
    plain = re.sub(r"[^\w.@+-]+", "_", name).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return plain.strip("._") or "image"


def add_caption(image: Image.Image, left: str, right: str = "") -> Image.Image:
    """Return the image with a line of text below it; ``left`` is shortened if there is no room for both."""
    size = max(11, min(22, image.width // 26))
    face, margin, height = load_font_for(size, left, right), size // 2, size * 2
    captioned = Image.new("RGB", (image.width, image.height + height), CAPTION_BACKGROUND)
    captioned.paste(image, (0, 0))
    draw, middle = ImageDraw.Draw(captioned), image.height + height / 2
    room = image.width - 2 * margin - (face.getlength(right) + size if right else 0)
    left = truncate_measured(clean_text(left), room, face.getlength)
    draw.text((margin, middle), left, CAPTION_COLOR, face, anchor="lm")
    draw.text((image.width - margin, middle), right, CAPTION_SOFT_COLOR, face, anchor="rm")
    return captioned


def _page_entry(explanation: explainer.Explanation, files: Sequence[str]) -> dict[str, Any]:
    has_probabilities = task_of(explanation.labels.task).has_probabilities
    maps = [
        {
            "label": explanation.names[index],
            "link": quote(file),
            "source": html_page.jpeg_data_url(explanation.overlay(index, PAGE_IMAGE_SIDE)),
            "score": explanation.format_score(index),
            "bar": f"{explanation.scores[index]:.1%}" if has_probabilities else "",
        }
        for index, file in enumerate(files)
    ]
    photo = html_page.jpeg_data_url(explainer.scale_photo(explanation.photo, PAGE_IMAGE_SIDE))
    return {"image": explanation.image, "photo": photo, "maps": maps, "error": ""}


_TEMPLATE = """\
{% extends "page.html" %}
{% block style %}
@media screen { main { max-width: 76rem } }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; font-weight: 650; letter-spacing: -.02em; margin: 0 }
h2 { font-size: .95rem; font-weight: 560; margin: 0 0 .6rem }
header p { color: var(--soft); max-width: 48rem; margin: .75rem 0 }
.legend { display: flex; gap: .6rem; align-items: center; font-size: .85rem; white-space: nowrap }
.legend i { flex: 0 1 9rem; height: .6rem; border-radius: 1rem }
article { border-top: 1px solid var(--line); padding-top: 1.1rem; margin-top: 1.75rem; break-inside: avoid }
article > div { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)) }
.unreadable p { color: var(--soft); margin: 0 }
figure a { display: block; border-radius: .5rem } img { display: block; width: 100%; border-radius: .5rem }
figcaption { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; font-size: .9rem; padding-top: .35rem }
figcaption b { font-weight: 560 } figcaption span { color: var(--soft) }
.bar { grid-column: 1 / -1; height: .35rem; margin-top: .3rem } .bar i { background: var(--mark) }
nav { display: flex; gap: 1.5rem; margin-top: 1.75rem }
@media (max-width: 40rem) { article > div { grid-template-columns: 1fr 1fr } }
@media print { .legend i { print-color-adjust: exact } }
{% endblock %}
{% macro navigation() %}
{% if previous or following %}
<nav>
{% if previous %}<a href="{{ previous }}">← previous images</a>{% endif %}
{% if following %}<a href="{{ following }}">more images →</a>{% endif %}
</nav>
{% endif %}
{% endmacro %}
{% block body %}
{% set output = "class’s logit" if has_probabilities else "value" %}
<header><h1>{{ title }}</h1><p>
{% if method == "cam" %}
Class activation maps: a map sums to the {{ output }} without its bias, so each color is a share of it.
{% elif method == "gradcam" %}
Grad-CAM of {{ layer }}: where stronger features would raise the {{ output }}, to first order.
{% else %}
Occlusion: how much is lost where that part of the image is covered.
{% endif %}
The brightest color is the maximum {{ "of all maps of an image" if has_probabilities else "of a map" }}; where there
is no color, nothing supports it. Darkened parts were cropped before the network saw the image.</p>
<p class="legend"><span>supports it: a little</span>
<i style="background: linear-gradient(to right, {{ color_stops }})"></i><span>most</span></p></header>
{{ navigation() }}
{% for entry in entries %}
{% if entry.error %}
<article class="unreadable"><h2>{{ entry.image }}</h2><p>{{ entry.error }}</p></article>
{% else %}
<article><h2>{{ entry.image }}</h2><div><figure><img alt="the photo" src="{{ entry.photo }}"></figure>
{% for map in entry.maps %}
<figure><a href="{{ map.link }}"><img alt="what supports {{ map.label }}" src="{{ map.source }}"></a>
<figcaption><b>{{ map.label }}</b><span>{{ map.score }}</span>
{% if map.bar %}<i class="bar"><i style="width: {{ map.bar }}"></i></i>{% endif %}</figcaption></figure>
{% endfor %}
</div></article>
{% endif %}
{% endfor %}
{{ navigation() }}
{% endblock %}
"""

# --- A panel: where several networks look, side by side (Figure 7 of arXiv:1905.11946, for any networks) -------------

MAX_CELL_ASPECT = 1.25  # height over width
GAP, EDGE, LINE = 10, 20, 26
TEXT_COLOR, SOFT_TEXT_COLOR = "#1b1e23", "#636b78"
PanelCell = tuple[Image.Image, str, str]  # an image, and the texts below it on the left and on the right


def draw_panel(
    models: Sequence[tuple[str, EfficientNet]],
    images: ImageSource | Sequence[ImageSource],
    classes: Sequence[str | int] | None = None,
    method: str = "cam",
    layer: str = "head",
    side: int = 256,
) -> Image.Image:
    """Draw one row per image: the photo, and where each network looks.

    All networks of a row explain the same class: that of ``classes``, one per image, or the most likely one on average.
    Each map has its own brightest color, since logits of different networks are not comparable. Each network sees the
    image through its own preprocessing. ``models`` are (name, network) pairs; ``side`` is a cell's width in pixels.

    Raises ``ValueError`` without models or images, or if the models' classes differ; and as `explain` does.
    """
    sources = [source for _, source in name_images(images)]
    if not models or not sources:
        raise ValueError("a panel needs at least one model and one image")
    if classes is not None and len(classes) != len(sources):
        raise ValueError(f"{len(sources)} images need as many classes, not {len(classes)}: give one per image, or none")
    _require_same_classes(models)
    chosen = [None] * len(sources) if classes is None else [[one] for one in classes]
    networks = [network for _, network in models]
    rows = [
        _make_row(_explain_same_class(networks, source, one, method, layer), side)
        for source, one in zip(sources, chosen, strict=True)
    ]
    return _assemble(["photo", *(name for name, _ in models)], rows, side)


def _require_same_classes(models: Sequence[tuple[str, EfficientNet]]) -> None:
    (first_name, first), *others = models
    for name, other in others:
        renamed = first.labels.names and other.labels.names and other.labels.names != first.labels.names
        if renamed or (other.classes, other.labels.task) != (first.classes, first.labels.task):
            raise ValueError(
                f"{first_name} and {name} have different classes: a panel needs models of the same classes"
            )


def _explain_same_class(
    networks: Sequence[EfficientNet], image: ImageSource, classes: list[str | int] | None, method: str, layer: str
) -> list[Explanation]:
    if classes is None:
        likely = [explain(network, image, top=1) for network in networks]
        candidates = sorted({explanation.classes[0] for explanation in likely})
        classes = [candidates[0]]
        if len(candidates) > 1:
            scores = [explain(network, image, candidates).scores for network in networks]
            classes = [candidates[int(np.mean(scores, axis=0).argmax())]]
        if method == "cam":
            return [
                explanation if list(explanation.classes) == classes else explain(network, image, classes)
                for network, explanation in zip(networks, likely, strict=True)
            ]
    return [explain(network, image, classes, method=method, layer=layer) for network in networks]


def _make_row(explanations: Sequence[Explanation], side: int) -> list[PanelCell]:
    photo, name = explanations[0].photo, explanations[0].image
    return [
        (_fit_to_cell(scale_photo(photo, 2 * side), side), Path(name).stem or name, ""),
        *((_fit_to_cell(each.overlay(0, 2 * side), side), each.names[0], each.format_score()) for each in explanations),
    ]


def _fit_to_cell(image: Image.Image, side: int) -> Image.Image:
    """Return the image ``side`` pixels wide; one that would be too tall is centered on white."""
    width, height = side, round(side * image.height / image.width)
    max_height = round(MAX_CELL_ASPECT * side)
    if height > max_height:
        width, height = max(1, round(side * max_height / height)), max_height
    resized = image.resize((width, max(1, height)), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (side, resized.height), "white")
    cell.paste(resized, ((side - width) // 2, 0))
    return cell


def _assemble(headings: list[str], rows: list[list[PanelCell]], side: int) -> Image.Image:
    texts = [text for row in rows for _, *below in row for text in below]
    large, small = load_font_for(15, *headings), load_font_for(12, *texts)
    heights = [row[0][0].height + LINE for row in rows]
    width = 2 * EDGE + len(headings) * (side + GAP) - GAP
    panel = Image.new("RGB", (width, 2 * EDGE + LINE + sum(heights) + GAP * (len(rows) - 1)), "white")
    draw = ImageDraw.Draw(panel)
    for column, heading in enumerate(headings):
        center = EDGE + column * (side + GAP) + side / 2
        text = truncate_measured(clean_text(heading), side, large.getlength)
        draw.text((center, EDGE + LINE / 2), text, TEXT_COLOR, large, anchor="ms")
    y = EDGE + LINE
    for row, height in zip(rows, heights, strict=True):
        for column, (image, left, right) in enumerate(row):
            x, middle = EDGE + column * (side + GAP), y + image.height + LINE / 2 - 3
            panel.paste(image, (x, y))
            room = side - (small.getlength(right) + 10 if right else 0)
            text = truncate_measured(clean_text(left), room, small.getlength)
            draw.text((x, middle), text, TEXT_COLOR, small, anchor="lm")
            draw.text((x + side, middle), right, SOFT_TEXT_COLOR, small, anchor="rm")
        y += height + GAP
    return panel
