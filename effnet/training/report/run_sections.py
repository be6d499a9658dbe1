"""How the run went: what was trained, its curves, what was left out, the recipe, and how to use the model."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from statistics import median
from textwrap import dedent

import torch

from effnet.arch import count
from effnet.data import ImageDataset
from effnet.data.image_io import ImageSource
from effnet.draw.training_plots import plot_curves
from effnet.net import EfficientNet
from effnet.tasks import task_of
from effnet.timing import describe_machine, installed_versions, peak_memory
from effnet.training.callbacks import EpochMetrics
from effnet.training.recipes import Recipe
from effnet.training.report.html import (
    bullet_list,
    collapsible,
    definition_list,
    escape_html,
    format_count,
    format_duration,
    plot_grid,
    stat_tiles,
    table,
)
from effnet.training.run_dir import TrainResult


def model_section(result: TrainResult, model: EfficientNet, recipe: Recipe, command: str) -> str:
    """What was trained, from where, and which of its forms was kept."""
    high, wide = model.preprocess.size
    cost = count(model.arch, (high, wide), model.classes, model.channels)
    came = [text for text in (model.provenance.source, model.provenance.layout, model.provenance.license) if text]
    what = {"classification": "classes", "multilabel": "labels, any of which may be right", "regression": "values"}[
        model.labels.task
    ]
    rows = [
        ("Network", f"<b>{escape_html(model.arch.name)}</b>, {model.classes:,} {what}"),
        (
            "Size",
            f"{format_count(cost.params)} params; {format_count(cost.macs)} MACs for a picture of {high} × {wide}",
        ),
        ("Weights", escape_html(", ".join(came)) or "not known"),
        ("Since then", "<br>".join(map(escape_html, model.provenance.history)) or "nothing"),
        ("Recipe", escape_html(recipe.name)),
        ("Chosen", f"<b>{escape_html(result.chosen)}</b>: {_selection_reason(result, recipe)}"),
    ]
    if result.probe_metric is not None:
        figure = _format_metric(result.probe_metric, model.labels.task)
        rows.append(("Probe", f"{figure}, each training picture judged by a head without it"))
    if command:
        rows.append(("Command", f"<code>{escape_html(command)}</code>"))
    return definition_list(rows)


def _format_metric(value: float, task: str) -> str:
    """As "top-1 92.1%"."""
    return task_of(task).format_metric(value, digits=2)


def _selection_reason(result: TrainResult, recipe: Recipe) -> str:
    if not result.history:
        return "a linear head on the frozen network; nothing else was trained."
    best = min(result.history, key=lambda line: line.selection_loss)
    after = f"{best.selection_loss:.3f} after epoch {best.epoch} of {len(result.history)}"
    where = "on the pictures to choose by"
    if result.chosen == "probe":
        return f"fine-tuning came to a loss of {after} {where}, not clearly below the probe’s."
    return f"its loss {where} was {after}, " + ("clearly below the probe’s." if recipe.linear_probe else "the lowest.")


def curves_section(result: TrainResult, task: str) -> str:
    """The learning curves; empty where nothing but a head was fitted."""
    lines = result.history
    if not lines:
        return ""
    best = min(lines, key=lambda line: line.selection_loss)
    marked = (best.epoch, "kept" if result.chosen != "probe" else "best")
    losses = {"training": [line.train_loss for line in lines], "held out": [line.selection_loss for line in lines]}
    figure = task_of(task).metric
    held_out, rates = {"held out": [line.selection_metric for line in lines]}, [line.learning_rate for line in lines]
    percent = task != "regression"
    changed = "changed pictures" if task == "regression" else "changed pictures and smoothed labels"
    drawn = [
        ("Loss", plot_curves(losses, "loss of each epoch", marked=marked).svg),
        (
            figure[0].upper() + figure[1:],
            plot_curves(held_out, f"{figure} of each epoch", percent=percent, marked=marked).svg,
        ),
        ("Learning rate", plot_curves({"at the end of the epoch": rates}, "learning rate of each epoch").svg),
    ]
    return plot_grid(
        drawn,
        f"Held out: the pictures to choose by, {_format_metric(best.selection_metric, task)} after epoch {best.epoch}. "
        f"The training loss is of {changed}, so it may well lie above the other.",
    )


def unreadable_section(result: TrainResult) -> str:
    """The pictures that could not be read."""
    every = [*result.skipped, *(text for one in result.evaluations.values() for text in one.skipped)]
    if not every:
        return "<p>None: every picture could be read.</p>"
    return f"<p>{len(every):,} could not be read:</p>{collapsible(every, bullet_list)}"


def usage_section(model: Path, task: str) -> str:
    """How the model is asked about other pictures."""
    command = f"effnet predict photo.jpg --model {shlex.quote(str(model))}"
    answer = {"classification": "label", "multilabel": "labels", "regression": "values"}[task]
    code = f"""\
        import effnet
        predict = effnet.Predictor({str(model)!r})
        print(predict(["photo.jpg"])[0].{answer})"""
    return (
        f"<p>From a shell:</p><pre>{escape_html(command)}</pre><p>From Python:</p><pre>{escape_html(dedent(code))}</pre>"
        "<p>The file is all that is needed: it carries its classes and how pictures are prepared.</p>"
    )


def recipe_section(recipe: Recipe) -> str:
    """The exact recipe, every setting of it, and as JSON to be copied."""
    named = recipe.to_dict()
    for part in ("augment", "progress"):
        named |= {f"{part}: {name}": value for name, value in (named.pop(part, None) or {}).items()}
    if named.get("augment: mirror"):
        named["augment: mirror"] = "yes, where labels allow it"
    shown = ((name.replace("_", " "), _format_setting(value)) for name, value in named.items())
    json = f"<details><summary>as JSON</summary><pre>{escape_html(recipe.to_json(indent=1))}</pre></details>"
    return f'<div class="columns">{definition_list(shown)}</div>{json}'


def _format_setting(value: object) -> str:
    if value is None:
        return "the network’s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " – ".join(map(_format_setting, value))
    return f"{value:g}" if isinstance(value, float) else escape_html(value)


# What a run took, and on what.


REPORTED_PACKAGES = ("effnet", "torch", "torchvision", "accelerate", "numpy", "pillow")


@dataclass(frozen=True)
class RunCost:
    """What the run took; zero or empty is what was not measured.

    ``seconds``: of the whole run, all its parts together where it was resumed. ``memory``: bytes that the process held
    at its worst moment; ``device_memory``: the same of the accelerator. ``device``: what computed, in words.
    ``devices``: how many of these took part.
    """

    seconds: float = 0.0
    peak_memory: int = 0
    peak_device_memory: int = 0
    device: str = ""
    device_count: int = 1
    precision: str = ""

    @classmethod
    def measure(cls, seconds: float, device: torch.device, device_count: int, precision: str) -> RunCost:
        """Return the cost of a run that took ``seconds`` in this process."""
        on_gpu = device.type == "cuda"
        return cls(
            seconds,
            peak_memory(),
            torch.cuda.max_memory_allocated(device) if on_gpu else 0,
            torch.cuda.get_device_name(device) if on_gpu else device.type.upper(),
            device_count,
            precision,
        )


def cost_section(cost: RunCost, history: Sequence[EpochMetrics], model: EfficientNet) -> str:
    """The section's body: time, memory and size; what computed, and with what."""
    high, wide = model.preprocess.size
    size = count(model.arch, (high, wide), model.classes, model.channels)
    timed = [line.seconds for line in history if line.seconds > 0]
    shown = [
        ("The run", format_duration(cost.seconds) if cost.seconds else "", "from the first picture to the saved model"),
        ("Training", format_duration(sum(timed)) if timed else "", f"{len(timed)} epochs, without judging them"),
        ("An epoch", format_duration(median(timed)) if timed else "", "the median"),
        ("Peak memory", _format_bytes(cost.peak_memory), "of the process"),
        ("On the device", _format_bytes(cost.peak_device_memory), "peak memory there"),
        ("MACs", format_count(size.macs), f"a picture of {high}×{wide}; {format_count(size.params)} params"),
    ]
    device = f"{cost.device_count} × {cost.device}" if cost.device_count > 1 else cost.device
    found = {"python": platform.python_version()} | installed_versions(REPORTED_PACKAGES)
    rows = [
        ("Machine", describe_machine().describe()),
        ("Computed on", ", ".join(filter(None, (device, cost.precision)))),
        ("Versions", ", ".join(f"{name} {which}" for name, which in found.items())),
    ]
    return stat_tiles(tile for tile in shown if tile[1]) + definition_list(
        (name, escape_html(text)) for name, text in rows if text
    )


def _format_bytes(number: int) -> str:
    """2.1 GB; empty for none."""
    return f"{format_count(number)}B" if number else ""


# Which pictures a run was made of, so that another can tell whether it had the same.


SPLIT_NAMES = {"train": "learned from", "selection": "chosen by"}  # any other was only reported on


@dataclass(frozen=True, eq=False)
class DataSummary:
    """The run's pictures: ``source``, as it was called, and its ``parts`` "fit", "select" and those reported on."""

    source: str
    splits: Mapping[str, ImageDataset]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal over all pictures: a line ``part<TAB>name<TAB>label<LF>`` each, in UTF-8, sorted.

        ``label`` is the class's name, several joined by ``|``, or the values as Python writes them. The same pictures
        in another order have the same; what is within a file does not count.
        """
        lines = (
            f"{part}\t{item.name}\t{_format_label(item.label, pictures)}\n".encode("utf-8", "surrogatepass")
            for part, pictures in self.splits.items()
            for item in pictures.items
        )
        return sha256(b"".join(sorted(lines))).hexdigest()

    def images_of(self, part: str) -> dict[str, ImageSource]:
        """The pictures of ``part`` by their names; none where there is no such part."""
        return {item.name: item.image for item in self.splits[part].items} if part in self.splits else {}


def data_section(data: DataSummary) -> str:
    """The section's body: where the pictures came from, their fingerprint, and how many of each class are where."""
    pictures = next(iter(data.splits.values()))
    names, kind = pictures.labels.names, pictures.labels.task
    rows = [
        ("Source", escape_html(data.source) or "given as pictures"),
        ("Fingerprint", f"<code>{data.fingerprint}</code><br><small>SHA-256 over names, labels and parts</small>"),
        *((_capitalize(_split_name(part)), f"{len(found):,} pictures") for part, found in data.splits.items()),
    ]
    if kind == "regression":
        return definition_list(rows)
    counts = [found.class_counts() for found in data.splits.values()]
    lines = list(zip(names, *counts, strict=True))

    def shown(part: Iterable[tuple[str, *tuple[int, ...]]]) -> str:
        head = ("class" if kind == "classification" else "label", *map(_split_name, data.splits))
        return table(head, ((escape_html(name), *(f"{number:,}" for number in numbers)) for name, *numbers in part))

    return definition_list(rows) + collapsible(lines, shown)


def _split_name(part: str) -> str:
    return SPLIT_NAMES.get(part, f"reported on: {escape_html(part)}")


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _format_label(label: int | tuple[int, ...] | tuple[float, ...], pictures: ImageDataset) -> str:
    if isinstance(label, int):
        return pictures.labels.name(label)
    if pictures.labels.task == "regression":
        return "|".join(map(repr, label))
    return "|".join(pictures.labels.name(int(one)) for one in label)
