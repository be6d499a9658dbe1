"""A training run from data to a model on disk: plan, train, judge, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from effnet.arch import Arch, resolve
from effnet.clock import Stopwatch, peak_memory
from effnet.clock.memory import freed_memory_kept
from effnet.data import Splits, open_data
from effnet.evaluation import evaluate
from effnet.exporting.choose import keep
from effnet.net import EfficientNet
from effnet.training import recipes
from effnet.training.examiner import BATCH
from effnet.training.folder import Result, RunFolder
from effnet.training.judging import FIGURES
from effnet.training.loop import Diverged, memory_ran_out
from effnet.training.place import Place
from effnet.training.plan import plan, training_pictures
from effnet.training.recipe import Recipe
from effnet.training.report import Cost, Data, write_report
from effnet.training.resources import Resources
from effnet.training.stages import Stages
from effnet.training.start import norms, start
from effnet.training.teacher import Taught
from effnet.training.track import Tracked, default, installed
from effnet.training.watch import Watch
from effnet.weights import save


def train(
    data: str | Path | Splits,
    recipe: str | Recipe | None = None,
    *,
    out: str | Path,
    model: str | Arch | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    learning_rate: float | str | None = None,
    seed: int = 0,
    size: int | None = None,
    select_on: str = "holdout",
    teacher: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    resources: Resources | None = None,
    track: Sequence[str] | None = None,
    watch: Watch | None = None,
    command: str = "",
) -> Result:
    """Trains a classifier on ``data`` and leaves ``model.safetensors`` and ``report.html`` in ``out``.

    ``data`` is what ``open_data`` understands, or splits. ``weights`` is a file to start from, "none" for random
    weights, or None for the published ones of ``model`` (b0 unless said). Every choice is made on a part of the
    training pictures; validation and test pictures are only reported on unless ``select_on="val"``. ``epochs``,
    ``minutes`` (of fine-tuning), ``batch`` and ``learning_rate`` replace the recipe's; the rate is meant for the
    recipe's ``rate_batch``, and goes with the batch, or is "find": a sweep looks for it first. ``teacher``: a model of
    the same classes to learn from as well.
    With ``resume`` a run that was stopped goes on and ends with the bits that it would have had; a finished one is
    returned as it is. Started by ``torchrun``, all its processes share the work. ``track``: who is told of each epoch
    beside ``watch``, by default TensorBoard where it is installed. ``command`` is named in the report.
    Raises ``ValueError`` for data, weights or settings that cannot be trained with, ``FileExistsError`` for an ``out``
    that is in use, ``OSError`` where it cannot be written.
    """
    since, watch, out, resources = Stopwatch(), watch or Watch(), Path(out), resources or Resources()
    if epochs is not None and minutes is not None:
        raise ValueError("give either epochs or minutes, not both")
    if epochs is not None and epochs < 0:
        raise ValueError(f"epochs must be at least 0, got {epochs}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    trackers = default() if track is None else tuple(track)
    installed(trackers)
    splits = data if isinstance(data, Splits) else open_data(data)
    labels = training_pictures(splits).labels
    chosen = settled(recipe, weights, epochs, batch, learning_rate)
    place = Place(resources.device, resources.precision, partly=chosen.unfreeze > 0)
    settings = {
        "data": Data("", splits.given).fingerprint if isinstance(data, Splits) else str(data),
        "recipe": chosen.to_dict(),
        "model": model and resolve(model).to_dict(),
        "weights": None if weights is None else str(weights),
        "epochs": epochs,
        "minutes": minutes,
        "seed": seed,
        "size": size,
        "select_on": select_on,
        "find_rate": learning_rate == "find",
        "teacher": teacher and str(teacher),
        "precision": place.precision,
        "cache": resources.cache,
    }
    folder = RunFolder(out)
    if place.first:
        folder.claim(settings, resume)
    if finished := place.by_first(folder.result):
        watch.say(f"this run is finished: {finished.model}")
        return finished
    network = start(model, weights, labels, chosen, size, seed)
    network.gradient_checkpointing = resources.checkpointing
    taught = Taught(teacher, labels, place.device) if teacher is not None else None
    with ExitStack() as stack:
        if not place.first:
            watch = Watch()
        else:
            folder.begin(settings)
            if trackers:
                told = Tracked(watch, folder.logs, trackers, out.name, settings, FIGURES[labels.kind])
                watch = stack.enter_context(closing(told))
        # Every picture is read for it: by one process, for all of them
        parts = place.by_first(lambda: plan(splits, seed, select_on, strict, watch, chosen.select_share))
        if place.first:
            parts.write(folder.split)
        watch.say(parts.in_words())
        chosen = _with_norms(chosen, len(parts.fit), weights != "none", watch)
        stages = Stages(network.to(place.device), parts, chosen, seed, resources, place, watch, since)
        # Kept for the next step, freed memory saves time; recomputed blocks are for those who have none to spare
        kept = place.device.type == "cpu" and not resources.checkpointing
        try:
            with freed_memory_kept() if kept else nullcontext():
                name, final = stages.run(epochs, minutes, folder, taught, finds_rate=learning_rate == "find")
        except Diverged as error:
            raise ValueError(f"{error}{_kept(stages, folder)}") from None
        except RuntimeError as error:  # not in a batch, which would have been computed in more parts
            if not memory_ran_out(error):
                raise
            raise ValueError("there is not enough memory: try a smaller --size or network") from error
        if place.first:
            _leave(folder, final, name, stages, "" if isinstance(data, Splits) else str(data), command)
    place.wait()
    result = folder.result()
    assert result is not None
    return result


def settled(
    recipe: str | Recipe | None,
    weights: str | Path | None,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | str | None = None,
) -> Recipe:
    """The recipe with what was asked in place of its own. Raises ``ValueError`` for what does not go together."""
    chosen = recipes.named(recipe, pretrained=weights != "none")
    if batch is not None:
        chosen = replace(chosen, batch=batch)
    if isinstance(learning_rate, str) and learning_rate != "find":
        raise ValueError(f'the learning rate is a number, or "find", not {learning_rate!r}')
    if isinstance(learning_rate, (int, float)):
        chosen = replace(chosen, learning_rate=learning_rate)
    if chosen.probe and weights == "none":
        raise ValueError(f"the recipe {chosen.name} starts from pretrained weights: give --weights FILE")
    if not chosen.probe and epochs == 0:
        raise ValueError(f"0 epochs of the recipe {chosen.name} train nothing: give --epochs 1 or more")
    return chosen


def _with_norms(recipe: Recipe, pictures: int, pretrained: bool, watch: Watch) -> Recipe:
    if recipe.norms != "auto":
        return recipe
    chosen, why = norms(pictures, pretrained)
    watch.say(f"batch norm: {chosen}, since {why}")
    return replace(recipe, norms=chosen)


def _kept(stages: Stages, folder: RunFolder) -> str:
    """Saves the best weights of a run that failed, where there are any, and says where they lie, or why they do not."""
    best = stages.best() if stages.place.first else None
    if best is None:
        return ""
    what, model = best
    try:
        save(model, folder.model)
    except OSError as error:
        return f"; {error}"
    return f"; {what}, the best so far, are in {folder.model}"


def _leave(folder: RunFolder, final: EfficientNet, name: str, stages: Stages, source: str, command: str) -> None:
    """Judges the model on what no choice has seen, and leaves it with its report; the result last of all."""
    parts, recipe = stages.parts, stages.recipe
    classes = len(parts.fit.labels.names)
    final.provenance = final.provenance.then(
        f"trained by effnet, recipe {recipe.name} ({name}), on {classes} classes, seed {stages.seed}"
    )
    path = save(final, folder.model)
    keep(final, path)  # so that its first prediction starts without torch
    evaluations = {name: evaluate(final, found, decode="exact", batch=BATCH) for name, found in parts.report.items()}
    probe = stages.probe.top1 if stages.probe else None
    result = Result(path, name, evaluations, stages.history, probe, parts.left_out, stages.spent)
    judged = {item.name: item.picture for item in parts.report[result.split].items}
    seen = Data(source, {"fit": parts.fit, "select": parts.select, **parts.report})
    write_report(folder.report, result, final, recipe, judged, _cost(stages), seen, command)
    folder.finish(result)


def _cost(stages: Stages) -> Cost:
    place, on_gpu = stages.place, stages.place.device.type == "cuda"
    return Cost(
        stages.spent,
        peak_memory(),
        torch.cuda.max_memory_allocated(place.device) if on_gpu else 0,
        torch.cuda.get_device_name(place.device) if on_gpu else place.device.type.upper(),
        place.ranks,
        place.precision,
    )
