"""A training run from data to a model on disk: plan, probe, fine-tune, choose, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch import Arch, resolve
from effnet.data import PictureError, Pictures, Splits, open_data
from effnet.data.ahead import ahead
from effnet.data.augment import dice
from effnet.data.loader import TrainingBatches
from effnet.data.pixels import Fitted, Source, pixels
from effnet.engines.eager import Eager, Floats
from effnet.evaluation import evaluate
from effnet.exporting.choose import keep
from effnet.net import EfficientNet
from effnet.prediction.pipeline import outputs
from effnet.training import recipes
from effnet.training.checkpoint import Checkpoints
from effnet.training.folder import Result, RunFolder
from effnet.training.judging import FIGURES, Score, Truth
from effnet.training.loop import Diverged, Epoch, State, Trainer
from effnet.training.objective import Objective
from effnet.training.place import Place
from effnet.training.plan import Plan, plan, training_pictures
from effnet.training.probe import Probe, fit_probe
from effnet.training.recipe import Recipe, Stretch
from effnet.training.report import write_report
from effnet.training.resources import Resources
from effnet.training.start import estimate_norms, norms, start
from effnet.training.teacher import Taught
from effnet.training.trial import compiling_pays, parts_that_fit, seconds_per_epoch
from effnet.training.watch import Watch
from effnet.weights import save

EPOCHS_MOST = 200  # however many minutes there are


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
    learning_rate: float | None = None,
    seed: int = 0,
    size: int | None = None,
    select_on: str = "holdout",
    teacher: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    resources: Resources | None = None,
    watch: Watch | None = None,
) -> Result:
    """Trains a classifier on ``data`` and leaves ``model.safetensors`` and ``report.html`` in ``out``.

    ``data`` is what ``open_data`` understands, or splits. ``weights`` is a file to start from, "none" for random
    weights, or None for the published ones of ``model`` (b0 unless said). Every choice is made on a part of the
    training pictures; validation and test pictures are only reported on unless ``select_on="val"``. ``epochs``,
    ``minutes`` (of fine-tuning), ``batch`` and ``learning_rate`` replace the recipe's; the rate is meant for the
    recipe's ``rate_batch``, and goes with the batch. ``teacher``: a model of the same classes to learn from as well.
    With ``resume`` a run that was stopped goes on and ends with the bits that it would have had; a finished one is
    returned as it is. Started by ``torchrun``, all its processes share the work.
    Raises ``ValueError`` for data, weights or settings that cannot be trained with, ``FileExistsError`` for an ``out``
    that is in use, ``OSError`` where it cannot be written.
    """
    watch, out, resources = watch or Watch(), Path(out), resources or Resources()
    if epochs is not None and minutes is not None:
        raise ValueError("give either epochs or minutes, not both")
    if epochs is not None and epochs < 0:
        raise ValueError(f"epochs must be at least 0, got {epochs}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    splits = data if isinstance(data, Splits) else open_data(data)
    train_on = training_pictures(splits)
    chosen = settled(recipe, weights, epochs, batch, learning_rate)
    place = Place(resources.device, resources.precision, partly=chosen.unfreeze > 0)
    watch = watch if place.first else Watch()
    settings = {
        "data": fingerprint(splits) if isinstance(data, Splits) else str(data),
        "recipe": chosen.to_dict(),
        "model": model and resolve(model).to_dict(),
        "weights": None if weights is None else str(weights),
        "epochs": epochs,
        "minutes": minutes,
        "seed": seed,
        "size": size,
        "select_on": select_on,
        "teacher": teacher and str(teacher),
        "precision": place.precision,
    }
    folder = RunFolder(out)
    if place.first:
        folder.claim(settings, resume)
    if finished := place.agreed(folder.result()):
        watch.say(f"this run is finished: {finished.model}")
        return finished
    network = start(model, weights, train_on.labels, chosen, size, seed)
    network.gradient_checkpointing = resources.checkpointing
    with place.first_alone() as first:
        if first:
            folder.begin(settings)
    parts = plan(splits, seed, select_on, strict, watch, chosen.select_share)
    chosen = _with_norms(chosen, len(parts.fit), weights != "none", watch)
    checkpoints = Checkpoints(folder.checkpoints)
    state = place.agreed(checkpoints.latest()) if place.ranks > 1 else checkpoints.latest()
    with place.first_alone() as first:
        if first:
            parts.write(folder.split)
    watch.say(
        f"{len(parts.fit)} pictures to learn from, {len(parts.select)} to choose by, "
        + ", ".join(f"{len(found)} of {name} to report on" for name, found in parts.report.items())
        + f"; {len(parts.fit.labels.names)} classes"
    )
    run = _Run(network.to(place.device), parts, chosen, seed, resources, place, watch)
    if chosen.norms == "estimated" and state is None:
        run.estimate_norms()
    if chosen.probe:
        run.fit_probe()
    total = state["epochs"] if state else place.agreed(run.epochs(epochs, minutes))
    taught = Taught(teacher, network.labels, place.device) if teacher is not None else None
    try:
        history = run.fine_tune(total, checkpoints, state, taught) if total else []
    except Diverged as error:
        raise ValueError(f"{error}{_kept(run, folder)}") from None
    name, final = run.choose()
    with place.first_alone() as first:
        if first:
            _leave(folder, final, name, run, history, resources)
    result = folder.result()
    assert result is not None
    return result


def _kept(run: _Run, folder: RunFolder) -> str:
    """Saves the best weights of a run that failed, where there are any, and says where they lie."""
    trainer = run.trainer
    if trainer is None or not trainer.best or not run.place.first:
        return ""
    run.model.load_state_dict(trainer.best)
    save(run.model.cpu().eval(), folder.model)
    return f"; the weights after epoch {trainer.best_epoch}, the best so far, are in {folder.model}"


def _leave(
    folder: RunFolder, final: EfficientNet, name: str, run: _Run, history: list[Epoch], resources: Resources
) -> None:
    """Judges the model on what no choice has seen, and leaves it with its report; the result last of all."""
    parts, recipe = run.parts, run.recipe
    final.provenance = final.provenance.then(
        f"trained by effnet, recipe {recipe.name} ({name}), on {len(parts.fit.labels.names)} classes, seed {run.seed}"
    )
    path = save(final, folder.model)
    keep(final, path)  # so that its first prediction starts without torch
    evaluations = {name: evaluate(final, found, decode="exact") for name, found in parts.report.items()}
    result = Result(path, name, evaluations, tuple(history), run.probe.top1 if run.probe else None, parts.left_out)
    judged = {item.name: item.picture for item in parts.report[result.split].items}
    write_report(folder.report, result, final, recipe, judged)
    folder.finish(result)


def settled(
    recipe: str | Recipe | None,
    weights: str | Path | None,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
) -> Recipe:
    """The recipe with what was asked in place of its own. Raises ``ValueError`` for what does not go together."""
    chosen = recipes.named(recipe, pretrained=weights != "none")
    if batch is not None:
        chosen = replace(chosen, batch=batch)
    if learning_rate is not None:
        chosen = replace(chosen, learning_rate=learning_rate)
    if chosen.probe and weights == "none":
        raise ValueError(f"the recipe {chosen.name} starts from pretrained weights: give --weights FILE")
    if not chosen.probe and epochs == 0:
        raise ValueError(f"0 epochs of the recipe {chosen.name} train nothing: give --epochs 1 or more")
    return chosen


def fingerprint(splits: Splits) -> str:
    """What tells one set of labelled pictures from another: a hash of their names, labels and splits."""
    digest = sha256()
    for name in ("train", "val", "test"):
        found: Pictures | None = getattr(splits, name)
        for item in found.items if found else ():
            digest.update(f"{name}\0{item.name}\0{item.label}\n".encode())
    return digest.hexdigest()


def _with_norms(recipe: Recipe, pictures: int, pretrained: bool, watch: Watch) -> Recipe:
    if recipe.norms != "auto":
        return recipe
    chosen, why = norms(pictures, pretrained)
    watch.say(f"batch norm: {chosen}, since {why}")
    return replace(recipe, norms=chosen)


class _Run:
    """The parts of one run that share its network and pictures."""

    def __init__(
        self,
        model: EfficientNet,
        parts: Plan,
        recipe: Recipe,
        seed: int,
        resources: Resources,
        place: Place,
        watch: Watch,
    ) -> None:
        self.model, self.parts, self.recipe, self.seed, self.watch = model, parts, recipe, seed, watch
        self.resources, self.place = resources, place
        self.preprocess = replace(model.preprocess, decode="reduced")
        self.probe: Probe | None = None
        self._probe_losses = np.empty(0)  # of the probe on ``select``, by heads that have not seen the picture
        self.trainer: Trainer | None = None
        self._before = {name: value.clone() for name, value in model.state_dict().items()}

    def batches(self, stretch: Stretch) -> TrainingBatches:
        """The training pictures, this process's share of every batch, as ``stretch`` wants them."""
        side = stretch.size
        preprocess = replace(self.preprocess, size=(side, side)) if side else self.preprocess
        recipe, place = self.recipe, self.place
        return TrainingBatches(
            self.parts.fit,
            preprocess,
            stretch.augment,
            recipe.batch,
            dice(self.seed, "data"),
            self.resources.workers,
            rank=place.rank,
            ranks=place.ranks,
            even=recipe.balance == "sampler",
            cache=self.resources.cache,
        )

    def estimate_norms(self) -> None:
        """Measures batch norm's statistics on the pictures to learn from."""
        estimate_norms(self.model, self._seen(32))

    def _seen(self, batch: int) -> Iterator[Tensor]:
        """The pictures to learn from, as predicting sees them: uint8 (N, H, W, 3) each."""
        prepared = ahead(lambda item: pixels(item.picture, self.preprocess), self.parts.fit.items)
        while chunk := list(islice(prepared, batch)):
            yield torch.from_numpy(np.stack(chunk))

    def fit_probe(self) -> None:
        """Fits a head on the frozen network: one on all the training pictures, and one on ``fit`` to go on from."""
        parts, truth, count = self.parts, Truth.of(self.parts.known), len(self.parts.fit)
        features = self._rows(self._engine(self.model).embed, parts.known, "probe")
        start = fit_probe(features[:count], truth[:count])
        if parts.refits:
            self.probe = fit_probe(features, truth)
            self._probe_losses = self.probe.losses[count:]
        else:
            self.probe = start
            self._probe_losses = truth[count:].losses(start.logits(features[count:]))
        self.watch.say(
            f"probe: a linear head on the frozen {self.model.arch.name}, each picture judged by a head that has not "
            f"seen it: {FIGURES[truth.kind]} {self.probe.top1:.1%}, loss {self.probe.loss:.3f}"
        )
        _set_head(self.model, start)

    def _engine(self, model: EfficientNet) -> Eager:
        return Eager(model, str(next(model.parameters()).device))

    def _rows(self, compute: Callable[[Fitted], Floats], pictures: Pictures, stage: str) -> Floats:
        """``compute`` of every picture: (N, …)."""
        named: list[tuple[str, Source | PictureError]] = [(item.name, item.picture) for item in pictures.items]
        rows: list[Floats] = []
        for _, row in outputs(compute, self.place.mine(named), self.preprocess, batch=32):
            if isinstance(row, PictureError):
                raise row  # it could be read a moment ago
            rows.append(row)
            self.watch.progress(stage, len(rows) * self.place.ranks, len(pictures))
        gathered: list[Floats] = self.place.gathered(rows)
        return np.stack(gathered)

    def epochs(self, epochs: int | None, minutes: float | None) -> int:
        """How many epochs to train: as told, or as many as fit into the minutes."""
        if epochs is not None:
            return epochs
        limited = minutes or (self.recipe.minutes if self.place.device.type == "cpu" else 0)
        if not limited or not self.recipe.epochs:
            return self.recipe.epochs
        last = self.recipe.stretches(self.recipe.epochs)[-1]
        seconds = seconds_per_epoch(self.model, self.batches(last), self.recipe, self.place)
        least = 0 if self.recipe.probe else 1
        total = max(least, min(int(limited * 60 / seconds), EPOCHS_MOST))
        self.watch.say(
            f"an epoch takes about {seconds:.0f} s here: {total} of them in {limited:g} min"
            + ("" if minutes else " (--minutes for more or less)")
        )
        return total

    def fine_tune(
        self, epochs: int, checkpoints: Checkpoints, state: State | None, teacher: Taught | None
    ) -> list[Epoch]:
        """Trains the whole network, from ``state`` where there is one."""
        objective = Objective(self.parts.fit, self.recipe, self.place.device, teacher)
        compiled = self.resources.compiled
        if compiled is None:
            compiled = compiling_pays(self.model, self.recipe, epochs, len(self.parts.fit), self.place, self.watch)
        self.trainer = Trainer(
            self.model,
            self.batches,
            objective,
            self._judge,
            self.recipe,
            epochs,
            self.seed,
            checkpoints,
            self.watch,
            self.place,
            self.resources.pieces or parts_that_fit(self.model, self.recipe, self.place, self.watch),
            compiled,
        )
        if state:
            self.trainer.restore(state)
            self.watch.say(f"going on from epoch {self.trainer.epoch + 1}, batch {self.trainer.batch + 1}")
        else:
            self.trainer.save()
        self.trainer.run()
        return self.trainer.history

    def _judge(self, model: EfficientNet) -> Score:
        logits = self._rows(self._engine(model).run, self.parts.select, "held out")
        return Truth.of(self.parts.select).score(logits.astype(np.float64))

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
