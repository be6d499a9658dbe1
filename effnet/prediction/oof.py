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
from effnet.tasks import task_of

OOF_COLUMNS = ("id", "label", "fold")  # then one a class


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
        """Return the metrics of `effnet.tasks.Task.score_metrics`, such as ``{"top1": 0.91, "loss": 0.3}``."""
        return task_of(self.labels.task).score_metrics(self.predictions, self.targets)

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
        if self.labels.task == "regression":
            return "|".join(f"{value:.7g}" for value in wanted)
        return "|".join(self.labels.names[place] for place in np.flatnonzero(wanted))

    @classmethod
    def read(cls, path: str | Path, task: str = "classification") -> OutOfFold:
        """What `write` has written of labels of this ``kind``. Raises ``ValueError`` where it is no such table."""
        with Path(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        if tuple(head[:3]) != OOF_COLUMNS or len(head) < 4 or not rows or any(len(row) != len(head) for row in rows):
            raise ValueError(
                f"{path} holds no out-of-fold predictions: its columns must be id,label,fold and the classes"
            )
        labels = Labels(tuple(head[3:]), task)
        place = {name: index for index, name in enumerate(labels.names)}
        wanted = np.zeros((len(rows), len(place)))
        try:
            for at, row in enumerate(rows):
                if task == "regression":
                    wanted[at] = [float(part) for part in row[1].split("|")]
                else:
                    whole = task == "classification" or row[1] in place
                    wanted[at, [place[name] for name in ([row[1]] if whole else filter(None, row[1].split("|")))]] = 1
            answers = np.array([[float(cell) for cell in row[3:]] for row in rows])
            folds = np.array([int(row[2]) for row in rows], np.int64)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged, or its labels are not of the kind {task!r}: {error}") from None
        return cls(labels, tuple(row[0] for row in rows), folds, wanted, answers)
