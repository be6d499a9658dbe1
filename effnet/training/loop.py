"""The training loop: epochs over batches, the average of the weights judged after each, and everything kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.clock import Stopwatch
from effnet.data.augment import dice
from effnet.data.loader import TrainingBatches
from effnet.data.normalise import normalise
from effnet.net import EfficientNet
from effnet.training.checkpoint import Checkpoints
from effnet.training.optimise import Average, optimiser, schedule, set_rate
from effnet.training.recipe import Recipe
from effnet.training.watch import Watch

CHECKPOINT_SECONDS = 300  # at the most between two checkpoints

State = dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """One line of the history. ``loss`` is of training, smoothed labels and all; the others of the selection split."""

    epoch: int
    loss: float
    select_loss: float
    select_top1: float
    learning_rate: float


@dataclass(frozen=True)
class Score:
    """How good a network is on the selection split, its logits multiplied by ``gain``, which suits them best there."""

    losses: tuple[float, ...]  # −log p of each picture's class
    top1: float
    gain: float

    @property
    def loss(self) -> float:
        """The mean of ``losses``."""
        return sum(self.losses) / len(self.losses)


class Trainer:
    """A run of ``recipe`` over ``batches`` for ``epochs``, from wherever ``checkpoints`` left it.

    ``judge`` scores a network on the selection split. Every random number comes from the seed, the
    epoch and the batch, so that a run that was cut off ends with the same bits as one that was not.
    """

    def __init__(
        self,
        model: EfficientNet,
        batches: TrainingBatches,
        judge: Callable[[EfficientNet], Score],
        recipe: Recipe,
        epochs: int,
        seed: int,
        checkpoints: Checkpoints,
        watch: Watch,
    ) -> None:
        self.model, self.batches, self.judge, self.recipe = model, batches, judge, recipe
        self.epochs, self.seed, self.checkpoints, self.watch = epochs, seed, checkpoints, watch
        self.device = next(model.parameters()).device
        prepare(model, recipe)
        self.optimiser = optimiser(model, recipe)
        self.average = Average(model, recipe.average)
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = -1, Score((float("inf"),), 0.0, 1.0)
        self.epoch = self.batch = 0
        self.loss_sum = 0.0

    def run(self) -> None:
        """Trains to the end, or until ``patience`` epochs brought nothing better; `best` holds the best weights."""
        since = Stopwatch()
        while self.epoch < self.epochs and not self._patience_is_over():
            self.model.train()
            for pictures, targets in self.batches.epoch(self.epoch, self.batch):
                self.loss_sum += self._step(pictures, targets)
                self.batch += 1
                self.watch.progress(f"epoch {self.epoch + 1}/{self.epochs}", self.batch, len(self.batches))
                if since.seconds > CHECKPOINT_SECONDS and self.batch < len(self.batches):
                    self.checkpoints.save(self.state(), self.epoch, self.batch)
                    since = Stopwatch()
            self._close_epoch()
            self.checkpoints.save(self.state(), self.epoch)
            since = Stopwatch()

    def _step(self, pictures: Tensor, targets: Tensor) -> float:
        torch.manual_seed(dice(self.seed, "step", self.epoch, self.batch))
        progress = self.epoch + self.batch / len(self.batches)
        set_rate(self.optimiser, self.recipe.learning_rate * schedule(progress, self.epochs, self.recipe.warm_up))
        inputs = normalise(pictures.to(self.device), self.model.preprocess)
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, targets.to(self.device), label_smoothing=self.recipe.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.average.update(self.model)
        value = loss.item()
        if value != value:
            raise ValueError("training has failed: the loss is not a number; try a lower learning rate (--lr)")
        return value

    def _close_epoch(self) -> None:
        score = self.judge(self.average.model)
        rate = self.optimiser.param_groups[-1]["lr"]
        line = Epoch(self.epoch + 1, self.loss_sum / len(self.batches), score.loss, score.top1, rate)
        if score.loss < self.best_score.loss:
            self.best = {name: value.clone() for name, value in self.average.model.state_dict().items()}
            self.best_epoch, self.best_score = line.epoch, score
        self.history.append(line)
        self.watch.say(
            f"epoch {line.epoch}/{self.epochs}: training loss {line.loss:.3f}, "
            f"held out: loss {line.select_loss:.3f}, top-1 {line.select_top1:.1%}"
        )
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0

    def _patience_is_over(self) -> bool:
        return 0 < self.recipe.patience <= self.epoch - self.best_epoch and self.best_epoch > 0

    def state(self) -> State:
        """Everything that the run needs to go on as if it had never stopped."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "history": [asdict(line) for line in self.history],
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": asdict(self.best_score),
            "epochs": self.epochs,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
        }

    def restore(self, state: State) -> None:
        """Goes back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = [Epoch(**line) for line in state["history"]]
        self.best, self.best_epoch, self.best_score = state["best"], state["best_epoch"], Score(**state["best_score"])
        self.epochs, self.epoch, self.batch = state["epochs"], state["epoch"], state["batch"]
        self.loss_sum = state["loss_sum"]


def prepare(model: EfficientNet, recipe: Recipe) -> None:
    """Sets batch norm and the memory format as the recipe and the convolutions like them."""
    model.frozen_norms = recipe.norms == "frozen"
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.norm_momentum
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def seconds_per_epoch(model: EfficientNet, batches: TrainingBatches, recipe: Recipe) -> float:
    """How long an epoch will take here: two batches are trained on a copy and timed, the first one not counted."""
    trial = copy.deepcopy(model)
    prepare(trial, recipe)
    trial.train()
    device, taken = next(trial.parameters()).device, []
    for _, (pictures, targets) in zip(range(2), batches.epoch(0), strict=False):
        watch = Stopwatch()
        loss = F.cross_entropy(trial(normalise(pictures.to(device), trial.preprocess)), targets.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        taken.append(watch.seconds)
    return min(taken[1:] or taken) * len(batches)
