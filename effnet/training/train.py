"""The stages of a training run: a probe, fine-tuning, the choice between the two."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effnet.arch import Arch, resolve_arch
from effnet.data import ImageDataset, ImageError, Splits, open_data
from effnet.data.augment import stable_seed
from effnet.data.cache import MemoryCache
from effnet.data.image_io import ImageSource, InputImage, load_input
from effnet.data.loader import TrainingLoader
from effnet.data.preprocessing import normalize
from effnet.data.storage.atomic_write import atomic_write
from effnet.evaluation import evaluate
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.prediction.pipeline import run_batches
from effnet.runtime.autotune import cache_engine
from effnet.runtime.base import FloatArray
from effnet.runtime.torch import EagerEngine
from effnet.timing import Stopwatch, peak_memory
from effnet.timing.memory import retain_freed_memory
from effnet.training.autotune import (
    choose_accumulation_steps,
    compiling_pays_off,
    has_large_activations,
    measure_epoch_seconds,
)
from effnet.training.callbacks import Callback, EpochMetrics
from effnet.training.checkpoint import Checkpoints
from effnet.training.config import Resources
from effnet.training.data_plan import DataPlan, make_plan, training_images
from effnet.training.distillation import Teacher
from effnet.training.distributed import Distributed
from effnet.training.eval_resolution import tune_resolution
from effnet.training.init_model import build_model, choose_batch_norm, estimate_batch_norm, inference_batches
from effnet.training.linear_probe import LinearProbe, fit_linear_probe, set_head
from effnet.training.loggers import LoggingCallback, check_installed, default_loggers
from effnet.training.loop import State, Trainer, TrainingDiverged, is_out_of_memory, prepare_model
from effnet.training.losses import TargetScaler, TrainingLoss
from effnet.training.lr_finder import find_learning_rate
from effnet.training.metrics import (
    EVAL_BATCH_SIZE,
    METRIC_NAMES,
    SelectionScore,
    Targets,
    format_metric,
    make_scorer,
    scale_logits,
)
from effnet.training.optim import make_optimizer
from effnet.training.recipes import Phase, Recipe, resolve_recipe
from effnet.training.report import DataSummary, RunCost, write_report
from effnet.training.run_dir import RunDir, TrainResult
from effnet.training.schedule import set_learning_rate
from effnet.weights import save

MAX_EPOCHS = 200  # however many minutes there are


MAX_CACHED_BYTES = 64 * 2**20  # bytes of the pictures that are judged by after every epoch


class TrainingRun:
    """The stages of one run, which share its network and pictures."""

    def __init__(
        self,
        model: EfficientNet,
        plan: DataPlan,
        recipe: Recipe,
        seed: int,
        resources: Resources,
        distributed: Distributed,
        callback: Callback,
        stopwatch: Stopwatch,
    ) -> None:
        self.stopwatch = stopwatch
        self.model, self.plan, self.recipe, self.seed, self.callback = model, plan, recipe, seed, callback
        self.resources, self.distributed = resources, distributed
        self.preprocess = replace(model.preprocess, decode="reduced")
        self._read_cached = MemoryCache(MAX_CACHED_BYTES)
        self.probe: LinearProbe | None = None
        self._probe_losses = np.empty(0)  # of the probe on ``select``, by heads that have not seen the picture
        self.trainer: Trainer | None = None
        self._target_scaler: TargetScaler | None = None  # of values, while the head answers without them
        self._probe_state: dict[str, Tensor] = {}  # the frozen network that the probe belongs to

    def run(
        self,
        epochs: int | None,
        minutes: float | None,
        run_dir: RunDir,
        teacher: Teacher | None = None,
        find_lr: bool = False,
    ) -> tuple[str, EfficientNet]:
        """All of them, from the newest checkpoint on: what was chosen, and the network that is left.

        Raises `Diverged` where training fails, `Unclear` where no learning rate can be found.
        """
        checkpoints = Checkpoints(run_dir.checkpoints)
        if self.distributed.device.type == "cpu" and not self.model.gradient_checkpointing:
            self.model.memory_efficient = has_large_activations(self.model, self.recipe, self.distributed)
        state = self.distributed.run_on_main(checkpoints.latest)
        if self.recipe.batch_norm == "estimated":
            self.estimate_batch_norm()
        if self.recipe.linear_probe:
            self.fit_probe()
        total = state["epochs"] if state else self.distributed.broadcast(self.choose_epochs(epochs, minutes))
        if total and state:
            self.recipe = replace(self.recipe, learning_rate=state["learning_rate"])
        elif total and find_lr:
            self.find_learning_rate(run_dir)
        if total:
            self.fine_tune(total, checkpoints, state, teacher)
        name, final = self.choose_model()
        if self.trainer is not None:
            self.trainer.release()
        if self.recipe.tune_test_resolution:
            final, tried = tune_resolution(
                final, make_scorer(self.plan.selection, str(self.distributed.device)), self.plan.train
            )
            self.callback.on_message(tried.in_words())
        return name, final

    @property
    def history(self) -> tuple[EpochMetrics, ...]:
        """What each epoch brought."""
        return tuple(self.trainer.history) if self.trainer else ()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the run so far."""
        return self.trainer.elapsed_seconds if self.trainer else self.stopwatch.seconds

    def best_model(self) -> tuple[str, EfficientNet] | None:
        """The best weights so far in words, and the network with them, where there are any."""
        if self.trainer is None or not (self.probe or self.trainer.best_state):
            return None
        name, model = self.choose_model()
        return "the probe's weights" if name == "probe" else f"the weights after epoch {self.trainer.best_epoch}", model

    def make_batches(self, phase: Phase) -> TrainingLoader:
        """The training pictures, this process's share of every batch, as ``stretch`` wants them."""
        side = phase.image_size
        preprocess = replace(self.preprocess, size=(side, side)) if side else self.preprocess
        recipe, place = self.recipe, self.distributed
        return TrainingLoader(
            self.plan.train,
            preprocess,
            phase.augment,
            recipe.batch_size,
            stable_seed(self.seed, "data"),
            self.resources.workers,
            rank=place.rank,
            world_size=place.world_size,
            class_balanced=recipe.balance == "sampler",
            cache=self.resources.cache,
        )

    def estimate_batch_norm(self) -> None:
        """Measures batch norm's statistics on the pictures to learn from."""
        estimate_batch_norm(self.model, inference_batches(self.plan.train, self.preprocess))

    def find_learning_rate(self, run_dir: RunDir) -> None:
        """Sweeps the learning rate on a copy, takes the one that is suggested, and leaves the curve beside the run."""
        self._standardize_head()
        trial, recipe = copy.deepcopy(self.model), self.recipe
        prepare_model(trial, recipe)
        trial.train()
        mover = make_optimizer(trial, recipe)
        objective = TrainingLoss(self.plan.train, recipe, self.distributed.device)
        stretch = recipe.phases(max(recipe.epochs, 1))[0]
        batches = self.make_batches(stretch)
        stream = chain.from_iterable(batches.epoch(epoch) for epoch in count())

        def step(rate: float) -> float:
            pictures, indices = next(stream)
            set_learning_rate(mover, rate)
            mover.zero_grad(set_to_none=True)
            logits = trial(normalize(pictures.to(self.distributed.device), trial.preprocess))
            loss = objective(logits, objective.targets(indices), indices) / len(indices)
            loss.backward()  # type: ignore[no-untyped-call]
            mover.step()
            return loss.item()

        with closing(batches):
            found = find_learning_rate(step)
        rate = self.distributed.broadcast(found.suggested)
        self.recipe = replace(recipe, learning_rate=rate * recipe.lr_reference_batch / recipe.batch_size)
        if self.distributed.is_main:
            with atomic_write(run_dir.path / "rates.svg") as beside:
                beside.write_text(found.to_svg(), encoding="utf-8")
        self.callback.on_message(
            f"learning rate: {rate:.2g}, a tenth of where the loss was lowest in a sweep (rates.svg)"
        )

    def fit_probe(self) -> None:
        """Fits a head on the frozen network: one on all the training pictures, and one on ``fit`` to go on from."""
        parts, truth, count = self.plan, Targets.from_dataset(self.plan.train_and_selection), len(self.plan.train)
        features = self._compute_all(self._make_engine(self.model).embed, parts.train_and_selection, "probe")
        start = fit_linear_probe(features[:count], truth[:count])
        if parts.probe_on_selection:
            self.probe = fit_linear_probe(features, truth)
            self._probe_losses = self.probe.losses[count:]
        else:
            self.probe = start
            self._probe_losses = truth[count:].losses(start.logits(features[count:]))
        self.callback.on_message(
            f"probe: a linear head on the frozen {self.model.arch.name}, each picture judged by a head that has not "
            f"seen it: {format_metric(truth.task, self.probe.metric)}, loss {self.probe.loss:.3f}"
        )
        self._probe_state = {name: value.clone() for name, value in self.model.state_dict().items()}
        set_head(self.model, start)

    def _make_engine(self, model: EfficientNet) -> EagerEngine:
        return EagerEngine(model, str(next(model.parameters()).device))

    def _compute_all(
        self,
        compute: Callable[[InputImage], FloatArray],
        images: ImageDataset,
        stage: str,
        read: Callable[[ImageSource, Preprocess], InputImage] = load_input,
        finite: bool = True,
    ) -> FloatArray:
        """``compute`` of every picture: (N, …)."""
        named: list[tuple[str, ImageSource | ImageError]] = [(item.name, item.image) for item in images.items]
        rows: list[FloatArray] = []
        for _, row in run_batches(
            compute, self.distributed.shard(named), self.preprocess, EVAL_BATCH_SIZE, read, finite
        ):
            if isinstance(row, ImageError):
                raise row  # it could be read a moment ago
            rows.append(row)
            self.callback.on_progress(stage, len(rows) * self.distributed.world_size, len(images))
        gathered: list[FloatArray] = self.distributed.gather(rows)
        return np.stack(gathered)

    def choose_epochs(self, epochs: int | None, minutes: float | None) -> int:
        """How many epochs to train: as told, or as many as fit into the minutes."""
        if epochs is not None:
            return epochs
        limited = minutes or (self.recipe.minutes if self.distributed.device.type == "cpu" else 0)
        if not limited or not self.recipe.epochs:
            return self.recipe.epochs
        last = self.recipe.phases(self.recipe.epochs)[-1]
        with closing(self.make_batches(last)) as batches:
            seconds = measure_epoch_seconds(self.model, batches, self.recipe, self.distributed)
        least = 0 if self.recipe.linear_probe else 1
        total = max(least, min(int(limited * 60 / seconds), MAX_EPOCHS))
        self.callback.on_message(
            f"an epoch takes about {seconds:.0f} s here: {total} of them in {limited:g} min"
            + ("" if minutes else " (--minutes for more or less)")
        )
        return total

    def fine_tune(self, epochs: int, checkpoints: Checkpoints, state: State | None, teacher: Teacher | None) -> None:
        """Trains the whole network, from ``state`` where there is one."""
        objective = TrainingLoss(self.plan.train, self.recipe, self.distributed.device, teacher)
        self._standardize_head()
        compiled = self.resources.torch_compile
        if compiled is None:
            compiled = compiling_pays_off(
                self.model, self.recipe, epochs, len(self.plan.train), self.distributed, self.callback
            )
        self.trainer = Trainer(
            self.model,
            self.make_batches,
            objective,
            self._score_on_selection,
            self.recipe,
            epochs,
            self.seed,
            checkpoints,
            self.callback,
            self.distributed,
            self.resources.accumulation_steps
            or choose_accumulation_steps(self.model, self.recipe, self.distributed, self.callback),
            compiled,
            self.stopwatch,
        )
        if state:
            self.trainer.load_state_dict(state)
            self.trainer.accumulation_steps = max(
                self.trainer.accumulation_steps, self.resources.accumulation_steps
            )  # asked for where memory ran out
            self.callback.on_message(
                f"going on from epoch {self.trainer.epoch + 1}, batch {self.trainer.batch_index + 1}"
            )
        else:
            self.trainer.save_checkpoint()
        self.trainer.run()

    def _standardize_head(self) -> None:
        """From here on until the choice the head answers without the values' units, once."""
        if self.plan.train.labels.task == "regression" and self._target_scaler is None:
            self._target_scaler = TargetScaler.from_dataset(self.plan.train, self.distributed.device)
            self._target_scaler.standardize_head(self.model.classifier)

    def _score_on_selection(self, model: EfficientNet) -> SelectionScore:
        if self._target_scaler:
            model = copy.deepcopy(model)
            self._target_scaler.unstandardize_head(model.classifier)
        logits = self._compute_all(
            self._make_engine(model).run, self.plan.selection, "held out", self._read_cached, finite=False
        )
        return Targets.from_dataset(self.plan.selection).score(logits.astype(np.float64))

    def choose_model(self) -> tuple[str, EfficientNet]:
        """The network to keep, ready to be saved: the probe, unless fine-tuning is clearly better.

        Both are judged on ``select``: the probe by heads that left each picture out. Clearly is by more than two
        standard errors of the pictures' differences, since the best of several epochs looks better than it is.
        """
        tuned = self.trainer if self.trainer and self.trainer.best_state else None
        if tuned is None or (self.probe is not None and not self._fine_tuning_is_better(tuned)):
            assert self.probe is not None
            self.model.load_state_dict(self._probe_state)
            set_head(self.model, self.probe)
            return "probe", self.model.cpu().eval()
        self.model.load_state_dict(tuned.best_state)
        if self._target_scaler:
            self._target_scaler.unstandardize_head(self.model.classifier)
        scale_logits(self.model, tuned.best_score.logit_scale)
        return "fine-tuned", self.model.cpu().eval()

    def _fine_tuning_is_better(self, trainer: Trainer) -> bool:
        tuned, frozen = np.array(trainer.best_score.losses), self._probe_losses
        gained = frozen - tuned
        chance = 2 * gained.std(ddof=1) / len(gained) ** 0.5 if len(gained) > 1 else float("inf")
        pays = bool(gained.mean() > chance)
        self.callback.on_message(
            f"{'fine-tuning' if pays else 'the probe'} is kept: on the pictures to choose by, loss {frozen.mean():.3f} "
            f"of the probe, {tuned.mean():.3f} fine-tuned (a difference up to {chance:.3f} may be chance)"
        )
        return pays


# A training run from data to a model on disk: plan, train, judge, report.


def train(
    data: str | Path | Splits,
    recipe: str | Recipe | None = None,
    *,
    out: str | Path,
    model: str | Arch | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | str | None = None,
    seed: int = 0,
    image_size: int | None = None,
    select_on: str = "holdout",
    teacher: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    resources: Resources | None = None,
    loggers: Sequence[str] | None = None,
    callback: Callback | None = None,
    command: str = "",
) -> TrainResult:
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
    since, callback, out, resources = Stopwatch(), callback or Callback(), Path(out), resources or Resources()
    if epochs is not None and minutes is not None:
        raise ValueError("give either epochs or minutes, not both")
    if epochs is not None and epochs < 0:
        raise ValueError(f"epochs must be at least 0, got {epochs}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    trackers = default_loggers() if loggers is None else tuple(loggers)
    check_installed(trackers)
    splits = data if isinstance(data, Splits) else open_data(data)
    labels = training_images(splits).labels
    chosen = resolve_recipe(recipe, weights, epochs, batch_size, learning_rate)
    place = Distributed(resources.device, resources.precision, find_unused_parameters=chosen.unfreeze_every_epochs > 0)
    settings = {
        "data": DataSummary("", splits.available).fingerprint if isinstance(data, Splits) else str(data),
        "recipe": chosen.to_dict(),
        "model": model and resolve_arch(model).to_dict(),
        "weights": None if weights is None else str(weights),
        "epochs": epochs,
        "minutes": minutes,
        "seed": seed,
        "size": image_size,
        "select_on": select_on,
        "find_rate": learning_rate == "find",
        "teacher": teacher and str(teacher),
        "precision": place.precision,
        "cache": resources.cache,
    }
    folder = RunDir(out)
    if place.is_main:
        folder.claim(settings, resume)
    if finished := place.run_on_main(folder.read_result):
        callback.on_message(f"this run is finished: {finished.model}")
        return finished
    network = build_model(model, weights, labels, chosen, image_size, seed)
    network.gradient_checkpointing = resources.gradient_checkpointing
    taught = Teacher(teacher, labels, place.device) if teacher is not None else None
    with ExitStack() as stack:
        if not place.is_main:
            callback = Callback()
        else:
            folder.write_settings(settings)
            if trackers:
                told = LoggingCallback(callback, folder.logs, trackers, out.name, settings, METRIC_NAMES[labels.task])
                callback = stack.enter_context(closing(told))
        # Every picture is read for it: by one process, for all of them
        parts = place.run_on_main(
            lambda: make_plan(splits, seed, select_on, strict, callback, chosen.selection_fraction)
        )
        if place.is_main:
            parts.write_csv(folder.split_csv)
        callback.on_message(parts.in_words())
        chosen = _resolve_batch_norm(chosen, len(parts.train), weights != "none", callback)
        stages = TrainingRun(network.to(place.device), parts, chosen, seed, resources, place, callback, since)
        # Kept for the next step, freed memory saves time; recomputed blocks are for those who have none to spare
        kept = place.device.type == "cpu" and not resources.gradient_checkpointing
        try:
            with retain_freed_memory() if kept else nullcontext():
                name, final = stages.run(epochs, minutes, folder, taught, find_lr=learning_rate == "find")
        except TrainingDiverged as error:
            raise ValueError(f"{error}{_save_best_weights(stages, folder)}") from None
        except RuntimeError as error:  # not in a batch, which would have been computed in more parts
            if not is_out_of_memory(error):
                raise
            raise ValueError("there is not enough memory: try a smaller --size or network") from error
        if place.is_main:
            _save_and_report(folder, final, name, stages, "" if isinstance(data, Splits) else str(data), command)
    place.wait_for_everyone()
    result = folder.read_result()
    assert result is not None
    return result


def _resolve_batch_norm(recipe: Recipe, image_count: int, pretrained: bool, callback: Callback) -> Recipe:
    if recipe.batch_norm != "auto":
        return recipe
    chosen, why = choose_batch_norm(image_count, pretrained)
    callback.on_message(f"batch norm: {chosen}, since {why}")
    return replace(recipe, batch_norm=chosen)


def _save_best_weights(run: TrainingRun, run_dir: RunDir) -> str:
    """Saves the best weights of a run that failed, where there are any, and says where they lie, or why they do not."""
    best = run.best_model() if run.distributed.is_main else None
    if best is None:
        return ""
    what, model = best
    try:
        save(model, run_dir.model)
    except OSError as error:
        return f"; {error}"
    return f"; {what}, the best so far, are in {run_dir.model}"


def _save_and_report(
    run_dir: RunDir, final: EfficientNet, name: str, run: TrainingRun, source: str, command: str
) -> None:
    """Judges the model on what no choice has seen, and leaves it with its report; the result last of all."""
    parts, recipe = run.plan, run.recipe
    classes = len(parts.train.labels.names)
    final.provenance = final.provenance.with_event(
        f"trained by effnet, recipe {recipe.name} ({name}), on {classes} classes, seed {run.seed}"
    )
    path = save(final, run_dir.model)
    cache_engine(final, path)  # so that its first prediction starts without torch
    evaluations = {
        name: evaluate(final, found, decode="exact", batch_size=EVAL_BATCH_SIZE)
        for name, found in parts.test_sets.items()
    }
    probe = run.probe.metric if run.probe else None
    result = TrainResult(path, name, evaluations, run.history, probe, parts.unreadable, run.elapsed_seconds)
    judged = {item.name: item.image for item in parts.test_sets[result.report_split].items}
    seen = DataSummary(source, {"fit": parts.train, "select": parts.selection, **parts.test_sets})
    write_report(run_dir.report, result, final, recipe, judged, _run_cost(run), seen, command)
    run_dir.write_result(result)


def _run_cost(run: TrainingRun) -> RunCost:
    place, on_gpu = run.distributed, run.distributed.device.type == "cuda"
    return RunCost(
        run.elapsed_seconds,
        peak_memory(),
        torch.cuda.max_memory_allocated(place.device) if on_gpu else 0,
        torch.cuda.get_device_name(place.device) if on_gpu else place.device.type.upper(),
        place.world_size,
        place.precision,
    )
