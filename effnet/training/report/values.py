"""What came out where the answers are values."""

from __future__ import annotations

from effnet.draw.agreement import scatter
from effnet.evaluation import ValuesEvaluation
from effnet.training.report.gallery import Gallery, cards
from effnet.training.report.page import figures, folded, plain, table, tiles

ERRORS_MOST = 24
PLOTS_MOST = 8


def headline(found: ValuesEvaluation, seen: str) -> str:
    """The figure to quote, and those beside it; ``seen`` says of which pictures."""
    of = "" if len(found.values) == 1 else ", mean of the values"
    shown = [
        ("RMSE", f"{found.rmse:.4g}", f"root of the mean squared error{of}"),
        ("Mean absolute error", f"{found.mae:.4g}", f"in the value’s own unit{of}"),
        ("Values", f"{len(found.values):,}", "a picture"),
    ]
    return (
        f"<h1>{found.r2:.3f} <small>R²</small></h1>"
        f'<p class="lead">The share of the values’ variance that is explained, on {found.pictures:,} {seen}.</p>'
        f"{tiles(shown)}"
    )


def sections(found: ValuesEvaluation, gallery: Gallery) -> list[tuple[str, str]]:
    """What the evaluation holds: (title, HTML) each."""
    return [
        ("Predicted against true", _plots(found)),
        ("Value by value", _values(found)),
        ("The largest errors", _errors(found, gallery)),
    ]


def _plots(found: ValuesEvaluation) -> str:
    drawn = [
        (plain(one.name), scatter(one.pairs, f"predicted against true: {one.name}"))
        for one in sorted(found.values, key=lambda one: one.r2)[:PLOTS_MOST]
        if one.pairs
    ]
    if not drawn:
        return ""
    which = f"The {len(drawn)} weakest values. " if len(found.values) > len(drawn) else ""
    return figures(drawn, f"{which}A point a picture; on the dashed line, what is predicted is true.")


def _values(found: ValuesEvaluation) -> str:
    head = ("value", "RMSE", "mean absolute error", "R²")
    rows = [
        (plain(one.name), f"{one.rmse:.4g}", f"{one.mae:.4g}", f"{one.r2:.3f}")
        for one in sorted(found.values, key=lambda one: one.r2)
    ]
    return "<p>The weakest first.</p>" + folded(rows, lambda part: table(head, part))


def _errors(found: ValuesEvaluation, gallery: Gallery) -> str:
    if not found.mistakes:
        return ""
    shown = [
        gallery.card(
            one.picture,
            f"<b>{plain(one.value)}</b> {one.true:.4g}, predicted <b>{one.predicted:.4g}</b>",
            one.value,
        )
        for one in found.mistakes[:ERRORS_MOST]
    ]
    return (
        "<p>In units of each value’s spread, the largest first. Look at what was noted of them first: it may be wrong. "
        f"In colours, on what the network saw of the picture: what raised the value.</p>{cards(shown)}"
    )
