"""``effnet evaluate``: metrics of a model on labeled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli import options, printing

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.evaluation import AnyEvaluation, Evaluation, MultiLabelEvaluation, RegressionEvaluation

MAX_CLASSES_SHOWN = 40  # of more, those with the lowest F1
MAX_CONFUSION_CLASSES = 20
MAX_MISTAKES_SHOWN = 5


def evaluate(
    model: options.ModelArgument,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder with one subfolder per class, or the word digits.")
    ],
    split: options.SplitOption = None,
    decode: Annotated[
        options.JpegDecode, typer.Option(help="How JPEGs are decoded; predict uses reduced.")
    ] = options.JpegDecode.exact,
    batch_size: options.BatchSizeOption = 16,
    strict: options.StrictOption = False,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Evaluate a model on labeled images.

    Accuracy, calibration, metrics per class, the confusion matrix and the most confident mistakes; for regression R²
    and errors.
    """
    from effnet.evaluation import evaluator

    with printing.progress_bar("evaluating") as step:
        result = evaluator.evaluate(model, data, split, decode.value, device, batch_size, strict, progress=step)
    if as_json:
        printing.print_json(result.to_dict())
    else:
        _print_evaluation(result)


def _print_evaluation(result: AnyEvaluation) -> None:
    from effnet.evaluation import MultiLabelEvaluation, RegressionEvaluation

    images = f"on {result.images:,} images" + (f" of the {result.split} split" if result.split else "")
    if isinstance(result, MultiLabelEvaluation):
        parts = _multilabel_report(result, images)
    elif isinstance(result, RegressionEvaluation):
        parts = _regression_report(result, images)
    else:
        parts = _classification_report(result, images)
    if result.skipped:
        parts += [f"skipped, because they could not be read: {len(result.skipped)}"]
        parts += [f"  {reason}" for reason in result.skipped]
    printing.print_results(*parts)


def _classification_report(result: Evaluation, images: str) -> list[Table | str]:
    parts: list[Table | str] = [
        f"{result.summary()} {images}",
        f"loss {result.loss:.3f}, calibration error {printing.format_percent(result.calibration_error)}",
        *_class_table(result),
    ]
    if len(result.classes) <= MAX_CONFUSION_CLASSES:
        parts.append(_confusion_table(result))
    return parts + (_mistakes_table(result) if result.mistakes else [])


def _class_table(result: Evaluation) -> list[Table | str]:
    shown = present = [metrics for metrics in result.classes if metrics.images]
    if len(present) > MAX_CLASSES_SHOWN:
        shown = sorted(present, key=lambda metrics: metrics.f1)[:MAX_CLASSES_SHOWN]
    table = printing.new_table("class", "images", "precision", "recall", "F1", left=("class",))
    for metrics in shown:
        fractions = map(printing.format_percent, (metrics.precision, metrics.recall, metrics.f1))
        table.add_row(metrics.name, str(metrics.images), *fractions)
    if len(shown) == len(present):
        return [table]
    return [f"the {len(shown)} of {len(present)} classes with the lowest F1:", table]


def _confusion_table(result: Evaluation) -> Table:
    names = [metrics.name for metrics in result.classes]
    table = printing.new_table("true ↓  predicted →", *names, left=("true ↓  predicted →",))
    for name, row in zip(names, result.confusion, strict=True):
        table.add_row(name, *(str(count) if count else "·" for count in row))
    return table


def _mistakes_table(result: Evaluation) -> list[Table | str]:
    shown = result.mistakes[:MAX_MISTAKES_SHOWN]
    table = printing.new_table("image", "true", "predicted", "probability", left=("image", "true", "predicted"))
    for mistake in shown:
        table.add_row(mistake.image, mistake.label, mistake.predicted, printing.format_percent(mistake.probability))
    which = f", the {len(shown)} most confident" if len(result.mistakes) > len(shown) else ""
    return [f"mistakes: {len(result.mistakes):,}{which}", table]


def _multilabel_report(result: MultiLabelEvaluation, images: str) -> list[Table | str]:
    shown = result.labels
    if len(shown) > MAX_CLASSES_SHOWN:
        weakest = sorted(result.labels, key=lambda metrics: metrics.f1)[:MAX_CLASSES_SHOWN]
        shown = tuple(metrics for metrics in result.labels if metrics in weakest)
    table = printing.new_table("label", "images", "precision", "recall", "F1", "average precision", left=("label",))
    for metrics in shown:
        average = "–" if metrics.average_precision is None else printing.format_percent(metrics.average_precision)
        fractions = map(printing.format_percent, (metrics.precision, metrics.recall, metrics.f1))
        table.add_row(metrics.name, str(metrics.images), *fractions, average)
    heading = f"the {len(shown)} of {len(result.labels)} labels with the lowest F1:"
    parts: list[Table | str] = [
        f"mean average precision {printing.format_percent(result.mean_average_precision)} {images}",
        f"label accuracy {printing.format_percent(result.label_accuracy)}, "
        f"exact match {printing.format_percent(result.exact_match)}",
        f"loss {result.loss:.3f}, calibration error {printing.format_percent(result.calibration_error)}",
        *([heading] if len(shown) < len(result.labels) else []),
        table,
    ]
    if result.mistakes:
        first = result.mistakes[:MAX_MISTAKES_SHOWN]
        mistakes = printing.new_table("image", "label", "", "probability", left=("image", "label", ""))
        for mistake in first:
            kind = "missed" if mistake.missed else "predicted"
            mistakes.add_row(mistake.image, mistake.label, kind, printing.format_percent(mistake.probability))
        parts += [f"wrong labels, the {len(first)} most confident:", mistakes]
    return parts


def _regression_report(result: RegressionEvaluation, images: str) -> list[Table | str]:
    table = printing.new_table("value", "R²", "RMSE", "mean absolute error", left=("value",))
    for metrics in result.values:
        table.add_row(
            metrics.name, f"{metrics.r2:.3f}", printing.format_number(metrics.rmse), printing.format_number(metrics.mae)
        )
    first = result.mistakes[:MAX_MISTAKES_SHOWN]
    mistakes = printing.new_table("image", "value", "true", "predicted", left=("image", "value"))
    for mistake in first:
        numbers = map(printing.format_number, (mistake.true, mistake.predicted))
        mistakes.add_row(mistake.image, mistake.value, *numbers)
    return [
        *([f"averages over {len(result.values)} values:"] if len(result.values) > 1 else []),
        f"R² {result.r2:.3f} {images}",
        f"RMSE {printing.format_number(result.rmse)}, mean absolute error {printing.format_number(result.mae)}",
        table,
        f"the {len(first)} largest errors:",
        mistakes,
    ]
