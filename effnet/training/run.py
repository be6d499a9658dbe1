"""A training run from data to a model on disk: plan, probe, fine-tune, choose, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from effnet.arch import Arch, resolve
from effnet.data import PictureError, Pictures, open_data
from effnet.data.augment import dice
from effnet.data.loader import TrainingBatches
from effnet.data.pixels import Fitted
from effnet.engines.eager import Eager, Floats
from effnet.evaluation import evaluate
from effnet.exporting.choose import keep
from effnet.net import EfficientNet, create
from effnet.net.device import pick
from effnet.prediction.pipeline import outputs
from effnet.training import recipes
from effnet.training.checkpoint import Checkpoints
from effnet.training.folder import Result, RunFolder
from effnet.training.loop import Epoch, Score, Trainer, seconds_per_epoch
from effnet.training.plan import Plan, plan, training_pictures
from effnet.training.probe import Probe, best_gain, fit_probe, surprise
from effnet.training.recipe import Recipe
from effnet.training.report import write_report
from effnet.training.watch import Watch
from effnet.weights import load, save

EPOCHS_MOST = 200  # however many minutes there are


def train(
    data: str | Path,
    recipe: str | Recipe | None = None,
    *,
    out: str | Path,
    model: str | Arch | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    size: int | None = None,
    select_on: str = "holdout",
    resume: bool = False,
    strict: bool = False,
    device: str | None = None,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Result:
    """Trains a classifier on ``data`` and leaves ``model.safetensors`` and ``report.html`` in ``out``.

    ``data`` is what ``open_data`` understands. ``weights`` is a file to start from, "none" for random weights, or None
    for the published ones of ``model`` (b0 unless said). Every choice is made on a part of the training pictures;
    validation and test pictures are only reported on unless ``select_on="val"``. ``epochs``, ``minutes`` (of
    fine-tuning), ``batch`` and ``learning_rate`` replace the recipe's. With ``resume`` a run that was stopped goes on
    and ends with the bits that it would have had; a finished one is returned as it is.
    Raises ``ValueError`` for data, weights or settings that cannot be trained with, ``FileExistsError`` for an ``out``
    that is in use, ``OSError`` where it cannot be written.
    """
    watch, out, place = watch or Watch(), Path(out), pick(device)
    if epochs is not None and minutes is not None:
        raise ValueError("give either epochs or minutes, not both")
    if epochs is not None and epochs < 0:
        raise ValueError(f"epochs must be at least 0, got {epochs}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    splits = open_data(data)
    chosen = recipes.named(recipe, pretrained=weights != "none")
    if batch is not None:
        chosen = replace(chosen, batch=batch)
    if learning_rate is not None:
        chosen = replace(chosen, learning_rate=learning_rate)
    if chosen.probe and weights == "none":
        raise ValueError(f"the recipe {chosen.name} starts from pretrained weights: give --weights FILE")
    if not chosen.probe and epochs == 0:
        raise ValueError(f"0 epochs of the recipe {chosen.name} train nothing: give --epochs 1 or more")
    settings = {
        "data": str(data),
        "recipe": chosen.to_dict(),
        "model": model and resolve(model).to_dict(),
        "weights": None if weights is None else str(weights),
        "epochs": epochs,
        "minutes": minutes,
        "seed": seed,
        "size": size,
        "select_on": select_on,
    }
    folder = RunFolder(out)
    folder.claim(settings, resume)
    if finished := folder.result():
        watch.say(f"this run is finished: {finished.model}")
        return finished
    network = _start(model, weights, training_pictures(splits), size, seed)
    folder.begin(settings)
    parts = plan(splits, seed, select_on, strict, watch)
    parts.write(folder.split)
    watch.say(
        f"{len(parts.fit)} pictures to learn from, {len(parts.select)} to choose by, "
        + ", ".join(f"{len(found)} of {name} to report on" for name, found in parts.report.items())
        + f"; {len(parts.fit.labels.names)} classes"
    )
    checkpoints = Checkpoints(folder.checkpoints)
    state = checkpoints.latest()
    run = _Run(network.to(place), parts, chosen, seed, workers, watch)
    if chosen.probe:
        run.fit_probe()
    total = state["epochs"] if state else run.epochs(epochs, minutes)
    history = run.fine_tune(total, checkpoints, state) if total else []
    name, final = run.choose()
    final.provenance = final.provenance.then(
        f"trained by effnet, recipe {chosen.name} ({name}), on {len(parts.fit.labels.names)} classes, seed {seed}"
    )
    path = save(final, folder.model)
    keep(final, path)  # so that its first prediction starts without torch
    evaluations = {name: evaluate(final, found, decode="exact") for name, found in parts.report.items()}
    result = Result(path, name, evaluations, tuple(history), run.probe.top1 if run.probe else None, parts.left_out)
    judged = {item.name: item.picture for item in parts.report[result.split].items}
    write_report(folder.report, result, final, chosen, judged)
    folder.finish(result)
    return result


class _Run:
    """The parts of one run that share its network and pictures."""

    def __init__(
        self, model: EfficientNet, parts: Plan, recipe: Recipe, seed: int, workers: int | None, watch: Watch
    ) -> None:
        self.model, self.parts, self.recipe, self.seed, self.watch = model, parts, recipe, seed, watch
        self.preprocess = replace(model.preprocess, decode="reduced")
        self.batches = TrainingBatches(
            parts.fit, self.preprocess, recipe.augment, recipe.batch, dice(seed, "data"), workers
        )
        self.probe: Probe | None = None
        self._probe_losses = np.empty(0)  # of the probe on ``select``, by heads that have not seen the picture
        self.trainer: Trainer | None = None
        self._before = {name: value.clone() for name, value in model.state_dict().items()}

    def fit_probe(self) -> None:
        """Fits a head on the frozen network: one on all the training pictures, and one on ``fit`` to go on from."""
        parts, classes = self.parts, len(self.parts.fit.labels.names)
        features = self._rows(self._engine(self.model).embed, parts.known, "probe")
        targets, count = parts.known.targets, len(parts.fit)
        start = fit_probe(features[:count], targets[:count], classes)
        if parts.refits:
            self.probe = fit_probe(features, targets, classes)
            self._probe_losses = self.probe.losses[count:]
        else:
            self.probe = start
            self._probe_losses = surprise(start.logits(features[count:]), targets[count:])
        self.watch.say(
            f"probe: a linear head on the frozen {self.model.arch.name}, each picture judged by a head that has not "
            f"seen it: top-1 {self.probe.top1:.1%}, loss {self.probe.loss:.3f}"
        )
        _set_head(self.model, start)

    def _engine(self, model: EfficientNet) -> Eager:
        return Eager(model, str(next(model.parameters()).device))

    def _rows(self, compute: Callable[[Fitted], Floats], pictures: Pictures, stage: str) -> Floats:
        """``compute`` of every picture: (N, …)."""
        named = ((item.name, item.picture) for item in pictures.items)
        rows: list[Floats] = []
        for _, row in outputs(compute, named, self.preprocess, batch=32):
            if isinstance(row, PictureError):
                raise row  # it could be read a moment ago
            rows.append(row)
            self.watch.progress(stage, len(rows), len(pictures))
        return np.stack(rows)

    def epochs(self, epochs: int | None, minutes: float | None) -> int:
        """How many epochs to train: as told, or as many as fit into the minutes."""
        if epochs is not None:
            return epochs
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        limited = minutes or (self.recipe.minutes if on_cpu else 0)
        if not limited or not self.recipe.epochs:
            return self.recipe.epochs
        seconds = seconds_per_epoch(self.model, self.batches, self.recipe)
        least = 0 if self.recipe.probe else 1
        total = max(least, min(int(limited * 60 / seconds), EPOCHS_MOST))
        self.watch.say(
            f"an epoch takes about {seconds:.0f} s here: {total} of them in {limited:g} min"
            + ("" if minutes else " (--minutes for more or less)")
        )
        return total

    def fine_tune(self, epochs: int, checkpoints: Checkpoints, state: dict[str, Any] | None) -> list[Epoch]:
        """Trains the whole network, from ``state`` where there is one."""
        self.trainer = Trainer(
            self.model, self.batches, self._judge, self.recipe, epochs, self.seed, checkpoints, self.watch
        )
        if state:
            self.trainer.restore(state)
            self.watch.say(f"going on from epoch {self.trainer.epoch + 1}, batch {self.trainer.batch + 1}")
        else:
            checkpoints.save(self.trainer.state(), 0)
        self.trainer.run()
        return self.trainer.history

    def _judge(self, model: EfficientNet) -> Score:
        targets = self.parts.select.targets
        logits = self._rows(self._engine(model).run, self.parts.select, "held out").astype(np.float64)
        gain, _ = best_gain(logits, targets)
        losses = surprise(gain * logits, targets)
        return Score(tuple(losses.tolist()), float((logits.argmax(1) == targets).mean()), gain)

    def choose(self) -> tuple[str, EfficientNet]:
        """The network to keep, ready to be saved: the probe, unless fine-tuning is clearly better.

        Both are judged on ``select``: the probe by heads that left each picture out. Clearly is by more than two
        standard errors of the pictures' differences, since the best of several epochs looks better than it is.
        """
        if self.trainer is None or (self.probe is not None and not self._tuning_pays(self.trainer)):
            assert self.probe is not None
            self.model.load_state_dict(self._before)
            _set_head(self.model, self.probe)
            return "probe", self.model.cpu().eval()
        self.model.load_state_dict(self.trainer.best)
        _scale_head(self.model, self.trainer.best_score.gain)
        return "fine-tuned", self.model.cpu().eval()

    def _tuning_pays(self, trainer: Trainer) -> bool:
        tuned, frozen = np.array(trainer.best_score.losses), self._probe_losses
        gained = frozen - tuned
        chance = 2 * gained.std(ddof=1) / len(gained) ** 0.5 if len(gained) > 1 else float("inf")
        pays = bool(gained.mean() > chance)
        self.watch.say(
            f"{'fine-tuning' if pays else 'the probe'} is kept: on the pictures to choose by, loss {frozen.mean():.3f} "
            f"of the probe, {tuned.mean():.3f} fine-tuned (a difference up to {chance:.3f} may be chance)"
        )
        return pays


def _set_head(model: EfficientNet, probe: Probe) -> None:
    """Puts the probe's numbers into the classifier."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(probe.weight))
        model.classifier.bias.copy_(torch.from_numpy(probe.bias))


def _scale_head(model: EfficientNet, gain: float) -> None:
    """Multiplies the logits, so that probabilities mean what they say; no prediction changes."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.mul_(gain)
        model.classifier.bias.mul_(gain)


def _start(
    model: str | Arch | None, weights: str | Path | None, train: Pictures, size: int | None, seed: int
) -> EfficientNet:
    """The network to train, with a head for the classes of ``train``."""
    classes = len(train.labels.names)
    torch.manual_seed(dice(seed, "start"))
    if weights == "none":
        network = create(resolve(model or "b0"), classes)
    else:
        network = load(weights if weights is not None else str(model or "b0"), arch=model, classes=classes)
    network.labels = train.labels
    network.preprocess = replace(network.preprocess, resampling="pil")  # as the random crops of training are resized
    if size is not None:
        network.preprocess = replace(network.preprocess, size=(size, size))
    return network
