"""How much each of several models should count in an ensemble, found on out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effnet.prediction.oof import LEAST, OutOfFold, losses


@dataclass(frozen=True)
class Weighing:
    """``weights`` (sum 1) to use, and what led to them.

    ``fitted``: the weights of the least loss on all pictures. ``gain``: by how much they beat equal weights on pictures
    that they were not fitted on, ± ``chance`` (two standard errors). They are used only where that is more than chance.
    Losses are as `effnet.prediction.oof.losses` has them.
    """

    weights: tuple[float, ...]
    fitted: tuple[float, ...]
    alone: tuple[float, ...]  # each model's own loss
    equal_loss: float
    fitted_loss: float  # on the very pictures that they were fitted on: better than it is
    gain: float
    chance: float
    pictures: int

    @property
    def kept(self) -> bool:
        """Whether the fitted weights are used."""
        return self.gain > self.chance

    def in_words(self) -> str:
        """One line for a person."""
        told = ", ".join(f"{weight:.2f}" for weight in self.fitted)
        why = (
            f"on {self.pictures} out-of-fold pictures, fitted on some and judged on others, weights of {told} change "
            f"the loss of equal ones, {self.equal_loss:.4f}, by {-self.gain:+.4f} (up to {self.chance:.4f} may be "
            f"chance); the best model alone has {min(self.alone):.4f}"
        )
        return f"{'fitted' if self.kept else 'equal'} weights are used: {why}"


def fit_weights(oof: Sequence[OutOfFold]) -> Weighing:
    """The weights of the models that made ``oof``, on the same pictures: at least 0, 1 in sum, of the least loss.

    The problem is convex, and solved by SLSQP. Whether they are better than equal ones is asked of pictures that they
    were not fitted on, fold by fold; where that may be chance, as with few pictures or models that are alike, equal
    ones are used. Raises ``ValueError`` where pictures, their labels or the classes differ.
    """
    first, *_ = aligned = _aligned(oof)
    answers = np.stack([each.answers for each in aligned])  # (models, N, classes)
    wanted, kind = first.wanted, first.labels.kind
    count = len(aligned)
    equal = np.full(count, 1 / count)
    if kind == "value":  # in units of all pictures' spread, whichever of them are looked at
        spread = np.where(wanted.std(0) > 0, wanted.std(0), 1)
        answers, wanted = answers / spread, wanted / spread
    fitted = _least(answers, wanted, kind)
    base = _losses(equal, answers, wanted, kind)
    unseen = base.copy()
    folds = sorted(set(first.folds.tolist()))
    for fold in folds if len(folds) > 1 else ():
        held = first.folds == fold
        weights = _least(answers[:, ~held], wanted[~held], kind)
        unseen[held] = _losses(weights, answers[:, held], wanted[held], kind)
    gained = base - unseen
    chance = 2 * gained.std(ddof=1) / len(gained) ** 0.5 if len(gained) > 1 else 0.0
    gain = float(gained.mean())
    used = fitted if gain > chance else equal
    return Weighing(
        tuple(used.tolist()),
        tuple(fitted.tolist()),
        tuple(float(_losses(one, answers, wanted, kind).mean()) for one in np.eye(count)),
        float(base.mean()),
        float(_losses(fitted, answers, wanted, kind).mean()),
        gain,
        float(chance),
        len(first),
    )


def _losses(
    weights: NDArray[np.float64], answers: NDArray[np.float64], wanted: NDArray[np.float64], kind: str
) -> NDArray[np.float64]:
    mixed = np.tensordot(weights, answers, 1)  # (N, classes)
    return np.asarray(((mixed - wanted) ** 2).mean(1)) if kind == "value" else losses(mixed, wanted, kind)


def _least(answers: NDArray[np.float64], wanted: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """The weights (models,) of the least mean loss."""
    from scipy.optimize import minimize

    count = len(answers)
    if kind == "one":  # only the right class's column matters
        shares = (answers * wanted).sum(2).reshape(count, -1)
    elif kind == "any":
        shares = np.where(wanted > 0.5, answers, 1 - answers).reshape(count, -1)
    else:
        shares = (answers - wanted).reshape(count, -1)  # errors: weights of sum 1 mix them as they mix answers

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = weights @ shares
        if kind == "value":
            return float((mixed**2).mean()), 2 * shares @ mixed / shares.shape[1]
        mixed = np.maximum(mixed, LEAST)
        return float(-np.log(mixed).mean()), -(shares / mixed).mean(1)

    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.clip(found.x, 0, None)
    return np.asarray(weights / weights.sum())


def _aligned(oof: Sequence[OutOfFold]) -> list[OutOfFold]:
    """All with the pictures and classes in the order of the first."""
    if len(oof) < 2:
        raise ValueError("weights are fitted between several models: give at least two")
    first = oof[0]
    found = [first]
    for number, other in enumerate(oof[1:], start=2):
        if (set(other.labels.names), other.labels.kind) != (set(first.labels.names), first.labels.kind):
            raise ValueError(f"the out-of-fold predictions number {number} are of other classes than the first")
        if set(other.ids) != set(first.ids) or len(other) != len(first):
            raise ValueError(
                f"the out-of-fold predictions number {number} are of other pictures than the first: train both on the "
                "same data"
            )
        place = {name: row for row, name in enumerate(other.ids)}
        rows = other.take([place[name] for name in first.ids])
        columns = [other.labels.names.index(name) for name in first.labels.names]
        moved = OutOfFold(first.labels, rows.ids, rows.folds, rows.wanted[:, columns], rows.answers[:, columns])
        if not np.allclose(moved.wanted, first.wanted, rtol=1e-5):
            raise ValueError(f"the out-of-fold predictions number {number} have other labels for the same pictures")
        found.append(moved)
    return found
