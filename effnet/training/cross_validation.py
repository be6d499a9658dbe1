"""Cross-validation: a run a fold, each judged on the pictures that it has not seen, and all of them one ensemble."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Arch
from effnet.arch.serde import check_choice
from effnet.data import ImageDataset, ImageError, Splits, holdout, open_data
from effnet.data.dataset import Fingerprints
from effnet.data.duplicates import (
    compute_fingerprints,
    describe_label_conflicts,
    describe_split_overlap,
    find_duplicates,
    format_pairs,
    group_duplicates,
)
from effnet.data.splits import make_folds as split_into
from effnet.data.storage.atomic_write import atomic_write
from effnet.prediction import Predictor
from effnet.prediction.ensemble import FOLDS_FILE
from effnet.prediction.oof import OutOfFold
from effnet.prediction.tta import TTA_MODES
from effnet.training.callbacks import Callback, FoldCallback
from effnet.training.config import Resources
from effnet.training.data_plan import MAX_IMAGES_COMPARED_BY_PIXELS, training_images
from effnet.training.recipes import Recipe, resolve_recipe
from effnet.training.train import train

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class CrossValidationResult:
    """What the runs have made in ``out``. Figures are those of `OutOfFold.figures`, by the kind of the labels."""

    out: Path
    task: str
    models: tuple[Path, ...]
    fold_metrics: tuple[dict[str, float], ...]  # of each fold's held-out pictures
    metrics: dict[str, float]  # of all pictures, each judged by the network that has not learned from it
    images: int
    unreadable: tuple[str, ...] = ()  # pictures that could not be read, and why
    tta: str = "none"

    @property
    def oof_path(self) -> Path:
        """The table of out-of-fold predictions."""
        return self.out / "oof.csv"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON; the models' files are named from ``out`` on."""
        return {
            "task": self.task,
            "pictures": self.images,
            "whole": self.metrics,
            "folds": list(self.fold_metrics),
            "models": [model.relative_to(self.out).as_posix() for model in self.models],
            "left_out": list(self.unreadable),
            "views": self.tta,
        }

    @classmethod
    def read(cls, out: str | Path) -> CrossValidationResult:
        """The result that a finished run of folds has left in ``out``."""
        out = Path(out)
        said = json.loads((out / FOLDS_FILE).read_text("utf-8"))
        models = tuple(out / name for name in said["models"])
        folds, left_out = tuple(said["folds"]), tuple(said["left_out"])
        return cls(out, said["task"], models, folds, said["whole"], said["pictures"], left_out, said["views"])

    def in_words(self) -> str:
        """One line for a person: "out of fold, 244 pictures: top-1 95.1% (folds 91.8% to 98.0%), loss 0.161 (…)"."""
        told = []
        for name, value in self.metrics.items():
            each = [fold[name] for fold in self.fold_metrics]
            _, sign = _METRIC_FORMATS[name]
            told.append(f"{_format_metric(name, value)} (folds {min(each):{sign}} to {max(each):{sign}})")
        return f"out of fold, {self.images} pictures: {', '.join(told)}"


_METRIC_FORMATS = {
    "top1": ("top-1", ".1%"),
    "loss": ("loss", ".3f"),
    "mean_average_precision": ("mean average precision", ".1%"),
    "label_accuracy": ("label accuracy", ".1%"),
    "rmse": ("RMSE", ".4g"),
    "r2": ("R²", ".3f"),
}


def _format_metric(name: str, value: float) -> str:
    words, sign = _METRIC_FORMATS[name]
    return f"{words} {value:{sign}}"


def train_folds(
    data: str | Path | Splits,
    recipe: str | Recipe | None = None,
    *,
    out: str | Path,
    folds: int = 5,
    tta: str = "none",
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
) -> CrossValidationResult:
    """Trains a network for each of ``folds`` parts of the training pictures, on all the others.

    They go into ``out/fold0`` …, each a run as `train` makes it, with its settings; ``minutes`` are for all of them
    together. ``out/oof.csv`` then has every training picture once, with the answer of the network that has not learned
    from it (the mean over ``views``), ``out/folds.json`` the figures; ``out`` as a whole is an ensemble (see
    `effnet.prediction.ensemble`). The data's own folds are taken where it has them. The same picture in two files never
    stands on both sides, unless these folds tear it apart, which is said. Validation and test pictures of the data are
    only reported on. With ``resume`` it goes on in the fold in which it stopped. Raises what `train` and
    `effnet.data.splits.folds` raise, before anything is trained where that can be known.
    """
    callback, out = callback or Callback(), Path(out)
    check_choice("views", tta, TTA_MODES)
    share = resolve_recipe(recipe, weights, epochs, batch_size, learning_rate).selection_fraction
    splits = data if isinstance(data, Splits) else open_data(data)
    known = compute_fingerprints(
        splits.available.values(), len(training_images(splits)) <= MAX_IMAGES_COMPARED_BY_PIXELS
    )
    pictures = _group_duplicates(training_images(splits), known, callback)
    for sentence in describe_split_overlap(splits, fingerprints=known):
        callback.on_message(sentence)
    parts = split_into(pictures, folds, seed)
    judged = splits.test if splits.test is not None else splits.val
    for number, (kept, _) in enumerate(parts):
        _warn_missing_classes(kept, pictures, number, callback)
        if select_on != "val":
            holdout(kept, share, seed + 1)  # what would stop the last fold shall stop the first
    if select_on == "val":
        callback.on_message(
            "choices are made on each fold's held-out pictures: out-of-fold figures will look better than they are"
        )
    _claim_directory(out, _folds_csv(parts), resume)
    if (out / FOLDS_FILE).is_file():
        callback.on_message(f"these folds are finished: {out / FOLDS_FILE}")
        return CrossValidationResult.read(out)
    found: dict[str, NDArray[np.float64]] = {}
    models: list[Path] = []
    left_out: list[str] = []
    of_fold: dict[str, int] = {}
    for number, (kept, held) in enumerate(parts):
        heard = FoldCallback(callback, number, len(parts))
        heard.on_message(f"{len(kept)} pictures to learn from, {len(held)} held out")
        result = train(
            Splits(kept, held, judged),
            recipe,
            out=out / f"fold{number}",
            model=model,
            weights=weights,
            epochs=epochs,
            minutes=minutes and minutes / len(parts),
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            image_size=image_size,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=resources,
            loggers=loggers,
            callback=heard,
            command=command,
        )
        models.append(result.model)
        if _is_main_process():
            answers, unread = _predict_held_out(result.model, held, resources, tta, heard)
            found |= answers
            left_out += unread
            judged_alone = _make_out_of_fold(held, dict.fromkeys(answers, number), answers).metrics()
            heard.on_message(
                "held out: " + ", ".join(_format_metric(name, value) for name, value in judged_alone.items())
            )
        of_fold |= {item.name: number for item in held.items}
    if not _is_main_process():
        return CrossValidationResult(out, pictures.labels.task, tuple(models), (), {}, 0)
    oof = _make_out_of_fold(pictures, of_fold, found)
    figures = tuple(oof.select_fold(number).metrics() for number in range(len(parts)))
    done = CrossValidationResult(
        out, oof.labels.task, tuple(models), figures, oof.metrics(), len(oof), tuple(left_out), tta
    )
    oof.write(done.oof_path)
    with atomic_write(out / FOLDS_FILE) as beside:  # last of all: a run of folds that has it is finished
        beside.write_text(json.dumps(done.to_dict(), indent=1), "utf-8")
    callback.on_message(done.in_words())
    return done


def _group_duplicates(images: ImageDataset, known: Fingerprints, callback: Callback) -> ImageDataset:
    """The pictures with twins in one group, so that no fold tears them apart but the data's own."""
    pairs = find_duplicates(images, fingerprints=known)
    torn = [(one, other) for one, other in pairs if one.fold != other.fold]
    kept = [(one, other) for one, other in pairs if one.fold == other.fold]
    if kept:
        callback.on_message(
            f"{_count_duplicates(len(kept))}, and kept on the same side of every fold: {format_pairs(kept)}"
        )
    if torn:
        callback.on_message(
            f"{_count_duplicates(len(torn))}, torn apart by the data's own folds: {format_pairs(torn)}; figures will look better than "
            "they are: give both files the same fold, or leave one out"
        )
    for sentence in describe_label_conflicts(pairs):
        callback.on_message(sentence)
    return group_duplicates(images, kept)


def _count_duplicates(pairs: int) -> str:
    return "1 picture is there twice" if pairs == 1 else f"{pairs} pictures are there twice"


def _warn_missing_classes(fold_images: ImageDataset, images: ImageDataset, number: int, callback: Callback) -> None:
    if images.labels.task == "regression":
        return
    counts = zip(images.labels.names, fold_images.class_counts(), images.class_counts(), strict=True)
    lost = [name for name, here, there in counts if there and not here]
    if lost:
        callback.on_message(
            f"fold {number + 1} holds out all pictures of {', '.join(map(repr, lost[:3]))}, which are in one group or "
            "fold: its network cannot know them"
        )


def _predict_held_out(
    model: Path, held_out: ImageDataset, resources: Resources | None, tta: str, callback: Callback
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """What the network answers to each held-out picture, by name; and the sentences of those that cannot be read."""
    device = resources.device if resources else None
    predictor = Predictor(model, "eager", device, tta=tta)
    if predictor.labels.names != held_out.labels.names:
        raise ValueError(f"{model} has other labels than the data: train it anew in another folder")
    found: dict[str, NDArray[np.float64]] = {}
    unread: list[str] = []
    named_pictures = ((item.name, item.image) for item in held_out.items)
    for done, (name, row) in enumerate(predictor.predict_scores(named_pictures), start=1):
        if isinstance(row, ImageError):
            unread.append(str(row))
        else:
            found[name] = row
        callback.on_progress("out of fold", done, len(held_out))
    return found, unread


def _make_out_of_fold(
    images: ImageDataset, fold_of: dict[str, int], predictions: dict[str, NDArray[np.float64]]
) -> OutOfFold:
    """The answers in the order of the data."""
    rows = [row for row, item in enumerate(images.items) if item.name in predictions]
    ids = tuple(images.items[row].name for row in rows)
    folds = np.array([fold_of[name] for name in ids], np.int64)
    wanted = images.target_matrix.astype(np.float64)[rows]
    return OutOfFold(images.labels, ids, folds, wanted, np.stack([predictions[name] for name in ids]))


def _folds_csv(parts: Sequence[tuple[ImageDataset, ImageDataset]]) -> str:
    """Which picture is held out in which fold, as a table."""
    text = StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("id", "label", "fold"))
    for number, (_, held) in enumerate(parts):
        for item in held.items:
            write((item.name, held.format_label(item), number))
    return text.getvalue()


def _claim_directory(out: Path, plan: str, resume: bool) -> None:
    """Sees that ``out`` is free, or with ``resume`` holds the same folds, and writes them down.

    Raises ``FileExistsError`` for a folder in use, ``ValueError`` for other folds.
    """
    path = out / "folds.csv"
    if not _is_main_process():
        return
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: give a folder that is empty or does not exist")
    if out.is_dir() and any(out.iterdir()):
        if not resume:
            raise FileExistsError(f"{out} is in use: give another folder, or --resume to go on with its folds")
        if not path.is_file():
            raise FileExistsError(f"{out} is not empty and holds no folds to resume: give another folder")
        if path.read_bytes() != plan.encode("utf-8", "surrogateescape"):
            raise ValueError(
                f"{out} holds folds of other pictures, or another --folds or --seed: resume it as it was, or give "
                "another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside:
        beside.write_bytes(plan.encode("utf-8", "surrogateescape"))


def _is_main_process() -> bool:
    """Whether this process writes and tells: started by ``torchrun`` there are several."""
    return os.environ.get("RANK", "0") == "0"
