"""What came out where exactly one class is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import sqrt

from effnet.draw.plots import confusion
from effnet.evaluation import ClassScore, Evaluation
from effnet.training.report.gallery import Gallery, cards
from effnet.training.report.page import bar, folded, plain, table, tiles
from effnet.training.report.reliability import calibration

MATRIX_CLASSES_MOST = 30  # beyond, the most confused pairs are listed
PAIRS_MOST = 15
MISTAKES_MOST = 24
UNCERTAIN_MOST = 12
READING = "A bar is the share of predictions of about this confidence that are right: of 10 at 80%, it should be 8"


def headline(found: Evaluation, seen: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    classes = found.classes
    right = round(found.top1 * found.pictures)
    low, high = wilson(right, found.pictures)
    commonest = max(one.pictures for one in classes) / found.pictures
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
        f'<p class="lead">Top-1: {right:,} of {found.pictures:,} {seen}.</p>{tiles(shown)}'
    )


def sections(found: Evaluation, gallery: Gallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    return [
        ("What is taken for what", _confused(found)),
        ("How sure, and how often right", calibration(found.bins, found.calibration_error, "pictures", READING)),
        ("The surest mistakes", _mistakes(found, gallery)),
        ("The most uncertain", _uncertain(found, gallery)),
        ("Class by class", _classes(found.classes)),
    ]


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share after Wilson (1927): good for few pictures, and for 0 or all of them right."""
    assert 0 <= right <= of
    assert of
    z = 1.959964
    share, weight = right / of, z * z / of
    middle, spread = share + weight / 2, z * sqrt(share * (1 - share) / of + weight / (4 * of))
    return max((middle - spread) / (1 + weight), 0.0), min((middle + spread) / (1 + weight), 1.0)


def _confused(found: Evaluation) -> str:
    names = [one.name for one in found.classes]
    if len(names) <= MATRIX_CLASSES_MOST:
        plot = confusion(found.confusion, names, "confusion matrix: rows are true classes, columns predictions")
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
        (plain(names[row]), plain(names[column]), f"{-less:,}", bar(-share, "wrong"))
        for less, share, row, column in pairs[:PAIRS_MOST]
    )
    words = f"<p>The most frequent of {len(pairs):,} mistaken pairs. Share: of the true class’s pictures.</p>"
    return words + table(("true", "taken for", "pictures", "share"), rows, names=2)


def _mistakes(found: Evaluation, gallery: Gallery) -> str:
    if not found.mistakes:
        return "<p>None: every picture was right.</p>"
    shown = [
        gallery.card(
            one.picture,
            f"<b>{plain(one.label)}</b> taken for <b>{plain(one.predicted)}</b><br>{one.probability:.1%} sure",
            one.predicted,
        )
        for one in found.mistakes[:MISTAKES_MOST]
    ]
    total = len(found.mistakes)
    how_many = f"The {len(shown)} surest of {total:,}" if total > len(shown) else f"All {total}, surest first"
    return (
        f"<p>{how_many}. Look at their labels first: where a network is sure, it may be the label that is wrong. In "
        f"colours, on what the network saw of the picture: what spoke for the wrong class.</p>{cards(shown)}"
    )


def _uncertain(found: Evaluation, gallery: Gallery) -> str:
    shown = [
        gallery.card(
            one.picture,
            f"<b>{plain(one.predicted)}</b> {one.probability:.1%}, <b>{plain(one.other)}</b> "
            f"{one.other_probability:.1%}<br>true: {plain(one.label)}",
            one.predicted,
        )
        for one in found.uncertain[:UNCERTAIN_MOST]
    ]
    if not shown:
        return ""
    return (
        "<p>The nearest to a tie between two classes, right or wrong: more pictures like these would teach it most. In "
        f"colours: what spoke for the class that it said.</p>{cards(shown)}"
    )


def _classes(scores: Sequence[ClassScore]) -> str:
    ordered = sorted(scores, key=lambda one: (not one.pictures, one.f1))

    def rows(part: Iterable[ClassScore]) -> Iterator[Sequence[str]]:
        for one in part:
            figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", bar(one.f1, "right"))
            yield plain(one.name), f"{one.pictures:,}", *(figures if one.pictures else "–––")

    head = ("class", "pictures", "precision", "recall", "F1")
    words = "Precision: how much of what is called so is it; recall: how much of it is called so; F1: both in one."
    return f"<p>The weakest first. {words}</p>" + folded(ordered, lambda part: table(head, rows(part)))
