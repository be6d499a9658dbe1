"""Whether probabilities mean what they say, as a diagram and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import sqrt

from effnet.draw.training_plots import plot_confusion_matrix, plot_reliability, plot_true_vs_predicted
from effnet.evaluation.metrics import (
    CalibrationBin,
    ClassMetrics,
    Evaluation,
    LabelMetrics,
    MultiLabelEvaluation,
    RegressionEvaluation,
)
from effnet.training.report.html import (
    ImageGallery,
    card_list,
    collapsible,
    escape_html,
    plot_grid,
    share_bar,
    stat_tiles,
    table,
)


def calibration_section(bins: Sequence[CalibrationBin], error: float, what: str, caption: str) -> str:
    """The reliability diagram of ``bins``, the calibration ``error``, and ``words`` on how to read it.

    ``what`` the bins count: pictures, or labels. Empty where there are no numbers.
    """
    total = sum(one.images for one in bins)
    if not total:
        return ""
    plot = plot_reliability(
        [(one.images, one.confidence, one.accuracy) for one in bins],
        f"reliability diagram: the share that is right by how sure, in {len(bins)} bins",
    )
    over = sum(one.images * (one.confidence - one.accuracy) for one in bins) / total
    verdict = "On average it is as sure as it is right."
    if abs(over) >= 0.005:
        verdict = (
            f"On average it is {100 * abs(over):.1f} points {'surer' if over > 0 else 'less sure'} than it is right."
        )
    return (
        f"<figure>{plot}</figure><p>{verdict} {caption}. The orange lines are how sure it was; the mean gap between bar "
        f"and line, by the number of {what}, is the calibration error, {error:.3f}. Bins of few {what} say little.</p>"
    )


# What came out where exactly one class is right.


MAX_MATRIX_CLASSES = 30  # beyond, the most confused pairs are listed


MAX_CONFUSED_PAIRS = 15


MAX_MISTAKES = 24


MAX_UNCERTAIN = 12


RELIABILITY_CAPTION = (
    "A bar is the share of predictions of about this confidence that are right: of 10 at 80%, it should be 8"
)


def classification_headline(found: Evaluation, image_description: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    classes = found.classes
    right = round(found.top1 * found.images)
    low, high = wilson_interval(right, found.images)
    commonest = max(one.images for one in classes) / found.images
    shown = [
        ("95% interval", f"{100 * low:.1f}–{high:.1%}", "of top-1, by the number of pictures"),
        ("Loss", f"{found.loss:.3f}", "mean −log p of the true class"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap between sure and right"),
        ("Most common class", f"{commonest:.2%}", "right by always saying this one"),
    ]
    if len(classes) > 5:
        shown.insert(1, ("Top-5", f"{found.top5:.2%}", "true class among the five likeliest"))
    return (
        f"<h1>{found.top1:.2%} <small>right</small></h1>"
        f'<p class="lead">Top-1: {right:,} of {found.images:,} {image_description}.</p>{stat_tiles(shown)}'
    )


def classification_sections(found: Evaluation, gallery: ImageGallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    return [
        ("What is taken for what", _confusion(found)),
        (
            "How sure, and how often right",
            calibration_section(found.bins, found.calibration_error, "pictures", RELIABILITY_CAPTION),
        ),
        ("The surest mistakes", _classification_mistakes(found, gallery)),
        ("The most uncertain", _uncertain_images(found, gallery)),
        ("Class by class", _class_table(found.classes)),
    ]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share after Wilson (1927): good for few pictures, and for 0 or all of them right."""
    assert 0 <= successes <= trials
    assert trials
    z = 1.959964
    share, weight = successes / trials, z * z / trials
    middle, spread = share + weight / 2, z * sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max((middle - spread) / (1 + weight), 0.0), min((middle + spread) / (1 + weight), 1.0)


def _confusion(found: Evaluation) -> str:
    names = [one.name for one in found.classes]
    if len(names) <= MAX_MATRIX_CLASSES:
        plot = plot_confusion_matrix(
            found.confusion, names, "confusion matrix: rows are true classes, columns predictions"
        )
        return (
            f'<figure class="scroll">{plot}</figure><p>A row for each true class, a column for each prediction, in '
            "pictures. Blue is right, orange is wrong; the stronger, the larger its share of the row.</p>"
        )
    pairs = sorted(
        (-number, -number / sum(counts), row, column)
        for row, counts in enumerate(found.confusion)
        for column, number in enumerate(counts)
        if number and row != column
    )
    if not pairs:
        return "<p>Nothing: every picture was right.</p>"
    rows = (
        (escape_html(names[row]), escape_html(names[column]), f"{-less:,}", share_bar(-share, "wrong"))
        for less, share, row, column in pairs[:MAX_CONFUSED_PAIRS]
    )
    words = f"<p>The most frequent of {len(pairs):,} mistaken pairs. Share: of the true class’s pictures.</p>"
    return words + table(("true", "taken for", "pictures", "share"), rows, names=2)


def _classification_mistakes(found: Evaluation, gallery: ImageGallery) -> str:
    if not found.mistakes:
        return "<p>None: every picture was right.</p>"
    shown = [
        gallery.card(
            one.image,
            f"<b>{escape_html(one.label)}</b> taken for <b>{escape_html(one.predicted)}</b><br>{one.probability:.1%} sure",
            one.predicted,
        )
        for one in found.mistakes[:MAX_MISTAKES]
    ]
    total = len(found.mistakes)
    how_many = f"The {len(shown)} surest of {total:,}" if total > len(shown) else f"All {total}, surest first"
    return (
        f"<p>{how_many}. Look at their labels first: where a network is sure, it may be the label that is wrong. In "
        f"colours, on what the network saw of the picture: what spoke for the wrong class.</p>{card_list(shown)}"
    )


def _uncertain_images(found: Evaluation, gallery: ImageGallery) -> str:
    shown = [
        gallery.card(
            one.image,
            f"<b>{escape_html(one.predicted)}</b> {one.probability:.1%}, <b>{escape_html(one.other)}</b> "
            f"{one.other_probability:.1%}<br>true: {escape_html(one.label)}",
            one.predicted,
        )
        for one in found.uncertain[:MAX_UNCERTAIN]
    ]
    if not shown:
        return ""
    return (
        "<p>The nearest to a tie between two classes, right or wrong: more pictures like these would teach it most. In "
        f"colours: what spoke for the class that it said.</p>{card_list(shown)}"
    )


def _class_table(scores: Sequence[ClassMetrics]) -> str:
    ordered = sorted(scores, key=lambda one: (not one.images, one.f1))

    def rows(part: Iterable[ClassMetrics]) -> Iterator[Sequence[str]]:
        for one in part:
            figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", share_bar(one.f1, "right"))
            yield escape_html(one.name), f"{one.images:,}", *(figures if one.images else "–––")

    head = ("class", "pictures", "precision", "recall", "F1")
    words = "Precision: how much of what is called so is it; recall: how much of it is called so; F1: both in one."
    return f"<p>The weakest first. {words}</p>" + collapsible(ordered, lambda part: table(head, rows(part)))


# What came out where each label may be right by itself.


def multilabel_headline(found: MultiLabelEvaluation, image_description: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    shown = [
        ("Labels right", f"{found.label_accuracy:.2%}", "told or not told, over all pictures"),
        ("Pictures right", f"{found.exact_match:.2%}", "in every one of their labels"),
        ("Loss", f"{found.loss:.3f}", "mean −log p of what is right, a label"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap between sure and right"),
    ]
    return (
        f"<h1>{found.mean_average_precision:.2%} <small>mean average precision</small></h1>"
        f'<p class="lead">Over {len(found.labels):,} labels, on {found.images:,} {image_description}.</p>{stat_tiles(shown)}'
    )


def multilabel_sections(found: MultiLabelEvaluation, gallery: ImageGallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    words = "A bar is the share of labels of about this probability that are right: of 10 at 80%, it should be 8"
    return [
        ("Label by label", _label_table(found.labels)),
        ("How sure, and how often right", calibration_section(found.bins, found.calibration_error, "labels", words)),
        ("The surest mistakes", _multilabel_mistakes(found, gallery)),
    ]


def _label_table(scores: Sequence[LabelMetrics]) -> str:
    ordered = sorted(scores, key=lambda one: (one.average_precision is None, one.average_precision or 0.0))

    def rows(part: Iterable[LabelMetrics]) -> Iterator[Sequence[str]]:
        for one in part:
            precise = "–" if one.average_precision is None else share_bar(one.average_precision, "right")
            figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}")
            yield escape_html(one.name), f"{one.images:,}", *(figures if one.images else "–––"), precise

    head = ("label", "pictures", "precision", "recall", "F1", "average precision")
    words = (
        "Told at a probability of 0.5, precision is how much of what is told is right, recall how much of what is "
        "right is told, F1 both in one. Average precision is over all probabilities at which it could be told."
    )
    return f"<p>The weakest first. {words}</p>" + collapsible(ordered, lambda part: table(head, rows(part)))


def _multilabel_mistakes(found: MultiLabelEvaluation, gallery: ImageGallery) -> str:
    if not found.mistakes:
        return "<p>None: every label of every picture was right.</p>"
    shown = [
        gallery.card(
            one.image,
            f"<b>{escape_html(one.label)}</b> {'was missed' if one.missed else 'is not there'}<br>"
            f"given a probability of {one.probability:.1%}",
            one.label,
        )
        for one in found.mistakes[:MAX_MISTAKES]
    ]
    how_many = f"The {len(shown)} surest" if len(found.mistakes) > len(shown) else f"All {len(shown)}, surest first"
    return (
        f"<p>{how_many}. Look at their labels first: where a network is sure, it may be the label that is wrong. In "
        f"colours, on what the network saw of the picture: what spoke for the label.</p>{card_list(shown)}"
    )


# What came out where the answers are values.


MAX_ERRORS = 24


MAX_PLOTS = 8


def regression_headline(found: RegressionEvaluation, image_description: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    of = "" if len(found.values) == 1 else ", mean of the values"
    shown = [
        ("RMSE", f"{found.rmse:.4g}", f"root of the mean squared error{of}"),
        ("Mean absolute error", f"{found.mae:.4g}", f"in the value’s own unit{of}"),
        ("Values", f"{len(found.values):,}", "a picture"),
    ]
    return (
        f"<h1>{found.r2:.3f} <small>R²</small></h1>"
        f'<p class="lead">The share of the values’ variance that is explained, on {found.images:,} {image_description}.</p>'
        f"{stat_tiles(shown)}"
    )


def regression_sections(found: RegressionEvaluation, gallery: ImageGallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    return [
        ("Predicted against true", _scatter_plots(found)),
        ("Value by value", _value_table(found)),
        ("The largest errors", _largest_errors(found, gallery)),
    ]


def _scatter_plots(found: RegressionEvaluation) -> str:
    drawn = [
        (escape_html(one.name), plot_true_vs_predicted(one.pairs, f"predicted against true: {one.name}").svg)
        for one in sorted(found.values, key=lambda one: one.r2)[:MAX_PLOTS]
        if one.pairs
    ]
    if not drawn:
        return ""
    which = f"The {len(drawn)} weakest values. " if len(found.values) > len(drawn) else ""
    return plot_grid(drawn, f"{which}A point a picture; on the dashed line, what is predicted is true.")


def _value_table(found: RegressionEvaluation) -> str:
    head = ("value", "RMSE", "mean absolute error", "R²")
    rows = [
        (escape_html(one.name), f"{one.rmse:.4g}", f"{one.mae:.4g}", f"{one.r2:.3f}")
        for one in sorted(found.values, key=lambda one: one.r2)
    ]
    return "<p>The weakest first.</p>" + collapsible(rows, lambda part: table(head, part))


def _largest_errors(found: RegressionEvaluation, gallery: ImageGallery) -> str:
    if not found.mistakes:
        return ""
    shown = [
        gallery.card(
            one.image,
            f"<b>{escape_html(one.value)}</b> {one.true:.4g}, predicted <b>{one.predicted:.4g}</b>",
            one.value,
        )
        for one in found.mistakes[:MAX_ERRORS]
    ]
    return (
        "<p>In units of each value’s spread, the largest first. Look at what was noted of them first: it may be wrong. "
        f"In colours, on what the network saw of the picture: what raised the value.</p>{card_list(shown)}"
    )
