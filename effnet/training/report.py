"""The run as one self-contained page: no script, no other file, nothing from a network."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from math import sqrt
from pathlib import Path
from textwrap import dedent

from PIL.Image import Resampling

from effnet.arch import count
from effnet.data import PictureError, read
from effnet.data.pixels import Pixels
from effnet.draw.plots import confusion, curves
from effnet.evaluation import ClassScore, Evaluation
from effnet.net import EfficientNet
from effnet.training.folder import Result
from effnet.training.page import bar, bullets, folded, page, pairs, plain, section, table
from effnet.training.recipe import Recipe
from effnet.weights.atomic import replacing

MATRIX_CLASSES_MOST = 30  # beyond, the most confused pairs are listed
PAIRS_MOST = 15
MISTAKES_MOST = 24
THUMBNAIL_SIDE = 160

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
    pictures: Mapping[str, Path | Pixels] | None = None,
) -> None:
    """Writes the page to ``path``.

    ``pictures`` are those of ``result.split`` by their names, as ``Item`` holds them: of the surest mistakes a small
    copy goes into the page.
    """
    found = result.evaluation
    parts = (
        _headline(result),
        section("What was trained", _facts(result, model, recipe)),
        section("Training", _history(result)),
        section("What is taken for what", _confused(found)),
        section("The surest mistakes", _mistakes(found, pictures or {})),
        section("Class by class", _classes(found.classes)),
        section("Pictures left out", _left_out(result)),
        section("Use the model", _use(result.model)),
        section("The recipe's settings", _settings(recipe)),
    )
    title = f"{model.arch.name}: {found.top1:.2%} right on {len(found.classes)} classes"
    with replacing(path) as beside:
        beside.write_text(page(title, parts), encoding="utf-8", errors="replace")


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share after Wilson (1927): good for few pictures, and for 0 or all of them right."""
    assert 0 <= right <= of
    assert of
    z = 1.959964
    share, weight = right / of, z * z / of
    middle, spread = share + weight / 2, z * sqrt(share * (1 - share) / of + weight / (4 * of))
    return max((middle - spread) / (1 + weight), 0.0), min((middle + spread) / (1 + weight), 1.0)


def _headline(result: Result) -> str:
    found, classes = result.evaluation, result.evaluation.classes
    right = round(found.top1 * found.pictures)
    low, high = wilson(right, found.pictures)
    commonest = max(one.pictures for one in classes) / found.pictures
    seen = f"pictures of “{plain(result.split)}”, on which choices were made: expect less on others"
    if result.split in SPLITS:
        seen = f"{SPLITS[result.split]}, which no choice has seen"
    tiles = [
        ("95% interval", f"{100 * low:.1f}–{high:.1%}", "of top-1, by the number of pictures"),
        ("Loss", f"{found.loss:.3f}", "mean −log p of the true class"),
        ("Calibration error", f"{found.calibration_error:.3f}", "mean gap between sure and right"),
        ("Most common class", f"{commonest:.2%}", "right by always saying this one"),
    ]
    if len(classes) > 5:
        tiles.insert(1, ("Top-5", f"{found.top5:.2%}", "true class among the five likeliest"))
    shown = "".join(f"<div><dt>{name}</dt><dd><b>{value}</b> {note}</dd></div>" for name, value, note in tiles)
    others = "".join(
        f"<p>{plain(name)}: {one.top1:.2%} of {one.pictures:,} pictures are right, loss {one.loss:.3f}.</p>"
        for name, one in result.evaluations.items()
        if name != result.split
    )
    return (
        f"<header><h1>{found.top1:.2%} <small>right</small></h1>"
        f'<p class="lead">Top-1: {right:,} of {found.pictures:,} {seen}.</p>'
        f'<dl class="tiles">{shown}</dl>{others}</header>'
    )


def _facts(result: Result, model: EfficientNet, recipe: Recipe) -> str:
    high, wide = model.preprocess.size
    cost = count(model.arch, (high, wide), model.classes, model.channels)
    came = [text for text in (model.provenance.source, model.provenance.layout, model.provenance.licence) if text]
    rows = [
        ("Network", f"<b>{plain(model.arch.name)}</b>, {model.classes:,} classes"),
        ("Size", f"{_short(cost.params)} params; {_short(cost.macs)} MACs for a picture of {high} × {wide}"),
        ("Weights", plain(", ".join(came)) or "not known"),
        ("Since then", "<br>".join(map(plain, model.provenance.history)) or "nothing"),
        ("Recipe", plain(recipe.name)),
        ("Chosen", f"<b>{plain(result.chosen)}</b>: {_why(result, recipe)}"),
    ]
    if result.probe_top1 is not None:
        rows.append(("Probe", f"top-1 {result.probe_top1:.2%}, each training picture judged by a head without it"))
    return pairs(rows)


def _why(result: Result, recipe: Recipe) -> str:
    if not result.history:
        return "a linear head on the frozen network; nothing else was trained."
    best = min(result.history, key=lambda line: line.select_loss)
    after = f"{best.select_loss:.3f} after epoch {best.epoch} of {len(result.history)}"
    where = "on the pictures to choose by"
    if result.chosen == "probe":
        return f"fine-tuning came to a loss of {after} {where}, not clearly below the probe’s."
    return f"its loss {where} was {after}, " + ("clearly below the probe’s." if recipe.probe else "the lowest.")


def _history(result: Result) -> str:
    lines = result.history
    if not lines:
        return ""
    best = min(lines, key=lambda line: line.select_loss)
    marked = (best.epoch, "kept" if result.chosen != "probe" else "best")
    losses = {"training": [line.loss for line in lines], "held out": [line.select_loss for line in lines]}
    shares, percent = {"held out": [line.select_top1 for line in lines]}, f"{best.select_top1:.2%}"
    return (
        f'<div class="pair"><figure><h3>Loss</h3>{curves(losses, "loss of each epoch", marked=marked)}</figure>'
        f"<figure><h3>Top-1</h3>{curves(shares, 'top-1 of each epoch', percent=True, marked=marked)}</figure></div>"
        f"<p>Held out: the pictures to choose by, {percent} of them right after epoch {best.epoch}. "
        "The training loss is of changed pictures and smoothed labels, so it may well lie above the other.</p>"
    )


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


def _mistakes(found: Evaluation, pictures: Mapping[str, Path | Pixels]) -> str:
    if not found.mistakes:
        return "<p>None: every picture was right.</p>"
    shown = []
    for one in found.mistakes[:MISTAKES_MOST]:
        thumbnail = _thumbnail(pictures[one.picture]) if one.picture in pictures else ""
        image = f'<img alt="" src="data:image/jpeg;base64,{thumbnail}">' if thumbnail else ""
        shown.append(
            f"<li>{image}<b>{plain(one.label)}</b> taken for <b>{plain(one.predicted)}</b><br>"
            f"{one.probability:.1%} sure<br><small>{plain(one.picture)}</small></li>"
        )
    total = len(found.mistakes)
    how_many = f"The {len(shown)} surest of {total:,}" if total > len(shown) else f"All {total}, surest first"
    words = f"{how_many}. Look at their labels first: where a network is sure, it may be the label that is wrong."
    return f'<p>{words}</p><ul class="mistakes">{"".join(shown)}</ul>'


def _thumbnail(picture: Path | Pixels) -> str:
    """A small JPEG in base64; empty where the picture cannot be read any more."""
    try:
        image = read(picture, (THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE // 2))
    except PictureError:
        return ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    if (times := THUMBNAIL_SIDE // max(image.size)) > 1:  # of digits of 8 × 8 every pixel is to be seen
        image = image.resize((image.width * times, image.height * times), Resampling.NEAREST)
    out = BytesIO()
    image.save(out, "JPEG", quality=80)
    return b64encode(out.getvalue()).decode()


def _classes(scores: Sequence[ClassScore]) -> str:
    ordered = sorted(scores, key=lambda one: (not one.pictures, one.f1))

    def rows(part: Iterable[ClassScore]) -> Iterator[Sequence[str]]:
        for one in part:
            figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", bar(one.f1, "right"))
            yield plain(one.name), f"{one.pictures:,}", *(figures if one.pictures else "–––")

    head = ("class", "pictures", "precision", "recall", "F1")
    words = "Precision: how much of what is called so is it; recall: how much of it is called so; F1: both in one."
    return f"<p>The weakest first. {words}</p>" + folded(ordered, lambda part: table(head, rows(part)))


def _left_out(result: Result) -> str:
    every = [*result.left_out, *(text for one in result.evaluations.values() for text in one.left_out)]
    if not every:
        return "<p>None: every picture could be read.</p>"
    return f"<p>{len(every):,} could not be read:</p>{folded(every, bullets)}"


def _use(model: Path) -> str:
    command = f"effnet predict photo.jpg --model {shlex.quote(str(model))}"
    code = f"""\
        import effnet
        predict = effnet.Predictor({str(model)!r})
        print(predict(["photo.jpg"])[0].label)"""
    return (
        f"<p>From a shell:</p><pre>{plain(command)}</pre><p>From Python:</p><pre>{plain(dedent(code))}</pre>"
        "<p>The file is all that is needed: it carries its classes and how pictures are prepared.</p>"
    )


def _settings(recipe: Recipe) -> str:
    settings = recipe.to_dict()
    settings |= {f"augment: {name}": value for name, value in settings.pop("augment").items()}
    if settings["augment: mirror"]:
        settings["augment: mirror"] = "yes, where labels allow it"
    shown = ((name.replace("_", " "), _setting(value)) for name, value in settings.items())
    return f'<div class="columns">{pairs(shown)}</div>'


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else plain(value)


def _short(number: int) -> str:
    """4,011,391 as 4.01 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}" if number < 999.5 * size else f"{number / size:,.0f} {letter}"
    return str(number)
