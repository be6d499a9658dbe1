"""The run as one self-contained page: no script, no other file, nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from effnet.data.pixels import Source
from effnet.evaluation import Judged, LabelsEvaluation, ValuesEvaluation
from effnet.net import EfficientNet
from effnet.training.folder import Result
from effnet.training.recipe import Recipe
from effnet.training.report import classes, labels, values
from effnet.training.report.cost import Cost, spent
from effnet.training.report.course import facts, learning, left_out, settings, use
from effnet.training.report.data import Data, described
from effnet.training.report.gallery import Gallery
from effnet.training.report.page import page, plain, section
from effnet.weights.atomic import replacing

SPLITS = {
    "test": "pictures of the test set",
    "val": "pictures of the validation set",
    "holdout": "pictures that were held out",
}


def write_report(
    path: Path,
    result: Result,
    model: EfficientNet,
    recipe: Recipe,
    pictures: Mapping[str, Source] | None = None,
    cost: Cost | None = None,
    data: Data | None = None,
    command: str = "",
) -> None:
    """Writes the page to ``path``.

    ``pictures`` are those of ``result.split`` by their names, as ``Item`` holds them; None for those of ``data``. Of
    the surest mistakes and the least certain pictures a small copy goes into the page, with the class activation map.
    ``command`` is what was typed. What is not given is left away. Raises ``OSError`` where it cannot be written.
    """
    found = result.evaluation
    if pictures is None:
        pictures = data.sources(result.split) if data else {}
    seen = f"pictures of “{plain(result.split)}”, on which choices were made: expect less on others"
    if result.split in SPLITS:
        seen = f"{SPLITS[result.split]}, which no choice has seen"
    others = "".join(
        f"<p>{plain(name)}: {plain(one.in_words())}, of {one.pictures:,} pictures.</p>"
        for name, one in result.evaluations.items()
        if name != result.split
    )
    headline, judged = _judged(found, seen, Gallery(model, pictures))
    sections = [
        ("What was trained", facts(result, model, recipe, command)),
        ("Training", learning(result, found.kind)),
        *judged,
        ("What it cost", spent(cost or Cost(), result.history, model)),
        ("The pictures", described(data) if data else ""),
        ("Pictures left out", left_out(result)),
        ("Use the model", use(result.model, found.kind)),
        ("The recipe’s settings", settings(recipe)),
    ]
    parts = [f"<header>{headline}{others}</header>", *(section(*one) for one in sections)]
    title = f"{model.arch.name}: {found.in_words()}"
    with replacing(path) as beside:
        beside.write_text(page(title, parts), encoding="utf-8", errors="replace")


def _judged(found: Judged, seen: str, gallery: Gallery) -> tuple[str, list[tuple[str, str]]]:
    """The headline and the sections of an evaluation, by the kind of its labels."""
    if isinstance(found, LabelsEvaluation):
        return labels.headline(found, seen), labels.sections(found, gallery)
    if isinstance(found, ValuesEvaluation):
        return values.headline(found, seen), values.sections(found, gallery)
    return classes.headline(found, seen), classes.sections(found, gallery)
