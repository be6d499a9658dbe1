"""The run as one self-contained page: no script, no other file, nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from effnet.data.image_io import ImageSource
from effnet.data.storage.atomic_write import atomic_write
from effnet.evaluation import AnyEvaluation, MultiLabelEvaluation, RegressionEvaluation
from effnet.net import EfficientNet
from effnet.training.recipes import Recipe
from effnet.training.report import evaluation_sections
from effnet.training.report.html import ImageGallery, escape_html, render_page, section
from effnet.training.report.run_sections import (
    DataSummary,
    RunCost,
    cost_section,
    curves_section,
    data_section,
    model_section,
    recipe_section,
    unreadable_section,
    usage_section,
)
from effnet.training.run_dir import TrainResult

SPLIT_DESCRIPTIONS = {
    "test": "pictures of the test set",
    "val": "pictures of the validation set",
    "holdout": "pictures that were held out",
}


def write_report(
    path: Path,
    result: TrainResult,
    model: EfficientNet,
    recipe: Recipe,
    images: Mapping[str, ImageSource] | None = None,
    cost: RunCost | None = None,
    data: DataSummary | None = None,
    command: str = "",
) -> None:
    """Writes the page to ``path``.

    ``pictures`` are those of ``result.split`` by their names, as ``Item`` holds them; None for those of ``data``. Of
    the surest mistakes and the least certain pictures a small copy goes into the page, with the class activation map.
    ``command`` is what was typed. What is not given is left away. Raises ``OSError`` where it cannot be written.
    """
    found = result.evaluation
    if images is None:
        images = data.images_of(result.report_split) if data else {}
    seen = f"pictures of “{escape_html(result.report_split)}”, on which choices were made: expect less on others"
    if result.report_split in SPLIT_DESCRIPTIONS:
        seen = f"{SPLIT_DESCRIPTIONS[result.report_split]}, which no choice has seen"
    others = "".join(
        f"<p>{escape_html(name)}: {escape_html(one.summary())}, of {one.images:,} pictures.</p>"
        for name, one in result.evaluations.items()
        if name != result.report_split
    )
    headline, judged = _evaluation_sections(found, seen, ImageGallery(model, images))
    sections = [
        ("What was trained", model_section(result, model, recipe, command)),
        ("Training", curves_section(result, found.task)),
        *judged,
        ("What it cost", cost_section(cost or RunCost(), result.history, model)),
        ("The pictures", data_section(data) if data else ""),
        ("Pictures left out", unreadable_section(result)),
        ("Use the model", usage_section(result.model, found.task)),
        ("The recipe’s settings", recipe_section(recipe)),
    ]
    parts = [f"<header>{headline}{others}</header>", *(section(*one) for one in sections)]
    title = f"{model.arch.name}: {found.summary()}"
    with atomic_write(path) as beside:
        beside.write_text(render_page(title, parts), encoding="utf-8", errors="replace")


def _evaluation_sections(found: AnyEvaluation, seen: str, gallery: ImageGallery) -> tuple[str, list[tuple[str, str]]]:
    """The headline and the sections of an evaluation, by the kind of its labels."""
    if isinstance(found, MultiLabelEvaluation):
        return evaluation_sections.multilabel_headline(found, seen), evaluation_sections.multilabel_sections(
            found, gallery
        )
    if isinstance(found, RegressionEvaluation):
        return evaluation_sections.regression_headline(found, seen), evaluation_sections.regression_sections(
            found, gallery
        )
    return evaluation_sections.classification_headline(found, seen), evaluation_sections.classification_sections(
        found, gallery
    )
