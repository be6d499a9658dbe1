"""``effnet evaluate``: how good a model is on labelled pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import BatchSizeOption, DeviceOption, JpegDecode, JsonOption, OfflineOption, StrictOption

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.evaluation import AnyEvaluation, Evaluation, MultiLabelEvaluation, RegressionEvaluation

MAX_CLASSES_SHOWN = 40  # in the table of classes; beyond, the weakest
MAX_CONFUSION_CLASSES = 20
MAX_MISTAKES_SHOWN = 5


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file of weights, a run's folder, or a name: b0.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder with one folder of pictures a class, or the word digits.")
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, val or test; by default the last of these there is.")
    ] = None,
    decode: Annotated[
        JpegDecode, typer.Option(help="How JPEGs are decoded; reduced is what predict does.")
    ] = JpegDecode.exact,
    batch: BatchSizeOption = 16,
    strict: StrictOption = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Evaluate a model on labelled pictures.

    Accuracy, calibration, every class, what is taken for what, and the surest mistakes; of values the errors.
    """
    from effnet.cli.printing import print_json, progress_bar
    from effnet.evaluation import evaluate as run

    with progress_bar("evaluating") as step:
        found = run(model, data, split, decode.value, device, batch, strict, progress=step)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)


def _print(found: AnyEvaluation) -> None:
    from effnet.cli.printing import print_results
    from effnet.evaluation import MultiLabelEvaluation, RegressionEvaluation

    seen = f"of {found.images:,} pictures" + (f" of the split {found.split}" if found.split else "")
    if isinstance(found, MultiLabelEvaluation):
        parts = _multilabel_report(found, seen)
    elif isinstance(found, RegressionEvaluation):
        parts = _regression_report(found, seen)
    else:
        parts = _classification_report(found, seen)
    if found.skipped:
        parts += [f"left out, since they could not be read: {len(found.skipped)}"]
        parts += [f"  {why}" for why in found.skipped]
    print_results(*parts)


def _classification_report(found: Evaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import format_percent

    parts: list[Table | str] = [
        f"{found.summary()} {seen}",
        f"loss {found.loss:.3f}, calibration error {format_percent(found.calibration_error)}",
        *_class_table(found),
    ]
    if len(found.classes) <= MAX_CONFUSION_CLASSES:
        parts.append(_confusion_table(found))
    return parts + (_mistakes_table(found) if found.mistakes else [])


def _multilabel_report(found: MultiLabelEvaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import format_percent, new_table

    shown = sorted(found.labels, key=lambda one: one.f1)[:MAX_CLASSES_SHOWN]
    shown = [one for one in found.labels if one in shown]
    listed = new_table("label", "pictures", "precision", "recall", "F1", "average precision", left=("label",))
    for one in shown:
        average = "–" if one.average_precision is None else format_percent(one.average_precision)
        shares = (format_percent(share) for share in (one.precision, one.recall, one.f1))
        listed.add_row(one.name, str(one.images), *shares, average)
    parts: list[Table | str] = [
        f"mean average precision {format_percent(found.mean_average_precision)} {seen}",
        f"labels right {format_percent(found.label_accuracy)}, all of a picture's right in {format_percent(found.exact_match)}",
        f"loss {found.loss:.3f}, calibration error {format_percent(found.calibration_error)}",
        *([f"the {len(shown)} weakest of {len(found.labels)} labels:"] if len(shown) < len(found.labels) else []),
        listed,
    ]
    if found.mistakes:
        first = found.mistakes[:MAX_MISTAKES_SHOWN]
        surest = new_table("picture", "label", "", "probability", left=("picture", "label", ""))
        for wrong in first:
            surest.add_row(
                wrong.image, wrong.label, "missed" if wrong.missed else "told", format_percent(wrong.probability)
            )
        parts += [f"wrong labels, the {len(first)} surest:", surest]
    return parts


def _regression_report(found: RegressionEvaluation, seen: str) -> list[Table | str]:
    from effnet.cli.printing import format_number, new_table

    listed = new_table("value", "R²", "RMSE", "mean absolute error", left=("value",))
    for one in found.values:
        listed.add_row(one.name, f"{one.r2:.3f}", format_number(one.rmse), format_number(one.mae))
    several = [f"in the mean of {len(found.values)} values:"] if len(found.values) > 1 else []
    first = found.mistakes[:MAX_MISTAKES_SHOWN]
    largest = new_table("picture", "value", "is", "taken for", left=("picture", "value"))
    for wrong in first:
        largest.add_row(wrong.image, wrong.value, format_number(wrong.true), format_number(wrong.predicted))
    return [
        *several,
        f"R² {found.r2:.3f} {seen}",
        f"RMSE {format_number(found.rmse)}, mean absolute error {format_number(found.mae)}",
        listed,
        f"the {len(first)} largest errors:",
        largest,
    ]


def _class_table(found: Evaluation) -> list[Table | str]:
    from effnet.cli.printing import format_percent, new_table

    seen = [score for score in found.classes if score.images]
    shown = seen if len(seen) <= MAX_CLASSES_SHOWN else sorted(seen, key=lambda score: score.f1)[:MAX_CLASSES_SHOWN]
    listed = new_table("class", "pictures", "precision", "recall", "F1", left=("class",))
    for score in shown:
        shares = (format_percent(share) for share in (score.precision, score.recall, score.f1))
        listed.add_row(score.name, str(score.images), *shares)
    return [listed] if len(shown) == len(seen) else [f"the {len(shown)} weakest of {len(seen)} classes:", listed]


def _confusion_table(found: Evaluation) -> Table:
    from effnet.cli.printing import new_table

    names = [score.name for score in found.classes]
    shown = new_table("is ↓  taken for →", *names, left=("is ↓  taken for →",))
    for name, row in zip(names, found.confusion, strict=True):
        shown.add_row(name, *(str(count) if count else "·" for count in row))
    return shown


def _mistakes_table(found: Evaluation) -> list[Table | str]:
    from effnet.cli.printing import format_percent, new_table

    first = found.mistakes[:MAX_MISTAKES_SHOWN]
    shown = new_table("picture", "is", "taken for", "probability", left=("picture", "is", "taken for"))
    for one in first:
        shown.add_row(one.image, one.label, one.predicted, format_percent(one.probability))
    which = f", the {len(first)} surest" if len(found.mistakes) > len(first) else ""
    return [f"mistakes: {len(found.mistakes):,}{which}", shown]
