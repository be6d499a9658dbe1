"""The stages of a training run: a probe, fine-tuning, the choice between the two."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import chain, count

import numpy as np
import torch
from torch import Tensor, nn

from effnet.clock import Stopwatch
from effnet.contract import Preprocess
from effnet.data import PictureError, Pictures
from effnet.data.augment import dice
from effnet.data.loader import TrainingBatches
from effnet.data.normalise import normalise
from effnet.data.once import Once
from effnet.data.pixels import Fitted, Source, pixels
from effnet.engines.eager import Eager, Floats
from effnet.net import EfficientNet
from effnet.prediction.pipeline import outputs
from effnet.training.checkpoint import Checkpoints
from effnet.training.examiner import BATCH, examiner, scale_head
from effnet.training.finder import find_rate
from effnet.training.folder import RunFolder
from effnet.training.history import Epoch
from effnet.training.judging import Score, Truth, told
from effnet.training.loop import State, Trainer, prepare
from effnet.training.objective import Objective, Units
from effnet.training.optimise import optimiser, set_rate
from effnet.training.place import Place
from effnet.training.plan import Plan
from effnet.training.probe import Probe, fit_probe
from effnet.training.recipe import Recipe, Stretch
from effnet.training.resolution import best_size
from effnet.training.resources import Resources
from effnet.training.start import estimate_norms, seen
from effnet.training.teacher import Taught
from effnet.training.trial import compiling_pays, is_large, parts_that_fit, seconds_per_epoch
from effnet.training.watch import Watch
from effnet.weights.atomic import replacing

EPOCHS_MOST = 200  # however many minutes there are
KEPT_MOST = 64 * 2**20  # bytes of the pictures that are judged by after every epoch


class Stages:
    """The stages of one run, which share its network and pictures."""

    def __init__(
        self,
        model: EfficientNet,
        parts: Plan,
        recipe: Recipe,
        seed: int,
        resources: Resources,
        place: Place,
        watch: Watch,
        since: Stopwatch,
    ) -> None:
        self.since = since
        self.model, self.parts, self.recipe, self.seed, self.watch = model, parts, recipe, seed, watch
        self.resources, self.place = resources, place
        self.preprocess = replace(model.preprocess, decode="reduced")
        self._look = Once(KEPT_MOST)
        self.probe: Probe | None = None
        self._probe_losses = np.empty(0)  # of the probe on ``select``, by heads that have not seen the picture
        self.trainer: Trainer | None = None
        self._units: Units | None = None  # of values, while the head answers without them
        self._before: dict[str, Tensor] = {}  # the frozen network that the probe belongs to

    def run(
        self,
        epochs: int | None,
        minutes: float | None,
        folder: RunFolder,
        taught: Taught | None = None,
        finds_rate: bool = False,
    ) -> tuple[str, EfficientNet]:
        """All of them, from the newest checkpoint on: what was chosen, and the network that is left.

        Raises `Diverged` where training fails, `Unclear` where no learning rate can be found.
        """
        checkpoints = Checkpoints(folder.checkpoints)
        if self.place.device.type == "cpu" and not self.model.gradient_checkpointing:
            self.model.lean = is_large(self.model, self.recipe, self.place)
        state = self.place.by_first(checkpoints.latest)
        if self.recipe.norms == "estimated":
            self.estimate_norms()
        if self.recipe.probe:
            self.fit_probe()
        total = state["epochs"] if state else self.place.agreed(self.epochs(epochs, minutes))
        if total and state:
            self.recipe = replace(self.recipe, learning_rate=state["learning_rate"])
        elif total and finds_rate:
            self.find_rate(folder)
        if total:
            self.fine_tune(total, checkpoints, state, taught)
        name, final = self.choose()
        if self.trainer is not None:
            self.trainer.release()
        if self.recipe.larger:
            final, tried = best_size(final, examiner(self.parts.select, str(self.place.device)), self.parts.fit)
            self.watch.say(tried.in_words())
        return name, final

    @property
    def history(self) -> tuple[Epoch, ...]:
        """What each epoch brought."""
        return tuple(self.trainer.history) if self.trainer else ()

    @property
    def spent(self) -> float:
        """Seconds of the run so far."""
        return self.trainer.spent if self.trainer else self.since.seconds

    def best(self) -> tuple[str, EfficientNet] | None:
        """The best weights so far in words, and the network with them, where there are any."""
        if self.trainer is None or not (self.probe or self.trainer.best):
            return None
        name, model = self.choose()
        return "the probe's weights" if name == "probe" else f"the weights after epoch {self.trainer.best_epoch}", model

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
        estimate_norms(self.model, seen(self.parts.fit, self.preprocess))

    def find_rate(self, folder: RunFolder) -> None:
        """Sweeps the learning rate on a copy, takes the one that is suggested, and leaves the curve beside the run."""
        self._take_units_off()
        trial, recipe = copy.deepcopy(self.model), self.recipe
        prepare(trial, recipe)
        trial.train()
        mover = optimiser(trial, recipe)
        objective = Objective(self.parts.fit, recipe, self.place.device)
        stretch = recipe.stretches(max(recipe.epochs, 1))[0]
        batches = self.batches(stretch)
        stream = chain.from_iterable(batches.epoch(epoch) for epoch in count())

        def step(rate: float) -> float:
            pictures, indices = next(stream)
            set_rate(mover, rate)
            mover.zero_grad(set_to_none=True)
            logits = trial(normalise(pictures.to(self.place.device), trial.preprocess))
            loss = objective(logits, objective.wanted(indices), indices) / len(indices)
            loss.backward()  # type: ignore[no-untyped-call]
            mover.step()
            return loss.item()

        with closing(batches):
            found = find_rate(step)
        rate = self.place.agreed(found.rate)
        self.recipe = replace(recipe, learning_rate=rate * recipe.rate_batch / recipe.batch)
        if self.place.first:
            with replacing(folder.folder / "rates.svg") as beside:
                beside.write_text(found.drawing(), encoding="utf-8")
        self.watch.say(f"learning rate: {rate:.2g}, a tenth of where the loss was lowest in a sweep (rates.svg)")

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
            f"seen it: {told(truth.kind, self.probe.top1)}, loss {self.probe.loss:.3f}"
        )
        self._before = {name: value.clone() for name, value in self.model.state_dict().items()}
        _set_head(self.model, start)

    def _engine(self, model: EfficientNet) -> Eager:
        return Eager(model, str(next(model.parameters()).device))

    def _rows(
        self,
        compute: Callable[[Fitted], Floats],
        pictures: Pictures,
        stage: str,
        look: Callable[[Source, Preprocess], Fitted] = pixels,
        finite: bool = True,
    ) -> Floats:
        """``compute`` of every picture: (N, …)."""
        named: list[tuple[str, Source | PictureError]] = [(item.name, item.picture) for item in pictures.items]
        rows: list[Floats] = []
        for _, row in outputs(compute, self.place.mine(named), self.preprocess, BATCH, look, finite):
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
        with closing(self.batches(last)) as batches:
            seconds = seconds_per_epoch(self.model, batches, self.recipe, self.place)
        least = 0 if self.recipe.probe else 1
        total = max(least, min(int(limited * 60 / seconds), EPOCHS_MOST))
        self.watch.say(
            f"an epoch takes about {seconds:.0f} s here: {total} of them in {limited:g} min"
            + ("" if minutes else " (--minutes for more or less)")
        )
        return total

    def fine_tune(self, epochs: int, checkpoints: Checkpoints, state: State | None, teacher: Taught | None) -> None:
        """Trains the whole network, from ``state`` where there is one."""
        objective = Objective(self.parts.fit, self.recipe, self.place.device, teacher)
        self._take_units_off()
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
            self.since,
        )
        if state:
            self.trainer.restore(state)
            self.trainer.pieces = max(self.trainer.pieces, self.resources.pieces)  # asked for where memory ran out
            self.watch.say(f"going on from epoch {self.trainer.epoch + 1}, batch {self.trainer.batch + 1}")
        else:
            self.trainer.save()
        self.trainer.run()

    def _take_units_off(self) -> None:
        """From here on until the choice the head answers without the values' units, once."""
        if self.parts.fit.labels.kind == "value" and self._units is None:
            self._units = Units.of(self.parts.fit, self.place.device)
            self._units.take_off(self.model.classifier)

    def _judge(self, model: EfficientNet) -> Score:
        if self._units:
            model = copy.deepcopy(model)
            self._units.put_on(model.classifier)
        logits = self._rows(self._engine(model).run, self.parts.select, "held out", self._look, finite=False)
        return Truth.of(self.parts.select).score(logits.astype(np.float64))

    def choose(self) -> tuple[str, EfficientNet]:
        """The network to keep, ready to be saved: the probe, unless fine-tuning is clearly better.

        Both are judged on ``select``: the probe by heads that left each picture out. Clearly is by more than two
        standard errors of the pictures' differences, since the best of several epochs looks better than it is.
        """
        tuned = self.trainer if self.trainer and self.trainer.best else None
        if tuned is None or (self.probe is not None and not self._tuning_pays(tuned)):
            assert self.probe is not None
            self.model.load_state_dict(self._before)
            _set_head(self.model, self.probe)
            return "probe", self.model.cpu().eval()
        self.model.load_state_dict(tuned.best)
        if self._units:
            self._units.put_on(self.model.classifier)
        scale_head(self.model, tuned.best_score.gain)
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
