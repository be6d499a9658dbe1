"""What came out where each label may be right by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from effnet.evaluation import LabelScore, LabelsEvaluation
from effnet.training.report.classes import MISTAKES_MOST
from effnet.training.report.gallery import Gallery, cards
from effnet.training.report.page import bar, folded, plain, table, tiles
from effnet.training.report.reliability import calibration


def headline(found: LabelsEvaluation, seen: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    shown = [
        ("Labels right", f"{found.labels_right:.2%}", "told or not told, over all pictures"),
        ("Pictures right", f"{found.pictures_right:.2%}", "in every one of their labels"),
        ("Loss", f"{found.loss:.3f}", "mean −log p of what is right, a label"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap between sure and right"),
    ]
    return (
        f"<h1>{found.mean_average_precision:.2%} <small>mean average precision</small></h1>"
        f'<p class="lead">Over {len(found.labels):,} labels, on {found.pictures:,} {seen}.</p>{tiles(shown)}'
    )


def sections(found: LabelsEvaluation, gallery: Gallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    words = "A bar is the share of labels of about this probability that are right: of 10 at 80%, it should be 8"
    return [
        ("Label by label", _labels(found.labels)),
        ("How sure, and how often right", calibration(found.bins, found.calibration_error, "labels", words)),
        ("The surest mistakes", _mistakes(found, gallery)),
    ]


def _labels(scores: Sequence[LabelScore]) -> str:
    ordered = sorted(scores, key=lambda one: (one.average_precision is None, one.average_precision or 0.0))

    def rows(part: Iterable[LabelScore]) -> Iterator[Sequence[str]]:
        for one in part:
            precise = "–" if one.average_precision is None else bar(one.average_precision, "right")
            figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}")
            yield plain(one.name), f"{one.pictures:,}", *(figures if one.pictures else "–––"), precise

    head = ("label", "pictures", "precision", "recall", "F1", "average precision")
    words = (
        "Told at a probability of 0.5, precision is how much of what is told is right, recall how much of what is "
        "right is told, F1 both in one. Average precision is over all probabilities at which it could be told."
    )
    return f"<p>The weakest first. {words}</p>" + folded(ordered, lambda part: table(head, rows(part)))


def _mistakes(found: LabelsEvaluation, gallery: Gallery) -> str:
    if not found.mistakes:
        return "<p>None: every label of every picture was right.</p>"
    shown = [
        gallery.card(
            one.picture,
            f"<b>{plain(one.label)}</b> {'was missed' if one.missed else 'is not there'}<br>"
            f"given a probability of {one.probability:.1%}",
            one.label,
        )
        for one in found.mistakes[:MISTAKES_MOST]
    ]
    how_many = f"The {len(shown)} surest" if len(found.mistakes) > len(shown) else f"All {len(shown)}, surest first"
    return (
        f"<p>{how_many}. Look at their labels first: where a network is sure, it may be the label that is wrong. In "
        f"colours, on what the network saw of the picture: what spoke for the label.</p>{cards(shown)}"
    )
