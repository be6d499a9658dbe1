"""Metrics: accuracy, precision, recall, average precision, errors of values, calibration; one record per task."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from effnet.arch.serde import Record
from effnet.tasks import MIN_PROBABILITY, MULTI_LABEL_THRESHOLD, Float64Array, sigmoid, softmax

CALIBRATION_BINS = 15
MAX_UNCERTAIN = 24  # most uncertain images that are kept
MAX_MISTAKES = 1000  # of multi-label, where there may be more mistakes than images
MAX_LARGEST_ERRORS, MAX_PAIRS = 100, 2000  # of regression


class PrimaryMetric(NamedTuple):
    """The one number by which an evaluation is quoted; higher is better, at most 1."""

    name: str
    value: float


@dataclass(frozen=True)
class CalibrationBin(Record):
    """Predictions of similar confidence: their number, mean confidence and accuracy, or zeros if there are none."""

    images: int  # or for multi-label the labels of all images
    confidence: float
    accuracy: float


def calibration_bins(confidence: Float64Array, right: np.ndarray) -> tuple[CalibrationBin, ...]:
    """Return the reliability diagram (arXiv:1706.04599): 15 bins of equal width, the least confident first."""
    indices = _bin_indices(confidence)
    counts = np.bincount(indices, minlength=CALIBRATION_BINS)
    means = (np.bincount(indices, of, CALIBRATION_BINS) / np.maximum(counts, 1) for of in (confidence, right))
    return tuple(CalibrationBin(*row) for row in zip(counts.tolist(), *(of.tolist() for of in means), strict=True))


def calibration_error(confidence: Float64Array, right: np.ndarray) -> float:
    """Return the expected calibration error: |accuracy − confidence| averaged over the bins, weighted by images."""
    gaps = np.bincount(_bin_indices(confidence), right - confidence, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin_indices(confidence: Float64Array) -> np.ndarray:
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


@dataclass(frozen=True)
class ClassMetrics(Record):
    """One class: its number of images, precision, recall and F1 (fractions)."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Mistake(Record):
    """A misclassified image, with the probability of the predicted class."""

    image: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class UncertainImage(Mistake):
    """An image between two classes, right or wrong, with the probabilities of both."""

    other: str  # the second most likely class
    other_probability: float


@dataclass(frozen=True)
class Evaluation(Record):
    """Result of a classification model. Fractions, not percent."""

    RECORDS = MappingProxyType(
        {"classes": ClassMetrics, "mistakes": Mistake, "bins": CalibrationBin, "uncertain": UncertainImage}
    )

    images: int
    top1: float
    top5: float  # over min(5, classes)
    loss: float  # cross-entropy
    calibration_error: float  # expected calibration error, 15 bins (arXiv:1706.04599)
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted], images
    mistakes: tuple[Mistake, ...]  # most confident first
    skipped: tuple[str, ...] = ()  # error messages of images that could not be read
    split: str = ""
    bins: tuple[CalibrationBin, ...] = ()
    uncertain: tuple[UncertainImage, ...] = ()  # closest to a tie first
    task: str = "classification"

    @property
    def primary_metric(self) -> PrimaryMetric:
        """Top-1 accuracy."""
        return PrimaryMetric("top-1", self.top1)

    def summary(self) -> str:
        """Return one line for people: "top-1 97.4%, top-5 99.9%"."""
        return f"top-1 {self.top1:.1%}" + (f", top-5 {self.top5:.1%}" if len(self.classes) > 5 else "")


def score_classes(
    logits: Float64Array, targets: np.ndarray, names: Sequence[str], image_names: Sequence[str]
) -> Evaluation:
    """Score logits (N, classes) against class indices (N,)."""
    probabilities = softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")
    predicted = order[:, 0]
    right = predicted == targets
    confidence = probabilities.max(1)
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    hits, predictions, images = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    # A class without predictions or images gets zeros
    precision = hits / np.maximum(predictions, 1)
    recall = hits / np.maximum(images, 1)
    f1 = 2 * hits / np.maximum(predictions + images, 1)
    wrong = [index for index in np.argsort(-confidence, kind="stable") if not right[index]]
    true_probabilities = probabilities[np.arange(len(targets)), targets]
    best_two = np.take_along_axis(probabilities, order[:, :2], 1)  # (N, 2)
    closest = np.argsort(best_two[:, 0] - best_two[:, -1], kind="stable")[:MAX_UNCERTAIN] if len(names) > 1 else ()
    uncertain = []
    for index in closest:
        (likely, other), (probability, other_probability) = order[index, :2], best_two[index].tolist()
        label = names[targets[index]]
        uncertain.append(
            UncertainImage(image_names[index], label, names[likely], probability, names[other], other_probability)
        )
    return Evaluation(
        images=len(targets),
        top1=float(right.mean()),
        top5=float((order[:, : min(5, len(names))] == targets[:, None]).any(1).mean()),
        loss=float(-np.log(np.maximum(true_probabilities, MIN_PROBABILITY)).mean()),
        calibration_error=calibration_error(confidence, right),
        classes=tuple(map(ClassMetrics, names, images.tolist(), precision.tolist(), recall.tolist(), f1.tolist())),
        confusion=tuple(map(tuple, confusion.tolist())),
        mistakes=tuple(
            Mistake(image_names[index], names[targets[index]], names[predicted[index]], float(confidence[index]))
            for index in wrong
        ),
        bins=calibration_bins(confidence, right),
        uncertain=tuple(uncertain),
    )


@dataclass(frozen=True)
class LabelMetrics(ClassMetrics):
    """The same of one label, at a probability of 0.5."""

    average_precision: float | None  # over all thresholds; None if no image has the label


@dataclass(frozen=True)
class LabelMistake(Record):
    """A label that was predicted and is not there, or is there and was ``missed``; with its probability."""

    image: str
    label: str
    missed: bool
    probability: float


@dataclass(frozen=True)
class MultiLabelEvaluation(Record):
    """Result of a multi-label model, for the labels that the data knows. Fractions, not percent."""

    RECORDS = MappingProxyType({"labels": LabelMetrics, "mistakes": LabelMistake, "bins": CalibrationBin})

    images: int
    mean_average_precision: float  # over the labels that an image has
    label_accuracy: float  # share of right decisions over all labels and images
    exact_match: float  # share of images with all labels right
    loss: float  # binary cross-entropy, mean over labels and images
    calibration_error: float  # of every label's probability, 15 bins
    labels: tuple[LabelMetrics, ...]
    mistakes: tuple[LabelMistake, ...]  # most confident first, at most `MAX_MISTAKES`
    skipped: tuple[str, ...] = ()  # error messages of images that could not be read
    split: str = ""
    bins: tuple[CalibrationBin, ...] = ()
    task: str = "multilabel"

    @property
    def primary_metric(self) -> PrimaryMetric:
        """Mean average precision."""
        return PrimaryMetric("mean average precision", self.mean_average_precision)

    def summary(self) -> str:
        """Return one line for people: "mean average precision 91.3%, label accuracy 97.0%, exact match 81.2%"."""
        shares = f"label accuracy {self.label_accuracy:.1%}, exact match {self.exact_match:.1%}"
        return f"mean average precision {self.mean_average_precision:.1%}, {shares}"


def score_multilabel(
    logits: Float64Array, targets: np.ndarray, names: Sequence[str], image_names: Sequence[str]
) -> MultiLabelEvaluation:
    """Score logits (N, labels) against the labels that are present (N, labels)."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    probabilities = sigmoid(logits)
    predicted = probabilities >= MULTI_LABEL_THRESHOLD
    right = predicted == targets
    # One label at a time: of a single column scikit-learn would make two classes
    scores = [
        precision_recall_fscore_support(present, column, average="binary", zero_division=0.0)[:3]
        for present, column in zip(targets.T, predicted.T, strict=True)
    ]
    average_precisions = [
        float(average_precision_score(present, column)) if present.any() else None
        for present, column in zip(targets.T, logits.T, strict=True)
    ]
    known = [value for value in average_precisions if value is not None]
    rows, columns = np.nonzero(~right)
    confidence = np.abs(probabilities[rows, columns] - MULTI_LABEL_THRESHOLD)
    order = np.argsort(-confidence, kind="stable")[:MAX_MISTAKES]
    return MultiLabelEvaluation(
        images=len(targets),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        label_accuracy=float(right.mean()),
        exact_match=float(right.all(1).mean()),
        loss=float(np.logaddexp(0, np.where(targets, -logits, logits)).mean()),
        calibration_error=calibration_error(probabilities.ravel(), targets.ravel()),
        labels=tuple(
            LabelMetrics(name, int(present.sum()), float(precision), float(recall), float(f1), average)
            for name, present, (precision, recall, f1), average in zip(
                names, targets.T, scores, average_precisions, strict=True
            )
        ),
        mistakes=tuple(
            LabelMistake(image_names[row], names[column], bool(targets[row, column]), float(probabilities[row, column]))
            for row, column in zip(rows[order], columns[order], strict=True)
        ),
        bins=calibration_bins(probabilities.ravel(), targets.ravel()),
    )


@dataclass(frozen=True)
class ValueMetrics(Record):
    """One value: errors in its own unit, and R²."""

    name: str
    rmse: float
    mae: float
    r2: float
    pairs: tuple[tuple[float, float], ...] = ()  # (true, predicted), of up to `MAX_PAIRS` images, evenly sampled


@dataclass(frozen=True)
class LargeError(Record):
    """A value of an image that was predicted far off."""

    image: str
    value: str
    true: float
    predicted: float


@dataclass(frozen=True)
class RegressionEvaluation(Record):
    """Result of a regression model. The overall metrics are means over the values."""

    RECORDS = MappingProxyType({"values": ValueMetrics, "mistakes": LargeError})

    images: int
    rmse: float  # root mean squared error
    mae: float  # mean absolute error
    r2: float  # 1 or 0 of a value that never varies
    values: tuple[ValueMetrics, ...]
    mistakes: tuple[LargeError, ...]  # largest first, in standard deviations of the value; at most `MAX_LARGEST_ERRORS`
    skipped: tuple[str, ...] = ()  # error messages of images that could not be read
    split: str = ""
    task: str = "regression"

    @property
    def primary_metric(self) -> PrimaryMetric:
        """R²."""
        return PrimaryMetric("R²", self.r2)

    def summary(self) -> str:
        """Return one line for people: "R² 0.912, RMSE 4.13, mean absolute error 3.02"."""
        return f"R² {self.r2:.3f}, RMSE {self.rmse:.4g}, mean absolute error {self.mae:.4g}"


def score_regression(
    predictions: Float64Array, targets: Float64Array, names: Sequence[str], image_names: Sequence[str]
) -> RegressionEvaluation:
    """Score predictions (N, values) against targets (N, values)."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    rmse = root_mean_squared_error(targets, predictions, multioutput="raw_values")
    mae = mean_absolute_error(targets, predictions, multioutput="raw_values")
    # r2_score needs two images; repeating each leaves the result as it is
    r2 = r2_score(np.repeat(targets, 2, 0), np.repeat(predictions, 2, 0), multioutput="raw_values")
    step = -(-len(targets) // MAX_PAIRS)
    pairs = np.stack([targets, predictions], 2)[::step].swapaxes(0, 1)  # (values, images, 2)
    std = targets.std(0)
    errors = np.abs(predictions - targets) / np.where(std > 0, std, 1)
    rows, columns = np.unravel_index(np.argsort(-errors, axis=None, kind="stable")[:MAX_LARGEST_ERRORS], errors.shape)
    return RegressionEvaluation(
        images=len(targets),
        rmse=float(rmse.mean()),
        mae=float(mae.mean()),
        r2=float(r2.mean()),
        values=tuple(
            ValueMetrics(name, float(of_rmse), float(of_mae), float(of_r2), tuple(map(tuple, of_pairs.tolist())))
            for name, of_rmse, of_mae, of_r2, of_pairs in zip(names, rmse, mae, r2, pairs, strict=True)
        ),
        mistakes=tuple(
            LargeError(image_names[row], names[column], float(targets[row, column]), float(predictions[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ),
    )
