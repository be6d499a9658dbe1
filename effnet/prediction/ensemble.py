"""Ensembles: the weighted mean of several models' scores, and weights fitted on out-of-fold predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path

import numpy as np

from effnet.arch.serde import check_int, read_json_object
from effnet.data.image_io import ImageError, ImageSource, InputImage
from effnet.metadata import Labels, Preprocess
from effnet.prediction import batched_inference, predictor
from effnet.prediction.out_of_fold import OutOfFold
from effnet.tasks import MIN_WRITTEN_PROBABILITY, Float64Array, Task, task_of

FOLDS_FILE = "folds.json"  # in the directory of a finished cross-validation run; names its models

_IMAGES_PER_CHUNK = 128  # decoded together where members need different preprocessing


class Ensemble:
    """Several models that predict together; used like `Predictor`, but without embeddings.

    The scores are the weighted mean of the members' scores, in the order of the first member's labels. An image is
    decoded once for all members of the same preprocessing.

    Args:
        members: Weights files, model names, run directories or `Predictor` objects. The directory of a
            cross-validation run counts as one member, however many folds it has.
        weights: One weight per member; default: equal.
        make_predictor: Makes a predictor of weights.

    Raises:
        ValueError: If the members' labels differ or the number of weights is wrong, and as `Predictor` does.

    Example:
        >>> effnet.Ensemble(["runs/a", "runs/b/model.safetensors"])(["cat.jpg"])[0].label
        'cat'
    """

    def __init__(
        self,
        members: Sequence[str | Path | predictor.Predictor],
        weights: Sequence[float] | None = None,
        make_predictor: Callable[[str | Path], predictor.Predictor] = predictor.Predictor,
    ) -> None:
        self.members: list[predictor.Predictor] = []
        self.weights: list[float] = []  # one per predictor, sum 1
        for member, weight in zip(members, _normalize_weights(len(members), weights), strict=True):
            if isinstance(member, predictor.Predictor):
                predictors = [member]
            else:
                predictors = [make_predictor(model) for model in member_models(member)]
            self.members += predictors
            self.weights += [weight / len(predictors)] * len(predictors)
        first = self.members[0]
        self.labels: Labels = first.labels
        self.classes, self.preprocess = first.classes, first.preprocess
        self._columns = [_output_columns(first, member) for member in self.members]

    def __call__(self, images: ImageSource | Iterable[ImageSource], top: int = 5) -> list[predictor.Prediction]:
        """Predict paths, PIL images, contents of image files or uint8 arrays (H, W, 3), in order."""
        return list(self.stream(predictor.name_images(images), top))

    def stream(self, named_images: batched_inference.NamedImages, top: int = 5) -> Iterator[predictor.Prediction]:
        """Predict (name, image) pairs one by one, any number of them in bounded memory."""
        check_int("top", top, 1)
        return predictor.to_predictions(self.predict_scores(named_images), self.labels, top)

    def predict_scores(
        self, named_images: batched_inference.NamedImages
    ) -> Iterator[tuple[str, Float64Array | ImageError]]:
        """Yield (name, float64 (classes,)) for (name, image) pairs: probabilities, or values."""
        groups: dict[Preprocess, list[int]] = {}
        for index, member in enumerate(self.members):
            if self.weights[index]:
                groups.setdefault(member.input_preprocess, []).append(index)
        if len(groups) == 1:
            ((preprocess, indices),) = groups.items()
            yield from self._weighted_scores(indices, preprocess, named_images)
            return
        remaining = iter(named_images)
        while chunk := list(islice(remaining, _IMAGES_PER_CHUNK)):
            by_group = [self._weighted_scores(indices, preprocess, chunk) for preprocess, indices in groups.items()]
            for rows in zip(*by_group, strict=True):
                error = next((row for _, row in rows if isinstance(row, ImageError)), None)
                yield rows[0][0], error or sum((row for _, row in rows), np.zeros(self.classes))

    def cache_engine_file(self) -> None:
        """Export each network into the engine cache, so that the next start does not need PyTorch."""
        for member in self.members:
            member.cache_engine_file()

    def _weighted_scores(
        self, indices: Sequence[int], preprocess: Preprocess, named_images: batched_inference.NamedImages
    ) -> Iterator[tuple[str, Float64Array | ImageError]]:
        """Yield the part of the scores that comes from these members, all of the same preprocessing."""

        def compute(images: InputImage) -> Float64Array:
            total = np.zeros((len(images), self.classes))
            for index in indices:
                total += self.weights[index] * self.members[index].compute(images)[:, self._columns[index]]
            return total

        return batched_inference.run_batches(
            compute, named_images, preprocess, lambda: self.members[indices[0]].batch_size
        )


def member_models(member: str | Path) -> list[str | Path]:
    """Return the models of a finished cross-validation run if ``member`` is its directory, else ``member`` itself."""
    folder = Path(member)
    if not (folder / FOLDS_FILE).is_file():
        if (folder / "folds.csv").is_file():
            raise ValueError(f"{member} is an unfinished cross-validation run: finish it with --resume")
        return [member]
    return read_json_object(folder / FOLDS_FILE, lambda record: [folder / name for name in record["models"]])


def _normalize_weights(count: int, weights: Sequence[float] | None) -> list[float]:
    if not count:
        raise ValueError("an ensemble needs at least one model")
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise ValueError(f"there are {count} members and {len(weights)} weights: give one weight per member")
    if not all(isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise ValueError(f"weights must be at least 0, and not all of them 0, got {weights}")
    return [weight / sum(weights) for weight in weights]


def _output_columns(first: predictor.Predictor, member: predictor.Predictor) -> list[int]:
    """Return the outputs of ``member`` in the order of the first member's labels."""
    ours, theirs = first.labels, member.labels
    if (len(ours.names), first.classes, ours.task) != (len(theirs.names), member.classes, theirs.task):
        raise ValueError(
            f"the members of an ensemble must have the same labels: the first has {first.classes} ({ours.task})"
            f", another {member.classes} ({theirs.task})"
        )
    unknown = [name for name in ours.names if name not in theirs.names]
    if unknown:
        raise ValueError(f"the members of an ensemble must have the same labels: one of them has no {unknown[0]!r}")
    column = {name: index for index, name in enumerate(theirs.names)}
    return [column[name] for name in ours.names] if ours.names else list(range(first.classes))


@dataclass(frozen=True)
class EnsembleWeights:
    """Weights of an ensemble's members, and how they were chosen."""

    weights: tuple[float, ...]  # to use, sum 1: the fitted ones if `gain` exceeds `noise_level`, else equal ones
    fitted: tuple[float, ...]  # of the lowest loss on all images
    member_losses: tuple[float, ...]  # of each model alone, see `effnet.tasks.Task.term_losses`
    equal_loss: float
    fitted_loss: float  # on the images that the weights were fitted on, so biased downwards
    gain: float  # by how much fitted weights lower the loss of equal ones, on images they were not fitted on
    noise_level: float  # two standard errors of `gain`
    images: int

    @property
    def uses_fitted(self) -> bool:
        """Whether the fitted weights are used."""
        return self.gain > self.noise_level

    def summary(self) -> str:
        """Return one line for people."""
        weights = ", ".join(f"{weight:.2f}" for weight in self.fitted)
        return (
            f"using {'fitted' if self.uses_fitted else 'equal'} weights: on {self.images} out-of-fold images, weights "
            f"of {weights} change the loss of equal weights, {self.equal_loss:.4f}, by {-self.gain:+.4f} (noise level "
            f"{self.noise_level:.4f}, on held-out folds); the best model alone has {min(self.member_losses):.4f}"
        )


def fit_ensemble_weights(members: Sequence[str | Path]) -> EnsembleWeights:
    """Fit the weights of finished cross-validation runs, given by their directories, by `fit_weights_on_oof`."""
    oof = []
    for member in members:
        record = Path(member, FOLDS_FILE)
        if not record.is_file():
            raise ValueError(
                f"{member} is no finished cross-validation run, so it has no out-of-fold predictions to fit weights on"
            )
        task = read_json_object(record, lambda content: str(content["task"]))
        oof.append(OutOfFold.read(Path(member, "oof.csv"), task))
    return fit_weights_on_oof(oof)


def fit_weights_on_oof(oof: Sequence[OutOfFold]) -> EnsembleWeights:
    """Fit the weights of the models that made ``oof`` on the same images: non-negative, sum 1, lowest loss.

    The problem is convex and solved by SLSQP. Fitted weights are compared with equal ones on images that they were not
    fitted on, fold by fold; equal weights are used where the difference may be noise, as with few images or similar
    models. Raises ``ValueError`` if images, their labels or the classes differ.
    """
    first, *_ = aligned = _align(oof)
    task = task_of(first.labels.task)
    terms = task.loss_terms(np.stack([each.predictions for each in aligned]), first.targets)  # (models, N, terms)
    count = len(aligned)

    def losses(weights: Float64Array, terms: Float64Array) -> Float64Array:
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


def _minimize_loss(terms: Float64Array, task: Task) -> Float64Array:
    from scipy.optimize import minimize

    count = len(terms)
    flat = terms.reshape(count, -1)

    def loss_and_gradient(weights: Float64Array) -> tuple[float, Float64Array]:
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
    """Return all with the images and classes in the order of the first."""
    if len(oof) < 2:
        raise ValueError("weights are fitted between several models: give at least two")
    first = oof[0]
    aligned = [first]
    for number, other in enumerate(oof[1:], start=2):
        if (set(other.labels.names), other.labels.task) != (set(first.labels.names), first.labels.task):
            raise ValueError(f"out-of-fold predictions {number} have other classes than the first")
        if set(other.ids) != set(first.ids) or len(other) != len(first):
            raise ValueError(f"out-of-fold predictions {number} are not of the same images: train on the same data")
        row_of = {name: row for row, name in enumerate(other.ids)}
        rows = other.take([row_of[name] for name in first.ids])
        columns = [other.labels.names.index(name) for name in first.labels.names]
        moved = OutOfFold(first.labels, rows.ids, rows.folds, rows.targets[:, columns], rows.predictions[:, columns])
        if not np.allclose(moved.targets, first.targets, rtol=1e-5):
            raise ValueError(f"out-of-fold predictions {number} have other labels for the same images")
        aligned.append(moved)
    return aligned
