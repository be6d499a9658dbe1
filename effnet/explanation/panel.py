"""Where several networks look, side by side: Figure 7 of the paper (arXiv:1905.11946), for any networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from effnet.data.image_io import ImageSource
from effnet.draw.font import clean_text, load_font_for, truncate_measured
from effnet.explanation.explainer import Explanation, explain, scale_photo
from effnet.net import EfficientNet

CELL_WIDTH = 256  # pixels: the width of a cell
MAX_CELL_ASPECT = 1.25  # a cell's height over its width, at most
GAP, EDGE, LINE = 10, 20, 26
TEXT_COLOR, SOFT_TEXT_COLOR = "#1b1e23", "#636b78"
PanelCell = tuple[Image.Image, str, str]  # a picture, and on the left and on the right below it


def draw_panel(
    models: Sequence[tuple[str, EfficientNet]],
    images: ImageSource | Sequence[ImageSource],
    classes: Sequence[str | int] | None = None,
    method: str = "cam",
    layer: str = "head",
    side: int = CELL_WIDTH,
) -> Image.Image:
    """A row a picture: the photo, and over it where each of ``models``, (name, network), looks; the names above.

    All networks of a row explain the same class: that of ``classes``, one a picture by name or number, or else the one
    that they find likeliest in the mean. Each map has its own brightest colour, since logits of different networks do
    not compare; below it stand the class and the network's answer. Each network sees the picture as its own contract
    says. ``side`` is the width of a picture in pixels. Raises ``ValueError`` without models or pictures, for models
    whose classes differ, and what `explain` raises.
    """
    if isinstance(images, (str, Path, bytes, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    given = list(images)  # type: ignore[arg-type]
    if not models or not given:
        raise ValueError("a panel needs at least one model and one picture")
    if classes is not None and len(classes) != len(given):
        raise ValueError(f"{len(given)} pictures need as many classes, not {len(classes)}: give one a picture, or none")
    _require_same_classes(models)
    wanted = [None] * len(given) if classes is None else [[one] for one in classes]
    networks = [network for _, network in models]
    rows = [
        _explain_row(networks, picture, one, method, layer, side) for picture, one in zip(given, wanted, strict=True)
    ]
    return _assemble(["photo", *(name for name, _ in models)], rows, side)


def _require_same_classes(models: Sequence[tuple[str, EfficientNet]]) -> None:
    """Raises ``ValueError`` unless all have the same classes."""
    (first, one), *others = models
    for name, other in others:
        renamed = one.labels.names and other.labels.names and other.labels.names != one.labels.names
        if renamed or (other.classes, other.labels.task) != (one.classes, one.labels.task):
            raise ValueError(f"{first} and {name} have different classes: a panel compares models of the same ones")


def _explain_row(
    networks: Sequence[EfficientNet],
    image: ImageSource,
    wanted: list[str | int] | None,
    method: str,
    layer: str,
    side: int,
) -> list[PanelCell]:
    found = _explain_same_class(networks, image, wanted, method, layer)
    photo, name = found[0].photo, found[0].image
    cells: list[PanelCell] = [(_fit_to_cell(scale_photo(photo, 2 * side), side), Path(name).stem or name, "")]
    for one in found:
        cells.append((_fit_to_cell(one.overlay(0, 2 * side), side), one.names[0], one.format_score()))
    return cells


def _explain_same_class(
    networks: Sequence[EfficientNet], image: ImageSource, wanted: list[str | int] | None, method: str, layer: str
) -> list[Explanation]:
    """The picture by each network, of one class."""
    if wanted is None:
        first = [explain(network, image, top=1) for network in networks]
        candidates = sorted({one.classes[0] for one in first})
        wanted = [candidates[0]]
        if len(candidates) > 1:
            answers = [explain(network, image, candidates).scores for network in networks]
            wanted = [candidates[int(np.mean(answers, axis=0).argmax())]]
        if method == "cam":
            return [
                one if list(one.classes) == wanted else explain(network, image, wanted)
                for network, one in zip(networks, first, strict=True)
            ]
    return [explain(network, image, wanted, method=method, layer=layer) for network in networks]


def _fit_to_cell(image: Image.Image, side: int) -> Image.Image:
    """The picture ``side`` pixels wide, or narrower in the middle of that where it would become too tall."""
    width, height = side, round(side * image.height / image.width)
    most = round(MAX_CELL_ASPECT * side)
    if height > most:
        width, height = max(1, round(side * most / height)), most
    shown = image.resize((width, max(1, height)), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", (side, shown.height), "white")
    framed.paste(shown, ((side - width) // 2, 0))
    return framed


def _assemble(heads: list[str], rows: list[list[PanelCell]], side: int) -> Image.Image:
    """The cells under their heads."""
    head, small = (
        load_font_for(15, *heads),
        load_font_for(12, *(word for row in rows for _, *words in row for word in words)),
    )
    heights = [row[0][0].height + LINE for row in rows]
    width = 2 * EDGE + len(heads) * (side + GAP) - GAP
    made = Image.new("RGB", (width, 2 * EDGE + LINE + sum(heights) + GAP * (len(rows) - 1)), "white")
    draw = ImageDraw.Draw(made)
    for column, name in enumerate(heads):
        middle = EDGE + column * (side + GAP) + side / 2
        draw.text(
            (middle, EDGE + LINE / 2),
            truncate_measured(clean_text(name), side, head.getlength),
            TEXT_COLOR,
            head,
            anchor="ms",
        )
    y = EDGE + LINE
    for row, high in zip(rows, heights, strict=True):
        for column, (picture, left, right) in enumerate(row):
            x, middle = EDGE + column * (side + GAP), y + picture.height + LINE / 2 - 3
            made.paste(picture, (x, y))
            room = side - (small.getlength(right) + 10 if right else 0)
            draw.text(
                (x, middle), truncate_measured(clean_text(left), room, small.getlength), TEXT_COLOR, small, anchor="lm"
            )
            draw.text((x + side, middle), right, SOFT_TEXT_COLOR, small, anchor="rm")
        y += high + GAP
    return made
