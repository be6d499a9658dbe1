"""Sections of the report that an evaluation fills, by task: headline, confusion, calibration, mistakes, tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jinja2 import PackageLoader
from markupsafe import Markup
from PIL import Image

from effnet.arch.serde import Record
from effnet.data import ImageError, image_io, read_image
from effnet.draw import html_page, report_plots
from effnet.evaluation import AnyEvaluation, Evaluation, MultiLabelEvaluation, RegressionEvaluation, metrics
from effnet.explanation import class_activation_maps, overlay
from effnet.net import EfficientNet

MAX_MATRIX_CLASSES = 30  # beyond, the most confused pairs are listed
MAX_CONFUSED_PAIRS = 15
MAX_MISTAKES = 24
MAX_UNCERTAIN = 12
MAX_SCATTER_PLOTS = 8
MAX_ROWS = 40  # of a table, before the rest is collapsed
THUMBNAIL_SIDE = 160  # pixels

Card = tuple[str, Markup, list[tuple[str, str]]]  # name, caption, thumbnails (alt text, data URL)
Sections = list[tuple[str, Markup | str]]  # title and content; without content it is omitted


class _Elements:
    """The macros of ``elements.html`` as functions that return `Markup`; the template is loaded at the first use."""

    @cached_property
    def _module(self) -> Any:
        environment = html_page.make_environment(PackageLoader("effnet.training.report", "."))
        return environment.get_template("elements.html").module

    def __getattr__(self, name: str) -> Callable[..., Markup]:
        macro: Callable[..., Markup] = getattr(self._module, name)
        return macro


elements = _Elements()


class ImageGallery:
    """The images of an evaluation by name, and the network that was evaluated."""

    def __init__(self, model: EfficientNet, images: Mapping[str, image_io.ImageSource]) -> None:
        self.model, self.images = model, images

    def card(self, record: Record, caption: str, class_name: str, **values: object) -> Card:
        """Return the image of ``record``, the class activation map of ``class_name``, and ``caption``.

        The record's fields and ``values`` are put into the caption, escaped. Without images if the image is not given
        or cannot be read any more.
        """
        fields = vars(record) | values
        text = Markup(caption)  # nosec B704  # our own words; `format` escapes what is put into them
        return fields["image"], text.format(**fields), self._thumbnails(fields["image"], class_name)

    def _thumbnails(self, name: str, class_name: str) -> list[tuple[str, str]]:
        if name not in self.images:
            return []
        source = self.images[name]
        try:
            photo = read_image(source, (THUMBNAIL_SIDE // 2,) * 2, bits=self.model.preprocess.bits)
            pixels = image_io.load_input(source, replace(self.model.preprocess, decode="exact"))
        except ImageError:
            return []
        thumbnails = [("", _make_thumbnail(photo))]
        if class_name in self.model.labels.names:
            values = class_activation_maps(self.model, pixels, [self.model.labels.names.index(class_name)])[0]
            shown = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]  # without alpha
            below = _make_thumbnail(Image.fromarray(shown.clip(0, 255).astype(np.uint8)).convert("RGB"))
            thumbnails.append((f"evidence for {class_name}", overlay(np.asarray(below), values)))
        return [(text, html_page.jpeg_data_url(image)) for text, image in thumbnails]


def _make_thumbnail(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    if (times := THUMBNAIL_SIDE // max(image.size)) > 1:  # every pixel of an 8 × 8 digit should be visible
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return image


def describe_evaluation(found: AnyEvaluation, images: str, gallery: ImageGallery) -> tuple[Markup, Sections]:
    """Return the headline and the sections of an evaluation; ``images`` says of which images."""
    if isinstance(found, MultiLabelEvaluation):
        return _describe_multilabel(found, images, gallery)
    if isinstance(found, RegressionEvaluation):
        return _describe_regression(found, images, gallery)
    return _describe_classification(found, images, gallery)


def _describe_classification(found: Evaluation, images: str, gallery: ImageGallery) -> tuple[Markup, Sections]:
    right = round(found.top1 * found.images)
    low, high = wilson_interval(right, found.images)
    most_common = max(one.images for one in found.classes) / found.images
    tiles = [
        ("95% interval", f"{100 * low:.1f}–{high:.1%}", "of top-1, by the number of images"),
        ("Loss", f"{found.loss:.3f}", "cross-entropy"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap of confidence and accuracy"),
        ("Most common class", f"{most_common:.2%}", "accuracy of always predicting it"),
    ]
    if len(found.classes) > 5:
        tiles.insert(1, ("Top-5", f"{found.top5:.2%}", "true class among the five most likely"))
    lead = f"Top-1 accuracy: {right:,} of {found.images:,} {images}."
    caption = "<b>{label}</b> predicted as <b>{predicted}</b><br>confidence {probability:.1%}"
    mistakes = [gallery.card(one, caption, one.predicted) for one in found.mistakes[:MAX_MISTAKES]]
    caption = "<b>{predicted}</b> {probability:.1%}, <b>{other}</b> {other_probability:.1%}<br>true: {label}"
    uncertain = [gallery.card(one, caption, one.predicted) for one in found.uncertain[:MAX_UNCERTAIN]]
    closest = (
        "Closest to a tie between two classes, right or wrong: more images like these would help most. In color: "
        "evidence for the predicted class."
    )
    return elements.headline(f"{found.top1:.2%}", "top-1", lead) + elements.tiles(tiles), [
        ("Confusion", _confusion(found)),
        ("Calibration", _calibration(found.bins, found.calibration_error, "images")),
        ("Most confident mistakes", _mistakes(found, mistakes, "wrong class", "every image was right")),
        ("Most uncertain", elements.paragraph(closest) + elements.cards(uncertain) if uncertain else ""),
        ("Classes", _class_table(found)),
    ]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion by Wilson (1927): good for few images, and for 0 or all of them."""
    z = 1.959964
    share, weight = successes / trials, z * z / trials
    center, half_width = share + weight / 2, z * (share * (1 - share) / trials + weight / (4 * trials)) ** 0.5
    return max((center - half_width) / (1 + weight), 0.0), min((center + half_width) / (1 + weight), 1.0)


def _confusion(found: Evaluation) -> Markup:
    names = [one.name for one in found.classes]
    if len(names) <= MAX_MATRIX_CLASSES:
        title = "confusion matrix: rows are true classes, columns predictions"
        plot = report_plots.plot_confusion_matrix(found.confusion, names, title)
        text = (
            "A row per true class and a column per prediction, in images. Blue is right, orange is wrong; the "
            "stronger, the larger its share of the row."
        )
        return elements.plot(plot, text, wide=True)
    pairs = sorted(
        (-number, -number / sum(counts), row, column)
        for row, counts in enumerate(found.confusion)
        for column, number in enumerate(counts)
        if number and row != column
    )
    if not pairs:
        return elements.paragraph("No mistakes: every image was right.")
    rows = [
        (names[row], names[column], f"{-number:,}", elements.bar(-share, "wrong"))
        for number, share, row, column in pairs[:MAX_CONFUSED_PAIRS]
    ]
    text = f"The most frequent of {len(pairs):,} confused pairs. Share: of the true class’s images."
    return elements.paragraph(text) + elements.table(("true", "predicted", "images", "share"), rows, MAX_ROWS, names=2)


def _calibration(bins: Sequence[metrics.CalibrationBin], error: float, counted: str) -> Markup | str:
    """Return the reliability diagram and how to read it; ``counted``: images or labels."""
    total = sum(one.images for one in bins)
    if not total:
        return ""
    points = [(one.images, one.confidence, one.accuracy) for one in bins]
    plot = report_plots.plot_reliability(points, f"reliability diagram: accuracy by confidence, in {len(bins)} bins")
    gap = sum(one.images * (one.confidence - one.accuracy) for one in bins) / total
    verdict = "On average, confidence equals accuracy."
    if abs(gap) >= 0.005:
        verdict = (
            f"On average, confidence is {100 * abs(gap):.1f} points {'above' if gap > 0 else 'below'} accuracy: the "
            f"model is {'overconfident' if gap > 0 else 'underconfident'}."
        )
    return elements.plot(
        plot,
        f"{verdict} A bar is the accuracy of predictions of about this confidence: of ten at 80%, eight "
        f"should be right. The orange lines are the confidence; the mean gap between bar and line, weighted by the "
        f"number of {counted}, is the calibration error, {error:.3f}. Bins of few {counted} mean little.",
    )


def _mistakes(found: Evaluation | MultiLabelEvaluation, cards: list[Card], evidence: str, none: str) -> Markup:
    if not cards:
        return elements.paragraph(f"None: {none}.")
    total = len(found.mistakes)
    count = f"The {len(cards)} most confident of {total:,}" if total > len(cards) else f"All {total}"
    text = (
        f"{count}. Check their labels first: where a model is confident, the label may be wrong. In color, over the "
        f"image as the network sees it: evidence for the {evidence}."
    )
    return elements.paragraph(text) + elements.cards(cards)


def _class_table(found: Evaluation) -> Markup:
    rows = []
    for one in sorted(found.classes, key=lambda one: (not one.images, one.f1)):
        metrics = (f"{one.precision:.1%}", f"{one.recall:.1%}", elements.bar(one.f1, "right"))
        rows.append((one.name, f"{one.images:,}", *(metrics if one.images else "–––")))
    head = ("class", "images", "precision", "recall", "F1")
    return elements.paragraph("Worst first.") + elements.table(head, rows, MAX_ROWS)


def _describe_multilabel(found: MultiLabelEvaluation, images: str, gallery: ImageGallery) -> tuple[Markup, Sections]:
    tiles = [
        ("Label accuracy", f"{found.label_accuracy:.2%}", "present or absent, over all images"),
        ("Exact match", f"{found.exact_match:.2%}", "images with all labels right"),
        ("Loss", f"{found.loss:.3f}", "binary cross-entropy per label"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap of confidence and accuracy"),
    ]
    lead = f"Over {len(found.labels):,} labels, on {found.images:,} {images}."
    headline = elements.headline(f"{found.mean_average_precision:.2%}", "mean average precision", lead)
    caption = "<b>{label}</b> {verdict}<br>predicted probability {probability:.1%}"
    cards = [
        gallery.card(one, caption, one.label, verdict="was missed" if one.missed else "is not present")
        for one in found.mistakes[:MAX_MISTAKES]
    ]
    return headline + elements.tiles(tiles), [
        ("Labels", _label_table(found)),
        ("Calibration", _calibration(found.bins, found.calibration_error, "labels")),
        ("Most confident mistakes", _mistakes(found, cards, "label", "every label of every image was right")),
    ]


def _label_table(found: MultiLabelEvaluation) -> Markup:
    rows = []
    for one in sorted(found.labels, key=lambda one: (one.average_precision is None, one.average_precision or 0.0)):
        precision = "–" if one.average_precision is None else elements.bar(one.average_precision, "right")
        metrics = (f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}")
        rows.append((one.name, f"{one.images:,}", *(metrics if one.images else "–––"), precision))
    head = ("label", "images", "precision", "recall", "F1", "average precision")
    text = "Worst first. Precision, recall and F1 at a probability of 0.5; average precision over all thresholds."
    return elements.paragraph(text) + elements.table(head, rows, MAX_ROWS)


def _describe_regression(found: RegressionEvaluation, images: str, gallery: ImageGallery) -> tuple[Markup, Sections]:
    mean = "" if len(found.values) == 1 else ", mean of the values"
    tiles = [
        ("RMSE", f"{found.rmse:.4g}", f"root mean squared error{mean}"),
        ("MAE", f"{found.mae:.4g}", f"mean absolute error{mean}"),
        ("Values", f"{len(found.values):,}", "per image"),
    ]
    lead = f"Explained share of the variance, on {found.images:,} {images}."
    headline = elements.headline(f"{found.r2:.3f}", "R²", lead)
    by_r2 = sorted(found.values, key=lambda one: one.r2)
    plots = [
        (one.name, report_plots.plot_true_vs_predicted(one.pairs, f"predicted against true: {one.name}"))
        for one in by_r2[:MAX_SCATTER_PLOTS]
        if one.pairs
    ]
    worst = f"The {len(plots)} worst values. " if len(found.values) > len(plots) else ""
    plot_caption = f"{worst}One point per image; on the dashed line, the prediction is exact."
    rows = [(one.name, f"{one.rmse:.4g}", f"{one.mae:.4g}", f"{one.r2:.3f}") for one in by_r2]
    table = elements.paragraph("Worst first.") + elements.table(("value", "RMSE", "MAE", "R²"), rows, MAX_ROWS)
    caption = "<b>{value}</b> {true:.4g}, predicted <b>{predicted:.4g}</b>"
    cards = [gallery.card(one, caption, one.value) for one in found.mistakes[:MAX_MISTAKES]]
    text = (
        "In standard deviations of each value, largest first. Check their labels first: they may be wrong. In color, "
        "over the image as the network sees it: evidence for a higher value."
    )
    return headline + elements.tiles(tiles), [
        ("Predicted against true", elements.plots(plots, plot_caption) if plots else ""),
        ("Values", table),
        ("Largest errors", elements.paragraph(text) + elements.cards(cards) if cards else ""),
    ]
