"""``effnet evaluate``: metrics of a model on labeled images."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.evaluation.metrics import (
        ClassMetrics,
        Evaluation,
        LabelMetrics,
        MultiLabelEvaluation,
        RegressionEvaluation,
    )

MAX_CLASSES_SHOWN = 40  # of more, those with the lowest F1
MAX_CONFUSION_CLASSES = 20
MAX_MISTAKES_SHOWN = 5
JpegDecode = StrEnum("JpegDecode", ["exact", "reduced"])  # reduced: at a smaller scale where that suffices


@with_weights_options()
def evaluate(
    model: options.ModelArgument,
    data: Annotated[str, Argument(metavar="DATA", help="A folder with one subfolder per class, or the word digits.")],
    split: options.SplitOption = None,
    part: WeightsOptions = AS_STATED,
    labels: options.LabelsOption = None,
    color: options.ColorOption = None,
    bits: options.BitsOption = None,
    decode: Annotated[JpegDecode, Option(help="How JPEGs are decoded; predict uses reduced.")] = JpegDecode.exact,
    batch_size: options.BatchSizeOption = 16,
    strict: options.StrictOption = False,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Evaluate a model on labeled images.

    Accuracy, calibration, metrics per class, the confusion matrix and the most confident mistakes; for regression R²
    and errors. DATA may have fewer classes than the model. They are found by name, as ImageNet's synsets, or by number.
    """
    from effnet.evaluation import evaluator

    names = options.read_labels(labels)
    with printing.progress_bar("evaluating") as step:
        how = (split, decode.value, device, batch_size, strict, step, names, color, bits)
        result = evaluator.evaluate(part.open_to_run(model, device=device), data, *how)
    printing.print_json(result.to_dict()) if as_json else _print_evaluation(result)


def _print_evaluation(result: "Evaluation | MultiLabelEvaluation | RegressionEvaluation") -> None:
    from effnet.evaluation import MultiLabelEvaluation, RegressionEvaluation

    images = f"on {result.images:,} images" + (f" of the {result.split} split" if result.split else "")
    if isinstance(result, MultiLabelEvaluation):
        parts = _multilabel_report(result, images)
    elif isinstance(result, RegressionEvaluation):
        parts = _regression_report(result, images)
    else:
        parts = _classification_report(result, images)
    printing.print_results(*parts, *printing.describe_skipped(result.skipped))


def _classification_report(result: "Evaluation", images: str) -> "list[Table | str]":
    shown = present = [metrics for metrics in result.classes if metrics.images]
    if len(present) > MAX_CLASSES_SHOWN:
        shown = sorted(present, key=lambda metrics: metrics.f1)[:MAX_CLASSES_SHOWN]
    parts: list[Table | str] = [
        f"{result.summary()} {images}",
        f"loss {result.loss:.3f}, calibration error {printing.format_percent(result.calibration_error)}",
        *_f1_table("class", "classes", shown, len(present)),
    ]
    if len(result.classes) <= MAX_CONFUSION_CLASSES:
        names, corner = [metrics.name for metrics in result.classes], "true ↓  predicted →"
        counts = ((str(count) if count else "·" for count in row) for row in result.confusion)
        rows = ((name, *row) for name, row in zip(names, counts, strict=True))
        parts.append(printing.new_table(corner, *names, left=(corner,), rows=rows))
    if result.mistakes:
        first = result.mistakes[:MAX_MISTAKES_SHOWN]
        which = f", the {len(first)} most confident" if len(result.mistakes) > len(first) else ""
        headings = ("image", "true", "predicted")
        rows = ((each.image, each.label, each.predicted, printing.format_percent(each.probability)) for each in first)
        table = printing.new_table(*headings, "probability", left=headings, rows=rows)
        parts += [f"mistakes: {len(result.mistakes):,}{which}", table]
    return parts


def _f1_table(
    kind: str, plural: str, shown: "Sequence[ClassMetrics | LabelMetrics]", total: int, *more: str
) -> "list[Table | str]":
    """Return precision, recall, F1 and ``more`` of those that are shown, with a heading if not all are."""
    names = ("precision", "recall", "F1", *more)
    table = printing.new_table(kind, "images", *names, left=(kind,))
    for metrics in shown:
        fractions = [getattr(metrics, name.lower().replace(" ", "_")) for name in names]
        texts = ("–" if fraction is None else printing.format_percent(fraction) for fraction in fractions)
        table.add_row(metrics.name, str(metrics.images), *texts)
    heading = f"the {len(shown)} of {total} {plural} with the lowest F1:"
    return [heading, table] if len(shown) < total else [table]


def _multilabel_report(result: "MultiLabelEvaluation", images: str) -> "list[Table | str]":
    weakest = sorted(result.labels, key=lambda metrics: metrics.f1)[:MAX_CLASSES_SHOWN]
    shown = [metrics for metrics in result.labels if metrics in weakest]
    parts: list[Table | str] = [
        f"mean average precision {printing.format_percent(result.mean_average_precision)} {images}",
        f"label accuracy {printing.format_percent(result.label_accuracy)}, "
        f"exact match {printing.format_percent(result.exact_match)}",
        f"loss {result.loss:.3f}, calibration error {printing.format_percent(result.calibration_error)}",
        *_f1_table("label", "labels", shown, len(result.labels), "average precision"),
    ]
    if result.mistakes:
        first = result.mistakes[:MAX_MISTAKES_SHOWN]
        rows = (
            (
                each.image,
                each.label,
                "missed" if each.missed else "predicted",
                printing.format_percent(each.probability),
            )
            for each in first
        )
        table = printing.new_table("image", "label", "", "probability", left=("image", "label", ""), rows=rows)
        parts += [f"wrong labels, the {len(first)} most confident:", table]
    return parts


def _regression_report(result: "RegressionEvaluation", images: str) -> "list[Table | str]":
    number, first = printing.format_number, result.mistakes[:MAX_MISTAKES_SHOWN]
    metrics = ((each.name, f"{each.r2:.3f}", number(each.rmse), number(each.mae)) for each in result.values)
    mistakes = ((each.image, each.value, number(each.true), number(each.predicted)) for each in first)
    return [
        *([f"averages over {len(result.values)} values:"] if len(result.values) > 1 else []),
        f"R² {result.r2:.3f} {images}",
        f"RMSE {number(result.rmse)}, mean absolute error {number(result.mae)}",
        printing.new_table("value", "R²", "RMSE", "mean absolute error", left=("value",), rows=metrics),
        f"the {len(first)} largest errors:",
        printing.new_table("image", "value", "true", "predicted", left=("image", "value"), rows=mistakes),
    ]
