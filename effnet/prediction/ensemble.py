"""Several models that answer as one: the weighted mean of their probabilities."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import whole
from effnet.contract import Labels, Preprocess
from effnet.data.pixels import Fitted, PictureError, Source
from effnet.prediction.oof import OutOfFold
from effnet.prediction.pipeline import outputs
from effnet.prediction.prediction import Prediction, likeliest, told
from effnet.prediction.predictor import Predictor, named_sources
from effnet.prediction.weighing import Weighing, fit_weights

FOLDS = "folds.json"  # what a run of folds leaves in its folder, with the names of its models
_CHUNK = 128  # pictures that are prepared anew for each way of preparing them

Named = Iterable[tuple[str, Source | PictureError]]


def models_of(member: str | Path) -> list[str | Path]:
    """The models that ``member`` stands for: those of a run of folds, whose folder it may be, or else itself.

    Raises ``ValueError`` for a run of folds that is not finished.
    """
    folder = Path(member)
    if not (folder / FOLDS).is_file():
        if (folder / "folds.csv").is_file():
            raise ValueError(f"{member} is a run of folds that is not finished: go on with it by --resume")
        return [member]
    return [folder / name for name in json.loads((folder / FOLDS).read_text("utf-8"))["models"]]


def weigh(members: Sequence[str | Path]) -> Weighing:
    """The weights of runs of folds by their out-of-fold predictions (see `fit_weights`).

    Raises ``ValueError`` where one is no such run, and as `fit_weights` does.
    """
    found = []
    for member in members:
        record = Path(member, FOLDS)
        if not record.is_file():
            raise ValueError(
                f"{member} has no out-of-fold predictions to fit weights on: it is no finished run of folds"
            )
        found.append(OutOfFold.read(Path(member, "oof.csv"), json.loads(record.read_text("utf-8"))["kind"]))
    return fit_weights(found)


class Ensemble:
    """``Ensemble(["runs/a", "runs/b/model.safetensors"])(["cat.jpg"])``: as `Predictor`, but for embeddings.

    Each member is a file or name of weights, the folder of a run or of a run of folds, which counts as one whatever
    its folds, or a `Predictor`. ``weights``: how much each counts, equally unless said. ``make`` makes a predictor of
    weights. A picture is decoded once for all members that see it alike. Answers are in the first member's order of
    labels. Raises ``ValueError`` where the members' labels differ or weights are not one a member, and what `Predictor`
    raises.
    """

    def __init__(
        self,
        members: Sequence[str | Path | Predictor],
        weights: Sequence[float] | None = None,
        make: Callable[[str | Path], Predictor] = Predictor,
    ) -> None:
        shares = _shares(len(members), weights)
        self.members: list[Predictor] = []
        self.weights: list[float] = []  # of each of `members`, 1 in sum
        for member, share in zip(members, shares, strict=True):
            parts = [member] if isinstance(member, Predictor) else models_of(member)
            self.members += (part if isinstance(part, Predictor) else make(part) for part in parts)
            self.weights += [share / len(parts)] * len(parts)
        first = self.members[0]
        self.labels: Labels = first.labels
        self.classes, self.preprocess = first.classes, first.preprocess
        self._columns = [_columns(first, member) for member in self.members]

    def __call__(self, pictures: Source | Iterable[Source], top: int = 5) -> list[Prediction]:
        """The predictions of paths, PIL images, files' bytes or uint8 arrays (H, W, 3), in order."""
        return list(self.stream(named_sources(pictures), top))

    def stream(self, named: Named, top: int = 5) -> Iterator[Prediction]:
        """The same one by one, of (name, picture) pairs, for as many as there are: memory stays bounded."""
        whole("top", top, 1)
        for name, row in self.answers(named):
            if isinstance(row, PictureError):
                yield Prediction(name, error=str(row))
            else:
                yield told(name, likeliest(row[None], self.labels.kind, top)[0], self.labels)

    def answers(self, named: Named) -> Iterator[tuple[str, NDArray[np.float64] | PictureError]]:
        """(name, float64 (classes,)) of (name, picture) pairs: the members' mean, by their weights."""
        alike: dict[Preprocess, list[int]] = {}
        for number, member in enumerate(self.members):
            if self.weights[number]:
                alike.setdefault(member.prepared, []).append(number)
        if len(alike) == 1:
            ((preprocess, numbers),) = alike.items()
            yield from self._of(numbers, preprocess, named)
            return
        coming = iter(named)
        while chunk := list(islice(coming, _CHUNK)):
            found = [self._of(numbers, preprocess, chunk) for preprocess, numbers in alike.items()]
            for rows in zip(*found, strict=True):
                summed = np.zeros(self.classes)
                error = next((row for _, row in rows if isinstance(row, PictureError)), None)
                for _, row in rows if error is None else ():
                    summed += row
                yield rows[0][0], error or summed

    def keep(self) -> None:
        """Leaves a file of each network for engines, so that the next start needs no PyTorch."""
        for member in self.members:
            member.keep()

    def _of(
        self, numbers: Sequence[int], preprocess: Preprocess, named: Named
    ) -> Iterator[tuple[str, NDArray[np.float64] | PictureError]]:
        """What the members of these ``numbers``, who see pictures alike, add to the answers."""

        def compute(pictures: Fitted) -> NDArray[np.float64]:
            found = np.zeros((len(pictures), self.classes))
            for number in numbers:
                answers = self.members[number].compute(pictures)
                found += self.weights[number] * answers[:, self._columns[number]]
            return found

        return outputs(compute, named, preprocess, lambda: self.members[numbers[0]].batch)


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights with a sum of 1."""
    if not count:
        raise ValueError("an ensemble needs at least one model")
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise ValueError(f"there are {count} members and {len(given)} weights: give one weight a member")
    if not all(isfinite(weight) and weight >= 0 for weight in given) or not sum(given):
        raise ValueError(f"weights must be at least 0, and not all of them 0, got {given}")
    return [weight / sum(given) for weight in given]


def _columns(first: Predictor, member: Predictor) -> list[int]:
    """The outputs of ``member`` in the order of the first one's labels."""
    ours, theirs = first.labels, member.labels
    if (len(ours.names), first.classes, ours.kind) != (len(theirs.names), member.classes, theirs.kind):
        raise ValueError(
            f"the members of an ensemble must have the same labels: the first has {first.classes} (kind {ours.kind!r})"
            f", another {member.classes} (kind {theirs.kind!r})"
        )
    unknown = [name for name in ours.names if name not in theirs.names]
    if unknown:
        raise ValueError(f"the members of an ensemble must have the same labels: one of them has no {unknown[0]!r}")
    place = {name: index for index, name in enumerate(theirs.names)}
    return [place[name] for name in ours.names] if ours.names else list(range(first.classes))
