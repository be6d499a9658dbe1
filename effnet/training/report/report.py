"""The report of a run: one self-contained HTML page, without scripts and without the network."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from markupsafe import Markup

from effnet.arch import count
from effnet.data import ImageDataset
from effnet.data.duplicates import LabelConflict
from effnet.data.storage.atomic_write import atomic_write
from effnet.draw import html_page, report_plots
from effnet.draw.text import format_si
from effnet.net import EfficientNet
from effnet.tasks import task_of
from effnet.timing import describe_machine, installed_versions, peak_memory
from effnet.training import callbacks, data_plan, distributed, recipes, run_dir
from effnet.training.report.evaluation_sections import MAX_ROWS, ImageGallery, describe_evaluation, elements

REPORTED_PACKAGES = ("effnet", "torch", "torchvision", "accelerate", "numpy", "pillow")
SPLIT_DESCRIPTIONS = {"test": "test images", "val": "validation images", "holdout": "held-out images"}
SPLIT_PURPOSES = {"train": "training", "selection": "model selection"}  # others were only reported on


@dataclass(frozen=True)
class RunCost:
    """What a run cost; zero or empty is unknown."""

    seconds: float = 0.0  # including those before it was resumed
    peak_memory: int = 0  # bytes of the process
    peak_device_memory: int = 0  # bytes of the GPU
    device: str = ""
    device_count: int = 1
    precision: str = ""

    @classmethod
    def measure(cls, seconds: float, processes: distributed.SingleProcess) -> "RunCost":
        """Return the cost of a run that took ``seconds`` in this process."""
        device, on_gpu = processes.device, processes.device.type == "cuda"
        return cls(
            seconds,
            peak_memory(),
            torch.cuda.max_memory_allocated(device) if on_gpu else 0,
            torch.cuda.get_device_name(device) if on_gpu else device.type.upper(),
            processes.world_size,
            processes.precision,
        )


def write_report(
    path: Path,
    result: run_dir.TrainResult,
    model: EfficientNet,
    recipe: recipes.Recipe,
    *,
    splits: Mapping[str, ImageDataset] | None = None,
    label_conflicts: Sequence[LabelConflict] = (),
    source: str = "",
    cost: RunCost | None = None,
    command: str = "",
) -> None:
    """Write the report of a run as an HTML file; sections without data are omitted.

    Of the images in ``splits`` those of ``result.report_split`` are shown; ``source`` is the data as the user named it;
    ``label_conflicts`` are from `effnet.data.duplicates.find_label_conflicts`.
    """
    splits = splits or {}
    found, split = result.evaluation, result.report_split
    images = {item.name: item.image for item in splits[split].items} if split in splits else {}
    description = f"images of “{split}”, which choices were made on: expect less on others"
    if split in SPLIT_DESCRIPTIONS:
        description = f"{SPLIT_DESCRIPTIONS[split]}, which no choice has seen"
    headline, evaluation_sections = describe_evaluation(found, description, ImageGallery(model, images))
    others = [
        elements.paragraph(f"{name}: {one.summary()}, {one.images:,} images.")
        for name, one in result.evaluations.items()
        if name != split
    ]
    sections = [
        ("Model", _model_section(result, model, recipe, command)),
        ("Training", _curves_section(result)),
        *evaluation_sections,
        ("Cost", _cost_section(cost or RunCost(), result, model)),
        ("Data", _data_section(splits, source) if splits else ""),
        ("Images with several labels", _conflicts_section(label_conflicts)),
        ("Skipped images", _skipped_section(result)),
        ("Use the model", _usage_section(result)),
        ("Recipe", _recipe_section(recipe)),
    ]
    header = Markup("<header>{}</header>").format(_join([headline, *others]))
    body = _join([header, *(elements.section(title, content) for title, content in sections)])
    title = f"{model.arch.name}: {found.summary()}"
    with atomic_write(path) as temporary:
        page = html_page.render_page(title, str(elements.style()), body)
        temporary.write_text(page, encoding="utf-8")


def _join(parts: list[Markup]) -> Markup:
    return Markup("\n").join(part for part in parts if part)


def _model_section(result: run_dir.TrainResult, model: EfficientNet, recipe: recipes.Recipe, command: str) -> Markup:
    size = count(model.arch, model.preprocess.size, model.classes, model.channels)
    height, width = model.preprocess.size
    task, provenance = task_of(model.labels.task), model.provenance
    weights = ", ".join(filter(None, (provenance.source, provenance.layout, provenance.license)))
    rows: list[tuple[str, Markup | str]] = [
        ("Network", Markup("<b>{}</b>, {:,} {}").format(model.arch.name, model.classes, task.plural)),
        ("Size", f"{format_si(size.params)} params; {format_si(size.macs)} MACs at {height} × {width}"),
        ("Weights", weights or "unknown"),
        ("History", Markup("<br>").join(provenance.history) or "none"),
        ("Recipe", recipe.name),
        ("Kept", Markup("<b>{}</b>: {}").format(result.chosen, _selection_reason(result, recipe))),
    ]
    if result.probe_metric is not None:
        rows.append(("Linear probe", f"{task.format_metric(result.probe_metric, digits=2)}, leave-one-out"))
    if command:
        rows.append(("Command", Markup("<code>{}</code>").format(command)))
    return elements.facts(rows)


def _selection_reason(result: run_dir.TrainResult, recipe: recipes.Recipe) -> str:
    if not result.history:
        return "a linear head on the frozen network; nothing else was trained."
    best = callbacks.best_epoch(result.history)
    loss = f"{best.selection_loss:.3f} after epoch {best.epoch} of {len(result.history)}"
    if result.chosen == "probe":
        return f"the selection loss of fine-tuning, {loss}, was not clearly below the linear probe’s."
    return (
        f"its selection loss was {loss}, {'clearly below the linear probe’s' if recipe.linear_probe else 'the lowest'}."
    )


def _curves_section(result: run_dir.TrainResult) -> Markup | str:
    history, task = result.history, task_of(result.evaluation.task)
    if not history:
        return ""
    best = callbacks.best_epoch(history)
    marked = (best.epoch, "kept" if result.chosen != "probe" else "best")
    losses = {
        "training": [metrics.train_loss for metrics in history],
        "selection": [metrics.selection_loss for metrics in history],
    }
    selection = {"selection": [metrics.selection_metric for metrics in history]}
    rates = {"at the end of the epoch": [metrics.learning_rate for metrics in history]}
    metric, percent = task.metric, task.has_probabilities
    plots = [
        ("Loss", report_plots.plot_curves(losses, "loss of each epoch", marked=marked)),
        (
            metric[0].upper() + metric[1:],
            report_plots.plot_curves(selection, f"{metric} of each epoch", percent=percent, marked=marked),
        ),
        ("Learning rate", report_plots.plot_curves(rates, "learning rate of each epoch")),
    ]
    changes = "augmentation and label smoothing" if task.has_probabilities else "augmentation"
    return elements.plots(
        plots,
        f"Selection: {task.format_metric(best.selection_metric, digits=2)} after epoch {best.epoch}. The training loss "
        f"includes {changes}, so it may well be above the other.",
    )


def _cost_section(cost: RunCost, result: run_dir.TrainResult, model: EfficientNet) -> Markup:
    height, width = model.preprocess.size
    size = count(model.arch, (height, width), model.classes, model.channels)
    seconds = [metrics.seconds for metrics in result.history if metrics.seconds > 0]
    tiles = [
        ("Total time", _format_duration(cost.seconds) if cost.seconds else "", "from the data to the saved model"),
        ("Training", _format_duration(sum(seconds)) if seconds else "", f"{len(seconds)} epochs, without validation"),
        ("Epoch", _format_duration(median(seconds)) if seconds else "", "median"),
        ("Peak memory", format_si(cost.peak_memory, "B") if cost.peak_memory else "", "of the process"),
        ("GPU memory", format_si(cost.peak_device_memory, "B") if cost.peak_device_memory else "", "peak"),
        ("MACs", format_si(size.macs), f"per image of {height}×{width}; {format_si(size.params)} params"),
    ]
    device = f"{cost.device_count} × {cost.device}" if cost.device_count > 1 else cost.device
    versions = {"python": platform.python_version()} | installed_versions(REPORTED_PACKAGES)
    facts = [
        ("Machine", describe_machine().describe()),
        ("Computed on", ", ".join(filter(None, (device, cost.precision)))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return elements.tiles([tile for tile in tiles if tile[1]]) + elements.facts([fact for fact in facts if fact[1]])


def _data_section(splits: Mapping[str, ImageDataset], source: str) -> Markup:
    labels = next(iter(splits.values())).labels
    purposes = {split: SPLIT_PURPOSES.get(split, f"reported on: {split}") for split in splits}
    fingerprint = Markup("<code>{}</code><br><small>SHA-256 of names, labels and splits</small>")
    facts = elements.facts(
        [
            ("Source", source or "given in Python"),
            ("Fingerprint", fingerprint.format(data_plan.fingerprint_splits(splits))),
            *((purposes[split].capitalize(), f"{len(images):,} images") for split, images in splits.items()),
        ]
    )
    task = task_of(labels.task)
    if not task.has_probabilities:
        return facts
    counts = [images.class_counts() for images in splits.values()]
    rows = [
        (name, *(f"{number:,}" for number in numbers)) for name, *numbers in zip(labels.names, *counts, strict=True)
    ]
    return facts + elements.table(("label", *purposes.values()), rows, MAX_ROWS)


def _conflicts_section(conflicts: Sequence[LabelConflict]) -> Markup | str:
    if not conflicts:
        return ""
    lines = [", ".join(f"{copy.image} ({copy.label}, {copy.split})" for copy in copies) for copies in conflicts]
    text = elements.paragraph(
        f"{len(lines):,} found in several files with different labels, of which one at most is right; they bound what "
        "accuracy can be reached:"
    )
    return text + _bullets(lines)


def _skipped_section(result: run_dir.TrainResult) -> Markup:
    errors = [*result.skipped, *(error for found in result.evaluations.values() for error in found.skipped)]
    if not errors:
        return elements.paragraph("None: every image was readable.")
    return elements.paragraph(f"{len(errors):,} unreadable:") + _bullets(errors)


def _bullets(lines: Sequence[str]) -> Markup:
    """Return a list whose later lines unfold."""
    text = elements.bullets(lines[:MAX_ROWS])
    if more := lines[MAX_ROWS:]:
        text += elements.details(f"{len(more):,} more", elements.bullets(more))
    return text


def _usage_section(result: run_dir.TrainResult) -> Markup:
    command = f"effnet predict photo.jpg --model {shlex.quote(str(result.model))}"
    attribute = {"classification": "label", "multilabel": "labels", "regression": "values"}[result.evaluation.task]
    predictor = f"effnet.Predictor({str(result.model)!r})"
    code = f'import effnet\npredict = {predictor}\nprint(predict(["photo.jpg"])[0].{attribute})'
    return _join(
        [
            elements.paragraph("On the command line:") + elements.code(command),
            elements.paragraph("In Python:") + elements.code(code),
            elements.paragraph("The file is all that is needed: it contains its classes and preprocessing."),
        ]
    )


def _recipe_section(recipe: recipes.Recipe) -> Markup:
    settings = recipe.to_dict()
    for part in ("augment", "progressive"):
        settings |= {f"{part}: {name}": value for name, value in (settings.pop(part, None) or {}).items()}
    if settings.get("augment: horizontal_flip"):
        settings["augment: horizontal_flip"] = "yes, where labels allow it"
    rows = [(name.replace("_", " "), _format_setting(value)) for name, value in settings.items()]
    json = elements.details("as JSON", elements.code(recipe.to_json(indent=1)))
    return elements.columns(elements.facts(rows)) + json


def _format_setting(value: object) -> str:
    if value is None:
        return "the network’s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " – ".join(map(_format_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _format_duration(seconds: float) -> str:
    """Return 5025 as 1 h 24 min."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
