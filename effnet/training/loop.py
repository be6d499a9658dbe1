"""The training loop: epochs over batches, the average of the weights judged after each, and everything kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from effnet.clock import Stopwatch
from effnet.data.augment import dice
from effnet.data.loader import TrainingBatches
from effnet.data.mixing import mix
from effnet.data.normalise import normalise
from effnet.net import EfficientNet
from effnet.net.surgery import freeze, set_drop_path
from effnet.training.checkpoint import Checkpoints
from effnet.training.history import Epoch
from effnet.training.judging import WORST, Score, told
from effnet.training.objective import Objective
from effnet.training.optimise import Average, optimiser, set_rate
from effnet.training.place import Place
from effnet.training.recipe import Recipe, Stretch
from effnet.training.schedule import Schedule
from effnet.training.watch import Watch

CHECKPOINT_SECONDS = 300  # between two checkpoints
LOOKED_EVERY = 8  # batches at which the clock is looked at: all processes must agree on what it says

State = dict[str, Any]
Batches = Callable[[Stretch], TrainingBatches]


class Diverged(ValueError):
    """Training came to numbers that are none; the last good weights are kept."""

    def __init__(self, epoch: int, loss: str) -> None:
        super().__init__(
            f"training has failed in epoch {epoch}: {loss} is not a number; try a lower learning rate (--lr)"
        )


class Trainer:
    """A run of ``recipe`` for ``epochs``, from wherever ``checkpoints`` left it.

    ``batches`` gives the training pictures as a stretch of the recipe wants them; ``judge`` scores a network on the
    selection split. Every random number comes from the seed, the epoch and the batch, so that a run that was cut off
    ends with the same bits as one that was not. ``pieces``: parts that a batch is computed in, one after the other;
    where memory runs out they are doubled, and the batch stays what it was. ``since``: when the run began.
    """

    def __init__(
        self,
        model: EfficientNet,
        batches: Batches,
        objective: Objective,
        judge: Callable[[EfficientNet], Score],
        recipe: Recipe,
        epochs: int,
        seed: int,
        checkpoints: Checkpoints,
        watch: Watch,
        place: Place,
        pieces: int = 1,
        compiled: bool = False,
        since: Stopwatch | None = None,
    ) -> None:
        self.model, self._batches, self.objective, self.judge, self.recipe = model, batches, objective, judge, recipe
        self.epochs, self.seed, self.checkpoints, self.watch, self.place = epochs, seed, checkpoints, watch, place
        self.pieces = pieces
        prepare(model, recipe)
        each = -(-recipe.batch // (place.ranks * pieces))
        called, self.optimiser = place.ready(model, optimiser(model, recipe), each)
        self.called: nn.Module = torch.compile(called) if compiled else called  # type: ignore[assignment]
        self.average = Average(model, recipe.average)
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = -1, WORST
        self.epoch = self.batch = 0
        self.loss_sum = self.seconds = 0.0
        self._since, self._earlier = since or Stopwatch(), 0.0

    @property
    def spent(self) -> float:
        """Seconds of the run so far, those before it was resumed among them."""
        return self._earlier + self._since.seconds

    def run(self) -> None:
        """Trains to the end, or until ``patience`` epochs brought nothing better; `best` holds the best weights."""
        for stretch in self.recipe.stretches(self.epochs):
            if self.epoch >= stretch.end:
                continue
            with closing(self._batches(stretch)) as batches:
                while self.epoch < stretch.end and not self._patience_is_over():
                    self._train_epoch(stretch, batches)

    def release(self) -> None:
        """Lets go of what only training needs, once it is over and `best` was taken: the history stays."""
        self.model.zero_grad(set_to_none=True)
        self.best = {}
        del self.optimiser, self.called, self.average
        self.place.release()

    def _train_epoch(self, stretch: Stretch, batches: TrainingBatches) -> None:
        schedule = Schedule(self.recipe, self.epochs, len(batches))
        settle(self.model, self.recipe, stretch, self.epoch)
        self._place_gradients()
        self.model.train()
        since = watch = Stopwatch()
        before = self.seconds
        for pictures, indices in batches.epoch(self.epoch, self.batch):
            set_rate(self.optimiser, schedule.at(self.epoch * len(batches) + self.batch))
            self.loss_sum += self._step(pictures, indices, stretch)
            self.batch += 1
            self.seconds = before + watch.seconds
            self.watch.progress(f"epoch {self.epoch + 1}/{self.epochs}", self.batch, len(batches))
            due = self.batch % LOOKED_EVERY == 0 and self.place.agreed(since.seconds > CHECKPOINT_SECONDS)
            if due and self.batch < len(batches):
                self.save()
                since = Stopwatch()
        self._close_epoch(len(batches))
        self.save()

    def _place_gradients(self) -> None:
        """Makes room for the gradients before there are maps: among these they would keep memory in pieces."""
        if self.place.device.type == "cpu":
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.grad = None
                elif parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _step(self, pictures: Tensor, indices: Tensor, stretch: Stretch) -> float:
        """One batch, of which this process has a share; the mean loss of all of it."""
        total = self.place.total(len(indices))
        pictures, wanted = pictures.to(self.place.device), self.objective.wanted(indices)
        if stretch.augment.mixup or stretch.augment.cutmix:
            torch.manual_seed(dice(self.seed, "mix", self.epoch, self.batch, self.place.rank))
            soft = self.objective.soft(indices)
            pictures, wanted = mix(pictures, soft, stretch.augment.mixup, stretch.augment.cutmix)
        while True:
            try:
                self.optimiser.zero_grad(set_to_none=self.place.device.type != "cpu")
                torch.manual_seed(dice(self.seed, "step", self.epoch, self.batch, self.place.rank))
                loss = float(sum(self._parts(pictures, wanted, indices, total)))
                break
            except RuntimeError as error:
                self._smaller(error, len(indices))
        loss = float(self.place.total(loss) / self.place.ranks)
        if not isfinite(loss):
            raise Diverged(self.epoch + 1, "the loss")
        self.optimiser.step()
        self.average.update(self.model)
        return loss

    def _parts(self, pictures: Tensor, wanted: Tensor, indices: Tensor, total: float) -> Iterator[float]:
        """The loss of each part of the batch, its gradients added."""
        parts = list(zip(*(one.chunk(self.pieces) for one in (pictures, wanted, indices)), strict=True))
        for number, part in enumerate(parts, start=1):
            shared = number == len(parts)
            with nullcontext() if shared else self.place.apart(self.called):
                loss = self._loss(*part) * self.place.ranks / total
                self.place.backward(loss)
            yield loss.item()

    def _loss(self, pictures: Tensor, wanted: Tensor, indices: Tensor) -> Tensor:
        taught = self.objective.teacher(pictures) if self.objective.teacher else None
        inputs = normalise(pictures, self.model.preprocess).to(self.model.stem.conv.weight.dtype)
        with self.place.numbers():
            logits = self.called(inputs)
        return self.objective(logits, wanted, indices, taught)

    def _smaller(self, error: RuntimeError, pictures: int) -> None:
        """Halves the parts of a batch where ``error`` says that memory ran out; raises it where it does not.

        One of several processes cannot: the others wait for its gradients already.
        """
        if not memory_ran_out(error):
            raise error
        if self.pieces >= pictures:
            raise ValueError(
                "there is not enough memory for a single picture: try --checkpointing, a smaller --size or network"
            ) from error
        more = min(2 * self.pieces, pictures)
        if self.place.ranks > 1:
            raise ValueError(
                f"there is not enough memory: go on with --resume --accumulate {more}, which computes the same batch "
                "in more parts"
            ) from error
        self.pieces = more
        if self.place.device.type == "cuda":
            self.optimiser.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        self.watch.say(
            f"out of memory: from here on a batch is computed in {self.pieces} parts, and stays {pictures} pictures"
        )

    def _close_epoch(self, batches: int) -> None:
        score = self.judge(self.average.model)
        hopeless = self.epoch + 1 == self.epochs and not self.best
        # Sound numbers may come right: while batch norm's statistics are young, maps can grow beyond float32
        if not isfinite(score.loss) and (hopeless or not self.place.agreed(self.average.sound)):
            raise Diverged(self.epoch + 1, "the loss of the pictures held out")
        rate = max(group["lr"] for group in self.optimiser.param_groups)
        line = Epoch(self.epoch + 1, self.loss_sum / batches, score.loss, score.top1, rate, self.seconds)
        if score.loss < self.best_score.loss:
            self.best = {name: value.clone() for name, value in self.average.model.state_dict().items()}
            self.best_epoch, self.best_score = line.epoch, score
        self.history.append(line)
        self.watch.epoch(line)
        self.watch.say(
            f"epoch {line.epoch}/{self.epochs}: training loss {line.loss:.3f}, "
            f"held out: loss {line.select_loss:.3f}, {told(self.objective.kind, line.select_top1)}"
        )
        self.epoch, self.batch, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0

    def _patience_is_over(self) -> bool:
        return 0 < self.recipe.patience <= self.epoch - self.best_epoch and self.best_epoch > 0

    def save(self) -> None:
        """Leaves a checkpoint of where the run is."""
        if self.place.first:
            self.checkpoints.save(self.state(), self.epoch, self.batch)

    def state(self) -> State:
        """Everything that the run needs to go on as if it had never stopped."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "scale": self.place.scale(),
            "history": [asdict(line) for line in self.history],
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": asdict(self.best_score),
            "epochs": self.epochs,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "learning_rate": self.recipe.learning_rate,
            "pieces": self.pieces,
            "spent": self.spent,
        }

    def restore(self, state: State) -> None:
        """Goes back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.place.rescale(state["scale"])
        self.history = [Epoch(**line) for line in state["history"]]
        self.best, self.best_epoch, self.best_score = state["best"], state["best_epoch"], Score(**state["best_score"])
        self.epochs, self.epoch, self.batch = state["epochs"], state["epoch"], state["batch"]
        self.loss_sum, self.seconds, self.pieces = state["loss_sum"], state["seconds"], state["pieces"]
        self._earlier = state["spent"]


def prepare(model: EfficientNet, recipe: Recipe) -> None:
    """Sets batch norm and the memory format as the recipe and the convolutions like them."""
    model.frozen_norms = recipe.norms in ("frozen", "estimated")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.norm_momentum
    if recipe.drop_path is not None:
        set_drop_path(model, recipe.drop_path)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def settle(model: EfficientNet, recipe: Recipe, stretch: Stretch, epoch: int) -> None:
    """What holds in ``epoch``: dropout, and which parts are frozen yet."""
    if stretch.dropout is not None:
        model.dropout.p = stretch.dropout
    if recipe.unfreeze:
        parts = model.parts()
        still = len(parts) - int(epoch / recipe.unfreeze)
        freeze(model, parts[still - 1] if still > 0 else None)


def memory_ran_out(error: RuntimeError) -> bool:
    """Whether this is what ``error`` says: torch has no one kind of error for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
