"""Cross-validation: one run per fold, and out-of-fold predictions with their metrics; all models are an ensemble."""

import json
import os
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from effnet.arch.serde import check_choice, read_json_object
from effnet.data import ImageDataset, ImageError, Splits, dataset, duplicates, holdout, open_data
from effnet.data.splits import make_folds
from effnet.data.storage.atomic_write import atomic_write, write_text
from effnet.data.storage.csv_files import csv_writer, read_rows
from effnet.prediction import Predictor, ensemble, out_of_fold
from effnet.prediction.tta import TTA_MODES
from effnet.tasks import Float64Array, task_of
from effnet.training import callbacks, data_plan, recipes, run_dir
from effnet.training.config import Resources, TrainConfig
from effnet.training.train import run_training

Predictions = dict[str, Float64Array]  # by the name of the image


@dataclass(frozen=True)
class CrossValidationResult:
    """The result of all folds in ``out``; metrics are those of `OutOfFold.metrics`."""

    out: Path
    task: str
    models: tuple[Path, ...]
    fold_metrics: tuple[dict[str, float], ...]  # of each fold's held-out images
    metrics: dict[str, float]  # of all images, each predicted by the model that was not trained on it
    images: int
    skipped: tuple[str, ...] = ()  # images that were left out, and why
    tta: str = "none"

    @property
    def oof_path(self) -> Path:
        """The table of out-of-fold predictions."""
        return self.out / "oof.csv"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, for JSON; the models' paths are relative to ``out``."""
        return {
            "task": self.task,
            "images": self.images,
            "metrics": self.metrics,
            "fold_metrics": list(self.fold_metrics),
            "models": [model.relative_to(self.out).as_posix() for model in self.models],
            "skipped": list(self.skipped),
            "tta": self.tta,
        }

    @classmethod
    def read(cls, out: str | Path) -> Self:
        """Return the result of a finished cross-validation in ``out``."""
        out = Path(out)
        return read_json_object(
            out / ensemble.FOLDS_FILE,
            lambda data: cls(
                out,
                data["task"],
                tuple(out / name for name in data["models"]),
                tuple(data["fold_metrics"]),
                data["metrics"],
                data["images"],
                tuple(data["skipped"]),
                data["tta"],
            ),
        )

    def summary(self) -> str:
        """Return one line: "out of fold, 244 images: top-1 95.1% (folds 91.8% to 98.0%), loss 0.161 (…)"."""
        parts = []
        for name, value in self.metrics.items():
            values = [fold[name] for fold in self.fold_metrics]
            _, spec = _METRIC_FORMATS[name]
            parts.append(f"{_format_metric(name, value)} (folds {min(values):{spec}} to {max(values):{spec}})")
        return f"out of fold, {self.images} images: {', '.join(parts)}"


_METRIC_FORMATS = {
    "top1": ("top-1", ".1%"),
    "loss": ("loss", ".3f"),
    "mean_average_precision": ("mean average precision", ".1%"),
    "label_accuracy": ("label accuracy", ".1%"),
    "rmse": ("RMSE", ".4g"),
    "r2": ("R²", ".3f"),
}


def _format_metric(name: str, value: float) -> str:
    label, spec = _METRIC_FORMATS[name]
    return f"{label} {value:{spec}}"


def train_folds(
    data: str | Path | Splits,
    recipe: str | recipes.Recipe | None = None,
    *,
    out: str | Path,
    folds: int = 5,
    tta: str = "none",
    **settings: Any,
) -> CrossValidationResult:
    """Train one model per fold of the training images, on all other folds.

    Each model is a run as `train` makes it, in ``out/fold0`` and so on. ``out/oof.csv`` has the out-of-fold prediction
    of every training image, ``out/folds.json`` their metrics, and ``out`` as a whole is an ensemble (see
    `effnet.prediction.ensemble`). Duplicates are never on both sides of a fold, unless the data's own folds separate
    them, which is reported. Validation and test images of the data are only reported on.

    Args:
        data: As in `train`.
        recipe: As in `train`.
        out: Directory for all folds.
        folds: Their number, unless the data has folds of its own.
        tta: Test-time augmentation of the out-of-fold predictions.
        settings: Other arguments of `train`; ``minutes`` is for all folds together, and ``resume`` continues in the
            fold that was interrupted.

    Raises:
        ValueError: As `train` and `effnet.data.splits.make_folds`, before anything is trained if possible.

    Example:
        >>> effnet.train_folds("train.csv", out="runs/folds", folds=5).metrics["top1"]  # doctest: +SKIP
    """
    return run_folds(TrainConfig(data=data, recipe=recipe, out=Path(out), **settings), folds, tta)


def run_folds(config: TrainConfig, folds: int = 5, tta: str = "none") -> CrossValidationResult:
    """Cross-validate as ``config`` says; see `train_folds`."""
    callback, out = config.callback, config.out
    check_choice("tta", tta, TTA_MODES)
    selection_fraction = config.resolved_recipe.selection_fraction
    splits = config.data if isinstance(config.data, Splits) else open_data(config.data)
    by_pixels = len(data_plan.training_images(splits)) <= data_plan.MAX_IMAGES_COMPARED_BY_PIXELS
    fingerprints = duplicates.compute_fingerprints(splits.available.values(), by_pixels)
    images = _keep_duplicates_together(data_plan.training_images(splits), fingerprints, callback)
    conflicts = duplicates.find_label_conflicts(splits.available, fingerprints)
    for message in (
        *duplicates.describe_split_overlap(splits, fingerprints=fingerprints),
        *duplicates.describe_label_conflicts(conflicts),
    ):
        callback.on_message(message)
    parts = make_folds(images, folds, config.seed)
    for number, (train, _) in enumerate(parts):
        _warn_missing_classes(train, images, number, callback)
        if config.select_on != "val":
            holdout(train, selection_fraction, config.seed + 1)  # an error in the last fold should stop the first
    if config.select_on == "val":
        callback.on_message(
            "selection on each fold's held-out images: out-of-fold metrics will look better than they are"
        )
    _claim_directory(out, _folds_csv(parts), config.resume)
    if (out / ensemble.FOLDS_FILE).is_file():
        callback.on_message(f"this cross-validation is finished: {out / ensemble.FOLDS_FILE}")
        return CrossValidationResult.read(out)

    predictions: Predictions = {}
    models: list[Path] = []
    fold_metrics: list[dict[str, float]] = []
    skipped: list[str] = []
    fold_of = {item.name: number for number, (_, held_out) in enumerate(parts) for item in held_out.items}
    test = splits.test if splits.test is not None else splits.val
    for number, (train, held_out) in enumerate(parts):
        fold_callback = callbacks.ForwardingCallback(callback, f"fold {number + 1}/{len(parts)}: ")
        fold_callback.on_message(f"{len(train)} training images, {len(held_out)} held out")
        result = run_training(
            replace(
                config,
                data=Splits(train, held_out, test),
                out=out / f"fold{number}",
                minutes=config.minutes and config.minutes / len(parts),
                callback=fold_callback,
            )
        )
        models.append(result.model)
        if _is_main_process():
            fold_predictions, errors = _predict_held_out(result.model, held_out, config.resources, tta, fold_callback)
            predictions |= fold_predictions
            skipped += errors
            fold_metrics.append(_make_out_of_fold(held_out, fold_of, fold_predictions).metrics())
            formatted = ", ".join(_format_metric(name, value) for name, value in fold_metrics[-1].items())
            fold_callback.on_message(f"held out: {formatted}")
    if not _is_main_process():
        return CrossValidationResult(out, images.labels.task, tuple(models), (), {}, 0)

    oof = _make_out_of_fold(images, fold_of, predictions)
    done = CrossValidationResult(
        out, oof.labels.task, tuple(models), tuple(fold_metrics), oof.metrics(), len(oof), tuple(skipped), tta
    )
    oof.write(done.oof_path)
    # last of all: it marks a finished cross-validation
    write_text(out / ensemble.FOLDS_FILE, json.dumps(done.to_dict(), indent=1))
    callback.on_message(done.summary())
    return done


def _keep_duplicates_together(
    images: ImageDataset, fingerprints: dataset.Fingerprints, callback: callbacks.Callback
) -> ImageDataset:
    """Put duplicates into one group, so that they are in the same fold, unless the data's own folds say otherwise."""
    pairs = duplicates.find_duplicates(images, fingerprints=fingerprints)
    separated = [(one, other) for one, other in pairs if one.fold != other.fold]
    together = [(one, other) for one, other in pairs if one.fold == other.fold]
    if together:
        callback.on_message(
            f"{_count_duplicates(len(together))}, kept in the same fold: {duplicates.format_pairs(together)}"
        )
    if separated:
        callback.on_message(
            f"{_count_duplicates(len(separated))}, separated by the data's own folds: "
            f"{duplicates.format_pairs(separated)}; metrics will look better than they are: "
            "give both files the same fold, or leave one out"
        )
    return duplicates.group_duplicates(images, together)


def _count_duplicates(pairs: int) -> str:
    return "1 duplicate image" if pairs == 1 else f"{pairs} duplicate images"


def _warn_missing_classes(train: ImageDataset, images: ImageDataset, number: int, callback: callbacks.Callback) -> None:
    if not task_of(images.labels.task).has_probabilities:
        return
    counts = zip(images.labels.names, train.class_counts(), images.class_counts(), strict=True)
    missing = [name for name, in_train, in_all in counts if in_all and not in_train]
    if missing:
        callback.on_message(
            f"fold {number + 1} holds out all images of {', '.join(map(repr, missing[:3]))}, which are in one group or "
            "fold: its model cannot learn them"
        )


def _predict_held_out(
    model: Path, held_out: ImageDataset, resources: Resources, tta: str, callback: callbacks.Callback
) -> tuple[Predictions, list[str]]:
    """Return the predictions of the held-out images, and the errors of those that cannot be read."""
    predictor = Predictor(model, "eager", resources.device, tta=tta)
    if predictor.labels.names != held_out.labels.names:
        raise ValueError(f"{model} has other labels than the data: train it again in another directory")
    predictions: Predictions = {}
    errors: list[str] = []
    named_images = ((item.name, item.image) for item in held_out.items)
    for done, (name, scores) in enumerate(predictor.predict_scores(named_images), start=1):
        if isinstance(scores, ImageError):
            errors.append(str(scores))
        else:
            predictions[name] = scores
        callback.on_progress("out of fold", done, len(held_out))
    return predictions, errors


def _make_out_of_fold(images: ImageDataset, fold_of: dict[str, int], predictions: Predictions) -> out_of_fold.OutOfFold:
    """Return the predictions in the order of the data."""
    rows = [row for row, item in enumerate(images.items) if item.name in predictions]
    names = tuple(images.items[row].name for row in rows)
    folds = np.array([fold_of[name] for name in names], np.int64)
    targets = images.target_matrix.astype(np.float64)[rows]
    return out_of_fold.OutOfFold(images.labels, names, folds, targets, np.stack([predictions[name] for name in names]))


def _folds_csv(parts: list[tuple[ImageDataset, ImageDataset]]) -> str:
    """Return a table of each image's label and fold."""
    text = StringIO()
    write = csv_writer(text)
    write(("id", "label", "fold"))
    for number, (_, held_out) in enumerate(parts):
        for item in held_out.items:
            write((item.name, held_out.format_label(item), number))
    return text.getvalue()


def _claim_directory(out: Path, folds_csv: str, resume: bool) -> None:
    """Check that ``out`` is free or, with ``resume``, has the same folds, and write them."""
    if not _is_main_process():
        return
    path, content = out / "folds.csv", folds_csv.encode("utf-8", "surrogateescape")
    if run_dir.is_occupied(out, path, resume, "folds"):
        before = path.read_bytes().decode("utf-8", "surrogateescape")
        if read_rows(StringIO(before, newline="")) != read_rows(StringIO(folds_csv, newline="")):
            raise ValueError(
                f"{out} has folds of other images, or another --folds or --seed: resume it with the same ones, or "
                "choose another directory"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _is_main_process() -> bool:
    """Return whether this process writes files; ``torchrun`` starts several."""
    return os.environ.get("RANK", "0") == "0"
