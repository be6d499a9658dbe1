"""Training loop: the optimization step, epochs, validation and checkpoints."""

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from typing import Protocol

import torch

from effnet.data import augment, preprocessing
from effnet.data.loader import TrainingLoader
from effnet.net import EfficientNet
from effnet.timing import Stopwatch
from effnet.training import callbacks, data_plan, ema, init_model, losses, memory, optim, recipes, schedule, validation
from effnet.training.checkpoint import Checkpoints, trainer_state
from effnet.training.config import TrainConfig
from effnet.training.distributed import Distributed, SingleProcess

CHECKPOINT_SECONDS = 300  # between two checkpoints within an epoch
CLOCK_CHECK_BATCHES = 8  # batches between two looks at the clock, on which all processes must agree


class TrainingDiverged(ValueError):
    """The loss is NaN or infinite."""

    def __init__(self, epoch: int, loss: str) -> None:
        super().__init__(f"training diverged in epoch {epoch} ({loss} is NaN): try a lower learning rate (--lr)")


class Loss(Protocol):
    """What `TrainStep` needs of a loss."""

    def targets(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the targets of the images at ``indices``, one row each."""

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of the images' losses."""


class TrainStep:
    """One optimization step: forward, loss, backward and optimizer on one batch.

    The training loop, the learning rate finder, the speed measurements and the architecture search all train by it.
    ``accumulation_steps`` are doubled when memory runs out: the batch stays the same.
    """

    def __init__(
        self,
        model: EfficientNet,
        recipe: recipes.Recipe,
        loss: Loss,
        processes: SingleProcess,
        *,
        accumulation_steps: int = 1,
        torch_compile: bool = False,
        callback: callbacks.Callback | None = None,
    ) -> None:
        self.model, self.loss, self.processes, self.callback = model, loss, processes, callback or callbacks.Callback()
        self.accumulation_steps = accumulation_steps
        init_model.prepare_model(model, recipe)
        model.train()
        micro_batch = -(-recipe.batch_size // (processes.world_size * accumulation_steps))
        wrapped, self.optimizer = processes.prepare(model, optim.make_optimizer(model, recipe), micro_batch)
        self.wrapped_model: torch.nn.Module = torch.compile(wrapped) if torch_compile else wrapped  # type: ignore[assignment]

    def __call__(
        self,
        images: torch.Tensor,
        indices: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        seed: int | None = None,
    ) -> float:
        """Train on a batch, of which this process has a share, and return the mean loss over the whole batch.

        If it is not finite, the weights stay as they are. ``images`` are uint8 or float32 (N, H, W, 3) of 0 to 255,
        ``indices`` int64 (N,) their places in the data set, ``targets`` those after MixUp. ``seed`` is of dropout and
        stochastic depth: the same in every attempt at this batch.
        """
        total = self.processes.all_reduce_sum(len(indices))
        images = images.to(self.processes.device)
        targets = self.loss.targets(indices) if targets is None else targets
        on_cpu = self.processes.device.type == "cpu"  # where gradients stay allocated
        self.optimizer.zero_grad(set_to_none=not on_cpu)
        while True:
            try:
                if seed is not None:
                    torch.manual_seed(seed)
                loss = float(sum(self._micro_batch_losses(images, targets, indices, total)))
                break
            except RuntimeError as error:
                self.optimizer.zero_grad(set_to_none=not on_cpu)
                self.accumulation_steps = memory.increase_accumulation_steps(
                    error, self.accumulation_steps, len(indices), self.processes, self.callback
                )
        loss = self.processes.all_reduce_sum(loss) / self.processes.world_size
        if isfinite(loss):
            self.optimizer.step()
        return loss

    def _micro_batch_losses(
        self, images: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor, total: float
    ) -> Iterator[float]:
        micro_batches = list(zip(*(t.chunk(self.accumulation_steps) for t in (images, targets, indices)), strict=True))
        for number, (some_images, some_targets, some_indices) in enumerate(micro_batches, start=1):
            is_last = number == len(micro_batches)
            with nullcontext() if is_last else self.processes.no_sync(self.wrapped_model):
                inputs = preprocessing.normalize(some_images, self.model.preprocess)
                with self.processes.autocast():
                    logits = self.wrapped_model(inputs.to(self.model.stem.conv.weight.dtype))
                loss = self.loss(logits, some_targets, some_indices, some_images)
                loss = loss * self.processes.world_size / total
                self.processes.backward(loss)
            yield loss.item()


@dataclass(eq=False)
class TrainSetup:
    """What all phases of a run share: its settings, its images and its network."""

    config: TrainConfig
    recipe: recipes.Recipe  # with everything resolved
    plan: data_plan.DataPlan
    model: EfficientNet  # on its device
    loss: losses.TrainingLoss
    distributed: Distributed
    callback: callbacks.Callback

    def make_loader(self, phase: recipes.Phase) -> TrainingLoader:
        """Return the loader of this process's share of the training images, with the settings of ``phase``."""
        preprocess = replace(self.model.preprocess, decode="reduced")
        if phase.image_size:
            preprocess = replace(preprocess, size=(phase.image_size, phase.image_size))
        return TrainingLoader(
            self.plan.train,
            preprocess,
            phase.augment,
            self.recipe.batch_size,
            augment.stable_seed(self.config.seed, "data"),
            self.config.resources.workers,
            rank=self.distributed.rank,
            world_size=self.distributed.world_size,
            class_balanced=self.recipe.balance == "sampler",
            cache=self.config.resources.cache,
        )


class Trainer:
    """Trains ``model`` for ``epochs`` and keeps the best weights.

    Every random number is derived from the seed, the epoch and the batch, so that a resumed run ends with the same bits
    as one that was never interrupted. With a target scaler the head answers in standardized units.
    """

    def __init__(
        self,
        setup: TrainSetup,
        epochs: int,
        checkpoints: Checkpoints,
        stopwatch: Stopwatch,
        accumulation_steps: int,
        torch_compile: bool,
    ) -> None:
        self.setup, self.epochs, self.checkpoints = setup, epochs, checkpoints
        self.model, self.recipe, self.loss = setup.model, setup.recipe, setup.loss
        self.distributed, self.callback = setup.distributed, setup.callback
        self.validator = validation.Validator(
            setup.plan.selection, self.model.preprocess, self.distributed, self.callback, self.loss.target_scaler
        )
        self.step = TrainStep(
            *(self.model, self.recipe, self.loss, self.distributed),
            accumulation_steps=accumulation_steps,
            torch_compile=torch_compile,
            callback=self.callback,
        )
        self.ema = ema.ExponentialMovingAverage(self.model, self.recipe.ema_decay)
        self.history: list[callbacks.EpochMetrics] = []
        self.best_state: dict[str, torch.Tensor] = {}
        self.best_score = validation.WORST_SCORE
        self.epoch = self.batch_index = 0
        self.loss_sum = self.seconds = 0.0  # of the current epoch
        self._stopwatch, self.seconds_before_resume = stopwatch, 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the run so far, including those before it was resumed."""
        return self.seconds_before_resume + self._stopwatch.seconds

    def run(self) -> None:
        """Train to the end, or until ``patience`` epochs brought no improvement; `best_state` has the best weights."""
        for phase in self.recipe.phases(self.epochs):
            if self.epoch >= phase.end_epoch:
                continue
            with closing(self.setup.make_loader(phase)) as loader:
                while self.epoch < phase.end_epoch:
                    if callbacks.should_stop_early(self.history, self.recipe.patience):
                        return
                    self._train_epoch(phase, loader)
                    self._finish_epoch(len(loader))
                    self.save_checkpoint()

    def _train_epoch(self, phase: recipes.Phase, loader: TrainingLoader) -> None:
        lr_schedule = schedule.LRSchedule(self.recipe, self.epochs, len(loader))
        init_model.apply_phase(self.model, self.recipe, phase, self.epoch)
        self._preallocate_gradients()
        self.model.train()
        epoch_stopwatch = since_checkpoint = Stopwatch()
        seconds_before = self.seconds
        for images, indices in loader.epoch(self.epoch, self.batch_index):
            step_number = self.epoch * len(loader) + self.batch_index
            schedule.set_learning_rate(self.step.optimizer, lr_schedule.learning_rate_at(step_number))
            self.loss_sum += self._train_batch(images, indices, phase)
            self.batch_index += 1
            self.seconds = seconds_before + epoch_stopwatch.seconds
            self.callback.on_progress(f"epoch {self.epoch + 1}/{self.epochs}", self.batch_index, len(loader))
            looks_at_clock = self.batch_index % CLOCK_CHECK_BATCHES == 0 and self.batch_index < len(loader)
            if looks_at_clock and self.distributed.broadcast(since_checkpoint.seconds > CHECKPOINT_SECONDS):
                self.save_checkpoint()
                since_checkpoint = Stopwatch()

    def _train_batch(self, images: torch.Tensor, indices: torch.Tensor, phase: recipes.Phase) -> float:
        targets = None
        images = images.to(self.distributed.device)
        if phase.augment.mixup or phase.augment.cutmix:
            torch.manual_seed(self._batch_seed("mix"))
            soft_targets = self.loss.soft_targets(indices)
            images, targets = augment.mix_batch(images, soft_targets, phase.augment.mixup, phase.augment.cutmix)
        loss = self.step(images, indices, targets, seed=self._batch_seed("step"))
        if not isfinite(loss):
            raise TrainingDiverged(self.epoch + 1, "the training loss")
        self.ema.update(self.model)
        return loss

    def _batch_seed(self, purpose: str) -> int:
        return augment.stable_seed(self.setup.config.seed, purpose, self.epoch, self.batch_index, self.distributed.rank)

    def _preallocate_gradients(self) -> None:
        """Allocate the gradients before the activations, among which they would fragment memory."""
        if self.distributed.device.type == "cpu":
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.grad = None
                elif parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _finish_epoch(self, batches: int) -> None:
        """Evaluate the averaged weights on the selection images and keep them if they are the best so far."""
        score = self.validator.score(self.ema.model)
        is_last_chance = self.epoch + 1 == self.epochs and not self.best_state
        # A finite average may recover: while batch norm's statistics are young, activations can overflow float32
        if not isfinite(score.loss) and (is_last_chance or not self.distributed.broadcast(self.ema.is_finite)):
            raise TrainingDiverged(self.epoch + 1, "the selection loss")
        learning_rate = max(group["lr"] for group in self.step.optimizer.param_groups)
        metrics = callbacks.EpochMetrics(
            self.epoch + 1, self.loss_sum / batches, score.loss, score.metric, learning_rate, self.seconds
        )
        if score.loss < self.best_score.loss:
            self.best_state = {name: value.clone() for name, value in self.ema.model.state_dict().items()}
            self.best_score = score
        self.history.append(metrics)
        self.callback.on_epoch_end(metrics)
        self.callback.on_message(
            f"epoch {metrics.epoch}/{self.epochs}: training loss {metrics.train_loss:.3f}, "
            f"selection loss {metrics.selection_loss:.3f}, {self.loss.task.format_metric(metrics.selection_metric)}"
        )
        self.epoch, self.batch_index, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0

    def release(self) -> None:
        """Free what only training needs: gradients, optimizer, average and best weights; the history stays."""
        self.model.zero_grad(set_to_none=True)
        self.best_state = {}
        del self.step, self.ema
        self.distributed.accelerator.free_memory()  # its references to all networks and optimizers

    def save_checkpoint(self) -> None:
        """Save a checkpoint, in the main process."""
        if self.distributed.is_main:
            self.checkpoints.save(trainer_state(self), self.epoch, self.batch_index)
