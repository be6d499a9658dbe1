"""How the run went: what was trained, its curves, what was left out, the recipe, and how to use the model."""

from __future__ import annotations

import shlex
from pathlib import Path
from textwrap import dedent

from effnet.arch import count
from effnet.draw.plots import curves
from effnet.net import EfficientNet
from effnet.training.folder import Result
from effnet.training.judging import FIGURES
from effnet.training.recipe import Recipe
from effnet.training.report.page import bullets, figures, folded, pairs, plain, short


def facts(result: Result, model: EfficientNet, recipe: Recipe, command: str) -> str:
    """What was trained, from where, and which of its forms was kept."""
    high, wide = model.preprocess.size
    cost = count(model.arch, (high, wide), model.classes, model.channels)
    came = [text for text in (model.provenance.source, model.provenance.layout, model.provenance.licence) if text]
    what = {"one": "classes", "any": "labels, any of which may be right", "value": "values"}[model.labels.kind]
    rows = [
        ("Network", f"<b>{plain(model.arch.name)}</b>, {model.classes:,} {what}"),
        ("Size", f"{short(cost.params)} params; {short(cost.macs)} MACs for a picture of {high} × {wide}"),
        ("Weights", plain(", ".join(came)) or "not known"),
        ("Since then", "<br>".join(map(plain, model.provenance.history)) or "nothing"),
        ("Recipe", plain(recipe.name)),
        ("Chosen", f"<b>{plain(result.chosen)}</b>: {_why(result, recipe)}"),
    ]
    if result.probe_top1 is not None:
        figure = _figure(result.probe_top1, model.labels.kind)
        rows.append(("Probe", f"{figure}, each training picture judged by a head without it"))
    if command:
        rows.append(("Command", f"<code>{plain(command)}</code>"))
    return pairs(rows)


def _figure(value: float, kind: str) -> str:
    """As "top-1 92.1%"."""
    return f"{FIGURES[kind]} " + (f"{value:.3f}" if kind == "value" else f"{value:.2%}")


def _why(result: Result, recipe: Recipe) -> str:
    if not result.history:
        return "a linear head on the frozen network; nothing else was trained."
    best = min(result.history, key=lambda line: line.select_loss)
    after = f"{best.select_loss:.3f} after epoch {best.epoch} of {len(result.history)}"
    where = "on the pictures to choose by"
    if result.chosen == "probe":
        return f"fine-tuning came to a loss of {after} {where}, not clearly below the probe’s."
    return f"its loss {where} was {after}, " + ("clearly below the probe’s." if recipe.probe else "the lowest.")


def learning(result: Result, kind: str) -> str:
    """The learning curves; empty where nothing but a head was fitted."""
    lines = result.history
    if not lines:
        return ""
    best = min(lines, key=lambda line: line.select_loss)
    marked = (best.epoch, "kept" if result.chosen != "probe" else "best")
    losses = {"training": [line.loss for line in lines], "held out": [line.select_loss for line in lines]}
    figure = FIGURES[kind]
    held_out, rates = {"held out": [line.select_top1 for line in lines]}, [line.learning_rate for line in lines]
    percent = kind != "value"
    changed = "changed pictures" if kind == "value" else "changed pictures and smoothed labels"
    drawn = [
        ("Loss", curves(losses, "loss of each epoch", marked=marked)),
        (
            figure[0].upper() + figure[1:],
            curves(held_out, f"{figure} of each epoch", percent=percent, marked=marked),
        ),
        ("Learning rate", curves({"at the end of the epoch": rates}, "learning rate of each epoch")),
    ]
    return figures(
        drawn,
        f"Held out: the pictures to choose by, {_figure(best.select_top1, kind)} after epoch {best.epoch}. "
        f"The training loss is of {changed}, so it may well lie above the other.",
    )


def left_out(result: Result) -> str:
    """The pictures that could not be read."""
    every = [*result.left_out, *(text for one in result.evaluations.values() for text in one.left_out)]
    if not every:
        return "<p>None: every picture could be read.</p>"
    return f"<p>{len(every):,} could not be read:</p>{folded(every, bullets)}"


def use(model: Path, kind: str) -> str:
    """How the model is asked about other pictures."""
    command = f"effnet predict photo.jpg --model {shlex.quote(str(model))}"
    answer = {"one": "label", "any": "labels", "value": "values"}[kind]
    code = f"""\
        import effnet
        predict = effnet.Predictor({str(model)!r})
        print(predict(["photo.jpg"])[0].{answer})"""
    return (
        f"<p>From a shell:</p><pre>{plain(command)}</pre><p>From Python:</p><pre>{plain(dedent(code))}</pre>"
        "<p>The file is all that is needed: it carries its classes and how pictures are prepared.</p>"
    )


def settings(recipe: Recipe) -> str:
    """The exact recipe, every setting of it, and as JSON to be copied."""
    named = recipe.to_dict()
    for part in ("augment", "progress"):
        named |= {f"{part}: {name}": value for name, value in (named.pop(part, None) or {}).items()}
    if named.get("augment: mirror"):
        named["augment: mirror"] = "yes, where labels allow it"
    shown = ((name.replace("_", " "), _setting(value)) for name, value in named.items())
    json = f"<details><summary>as JSON</summary><pre>{plain(recipe.to_json(indent=1))}</pre></details>"
    return f'<div class="columns">{pairs(shown)}</div>{json}'


def _setting(value: object) -> str:
    if value is None:
        return "the network’s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " – ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else plain(value)
