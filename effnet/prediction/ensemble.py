"""How much each of several models should count in an ensemble, found on out-of-fold predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import check_int
from effnet.data.image_io import ImageError, ImageSource, InputImage
from effnet.metadata import Labels, Preprocess
from effnet.prediction.oof import OutOfFold
from effnet.prediction.pipeline import run_batches
from effnet.prediction.predictor import Prediction, Predictor, name_images, to_prediction
from effnet.tasks import MIN_WRITTEN_PROBABILITY, Task, task_of


@dataclass(frozen=True)
class EnsembleWeights:
    """``weights`` (sum 1) to use, and what led to them.

    ``fitted``: the weights of the least loss on all pictures. ``gain``: by how much they beat equal weights on pictures
    that they were not fitted on, ± ``chance`` (two standard errors). They are used only where that is more than chance.
    Losses are as `effnet.prediction.oof.losses` has them.
    """

    weights: tuple[float, ...]
    fitted: tuple[float, ...]
    member_losses: tuple[float, ...]  # each model's own loss
    equal_loss: float
    fitted_loss: float  # on the very pictures that they were fitted on: better than it is
    gain: float
    noise_level: float
    images: int

    @property
    def uses_fitted(self) -> bool:
        """Whether the fitted weights are used."""
        return self.gain > self.noise_level

    def summary(self) -> str:
        """One line for a person."""
        told = ", ".join(f"{weight:.2f}" for weight in self.fitted)
        why = (
            f"on {self.images} out-of-fold pictures, fitted on some and judged on others, weights of {told} change "
            f"the loss of equal ones, {self.equal_loss:.4f}, by {-self.gain:+.4f} (up to {self.noise_level:.4f} may be "
            f"chance); the best model alone has {min(self.member_losses):.4f}"
        )
        return f"{'fitted' if self.uses_fitted else 'equal'} weights are used: {why}"


def fit_weights_on_oof(oof: Sequence[OutOfFold]) -> EnsembleWeights:
    """The weights of the models that made ``oof``, on the same pictures: at least 0, 1 in sum, of the least loss.

    The problem is convex, and solved by SLSQP. Whether they are better than equal ones is asked of pictures that they
    were not fitted on, fold by fold; where that may be chance, as with few pictures or models that are alike, equal
    ones are used. Raises ``ValueError`` where pictures, their labels or the classes differ.
    """
    first, *_ = aligned = _align(oof)
    task = task_of(first.labels.task)
    terms = task.loss_terms(np.stack([each.predictions for each in aligned]), first.targets)  # (models, N, terms)
    count = len(aligned)

    def losses(weights: NDArray[np.float64], terms: NDArray[np.float64]) -> NDArray[np.float64]:
        return task.term_losses(np.tensordot(weights, terms, 1))  # (N,)

    fitted = _minimize_loss(terms, task)
    equal_losses = losses(np.full(count, 1 / count), terms)
    held_out_losses = equal_losses.copy()
    folds = sorted(set(first.folds.tolist()))
    for fold in folds if len(folds) > 1 else ():
        held_out = first.folds == fold
        held_out_losses[held_out] = losses(_minimize_loss(terms[:, ~held_out], task), terms[:, held_out])
    gains = equal_losses - held_out_losses
    noise_level = 2 * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    gain = float(gains.mean())
    used = fitted if gain > noise_level else np.full(count, 1 / count)
    return EnsembleWeights(
        tuple(used.tolist()),
        tuple(fitted.tolist()),
        tuple(float(losses(alone, terms).mean()) for alone in np.eye(count)),
        float(equal_losses.mean()),
        float(losses(fitted, terms).mean()),
        gain,
        float(noise_level),
        len(first),
    )


def _minimize_loss(terms: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Return the weights (models,) of the lowest mean loss."""
    from scipy.optimize import minimize

    count = len(terms)
    flat = terms.reshape(count, -1)

    def loss_and_gradient(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = weights @ flat
        if not task.has_probabilities:
            return float((mixed**2).mean()), 2 * flat @ mixed / flat.shape[1]
        mixed = np.maximum(mixed, MIN_WRITTEN_PROBABILITY)
        return float(-np.log(mixed).mean()), -(flat / mixed).mean(1)

    found = minimize(
        loss_and_gradient,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.clip(found.x, 0, None)
    return np.asarray(weights / weights.sum())


def _align(oof: Sequence[OutOfFold]) -> list[OutOfFold]:
    """All with the pictures and classes in the order of the first."""
    if len(oof) < 2:
        raise ValueError("weights are fitted between several models: give at least two")
    first = oof[0]
    found = [first]
    for number, other in enumerate(oof[1:], start=2):
        if (set(other.labels.names), other.labels.task) != (set(first.labels.names), first.labels.task):
            raise ValueError(f"the out-of-fold predictions number {number} are of other classes than the first")
        if set(other.ids) != set(first.ids) or len(other) != len(first):
            raise ValueError(
                f"the out-of-fold predictions number {number} are of other pictures than the first: train both on the "
                "same data"
            )
        place = {name: row for row, name in enumerate(other.ids)}
        rows = other.take([place[name] for name in first.ids])
        columns = [other.labels.names.index(name) for name in first.labels.names]
        moved = OutOfFold(first.labels, rows.ids, rows.folds, rows.targets[:, columns], rows.predictions[:, columns])
        if not np.allclose(moved.targets, first.targets, rtol=1e-5):
            raise ValueError(f"the out-of-fold predictions number {number} have other labels for the same pictures")
        found.append(moved)
    return found


# Several models that answer as one: the weighted mean of their probabilities.


FOLDS_FILE = "folds.json"  # what a run of folds leaves in its folder, with the names of its models


_IMAGES_PER_CHUNK = 128  # pictures that are prepared anew for each way of preparing them


NamedImages = Iterable[tuple[str, ImageSource | ImageError]]


def member_models(member: str | Path) -> list[str | Path]:
    """The models that ``member`` stands for: those of a run of folds, whose folder it may be, or else itself.

    Raises ``ValueError`` for a run of folds that is not finished.
    """
    folder = Path(member)
    if not (folder / FOLDS_FILE).is_file():
        if (folder / "folds.csv").is_file():
            raise ValueError(f"{member} is a run of folds that is not finished: go on with it by --resume")
        return [member]
    return [folder / name for name in json.loads((folder / FOLDS_FILE).read_text("utf-8"))["models"]]


def fit_ensemble_weights(members: Sequence[str | Path]) -> EnsembleWeights:
    """The weights of runs of folds by their out-of-fold predictions (see `fit_weights`).

    Raises ``ValueError`` where one is no such run, and as `fit_weights` does.
    """
    found = []
    for member in members:
        record = Path(member, FOLDS_FILE)
        if not record.is_file():
            raise ValueError(
                f"{member} has no out-of-fold predictions to fit weights on: it is no finished run of folds"
            )
        found.append(OutOfFold.read(Path(member, "oof.csv"), json.loads(record.read_text("utf-8"))["task"]))
    return fit_weights_on_oof(found)


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
        make_predictor: Callable[[str | Path], Predictor] = Predictor,
    ) -> None:
        shares = _normalize_weights(len(members), weights)
        self.members: list[Predictor] = []
        self.weights: list[float] = []  # of each of `members`, 1 in sum
        for member, share in zip(members, shares, strict=True):
            parts = [member] if isinstance(member, Predictor) else member_models(member)
            self.members += (part if isinstance(part, Predictor) else make_predictor(part) for part in parts)
            self.weights += [share / len(parts)] * len(parts)
        first = self.members[0]
        self.labels: Labels = first.labels
        self.classes, self.preprocess = first.classes, first.preprocess
        self._columns = [_output_columns(first, member) for member in self.members]

    def __call__(self, images: ImageSource | Iterable[ImageSource], top: int = 5) -> list[Prediction]:
        """The predictions of paths, PIL images, files' bytes or uint8 arrays (H, W, 3), in order."""
        return list(self.stream(name_images(images), top))

    def stream(self, named_images: NamedImages, top: int = 5) -> Iterator[Prediction]:
        """The same one by one, of (name, picture) pairs, for as many as there are: memory stays bounded."""
        check_int("top", top, 1)
        for name, row in self.predict_scores(named_images):
            if isinstance(row, ImageError):
                yield Prediction(name, error=str(row))
            else:
                yield to_prediction(name, task_of(self.labels.task).top_k(row[None], top)[0], self.labels)

    def predict_scores(self, named_images: NamedImages) -> Iterator[tuple[str, NDArray[np.float64] | ImageError]]:
        """(name, float64 (classes,)) of (name, picture) pairs: the members' mean, by their weights."""
        alike: dict[Preprocess, list[int]] = {}
        for number, member in enumerate(self.members):
            if self.weights[number]:
                alike.setdefault(member.tta_preprocess, []).append(number)
        if len(alike) == 1:
            ((preprocess, numbers),) = alike.items()
            yield from self._weighted_scores(numbers, preprocess, named_images)
            return
        coming = iter(named_images)
        while chunk := list(islice(coming, _IMAGES_PER_CHUNK)):
            found = [self._weighted_scores(numbers, preprocess, chunk) for preprocess, numbers in alike.items()]
            for rows in zip(*found, strict=True):
                summed = np.zeros(self.classes)
                error = next((row for _, row in rows if isinstance(row, ImageError)), None)
                for _, row in rows if error is None else ():
                    summed += row
                yield rows[0][0], error or summed

    def cache_for_engines(self) -> None:
        """Leaves a file of each network for engines, so that the next start needs no PyTorch."""
        for member in self.members:
            member.cache_for_engines()

    def _weighted_scores(
        self, numbers: Sequence[int], preprocess: Preprocess, named_images: NamedImages
    ) -> Iterator[tuple[str, NDArray[np.float64] | ImageError]]:
        """What the members of these ``numbers``, who see pictures alike, add to the answers."""

        def compute(pictures: InputImage) -> NDArray[np.float64]:
            found = np.zeros((len(pictures), self.classes))
            for number in numbers:
                answers = self.members[number].compute(pictures)
                found += self.weights[number] * answers[:, self._columns[number]]
            return found

        return run_batches(compute, named_images, preprocess, lambda: self.members[numbers[0]].batch_size)


def _normalize_weights(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights with a sum of 1."""
    if not count:
        raise ValueError("an ensemble needs at least one model")
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise ValueError(f"there are {count} members and {len(given)} weights: give one weight a member")
    if not all(isfinite(weight) and weight >= 0 for weight in given) or not sum(given):
        raise ValueError(f"weights must be at least 0, and not all of them 0, got {given}")
    return [weight / sum(given) for weight in given]


def _output_columns(first: Predictor, member: Predictor) -> list[int]:
    """The outputs of ``member`` in the order of the first one's labels."""
    ours, theirs = first.labels, member.labels
    if (len(ours.names), first.classes, ours.task) != (len(theirs.names), member.classes, theirs.task):
        raise ValueError(
            f"the members of an ensemble must have the same labels: the first has {first.classes} (kind {ours.task!r})"
            f", another {member.classes} (kind {theirs.task!r})"
        )
    unknown = [name for name in ours.names if name not in theirs.names]
    if unknown:
        raise ValueError(f"the members of an ensemble must have the same labels: one of them has no {unknown[0]!r}")
    place = {name: index for index, name in enumerate(theirs.names)}
    return [place[name] for name in ours.names] if ours.names else list(range(first.classes))
