"""How good answers are where each label may be right by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import Record
from effnet.evaluation.calibration import Bin, calibration_bins, calibration_error
from effnet.evaluation.headline import Headline
from effnet.prediction.pipeline import sigmoid
from effnet.prediction.prediction import RIGHT

MISTAKES_MOST = 1000  # listed: of many labels there may be more mistakes than pictures


@dataclass(frozen=True)
class LabelScore(Record):
    """One label: how many pictures have it, and how well they are found (fractions; told at a probability of 0.5).

    ``average_precision``: over all probabilities at which it could be told; None where no picture has the label.
    """

    name: str
    pictures: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None


@dataclass(frozen=True)
class WrongLabel(Record):
    """A label that was told and is not right, or is right (``missed``) and was not told; with its probability."""

    picture: str
    label: str
    missed: bool
    probability: float


@dataclass(frozen=True)
class LabelsEvaluation(Record):
    """The result on one set of pictures, for labels of the kind "any". Fractions, not percent.

    It is of the labels that the pictures' source knows: of the model's others nobody says whether they are right.
    """

    RECORDS = MappingProxyType({"labels": LabelScore, "mistakes": WrongLabel, "bins": Bin})

    pictures: int
    mean_average_precision: float  # over the labels that a picture has
    labels_right: float  # share of all pictures' labels that are rightly told or rightly not
    pictures_right: float  # share of the pictures of which all labels are right
    loss: float  # binary cross-entropy, mean over labels and pictures
    calibration_error: float  # of every label's probability, 15 equal bins
    labels: tuple[LabelScore, ...]
    mistakes: tuple[WrongLabel, ...]  # surest first, at most `MISTAKES_MOST`
    left_out: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    bins: tuple[Bin, ...] = ()
    kind: str = "any"

    @property
    def headline(self) -> Headline:
        """Mean average precision."""
        return Headline("mean average precision", self.mean_average_precision)

    def in_words(self) -> str:
        """One line for a person: "mean average precision 91.3%, labels right 97.0%, all of a picture's 81.2%"."""
        shares = f"labels right {self.labels_right:.1%}, all of a picture's {self.pictures_right:.1%}"
        return f"mean average precision {self.mean_average_precision:.1%}, {shares}"


def score_labels(
    logits: NDArray[np.float64], wanted: NDArray[np.bool_], names: Sequence[str], pictures: Sequence[str]
) -> LabelsEvaluation:
    """The evaluation of ``logits`` (N, labels) against ``wanted`` (N, labels), of pictures of these names."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    shares = sigmoid(logits)
    told = shares >= RIGHT
    right = told == wanted
    # One by one: of a single column scikit-learn would tell of two classes
    scores = [
        precision_recall_fscore_support(truth, said, average="binary", zero_division=0.0)[:3]
        for truth, said in zip(wanted.T, told.T, strict=True)
    ]
    precisions = [
        float(average_precision_score(truth, share)) if truth.any() else None
        for truth, share in zip(wanted.T, logits.T, strict=True)
    ]
    known = [each for each in precisions if each is not None]
    return LabelsEvaluation(
        pictures=len(wanted),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        labels_right=float(right.mean()),
        pictures_right=float(right.all(1).mean()),
        loss=float(np.logaddexp(0, np.where(wanted, -logits, logits)).mean()),
        calibration_error=calibration_error(shares.ravel(), wanted.ravel()),
        labels=tuple(
            LabelScore(name, int(truth.sum()), float(precision), float(recall), float(f1), average)
            for name, truth, (precision, recall, f1), average in zip(names, wanted.T, scores, precisions, strict=True)
        ),
        mistakes=_mistakes(shares, wanted, right, names, pictures),
        bins=calibration_bins(shares.ravel(), wanted.ravel()),
    )


def _mistakes(
    shares: NDArray[np.float64],
    wanted: NDArray[np.bool_],
    right: NDArray[np.bool_],
    names: Sequence[str],
    pictures: Sequence[str],
) -> tuple[WrongLabel, ...]:
    rows, columns = np.nonzero(~right)
    surest = np.argsort(-np.abs(shares[rows, columns] - RIGHT), kind="stable")[:MISTAKES_MOST]
    return tuple(
        WrongLabel(pictures[row], names[column], bool(wanted[row, column]), float(shares[row, column]))
        for row, column in zip(rows[surest], columns[surest], strict=True)
    )
