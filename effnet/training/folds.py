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
from effnet.arch.record import choice
from effnet.data import PictureError, Pictures, Splits, holdout, open_data
from effnet.data.folds import folds as split_into
from effnet.data.pictures import Marks
from effnet.data.storage.atomic import replacing
from effnet.data.twins import disagreeing, marks, named, overlap, together, twins
from effnet.prediction import Predictor
from effnet.prediction.ensemble import FOLDS
from effnet.prediction.oof import OutOfFold
from effnet.prediction.views import VIEWS
from effnet.training.plan import DECODED_MOST, training_pictures
from effnet.training.recipe import Recipe
from effnet.training.resources import Resources
from effnet.training.run import settled, train
from effnet.training.watch import Watch

if TYPE_CHECKING:
    from effnet.training.history import Epoch


@dataclass(frozen=True)
class FoldsResult:
    """What the runs have made in ``out``. Figures are those of `OutOfFold.figures`, by the kind of the labels."""

    out: Path
    kind: str
    models: tuple[Path, ...]
    folds: tuple[dict[str, float], ...]  # of each fold's held-out pictures
    whole: dict[str, float]  # of all pictures, each judged by the network that has not learned from it
    pictures: int
    left_out: tuple[str, ...] = ()  # pictures that could not be read, and why
    views: str = "none"

    @property
    def oof(self) -> Path:
        """The table of out-of-fold predictions."""
        return self.out / "oof.csv"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON; the models' files are named from ``out`` on."""
        return {
            "kind": self.kind,
            "pictures": self.pictures,
            "whole": self.whole,
            "folds": list(self.folds),
            "models": [model.relative_to(self.out).as_posix() for model in self.models],
            "left_out": list(self.left_out),
            "views": self.views,
        }

    @classmethod
    def read(cls, out: str | Path) -> FoldsResult:
        """The result that a finished run of folds has left in ``out``."""
        out = Path(out)
        said = json.loads((out / FOLDS).read_text("utf-8"))
        models = tuple(out / name for name in said["models"])
        folds, left_out = tuple(said["folds"]), tuple(said["left_out"])
        return cls(out, said["kind"], models, folds, said["whole"], said["pictures"], left_out, said["views"])

    def in_words(self) -> str:
        """One line for a person: "out of fold, 244 pictures: top-1 95.1% (folds 91.8% to 98.0%), loss 0.161 (…)"."""
        told = []
        for name, value in self.whole.items():
            each = [fold[name] for fold in self.folds]
            _, sign = _WORDS[name]
            told.append(f"{_said(name, value)} (folds {min(each):{sign}} to {max(each):{sign}})")
        return f"out of fold, {self.pictures} pictures: {', '.join(told)}"


_WORDS = {
    "top1": ("top-1", ".1%"),
    "loss": ("loss", ".3f"),
    "mean_average_precision": ("mean average precision", ".1%"),
    "labels_right": ("labels right", ".1%"),
    "rmse": ("RMSE", ".4g"),
    "r2": ("R²", ".3f"),
}


def _said(name: str, value: float) -> str:
    words, sign = _WORDS[name]
    return f"{words} {value:{sign}}"


def train_folds(
    data: str | Path | Splits,
    recipe: str | Recipe | None = None,
    *,
    out: str | Path,
    folds: int = 5,
    views: str = "none",
    model: str | Arch | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    learning_rate: float | str | None = None,
    seed: int = 0,
    size: int | None = None,
    select_on: str = "holdout",
    teacher: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    resources: Resources | None = None,
    track: Sequence[str] | None = None,
    watch: Watch | None = None,
    command: str = "",
) -> FoldsResult:
    """Trains a network for each of ``folds`` parts of the training pictures, on all the others.

    They go into ``out/fold0`` …, each a run as `train` makes it, with its settings; ``minutes`` are for all of them
    together. ``out/oof.csv`` then has every training picture once, with the answer of the network that has not learned
    from it (the mean over ``views``), ``out/folds.json`` the figures; ``out`` as a whole is an ensemble (see
    `effnet.prediction.ensemble`). The data's own folds are taken where it has them. The same picture in two files never
    stands on both sides, unless these folds tear it apart, which is said. Validation and test pictures of the data are
    only reported on. With ``resume`` it goes on in the fold in which it stopped. Raises what `train` and
    `effnet.data.folds.folds` raise, before anything is trained where that can be known.
    """
    watch, out = watch or Watch(), Path(out)
    choice("views", views, VIEWS)
    share = settled(recipe, weights, epochs, batch, learning_rate).select_share
    splits = data if isinstance(data, Splits) else open_data(data)
    known = marks(splits.given.values(), len(training_pictures(splits)) <= DECODED_MOST)
    pictures = _apart(training_pictures(splits), known, watch)
    for sentence in overlap(splits, known=known):
        watch.say(sentence)
    parts = split_into(pictures, folds, seed)
    judged = splits.test if splits.test is not None else splits.val
    for number, (kept, _) in enumerate(parts):
        _say_unlearned(kept, pictures, number, watch)
        if select_on != "val":
            holdout(kept, share, seed + 1)  # what would stop the last fold shall stop the first
    if select_on == "val":
        watch.say(
            "choices are made on each fold's held-out pictures: out-of-fold figures will look better than they are"
        )
    _claim(out, _plan(parts), resume)
    if (out / FOLDS).is_file():
        watch.say(f"these folds are finished: {out / FOLDS}")
        return FoldsResult.read(out)
    found: dict[str, NDArray[np.float64]] = {}
    models: list[Path] = []
    left_out: list[str] = []
    of_fold: dict[str, int] = {}
    for number, (kept, held) in enumerate(parts):
        heard = _InFold(watch, number, len(parts))
        heard.say(f"{len(kept)} pictures to learn from, {len(held)} held out")
        result = train(
            Splits(kept, held, judged),
            recipe,
            out=out / f"fold{number}",
            model=model,
            weights=weights,
            epochs=epochs,
            minutes=minutes and minutes / len(parts),
            batch=batch,
            learning_rate=learning_rate,
            seed=seed,
            size=size,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=resources,
            track=track,
            watch=heard,
            command=command,
        )
        models.append(result.model)
        if _first():
            answers, unread = _answers(result.model, held, resources, views, heard)
            found |= answers
            left_out += unread
            judged_alone = _table(held, dict.fromkeys(answers, number), answers).figures()
            heard.say("held out: " + ", ".join(_said(name, value) for name, value in judged_alone.items()))
        of_fold |= {item.name: number for item in held.items}
    if not _first():
        return FoldsResult(out, pictures.labels.kind, tuple(models), (), {}, 0)
    oof = _table(pictures, of_fold, found)
    figures = tuple(oof.of(number).figures() for number in range(len(parts)))
    done = FoldsResult(out, oof.labels.kind, tuple(models), figures, oof.figures(), len(oof), tuple(left_out), views)
    oof.write(done.oof)
    with replacing(out / FOLDS) as beside:  # last of all: a run of folds that has it is finished
        beside.write_text(json.dumps(done.to_dict(), indent=1), "utf-8")
    watch.say(done.in_words())
    return done


def _apart(pictures: Pictures, known: Marks, watch: Watch) -> Pictures:
    """The pictures with twins in one group, so that no fold tears them apart but the data's own."""
    pairs = twins(pictures, known=known)
    torn = [(one, other) for one, other in pairs if one.fold != other.fold]
    kept = [(one, other) for one, other in pairs if one.fold == other.fold]
    if kept:
        watch.say(f"{_twice(len(kept))}, and kept on the same side of every fold: {named(kept)}")
    if torn:
        watch.say(
            f"{_twice(len(torn))}, torn apart by the data's own folds: {named(torn)}; figures will look better than "
            "they are: give both files the same fold, or leave one out"
        )
    for sentence in disagreeing(pictures, pairs):
        watch.say(sentence)
    return together(pictures, kept)


def _twice(pairs: int) -> str:
    return "1 picture is there twice" if pairs == 1 else f"{pairs} pictures are there twice"


def _say_unlearned(kept: Pictures, pictures: Pictures, number: int, watch: Watch) -> None:
    if pictures.labels.kind == "value":
        return
    counts = zip(pictures.labels.names, kept.counts(), pictures.counts(), strict=True)
    lost = [name for name, here, there in counts if there and not here]
    if lost:
        watch.say(
            f"fold {number + 1} holds out all pictures of {', '.join(map(repr, lost[:3]))}, which are in one group or "
            "fold: its network cannot know them"
        )


def _answers(
    model: Path, held: Pictures, resources: Resources | None, views: str, watch: Watch
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """What the network answers to each held-out picture, by name; and the sentences of those that cannot be read."""
    device = resources.device if resources else None
    predictor = Predictor(model, "eager", device, views=views)
    if predictor.labels.names != held.labels.names:
        raise ValueError(f"{model} has other labels than the data: train it anew in another folder")
    found: dict[str, NDArray[np.float64]] = {}
    unread: list[str] = []
    named_pictures = ((item.name, item.picture) for item in held.items)
    for done, (name, row) in enumerate(predictor.answers(named_pictures), start=1):
        if isinstance(row, PictureError):
            unread.append(str(row))
        else:
            found[name] = row
        watch.progress("out of fold", done, len(held))
    return found, unread


def _table(pictures: Pictures, of_fold: dict[str, int], found: dict[str, NDArray[np.float64]]) -> OutOfFold:
    """The answers in the order of the data."""
    rows = [row for row, item in enumerate(pictures.items) if item.name in found]
    ids = tuple(pictures.items[row].name for row in rows)
    folds = np.array([of_fold[name] for name in ids], np.int64)
    wanted = pictures.wanted.astype(np.float64)[rows]
    return OutOfFold(pictures.labels, ids, folds, wanted, np.stack([found[name] for name in ids]))


def _plan(parts: Sequence[tuple[Pictures, Pictures]]) -> str:
    """Which picture is held out in which fold, as a table."""
    text = StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("id", "label", "fold"))
    for number, (_, held) in enumerate(parts):
        for item in held.items:
            write((item.name, held.said(item), number))
    return text.getvalue()


def _claim(out: Path, plan: str, resume: bool) -> None:
    """Sees that ``out`` is free, or with ``resume`` holds the same folds, and writes them down.

    Raises ``FileExistsError`` for a folder in use, ``ValueError`` for other folds.
    """
    path = out / "folds.csv"
    if not _first():
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
    with replacing(path) as beside:
        beside.write_bytes(plan.encode("utf-8", "surrogateescape"))


def _first() -> bool:
    """Whether this process writes and tells: started by ``torchrun`` there are several."""
    return os.environ.get("RANK", "0") == "0"


class _InFold(Watch):
    """Tells another of a fold's run, saying which fold it is."""

    def __init__(self, told: Watch, number: int, count: int) -> None:
        self._told, self._name = told, f"fold {number + 1}/{count}"

    def progress(self, stage: str, done: int, total: int) -> None:
        """As of any."""
        self._told.progress(f"{self._name}, {stage}", done, total)

    def epoch(self, line: Epoch) -> None:
        """As of any."""
        self._told.epoch(line)

    def say(self, text: str) -> None:
        """As of any."""
        self._told.say(f"{self._name}: {text}")
