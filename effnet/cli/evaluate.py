"""``effnet evaluate``: how good a model is on labelled pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import Batch, Decode, Device, Json, Offline, Strict

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.evaluation import Evaluation, Judged, LabelsEvaluation, ValuesEvaluation

CLASSES_MOST = 40  # in the table of classes; beyond, the weakest
CONFUSION_MOST = 20
MISTAKES = 5


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file of weights, a run's folder, or a name: b0.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder with one folder of pictures a class, or the word digits.")
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, val or test; by default the last of these there is.")
    ] = None,
    decode: Annotated[Decode, typer.Option(help="How JPEGs are decoded; reduced is what predict does.")] = Decode.exact,
    batch: Batch = 16,
    strict: Strict = False,
    device: Device = None,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Evaluate a model on labelled pictures.

    Accuracy, calibration, every class, what is taken for what, and the surest mistakes; of values the errors.
    """
    from effnet.cli.printing import progress, show_json
    from effnet.evaluation import evaluate as run

    with progress("evaluating") as step:
        found = run(model, data, split, decode.value, device, batch, strict, progress=step)
    if as_json:
        show_json(found.to_dict())
    else:
        _print(found)


def _print(found: Judged) -> None:
    from effnet.cli.printing import show
    from effnet.evaluation import LabelsEvaluation, ValuesEvaluation

    seen = f"of {found.pictures:,} pictures" + (f" of the split {found.split}" if found.split else "")
    if isinstance(found, LabelsEvaluation):
        parts = _of_labels(found, seen)
    elif isinstance(found, ValuesEvaluation):
        parts = _of_values(found, seen)
    else:
        parts = _of_classes(found, seen)
    if found.left_out:
        parts += [f"left out, since they could not be read: {len(found.left_out)}"]
        parts += [f"  {why}" for why in found.left_out]
    show(*parts)


def _of_classes(found: Evaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import percent

    parts: list[Table | str] = [
        f"{found.in_words()} {seen}",
        f"loss {found.loss:.3f}, calibration error {percent(found.calibration_error)}",
        *_classes(found),
    ]
    if len(found.classes) <= CONFUSION_MOST:
        parts.append(_confusion(found))
    return parts + (_mistakes(found) if found.mistakes else [])


def _of_labels(found: LabelsEvaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import percent, table

    shown = sorted(found.labels, key=lambda one: one.f1)[:CLASSES_MOST]
    shown = [one for one in found.labels if one in shown]
    listed = table("label", "pictures", "precision", "recall", "F1", "average precision", left=("label",))
    for one in shown:
        average = "–" if one.average_precision is None else percent(one.average_precision)
        shares = (percent(share) for share in (one.precision, one.recall, one.f1))
        listed.add_row(one.name, str(one.pictures), *shares, average)
    parts: list[Table | str] = [
        f"mean average precision {percent(found.mean_average_precision)} {seen}",
        f"labels right {percent(found.labels_right)}, all of a picture's right in {percent(found.pictures_right)}",
        f"loss {found.loss:.3f}, calibration error {percent(found.calibration_error)}",
        *([f"the {len(shown)} weakest of {len(found.labels)} labels:"] if len(shown) < len(found.labels) else []),
        listed,
    ]
    if found.mistakes:
        first = found.mistakes[:MISTAKES]
        surest = table("picture", "label", "", "probability", left=("picture", "label", ""))
        for wrong in first:
            surest.add_row(wrong.picture, wrong.label, "missed" if wrong.missed else "told", percent(wrong.probability))
        parts += [f"wrong labels, the {len(first)} surest:", surest]
    return parts


def _of_values(found: ValuesEvaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import figure, table

    listed = table("value", "R²", "RMSE", "mean absolute error", left=("value",))
    for one in found.values:
        listed.add_row(one.name, f"{one.r2:.3f}", figure(one.rmse), figure(one.mae))
    several = [f"in the mean of {len(found.values)} values:"] if len(found.values) > 1 else []
    first = found.mistakes[:MISTAKES]
    largest = table("picture", "value", "is", "taken for", left=("picture", "value"))
    for wrong in first:
        largest.add_row(wrong.picture, wrong.value, figure(wrong.true), figure(wrong.predicted))
    return [
        *several,
        f"R² {found.r2:.3f} {seen}",
        f"RMSE {figure(found.rmse)}, mean absolute error {figure(found.mae)}",
        listed,
        f"the {len(first)} largest errors:",
        largest,
    ]


def _classes(found: Evaluation) -> list[Table | str]:
    from effnet.cli.printing import percent, table

    seen = [score for score in found.classes if score.pictures]
    shown = seen if len(seen) <= CLASSES_MOST else sorted(seen, key=lambda score: score.f1)[:CLASSES_MOST]
    listed = table("class", "pictures", "precision", "recall", "F1", left=("class",))
    for score in shown:
        shares = (percent(share) for share in (score.precision, score.recall, score.f1))
        listed.add_row(score.name, str(score.pictures), *shares)
    return [listed] if len(shown) == len(seen) else [f"the {len(shown)} weakest of {len(seen)} classes:", listed]


def _confusion(found: Evaluation) -> Table:
    from effnet.cli.printing import table

    names = [score.name for score in found.classes]
    shown = table("is ↓  taken for →", *names, left=("is ↓  taken for →",))
    for name, row in zip(names, found.confusion, strict=True):
        shown.add_row(name, *(str(count) if count else "·" for count in row))
    return shown


def _mistakes(found: Evaluation) -> list[Table | str]:
    from effnet.cli.printing import percent, table

    first = found.mistakes[:MISTAKES]
    shown = table("picture", "is", "taken for", "probability", left=("picture", "is", "taken for"))
    for one in first:
        shown.add_row(one.picture, one.label, one.predicted, percent(one.probability))
    which = f", the {len(first)} surest" if len(found.mistakes) > len(first) else ""
    return [f"mistakes: {len(found.mistakes):,}{which}", shown]
