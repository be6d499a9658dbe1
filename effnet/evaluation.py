"""How good a model is on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import Record, whole
from effnet.contract import Labels
from effnet.data import PictureError, Pictures, Splits, open_data
from effnet.engines.eager import Eager
from effnet.engines.engine import Engine
from effnet.engines.opening import is_exported
from effnet.exporting import choose
from effnet.net import EfficientNet
from effnet.prediction.pipeline import BATCH, for_rgb, outputs, softmax
from effnet.weights import load

CALIBRATION_BINS = 15
UNCERTAIN_MOST = 24  # pictures that are kept as the least certain ones


@dataclass(frozen=True)
class ClassScore(Record):
    """One class: how many pictures it has, and how well they are found (fractions)."""

    name: str
    pictures: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Mistake(Record):
    """A picture taken for another class, with the probability given to the wrong one."""

    picture: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Uncertain(Record):
    """A picture between two classes, with the probabilities given to both; right or wrong."""

    picture: str
    label: str
    predicted: str
    probability: float
    other: str  # the second likeliest class
    other_probability: float


@dataclass(frozen=True)
class Bin(Record):
    """Predictions that are about equally sure: how many, how sure on average, and what share of them is right.

    Zeros where there are none. Of 15 bins the first holds probabilities up to 1/15, the last those from 14/15.
    """

    pictures: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation(Record):
    """The result on one set of pictures. Fractions, not percent; ``top5`` is over min(5, classes)."""

    RECORDS = MappingProxyType({"classes": ClassScore, "mistakes": Mistake, "bins": Bin, "uncertain": Uncertain})

    pictures: int
    top1: float
    top5: float
    loss: float  # mean −log p of the true class
    calibration_error: float  # expected calibration error, 15 equal bins (arXiv:1706.04599)
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted], pictures
    mistakes: tuple[Mistake, ...]  # surest first
    left_out: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    bins: tuple[Bin, ...] = ()  # the 15 bins of ``calibration_error``, the least sure first
    uncertain: tuple[Uncertain, ...] = ()  # the nearest to a tie between two classes, nearest first


def evaluate(
    model: EfficientNet | Engine | str | Path,
    data: Pictures | str | Path,
    split: str | None = None,
    decode: str = "exact",
    device: str | None = None,
    batch: int = BATCH,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """How good ``model`` is on ``data``: labelled pictures, or a source of them as ``open_data`` understands it.

    ``model``: a network, an engine, a file or name of weights, or a file that `export` wrote, which runs in its own
    runtime. Of a source with several splits the test set is taken, else the validation set, else all, unless ``split``
    says which. Pictures that cannot be read are left out and listed, or with ``strict`` raise ``PictureError``.
    ``progress`` is called after each picture with how many are done, and how many there are. Raises ``ValueError``
    where the model does not know the pictures' classes.
    """
    whole("batch", batch, 1)
    engine = _engine(model, device)
    contract = engine.contract
    for_rgb(len(contract.preprocess.mean))
    if isinstance(data, Pictures):
        pictures = data
    else:
        split, pictures = pick_split(open_data(data), split)
    columns = class_columns(contract.labels, engine.classes, pictures.labels)
    rows, read, left_out = [], [], []
    named = ((item.name, item.picture) for item in pictures.items)
    found = outputs(engine.run, named, replace(contract.preprocess, decode=decode), batch)
    for done, (item, (_, row)) in enumerate(zip(pictures.items, found, strict=True), start=1):
        if progress:
            progress(done, len(pictures))
        if isinstance(row, PictureError):
            if strict:
                raise row
            left_out.append(str(row))
        else:
            rows.append(row)
            read.append(item)
    if not rows:
        raise ValueError("none of the pictures could be read")
    targets = np.array([columns[item.label] for item in read])
    names = [contract.labels.name(index) for index in range(engine.classes)]
    result = score(np.stack(rows).astype(np.float64), targets, names, [item.name for item in read])
    return replace(result, left_out=tuple(left_out), split=split or "")


def _engine(model: EfficientNet | Engine | str | Path, device: str | None) -> Engine:
    """What answers: PyTorch itself unless the file is for another runtime."""
    if isinstance(model, (str, Path)):
        if is_exported(Path(model)):
            return choose.engine(model)
        model = load(model)
    return Eager(model, device) if isinstance(model, EfficientNet) else model


def pick_split(splits: Splits, wanted: str | None = None) -> tuple[str, Pictures]:
    """The split to judge by, and its name. Raises ``ValueError`` where ``wanted`` is not there."""
    there = {name: found for name in ("test", "val", "train") if (found := getattr(splits, name)) is not None}
    if wanted is None:
        return next(iter(there.items()))
    if wanted not in there:
        raise ValueError(f"there is no split {wanted!r} in the data: it has {', '.join(there)}")
    return wanted, there[wanted]


def class_columns(known: Labels, classes: int, given: Labels) -> list[int]:
    """For each class of the pictures, the model's output for it. Raises ``ValueError`` where it has none."""
    if not known.names:
        if len(given.names) != classes:
            raise ValueError(f"the model has {classes} classes without names, the pictures have {len(given.names)}")
        return list(range(classes))
    missing = [name for name in given.names if name not in known.names]
    if missing:
        raise ValueError(
            f"the model does not know the class {missing[0]!r} of the pictures; it knows {', '.join(known.names[:20])}"
        )
    return [known.names.index(name) for name in given.names]


def score(
    logits: NDArray[np.float64], targets: NDArray[np.int64], names: Sequence[str], pictures: Sequence[str]
) -> Evaluation:
    """The evaluation of ``logits`` (N, classes) against ``targets`` (N,), of pictures of these names."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    shares, every = softmax(logits), list(range(len(names)))
    order = np.argsort(-logits, axis=1, kind="stable")
    predicted = order[:, 0]
    right = predicted == targets
    confidence = shares.max(1)
    scores = precision_recall_fscore_support(targets, predicted, labels=every, zero_division=0.0)
    wrong = [index for index in np.argsort(-confidence, kind="stable") if not right[index]]
    return Evaluation(
        pictures=len(targets),
        top1=float(right.mean()),
        top5=float((order[:, : min(5, len(names))] == targets[:, None]).any(1).mean()),
        loss=float(-np.log(np.maximum(shares[np.arange(len(targets)), targets], 1e-12)).mean()),
        calibration_error=calibration_error(confidence, right),
        classes=tuple(
            ClassScore(name, int(count), float(precision), float(recall), float(f1))
            for name, precision, recall, f1, count in zip(names, *scores, strict=True)
        ),
        confusion=tuple(map(tuple, confusion_matrix(targets, predicted, labels=every).tolist())),
        mistakes=tuple(
            Mistake(pictures[index], names[targets[index]], names[predicted[index]], float(confidence[index]))
            for index in wrong
        ),
        bins=calibration_bins(confidence, right),
        uncertain=_uncertain(shares, order, targets, names, pictures),
    )


def _uncertain(
    shares: NDArray[np.float64],
    order: NDArray[np.int64],
    targets: NDArray[np.int64],
    names: Sequence[str],
    pictures: Sequence[str],
) -> tuple[Uncertain, ...]:
    """The pictures whose two likeliest classes are nearest to each other."""
    if len(names) < 2:
        return ()
    first, second = (np.take_along_axis(shares, order[:, [place]], 1)[:, 0] for place in (0, 1))
    nearest = np.argsort(first - second, kind="stable")[:UNCERTAIN_MOST]
    return tuple(
        Uncertain(
            pictures[index],
            names[targets[index]],
            names[order[index, 0]],
            float(first[index]),
            names[order[index, 1]],
            float(second[index]),
        )
        for index in nearest
    )


def calibration_bins(confidence: NDArray[np.float64], right: NDArray[Any]) -> tuple[Bin, ...]:
    """The reliability diagram's numbers (arXiv:1706.04599): 15 equal bins of ``confidence``, the lowest first."""
    places = _places(confidence)
    counts = np.bincount(places, minlength=CALIBRATION_BINS)
    sums = (np.bincount(places, of, CALIBRATION_BINS) / np.maximum(counts, 1) for of in (confidence, right))
    return tuple(Bin(*values) for values in zip(counts.tolist(), *(of.tolist() for of in sums), strict=True))


def _places(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each, the first being 0."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[Any]) -> float:
    """Expected calibration error: |accuracy − confidence| averaged over 15 equal bins, by their pictures."""
    gaps = np.bincount(_places(confidence), right - confidence, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
