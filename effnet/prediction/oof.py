"""Out-of-fold predictions: each picture's answer by the network that has not learned from it, as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import Labels

OOF_COLUMNS = ("id", "label", "fold")  # then one a class
MIN_PROBABILITY = 1e-7  # probability that a loss is taken of: what is written has seven digits


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Every picture once: ``wanted`` (N, classes) is 1 for what is right, ``answers`` (N, classes) are probabilities.

    Of labels that are values both are the values.
    """

    labels: Labels
    ids: tuple[str, ...]
    folds: NDArray[np.int64]  # (N,)
    targets: NDArray[np.float64]
    predictions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def select_fold(self, fold: int) -> OutOfFold:
        """That fold alone."""
        return self.take(np.flatnonzero(self.folds == fold))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> OutOfFold:
        """Those pictures, in that order."""
        rows = np.asarray(rows, np.int64)
        ids = tuple(self.ids[row] for row in rows)
        return OutOfFold(self.labels, ids, self.folds[rows], self.targets[rows], self.predictions[rows])

    def metrics(self) -> dict[str, float]:
        """How good the answers are, by the kind of the labels.

        "one": top1, and loss, the mean −log p of the right class. "any": mean_average_precision, over the labels that a
        picture has; labels_right, the share of all pictures' labels that are rightly told, at a probability of one
        half, or rightly not; and loss, the mean −log p of what is true of each. "value": rmse, the root of the mean
        squared error, and r2, the share of the variance that is explained, both the mean over the values.
        """
        if self.labels.kind == "value":
            errors = ((self.predictions - self.targets) ** 2).mean(0)
            spread = self.targets.var(0)
            explained = 1 - errors[spread > 0] / spread[spread > 0]
            return {"rmse": float(np.sqrt(errors).mean()), "r2": float(explained.mean()) if len(explained) else 0.0}
        loss = float(per_image_losses(self.predictions, self.targets, self.labels.kind).mean())
        if self.labels.kind == "one":
            return {"top1": float((self.predictions.argmax(1) == self.targets.argmax(1)).mean()), "loss": loss}
        return {
            "mean_average_precision": _mean_average_precision(self.predictions, self.targets),
            "labels_right": float(((self.predictions >= 0.5) == (self.targets > 0.5)).mean()),
            "loss": loss,
        }

    def write(self, path: Path) -> None:
        """``id,label,fold`` and a column a class: probabilities of seven digits. Several labels have | between them."""
        with (
            atomic_write(path) as beside,
            beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            write = csv.writer(file, lineterminator="\n").writerow
            write((*OOF_COLUMNS, *self.labels.names))
            for name, fold, wanted, row in zip(self.ids, self.folds, self.targets, self.predictions, strict=True):
                write((name, self._format_target(wanted), fold, *(f"{value:.7g}" for value in row)))

    def _format_target(self, wanted: NDArray[np.float64]) -> str:
        if self.labels.kind == "value":
            return "|".join(f"{value:.7g}" for value in wanted)
        return "|".join(self.labels.names[place] for place in np.flatnonzero(wanted))

    @classmethod
    def read(cls, path: str | Path, kind: str = "one") -> OutOfFold:
        """What `write` has written of labels of this ``kind``. Raises ``ValueError`` where it is no such table."""
        with Path(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        if tuple(head[:3]) != OOF_COLUMNS or len(head) < 4 or not rows or any(len(row) != len(head) for row in rows):
            raise ValueError(
                f"{path} holds no out-of-fold predictions: its columns must be id,label,fold and the classes"
            )
        labels = Labels(tuple(head[3:]), kind)
        place = {name: index for index, name in enumerate(labels.names)}
        wanted = np.zeros((len(rows), len(place)))
        try:
            for at, row in enumerate(rows):
                if kind == "value":
                    wanted[at] = [float(part) for part in row[1].split("|")]
                else:
                    whole = kind == "one" or row[1] in place
                    wanted[at, [place[name] for name in ([row[1]] if whole else filter(None, row[1].split("|")))]] = 1
            answers = np.array([[float(cell) for cell in row[3:]] for row in rows])
            folds = np.array([int(row[2]) for row in rows], np.int64)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged, or its labels are not of the kind {kind!r}: {error}") from None
        return cls(labels, tuple(row[0] for row in rows), folds, wanted, answers)


def per_image_losses(predictions: NDArray[np.float64], targets: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """What is to be small, of each picture: float64 (N,).

    "one": −log p of the right class; "any": the mean over the classes of −log p of what is true; "value": the mean
    squared error in units of each value's variance.
    """
    if kind == "value":
        variance = targets.var(0)
        return np.asarray(((predictions - targets) ** 2 / np.where(variance > 0, variance, 1)).mean(1))
    right = (
        (predictions * targets).sum(1, keepdims=True)
        if kind == "one"
        else np.where(targets > 0.5, predictions, 1 - predictions)
    )
    return np.asarray(-np.log(np.clip(right, MIN_PROBABILITY, 1)).mean(1))


def _mean_average_precision(predictions: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    from sklearn.metrics import average_precision_score

    scores = [
        average_precision_score(right, shares)
        for right, shares in zip(targets.T, predictions.T, strict=True)
        if right.any()
    ]
    return float(np.mean(scores)) if scores else 0.0
