"""How good answers are where exactly one class is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import Record
from effnet.evaluation.calibration import Bin, calibration_bins, calibration_error
from effnet.evaluation.headline import Headline
from effnet.prediction.pipeline import softmax

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
    kind: str = "one"  # of the labels

    @property
    def headline(self) -> Headline:
        """Top-1."""
        return Headline("top-1", self.top1)

    def in_words(self) -> str:
        """One line for a person: "top-1 97.4%, top-5 99.9%"."""
        return f"top-1 {self.top1:.1%}" + (f", top-5 {self.top5:.1%}" if len(self.classes) > 5 else "")


def score(
    logits: NDArray[np.float64], targets: NDArray[np.int64], names: Sequence[str], pictures: Sequence[str]
) -> Evaluation:
    """The evaluation of ``logits`` (N, classes) against ``targets`` (N,), of pictures of these names."""
    shares = softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")
    predicted = order[:, 0]
    right = predicted == targets
    confidence = shares.max(1)
    confusion = np.zeros((len(names), len(names)), np.int64)  # [true][predicted]
    np.add.at(confusion, (targets, predicted), 1)
    found, told, there = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    # Where there is nothing to divide by, nothing was found
    scores = (found / np.maximum(told, 1), found / np.maximum(there, 1), 2 * found / np.maximum(told + there, 1))
    wrong = [index for index in np.argsort(-confidence, kind="stable") if not right[index]]
    return Evaluation(
        pictures=len(targets),
        top1=float(right.mean()),
        top5=float((order[:, : min(5, len(names))] == targets[:, None]).any(1).mean()),
        loss=float(-np.log(np.maximum(shares[np.arange(len(targets)), targets], 1e-12)).mean()),
        calibration_error=calibration_error(confidence, right),
        classes=tuple(
            ClassScore(name, int(count), float(precision), float(recall), float(f1))
            for name, precision, recall, f1, count in zip(names, *scores, there, strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
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
    first, second = np.take_along_axis(shares, order[:, :2], 1).T
    return tuple(
        Uncertain(
            pictures[index],
            names[targets[index]],
            names[order[index, 0]],
            float(first[index]),
            names[order[index, 1]],
            float(second[index]),
        )
        for index in np.argsort(first - second, kind="stable")[:UNCERTAIN_MOST]
    )
