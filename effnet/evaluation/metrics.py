"""The one figure by which an evaluation is quoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import Record
from effnet.tasks import MULTI_LABEL_THRESHOLD, sigmoid, softmax


class PrimaryMetric(NamedTuple):
    """The higher, the better, and 1 at the most, whatever the kind of labels."""

    name: str  # "top-1", "mean average precision", "R²"
    value: float


# Whether probabilities mean what they say: of those told 0.8, are 8 in 10 right?


CALIBRATION_BINS = 15


@dataclass(frozen=True)
class CalibrationBin(Record):
    """Predictions that are about equally sure: how many, how sure on average, and what share of them is right.

    Zeros where there are none. Of 15 bins the first holds probabilities up to 1/15, the last those from 14/15. Where
    any label may be right it is not pictures that are counted but each one's labels.
    """

    images: int
    confidence: float
    accuracy: float


def calibration_bins(confidence: NDArray[np.float64], right: NDArray[Any]) -> tuple[CalibrationBin, ...]:
    """The reliability diagram's numbers (arXiv:1706.04599): 15 equal bins of ``confidence``, the lowest first."""
    places = _bin_indices(confidence)
    counts = np.bincount(places, minlength=CALIBRATION_BINS)
    sums = (np.bincount(places, of, CALIBRATION_BINS) / np.maximum(counts, 1) for of in (confidence, right))
    return tuple(CalibrationBin(*values) for values in zip(counts.tolist(), *(of.tolist() for of in sums), strict=True))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[Any]) -> float:
    """Expected calibration error: |accuracy − confidence| averaged over 15 equal bins, by their pictures."""
    gaps = np.bincount(_bin_indices(confidence), right - confidence, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin_indices(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each, the first being 0."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


# How good answers are where exactly one class is right.


MAX_UNCERTAIN = 24  # pictures that are kept as the least certain ones


@dataclass(frozen=True)
class ClassMetrics(Record):
    """One class: how many pictures it has, and how well they are found (fractions)."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Mistake(Record):
    """A picture taken for another class, with the probability given to the wrong one."""

    image: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class UncertainImage(Record):
    """A picture between two classes, with the probabilities given to both; right or wrong."""

    image: str
    label: str
    predicted: str
    probability: float
    other: str  # the second likeliest class
    other_probability: float


@dataclass(frozen=True)
class Evaluation(Record):
    """The result on one set of pictures. Fractions, not percent; ``top5`` is over min(5, classes)."""

    RECORDS = MappingProxyType(
        {"classes": ClassMetrics, "mistakes": Mistake, "bins": CalibrationBin, "uncertain": UncertainImage}
    )

    images: int
    top1: float
    top5: float
    loss: float  # mean −log p of the true class
    calibration_error: float  # expected calibration error, 15 equal bins (arXiv:1706.04599)
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted], pictures
    mistakes: tuple[Mistake, ...]  # surest first
    skipped: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    bins: tuple[CalibrationBin, ...] = ()  # the 15 bins of ``calibration_error``, the least sure first
    uncertain: tuple[UncertainImage, ...] = ()  # the nearest to a tie between two classes, nearest first
    task: str = "classification"  # of the labels

    @property
    def primary_metric(self) -> PrimaryMetric:
        """Top-1."""
        return PrimaryMetric("top-1", self.top1)

    def summary(self) -> str:
        """One line for a person: "top-1 97.4%, top-5 99.9%"."""
        return f"top-1 {self.top1:.1%}" + (f", top-5 {self.top5:.1%}" if len(self.classes) > 5 else "")


def score_classes(
    logits: NDArray[np.float64], targets: NDArray[np.int64], names: Sequence[str], image_names: Sequence[str]
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
        images=len(targets),
        top1=float(right.mean()),
        top5=float((order[:, : min(5, len(names))] == targets[:, None]).any(1).mean()),
        loss=float(-np.log(np.maximum(shares[np.arange(len(targets)), targets], 1e-12)).mean()),
        calibration_error=calibration_error(confidence, right),
        classes=tuple(
            ClassMetrics(name, int(count), float(precision), float(recall), float(f1))
            for name, precision, recall, f1, count in zip(names, *scores, there, strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
        mistakes=tuple(
            Mistake(image_names[index], names[targets[index]], names[predicted[index]], float(confidence[index]))
            for index in wrong
        ),
        bins=calibration_bins(confidence, right),
        uncertain=_most_uncertain(shares, order, targets, names, image_names),
    )


def _most_uncertain(
    shares: NDArray[np.float64],
    order: NDArray[np.int64],
    targets: NDArray[np.int64],
    names: Sequence[str],
    image_names: Sequence[str],
) -> tuple[UncertainImage, ...]:
    """The pictures whose two likeliest classes are nearest to each other."""
    if len(names) < 2:
        return ()
    first, second = np.take_along_axis(shares, order[:, :2], 1).T
    return tuple(
        UncertainImage(
            image_names[index],
            names[targets[index]],
            names[order[index, 0]],
            float(first[index]),
            names[order[index, 1]],
            float(second[index]),
        )
        for index in np.argsort(first - second, kind="stable")[:MAX_UNCERTAIN]
    )


# How good answers are where each label may be right by itself.


MAX_MISTAKES = 1000  # listed: of many labels there may be more mistakes than pictures


@dataclass(frozen=True)
class LabelMetrics(Record):
    """One label: how many pictures have it, and how well they are found (fractions; told at a probability of 0.5).

    ``average_precision``: over all probabilities at which it could be told; None where no picture has the label.
    """

    name: str
    images: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None


@dataclass(frozen=True)
class LabelMistake(Record):
    """A label that was told and is not right, or is right (``missed``) and was not told; with its probability."""

    image: str
    label: str
    missed: bool
    probability: float


@dataclass(frozen=True)
class MultiLabelEvaluation(Record):
    """The result on one set of pictures, for labels of the kind "multilabel". Fractions, not percent.

    It is of the labels that the pictures' source knows: of the model's others nobody says whether they are right.
    """

    RECORDS = MappingProxyType({"labels": LabelMetrics, "mistakes": LabelMistake, "bins": CalibrationBin})

    images: int
    mean_average_precision: float  # over the labels that a picture has
    label_accuracy: float  # share of all pictures' labels that are rightly told or rightly not
    exact_match: float  # share of the pictures of which all labels are right
    loss: float  # binary cross-entropy, mean over labels and pictures
    calibration_error: float  # of every label's probability, 15 equal bins
    labels: tuple[LabelMetrics, ...]
    mistakes: tuple[LabelMistake, ...]  # surest first, at most `MISTAKES_MOST`
    skipped: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    bins: tuple[CalibrationBin, ...] = ()
    task: str = "multilabel"

    @property
    def primary_metric(self) -> PrimaryMetric:
        """Mean average precision."""
        return PrimaryMetric("mean average precision", self.mean_average_precision)

    def summary(self) -> str:
        """One line for a person: "mean average precision 91.3%, labels right 97.0%, all of a picture's 81.2%"."""
        shares = f"labels right {self.label_accuracy:.1%}, all of a picture's {self.exact_match:.1%}"
        return f"mean average precision {self.mean_average_precision:.1%}, {shares}"


def score_multilabel(
    logits: NDArray[np.float64], targets: NDArray[np.bool_], names: Sequence[str], image_names: Sequence[str]
) -> MultiLabelEvaluation:
    """The evaluation of ``logits`` (N, labels) against ``wanted`` (N, labels), of pictures of these names."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    shares = sigmoid(logits)
    told = shares >= MULTI_LABEL_THRESHOLD
    right = told == targets
    # One by one: of a single column scikit-learn would tell of two classes
    scores = [
        precision_recall_fscore_support(truth, said, average="binary", zero_division=0.0)[:3]
        for truth, said in zip(targets.T, told.T, strict=True)
    ]
    precisions = [
        float(average_precision_score(truth, share)) if truth.any() else None
        for truth, share in zip(targets.T, logits.T, strict=True)
    ]
    known = [each for each in precisions if each is not None]
    return MultiLabelEvaluation(
        images=len(targets),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        label_accuracy=float(right.mean()),
        exact_match=float(right.all(1).mean()),
        loss=float(np.logaddexp(0, np.where(targets, -logits, logits)).mean()),
        calibration_error=calibration_error(shares.ravel(), targets.ravel()),
        labels=tuple(
            LabelMetrics(name, int(truth.sum()), float(precision), float(recall), float(f1), average)
            for name, truth, (precision, recall, f1), average in zip(names, targets.T, scores, precisions, strict=True)
        ),
        mistakes=_label_mistakes(shares, targets, right, names, image_names),
        bins=calibration_bins(shares.ravel(), targets.ravel()),
    )


def _label_mistakes(
    shares: NDArray[np.float64],
    targets: NDArray[np.bool_],
    right: NDArray[np.bool_],
    names: Sequence[str],
    image_names: Sequence[str],
) -> tuple[LabelMistake, ...]:
    rows, columns = np.nonzero(~right)
    surest = np.argsort(-np.abs(shares[rows, columns] - MULTI_LABEL_THRESHOLD), kind="stable")[:MAX_MISTAKES]
    return tuple(
        LabelMistake(image_names[row], names[column], bool(targets[row, column]), float(shares[row, column]))
        for row, column in zip(rows[surest], columns[surest], strict=True)
    )


# How near answers are where they are values.


MAX_LARGEST_ERRORS, MAX_PAIRS = 100, 2000


@dataclass(frozen=True)
class ValueMetrics(Record):
    """One value: the errors in its own unit, and the share of its variance that is explained.

    ``pairs``: (true, predicted) of the pictures, or of `PAIRS_MOST` of them, evenly chosen.
    """

    name: str
    rmse: float
    mae: float
    r2: float
    pairs: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class LargeError(Record):
    """A value of a picture that was predicted far from what it is."""

    image: str
    value: str
    true: float
    predicted: float


@dataclass(frozen=True)
class RegressionEvaluation(Record):
    """The result on one set of pictures, for labels of the kind "regression". The overall figures are means of the values'.

    R² is 1 where every value is met, 0 where their mean would do as well, and below where it would do better; of values
    that are all alike it is 1 or 0.
    """

    RECORDS = MappingProxyType({"values": ValueMetrics, "mistakes": LargeError})

    images: int
    rmse: float  # root of the mean squared error
    mae: float  # mean absolute error
    r2: float
    values: tuple[ValueMetrics, ...]
    mistakes: tuple[LargeError, ...]  # the largest errors first, in units of each value's spread; at most `ERRORS_MOST`
    skipped: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    task: str = "regression"

    @property
    def primary_metric(self) -> PrimaryMetric:
        """R²."""
        return PrimaryMetric("R²", self.r2)

    def summary(self) -> str:
        """One line for a person: "R² 0.912, RMSE 4.13, mean absolute error 3.02"."""
        return f"R² {self.r2:.3f}, RMSE {self.rmse:.4g}, mean absolute error {self.mae:.4g}"


def score_regression(
    predictions: NDArray[np.float64], targets: NDArray[np.float64], names: Sequence[str], image_names: Sequence[str]
) -> RegressionEvaluation:
    """The evaluation of ``answers`` (N, values) against ``wanted`` (N, values), of pictures of these names."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    rmse, mae = (
        each(targets, predictions, multioutput="raw_values") for each in (root_mean_squared_error, mean_absolute_error)
    )
    # It needs two pictures, of which the second may be the first
    r2 = r2_score(*(np.repeat(each, 2, 0) for each in (targets, predictions)), multioutput="raw_values")
    step = -(-len(targets) // MAX_PAIRS)
    spread = targets.std(0)
    apart = np.abs(predictions - targets) / np.where(spread > 0, spread, 1)
    rows, columns = np.unravel_index(np.argsort(-apart, axis=None, kind="stable")[:MAX_LARGEST_ERRORS], apart.shape)
    return RegressionEvaluation(
        images=len(targets),
        rmse=float(rmse.mean()),
        mae=float(mae.mean()),
        r2=float(r2.mean()),
        values=tuple(
            ValueMetrics(name, float(one), float(two), float(three), tuple(map(tuple, both.tolist())))
            for name, one, two, three, both in zip(
                names, rmse, mae, r2, np.stack([targets, predictions], 2)[::step].swapaxes(0, 1), strict=True
            )
        ),
        mistakes=tuple(
            LargeError(image_names[row], names[column], float(targets[row, column]), float(predictions[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ),
    )
