"""Out-of-fold predictions: each image predicted by the network that was not trained on it, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.csv_files import csv_writer, read_rows
from effnet.metadata import Labels
from effnet.tasks import task_of

OOF_COLUMNS = ("id", "label", "fold")  # followed by one column per class


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions for N images."""

    labels: Labels
    ids: tuple[str, ...]
    folds: NDArray[np.int64]  # (N,), the fold whose network predicted the image
    targets: NDArray[np.float64]  # (N, classes), the target matrix (see `effnet.tasks.Task`)
    predictions: NDArray[np.float64]  # (N, classes), probabilities or values

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "OutOfFold":
        """Return those images, in that order."""
        rows = np.asarray(rows, np.int64)
        ids = tuple(self.ids[row] for row in rows)
        return OutOfFold(self.labels, ids, self.folds[rows], self.targets[rows], self.predictions[rows])

    def metrics(self) -> dict[str, float]:
        """Return the metrics of `effnet.tasks.Task.score_metrics`, such as ``{"top1": 0.91, "loss": 0.3}``."""
        return task_of(self.labels.task).score_metrics(self.predictions, self.targets)

    def write(self, path: Path) -> None:
        """Write a CSV: ``id,label,fold`` and a column per class. Several labels of an image are separated by ``|``."""
        with (
            atomic_write(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            write_row = csv_writer(file)
            write_row((*OOF_COLUMNS, *self.labels.names))
            for name, fold, target, row in zip(self.ids, self.folds, self.targets, self.predictions, strict=True):
                labels = [f"{value:.7g}" for value in target]
                if task_of(self.labels.task).has_probabilities:
                    labels = [self.labels.names[index] for index in np.flatnonzero(target)]
                write_row((name, "|".join(labels), fold, *(f"{value:.7g}" for value in row)))

    @classmethod
    def read(cls, path: str | Path, task: str = "classification") -> "OutOfFold":
        """Read what `write` has written; raise ``ValueError`` if the file is no such table."""
        with Path(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            head, *rows = read_rows(file) or [[]]
        if tuple(head[:3]) != OOF_COLUMNS or len(head) < 4 or not rows or any(len(row) != len(head) for row in rows):
            raise ValueError(
                f"{path} has no out-of-fold predictions: its columns must be id,label,fold and the classes"
            )
        labels = Labels(tuple(head[3:]), task)
        index_of = {name: index for index, name in enumerate(labels.names)}
        try:
            targets = np.array([_parse_target(row[1], task, index_of) for row in rows])
            predictions = np.array([[float(cell) for cell in row[3:]] for row in rows])
            folds = np.array([int(row[2]) for row in rows], np.int64)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged, or is not of the task {task}: {error}") from None
        return cls(labels, tuple(row[0] for row in rows), folds, targets, predictions)


def _parse_target(cell: str, task: str, index_of: dict[str, int]) -> NDArray[np.float64]:
    target = np.zeros(len(index_of))
    if not task_of(task).has_probabilities:
        target[:] = [float(value) for value in cell.split("|")]
        return target
    one_name = task == "classification" or cell in index_of  # a name may have a bar in it
    target[[index_of[name] for name in ([cell] if one_name else filter(None, cell.split("|")))]] = 1
    return target
