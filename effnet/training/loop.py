"""The training loop: epochs over batches, the average of the weights judged after each, and everything kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from effnet.data.augment import mix_batch, stable_seed
from effnet.data.loader import TrainingLoader
from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.net.surgery import freeze, set_drop_path
from effnet.timing import Stopwatch
from effnet.training.callbacks import Callback, EpochMetrics
from effnet.training.checkpoint import Checkpoints
from effnet.training.distributed import Distributed
from effnet.training.ema import ExponentialMovingAverage
from effnet.training.losses import TrainingLoss
from effnet.training.metrics import WORST_SCORE, SelectionScore, format_metric
from effnet.training.optim import make_optimizer
from effnet.training.recipes import Phase, Recipe
from effnet.training.schedule import LRSchedule, set_learning_rate

CHECKPOINT_SECONDS = 300  # between two checkpoints
CLOCK_CHECK_BATCHES = 8  # batches at which the clock is looked at: all processes must agree on what it says

State = dict[str, Any]
MakeBatches = Callable[[Phase], TrainingLoader]


class TrainingDiverged(ValueError):
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
        make_batches: MakeBatches,
        loss: TrainingLoss,
        score_model: Callable[[EfficientNet], SelectionScore],
        recipe: Recipe,
        epochs: int,
        seed: int,
        checkpoints: Checkpoints,
        callback: Callback,
        distributed: Distributed,
        accumulation_steps: int = 1,
        torch_compile: bool = False,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.model, self._make_batches, self.loss, self.score_model, self.recipe = (
            model,
            make_batches,
            loss,
            score_model,
            recipe,
        )
        self.epochs, self.seed, self.checkpoints, self.callback, self.distributed = (
            epochs,
            seed,
            checkpoints,
            callback,
            distributed,
        )
        self.accumulation_steps = accumulation_steps
        prepare_model(model, recipe)
        each = -(-recipe.batch_size // (distributed.world_size * accumulation_steps))
        called, self.optimizer = distributed.prepare(model, make_optimizer(model, recipe), each)
        self.wrapped_model: nn.Module = torch.compile(called) if torch_compile else called  # type: ignore[assignment]
        self.ema = ExponentialMovingAverage(model, recipe.ema_decay)
        self.history: list[EpochMetrics] = []
        self.best_state: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = -1, WORST_SCORE
        self.epoch = self.batch_index = 0
        self.loss_sum = self.seconds = 0.0
        self._stopwatch, self._seconds_before_resume = stopwatch or Stopwatch(), 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the run so far, those before it was resumed among them."""
        return self._seconds_before_resume + self._stopwatch.seconds

    def run(self) -> None:
        """Trains to the end, or until ``patience`` epochs brought nothing better; `best` holds the best weights."""
        for stretch in self.recipe.phases(self.epochs):
            if self.epoch >= stretch.end_epoch:
                continue
            with closing(self._make_batches(stretch)) as batches:
                while self.epoch < stretch.end_epoch and not self._should_stop_early():
                    self._train_epoch(stretch, batches)

    def release(self) -> None:
        """Lets go of what only training needs, once it is over and `best` was taken: the history stays."""
        self.model.zero_grad(set_to_none=True)
        self.best_state = {}
        del self.optimizer, self.wrapped_model, self.ema
        self.distributed.free_memory()

    def _train_epoch(self, phase: Phase, batches: TrainingLoader) -> None:
        schedule = LRSchedule(self.recipe, self.epochs, len(batches))
        apply_phase(self.model, self.recipe, phase, self.epoch)
        self._preallocate_gradients()
        self.model.train()
        since = watch = Stopwatch()
        before = self.seconds
        for pictures, indices in batches.epoch(self.epoch, self.batch_index):
            set_learning_rate(self.optimizer, schedule.learning_rate_at(self.epoch * len(batches) + self.batch_index))
            self.loss_sum += self._train_step(pictures, indices, phase)
            self.batch_index += 1
            self.seconds = before + watch.seconds
            self.callback.on_progress(f"epoch {self.epoch + 1}/{self.epochs}", self.batch_index, len(batches))
            due = self.batch_index % CLOCK_CHECK_BATCHES == 0 and self.distributed.broadcast(
                since.seconds > CHECKPOINT_SECONDS
            )
            if due and self.batch_index < len(batches):
                self.save_checkpoint()
                since = Stopwatch()
        self._finish_epoch(len(batches))
        self.save_checkpoint()

    def _preallocate_gradients(self) -> None:
        """Makes room for the gradients before there are maps: among these they would keep memory in pieces."""
        if self.distributed.device.type == "cpu":
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.grad = None
                elif parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _train_step(self, images: Tensor, indices: Tensor, phase: Phase) -> float:
        """One batch, of which this process has a share; the mean loss of all of it."""
        total = self.distributed.all_reduce_sum(len(indices))
        images, wanted = images.to(self.distributed.device), self.loss.targets(indices)
        if phase.augment.mixup or phase.augment.cutmix:
            torch.manual_seed(stable_seed(self.seed, "mix", self.epoch, self.batch_index, self.distributed.rank))
            soft = self.loss.soft_targets(indices)
            images, wanted = mix_batch(images, soft, phase.augment.mixup, phase.augment.cutmix)
        while True:
            try:
                self.optimizer.zero_grad(set_to_none=self.distributed.device.type != "cpu")
                torch.manual_seed(stable_seed(self.seed, "step", self.epoch, self.batch_index, self.distributed.rank))
                loss = float(sum(self._micro_batch_losses(images, wanted, indices, total)))
                break
            except RuntimeError as error:
                self._increase_accumulation(error, len(indices))
        loss = float(self.distributed.all_reduce_sum(loss) / self.distributed.world_size)
        if not isfinite(loss):
            raise TrainingDiverged(self.epoch + 1, "the loss")
        self.optimizer.step()
        self.ema.update(self.model)
        return loss

    def _micro_batch_losses(self, images: Tensor, targets: Tensor, indices: Tensor, total: float) -> Iterator[float]:
        """The loss of each part of the batch, its gradients added."""
        parts = list(zip(*(one.chunk(self.accumulation_steps) for one in (images, targets, indices)), strict=True))
        for number, part in enumerate(parts, start=1):
            shared = number == len(parts)
            with nullcontext() if shared else self.distributed.no_sync(self.wrapped_model):
                loss = self._compute_loss(*part) * self.distributed.world_size / total
                self.distributed.backward(loss)
            yield loss.item()

    def _compute_loss(self, images: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        taught = self.loss.teacher(images) if self.loss.teacher else None
        inputs = normalize(images, self.model.preprocess).to(self.model.stem.conv.weight.dtype)
        with self.distributed.autocast():
            logits = self.wrapped_model(inputs)
        return self.loss(logits, targets, indices, taught)

    def _increase_accumulation(self, error: RuntimeError, image_count: int) -> None:
        """Halves the parts of a batch where ``error`` says that memory ran out; raises it where it does not.

        One of several processes cannot: the others wait for its gradients already.
        """
        if not is_out_of_memory(error):
            raise error
        if self.accumulation_steps >= image_count:
            raise ValueError(
                "there is not enough memory for a single picture: try --checkpointing, a smaller --size or network"
            ) from error
        more = min(2 * self.accumulation_steps, image_count)
        if self.distributed.world_size > 1:
            raise ValueError(
                f"there is not enough memory: go on with --resume --accumulate {more}, which computes the same batch "
                "in more parts"
            ) from error
        self.accumulation_steps = more
        if self.distributed.device.type == "cuda":
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        self.callback.on_message(
            f"out of memory: from here on a batch is computed in {self.accumulation_steps} parts, and stays {image_count} pictures"
        )

    def _finish_epoch(self, batches: int) -> None:
        score = self.score_model(self.ema.model)
        hopeless = self.epoch + 1 == self.epochs and not self.best_state
        # Sound numbers may come right: while batch norm's statistics are young, maps can grow beyond float32
        if not isfinite(score.loss) and (hopeless or not self.distributed.broadcast(self.ema.is_finite)):
            raise TrainingDiverged(self.epoch + 1, "the loss of the pictures held out")
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        line = EpochMetrics(self.epoch + 1, self.loss_sum / batches, score.loss, score.metric, rate, self.seconds)
        if score.loss < self.best_score.loss:
            self.best_state = {name: value.clone() for name, value in self.ema.model.state_dict().items()}
            self.best_epoch, self.best_score = line.epoch, score
        self.history.append(line)
        self.callback.on_epoch_end(line)
        self.callback.on_message(
            f"epoch {line.epoch}/{self.epochs}: training loss {line.train_loss:.3f}, "
            f"held out: loss {line.selection_loss:.3f}, {format_metric(self.loss.task, line.selection_metric)}"
        )
        self.epoch, self.batch_index, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0

    def _should_stop_early(self) -> bool:
        return 0 < self.recipe.patience <= self.epoch - self.best_epoch and self.best_epoch > 0

    def save_checkpoint(self) -> None:
        """Leaves a checkpoint of where the run is."""
        if self.distributed.is_main:
            self.checkpoints.save(self.state_dict(), self.epoch, self.batch_index)

    def state_dict(self) -> State:
        """Everything that the run needs to go on as if it had never stopped."""
        return {
            "model": self.model.state_dict(),
            "average": self.ema.model.state_dict(),
            "updates": self.ema.updates,
            "optimiser": self.optimizer.state_dict(),
            "scale": self.distributed.scaler_state_dict(),
            "history": [asdict(line) for line in self.history],
            "best": self.best_state,
            "best_epoch": self.best_epoch,
            "best_score": asdict(self.best_score),
            "epochs": self.epochs,
            "epoch": self.epoch,
            "batch": self.batch_index,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "learning_rate": self.recipe.learning_rate,
            "pieces": self.accumulation_steps,
            "spent": self.elapsed_seconds,
        }

    def load_state_dict(self, state: State) -> None:
        """Goes back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["average"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimiser"])
        self.distributed.load_scaler_state_dict(state["scale"])
        self.history = [EpochMetrics(**line) for line in state["history"]]
        self.best_state, self.best_epoch, self.best_score = (
            state["best"],
            state["best_epoch"],
            SelectionScore(**state["best_score"]),
        )
        self.epochs, self.epoch, self.batch_index = state["epochs"], state["epoch"], state["batch"]
        self.loss_sum, self.seconds, self.accumulation_steps = state["loss_sum"], state["seconds"], state["pieces"]
        self._seconds_before_resume = state["spent"]


def prepare_model(model: EfficientNet, recipe: Recipe) -> None:
    """Sets batch norm and the memory format as the recipe and the convolutions like them."""
    model.frozen_batch_norm = recipe.batch_norm in ("frozen", "estimated")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    if recipe.drop_path is not None:
        set_drop_path(model, recipe.drop_path)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def apply_phase(model: EfficientNet, recipe: Recipe, phase: Phase, epoch: int) -> None:
    """What holds in ``epoch``: dropout, and which parts are frozen yet."""
    if phase.dropout is not None:
        model.dropout.p = phase.dropout
    if recipe.unfreeze_every_epochs:
        parts = model.feature_names()
        still = len(parts) - int(epoch / recipe.unfreeze_every_epochs)
        freeze(model, parts[still - 1] if still > 0 else None)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is what ``error`` says: torch has no one kind of error for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
