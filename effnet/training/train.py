"""A training run from data to a saved model: data, network, linear probe, training loop, choice, evaluation, report."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from effnet.arch import Arch
from effnet.data import Splits, bit_depth, open_data
from effnet.data.storage.atomic_write import write_text
from effnet.evaluation import evaluate
from effnet.runtime.autotune import cache_engine
from effnet.tasks import task_of
from effnet.timing import Stopwatch
from effnet.training import autotune, callbacks, data_plan, eval_resolution, init_model, memory, recipes, validation
from effnet.training.checkpoint import Checkpoints, restore_trainer
from effnet.training.config import Resources, TrainConfig
from effnet.training.distributed import Distributed
from effnet.training.linear_probe import ProbedModel, probe_model
from effnet.training.loggers import LoggingCallback, resolve_loggers
from effnet.training.loop import Trainer, TrainingDiverged, TrainSetup
from effnet.training.losses import Teacher, TrainingLoss
from effnet.training.lr_finder import sweep_model
from effnet.training.report.report import RunCost, write_report
from effnet.training.run_dir import RunDir, TrainResult
from effnet.weights import save


def train(
    data: str | Path | Splits,
    recipe: str | recipes.Recipe | None = None,
    *,
    out: str | Path,
    model: str | Arch | None = None,
    weights: str | Path | None = None,
    prefix: str | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | str | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    color: str | None = None,
    bits: int | None = None,
    select_on: str = "holdout",
    teacher: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    resources: Resources | None = None,
    loggers: Sequence[str] | None = None,
    callback: callbacks.Callback | None = None,
    command: str = "",
) -> TrainResult:
    """Train a classifier on ``data`` and leave ``model.safetensors`` and ``report.html`` in ``out``.

    Every choice is made on a part of the training images; validation and test images are only reported on. Started by
    ``torchrun``, all processes share the work.

    Args:
        data: A folder, a ``.csv``, shards, ``hub:NAME``, ``"digits"``, or `Splits`; see `effnet.data.open_data`.
        recipe: A recipe or its name; default ``"finetune"`` for pretrained weights, ``"scratch"`` for random ones.
        out: The run directory.
        model: Architecture, by default b0 or that of ``weights``.
        weights: A file to start from, ``"none"`` for random weights, or None for the published ones of ``model``.
        prefix: Which of several networks in the file ``weights``, by what its tensors' names begin with.
        padding, bn_eps: Of ``weights``, where the file does not state them (`effnet.Numerics`).
        epochs: Instead of the recipe's.
        minutes: Fine-tune for as many epochs as take about this long.
        batch_size: Global batch size; the learning rate is scaled linearly with it.
        learning_rate: Peak learning rate at the recipe's ``lr_reference_batch``; ``"find"`` for a sweep.
        seed: The same seed gives the same model on the same machine.
        image_size: Side in pixels or (height, width), instead of the network's.
        color: What images are read as, instead of the network's: "L" (grey), "RGB", "RGBA", … (`effnet.Preprocess`). If
            that has another number of channels, the first layer is adapted and keeps what it has learned.
        bits: How many bits 16-bit files hold (default: as few as hold all training images; see `effnet.Preprocess`).
        select_on: ``"holdout"`` to hold out a part of the training set for model selection, or ``"val"``.
        teacher: A model with the same classes to distill from.
        resume: Continue the run in ``out``, with the same result as without interruption; start it if there is none,
            and return the result if it is finished.
        strict: Refuse unreadable images instead of leaving them out.
        resources: Hardware settings.
        loggers: Experiment trackers, by default TensorBoard if it is installed.
        callback: Receives the progress.
        command: Shown in the report.

    Raises:
        ValueError: For data, weights or settings that cannot be used for training, or if training diverges.
        FileExistsError: If ``out`` is in use.
        OSError: If ``out`` cannot be written.
        ImportError: For a package that is not installed.

    Example:
        >>> result = effnet.train("photos", out="runs/photos", minutes=5)  # doctest: +SKIP
        >>> result.evaluation.top1  # doctest: +SKIP
    """
    return run_training(
        TrainConfig(
            data=data,
            recipe=recipe,
            out=Path(out),
            model=model,
            weights=weights,
            prefix=prefix,
            padding=padding,
            bn_eps=bn_eps,
            epochs=epochs,
            minutes=minutes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            image_size=image_size,
            color=color,
            bits=bits,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=resources or Resources(),
            loggers=None if loggers is None else tuple(loggers),
            callback=callback or callbacks.Callback(),
            command=command,
        )
    )


def run_training(config: TrainConfig) -> TrainResult:
    """Train as ``config`` says; see `train`."""
    stopwatch = Stopwatch()
    loggers = resolve_loggers(config.loggers)
    splits = config.data if isinstance(config.data, Splits) else open_data(config.data)
    labels = data_plan.training_images(splits).labels
    recipe, resources = config.resolved_recipe, config.resources
    distributed = Distributed(resources.device, resources.precision, recipe.unfreeze_every_epochs > 0)

    run_dir = RunDir(config.out)
    data_id = config.data_source or data_plan.fingerprint_splits(splits.available)
    settings: dict[str, Any] = {}
    list_rows = partial(data_plan.list_rows, splits.available)
    if distributed.is_main:
        settings = config.to_settings(data_id, distributed.precision, data_plan.digest_list(splits.available))
        run_dir.claim(settings, config.resume, list_rows)
    if finished := distributed.run_on_main(run_dir.read_result):
        config.callback.on_message(f"this run is finished: {finished.model}")
        return finished

    model = init_model.build_model(config, labels)
    model.gradient_checkpointing = resources.gradient_checkpointing
    teacher = None
    if config.teacher is not None:
        teacher = Teacher(config.teacher, labels, distributed.device, model.channels)
    with ExitStack() as stack:
        callback = config.callback if distributed.is_main else callbacks.Callback()
        if distributed.is_main:
            stack.enter_context(run_dir.lock())
            run_dir.claim(settings, config.resume, list_rows)  # again: another process may have begun and ended since
            run_dir.begin(settings)
            if loggers:
                metric = task_of(labels.task).metric
                logging = LoggingCallback(callback, run_dir.logs, loggers, config.out.name, settings, metric)
                callback = stack.enter_context(closing(logging))

        plan = distributed.run_on_main(lambda: data_plan.make_plan(splits, config, callback))  # reads every image
        if distributed.is_main:
            run_dir.claim_split(plan.rows())
            run_dir.write_label_conflicts(plan.label_conflicts)
            run_dir.write_settings(settings)
        callback.on_message(plan.summary())
        images = [item.image for item in (*plan.train.items, *plan.selection.items)]
        initial = replace(model.preprocess, bits=0)  # what the weights were trained on says nothing of these images
        model.preprocess = distributed.run_on_main(lambda: bit_depth.choose_bits(initial, images, config.bits))

        loss = TrainingLoss(plan.train, recipe, distributed.device, teacher)
        model = model.to(distributed.device)
        run = _Run(config, recipe, plan, model, loss, distributed, callback, run_dir, stopwatch)
        with memory.manage_memory(model, recipe, distributed):
            run.prepare_batch_norm()
            run.fit_probe()
            run.fine_tune()
            run.choose_model()
            run.tune_resolution()
        if distributed.is_main:
            run.save_and_report()
    distributed.accelerator.wait_for_everyone()
    result = run_dir.read_result()
    assert result is not None
    return result


@dataclass(eq=False)
class _Run(TrainSetup):
    """A run; the methods are its phases, in order."""

    run_dir: RunDir
    stopwatch: Stopwatch
    probe: ProbedModel | None = None
    trainer: Trainer | None = None
    chosen: str = ""  # "probe" or "fine-tuned"

    def prepare_batch_norm(self) -> None:
        """Choose what happens to batch norm's statistics, and re-estimate them if the recipe says so."""
        if self.recipe.batch_norm == "auto":
            pretrained = self.config.weights != "none"
            choice, reason = init_model.choose_batch_norm(len(self.plan.train), pretrained)
            self.callback.on_message(f"batch norm: {choice}, since {reason}")
            self.recipe = replace(self.recipe, batch_norm=choice)
        if self.recipe.batch_norm == "estimated":
            batches = init_model.inference_batches(self.plan.train, self.model.preprocess)
            init_model.estimate_batch_norm(self.model, batches)

    def fit_probe(self) -> None:
        """Fit a linear probe, from which fine-tuning starts."""
        if self.recipe.linear_probe:
            self.probe = probe_model(self.model, self.plan, self.distributed, self.callback)
            self.probe.start.set_head(self.model)

    def fine_tune(self) -> None:
        """Train the whole network, from the latest checkpoint if there is one."""
        checkpoints = Checkpoints(self.run_dir.checkpoints)
        state = self.distributed.run_on_main(checkpoints.latest)
        epochs = state["epochs"] if state else self.distributed.broadcast(self._choose_epochs())
        if not epochs:
            return
        if self.loss.target_scaler:
            self.loss.target_scaler.standardize_head(self.model.classifier)
        if state:
            self.recipe = replace(self.recipe, learning_rate=state["learning_rate"])
        elif self.config.learning_rate == "find":
            self._find_learning_rate()
        torch_compile = self.config.resources.torch_compile
        if torch_compile is None:
            torch_compile = autotune.compiling_pays_off(self, epochs)
        accumulation_steps = self.config.resources.accumulation_steps or self.distributed.broadcast(
            memory.choose_accumulation_steps(self.model, self.recipe, self.distributed, self.callback)
        )
        self.trainer = Trainer(self, epochs, checkpoints, self.stopwatch, accumulation_steps, torch_compile)
        if state:
            restore_trainer(self.trainer, state)
            epoch, batch = self.trainer.epoch + 1, self.trainer.batch_index + 1
            self.callback.on_message(f"resuming from epoch {epoch}, batch {batch}")
        else:
            self.trainer.save_checkpoint()
        try:
            self.trainer.run()
        except TrainingDiverged as error:
            raise ValueError(f"{error}{self._save_best_weights()}") from None

    def _choose_epochs(self) -> int:
        if self.config.epochs is not None:
            return self.config.epochs
        minutes = self.config.minutes or (self.recipe.minutes if self.distributed.device.type == "cpu" else 0)
        if not minutes or not self.recipe.epochs:
            return self.recipe.epochs
        return autotune.epochs_within(minutes, self)

    def _find_learning_rate(self) -> None:
        """Set the learning rate that a sweep suggests, and leave the sweep's curve in the run directory."""
        loader = self.make_loader(self.recipe.phases(max(self.recipe.epochs, 1))[0])
        sweep = sweep_model(self.model, self.recipe, self.loss, loader, self.distributed.device)
        suggested = self.distributed.broadcast(sweep.suggested)
        at_reference = suggested * self.recipe.lr_reference_batch / self.recipe.batch_size
        self.recipe = replace(self.recipe, learning_rate=at_reference)
        if self.distributed.is_main:
            write_text(self.run_dir.lr_finder, sweep.to_svg())
        self.callback.on_message(
            f"learning rate: {suggested:.2g}, a tenth of where the loss was lowest ({self.run_dir.lr_finder.name})"
        )

    def _save_best_weights(self) -> str:
        """Save the best weights of a run that failed, if there are any, and say where, or why not."""
        trainer = self.trainer
        if not self.distributed.is_main or trainer is None or not (self.probe or trainer.best_state):
            return ""
        self.choose_model()
        weights = "the linear probe"
        if self.chosen != "probe":
            weights = f"the weights after epoch {callbacks.best_epoch(trainer.history).epoch}"
        try:
            save(self.model, self.run_dir.model)
        except OSError as error:
            return f"; {error}"
        return f"; {weights}, the best so far, are in {self.run_dir.model}"

    def choose_model(self) -> None:
        """Keep the linear probe, unless fine-tuning is clearly better, and calibrate the fine-tuned network.

        Both are scored on the selection images: the probe by heads that were fitted without each of them.
        """
        trainer = self.trainer if self.trainer and self.trainer.best_state else None
        if trainer is None or (self.probe is not None and not self._fine_tuning_is_better(trainer, self.probe)):
            assert self.probe is not None
            self.probe.restore(self.model)
            self.chosen = "probe"
        else:
            self.model.load_state_dict(trainer.best_state)
            if self.loss.target_scaler:
                self.loss.target_scaler.unstandardize_head(self.model.classifier)
            validation.scale_logits(self.model, trainer.best_score.logit_scale)
            self.chosen = "fine-tuned"
        self.model.cpu().eval()
        if self.trainer is not None:
            self.trainer.release()

    def _fine_tuning_is_better(self, trainer: Trainer, probe: ProbedModel) -> bool:
        """Return whether it is by more than two standard errors: the best of several epochs looks better than it is."""
        score, probed = trainer.best_score, probe.selection_losses
        improvement, noise = validation.compare_losses(probed, score.losses, standard_errors=2)
        self.callback.on_message(
            f"keeping the {'fine-tuned model' if improvement > noise else 'linear probe'}: selection loss "
            f"{score.loss:.3f} fine-tuned, {probed.mean():.3f} for the linear probe (noise level {noise:.3f})"
        )
        return improvement > noise

    def tune_resolution(self) -> None:
        """Let the network predict at a larger size than it was trained at, if that is clearly better."""
        if self.recipe.tune_test_resolution:
            device = str(self.distributed.device)
            self.model, result = eval_resolution.tune_resolution(
                self.model, lambda model: validation.score_model(model, self.plan.selection, device), self.plan.train
            )
            self.callback.on_message(result.summary())

    def save_and_report(self) -> None:
        """Evaluate the network on images that no choice has seen; leave it, its report and, last of all, the result."""
        outputs, task = len(self.plan.train.labels.names), task_of(self.plan.train.labels.task)
        self.model.provenance = self.model.provenance.with_event(
            f"trained by effnet, recipe {self.recipe.name} ({self.chosen}), on {outputs} {task.plural}, "
            f"seed {self.config.seed}"
        )
        path = save(self.model, self.run_dir.model)
        cache_engine(self.model, path)  # so that its first prediction starts without torch
        result = TrainResult(
            model=path,
            chosen=self.chosen,
            evaluations={
                name: evaluate(self.model, images, decode="exact", batch_size=validation.EVAL_BATCH_SIZE)
                for name, images in self.plan.test_sets.items()
            },
            history=tuple(self.trainer.history) if self.trainer else (),
            probe_metric=self.probe.final.metric if self.probe else None,
            skipped=self.plan.skipped,
            seconds=self.trainer.elapsed_seconds if self.trainer else self.stopwatch.seconds,
        )
        write_report(
            self.run_dir.report,
            result,
            self.model,
            self.recipe,
            splits=self.plan.splits,
            label_conflicts=self.plan.label_conflicts,
            source=self.config.data_source,
            cost=RunCost.measure(result.seconds, self.distributed),
            command=self.config.command,
        )
        self.run_dir.write_result(result)
