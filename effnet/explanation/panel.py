"""A panel that shows where several networks look, side by side: Figure 7 of arXiv:1905.11946, for any networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from effnet.data.image_io import ImageSource
from effnet.draw.text import clean_text, load_font_for, truncate_measured
from effnet.explanation.explainer import Explanation, explain, scale_photo
from effnet.net import EfficientNet
from effnet.prediction.predictor import name_images

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
