"""A learning rate from one short sweep: it rises batch by batch until training falls apart (arXiv:1506.01186).

The rate to begin with is a tenth of that at which the smoothed loss is lowest: from there on it would rise again, and
a whole run needs more room below that edge than a hundred batches show. The place of the steepest fall is read from
such curves too; it lies closer to the edge, and is a slope of noisy numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import check_float, check_int
from effnet.draw.training_plots import plot_lr_finder as drawn

MIN_BATCHES = 10  # batches, of which a curve can be told
SUGGESTED_FRACTION = 0.1  # of the rate at which the loss is lowest
DIVERGENCE_FACTOR = 4.0  # times the lowest loss: training has fallen apart


@dataclass(frozen=True)
class LRSweep:
    """A sweep: the loss of the batch at each of the rising ``rates``, and the ``rate`` that it suggests."""

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float

    def to_svg(self) -> str:
        """The curve as SVG text."""
        title = f"Loss over the learning rate: {self.suggested:.2g} is a tenth of where it is lowest"
        return drawn(self.learning_rates, self.losses, smooth_losses(self.losses).tolist(), title, self.suggested).svg


class LRFinderError(ValueError):
    """Nothing can be told from the sweep; ``rates`` and ``losses`` are what it saw."""

    def __init__(self, message: str, learning_rates: tuple[float, ...], losses: tuple[float, ...]) -> None:
        super().__init__(message)
        self.learning_rates, self.losses = learning_rates, losses


def find_learning_rate(
    step: Callable[[float], float], lowest: float = 1e-6, highest: float = 1.0, batches: int = 100
) -> LRSweep:
    """The rate at which to begin: ``step(rate)`` trains one more batch at ``rate`` and returns the batch's loss.

    What ``step`` trains should be a copy: it ends in ruins. The rate rises by the same factor each time, from
    ``lowest`` to ``highest`` or to where the loss is four times the lowest or no number. Raises `Unclear`, a
    ``ValueError``, where the losses do not say.
    """
    check_float("lowest", lowest, 0, exclusive=True)
    check_float("highest", highest, lowest, exclusive=True)
    check_int("batches", batches, 2 * MIN_BATCHES)
    rates: list[float] = []
    losses: list[float] = []
    best, fell_apart = float("inf"), False
    for rate in np.geomspace(lowest, highest, batches).tolist():
        loss = step(rate)
        if not isfinite(loss):
            fell_apart = True
            break
        rates.append(rate)
        losses.append(loss)
        if len(losses) >= MIN_BATCHES:
            recent = sum(losses[-MIN_BATCHES // 2 :]) / (MIN_BATCHES // 2)
            best = min(best, recent)
            if recent > best + (DIVERGENCE_FACTOR - 1) * abs(best):
                fell_apart = True
                break
    return LRSweep(tuple(rates), tuple(losses), _suggest(tuple(rates), tuple(losses), lowest, highest, fell_apart))


def _suggest(
    learning_rates: tuple[float, ...], losses: tuple[float, ...], lowest: float, highest: float, diverged: bool
) -> float:
    if len(losses) < MIN_BATCHES:
        raise LRFinderError(
            f"training fell apart after {len(losses)} batches, below a learning rate of {lowest:g} already: "
            "sweep from a lower rate",
            learning_rates,
            losses,
        )
    smooth = smooth_losses(losses)
    place = int(smooth.argmin())
    chance = 2 * _estimate_noise(losses) + 1e-9 * abs(float(smooth[0]))
    if smooth[0] - smooth[place] <= chance:
        raise LRFinderError(
            f"no learning rate between {lowest:g} and {learning_rates[-1]:g} made the loss fall clearly (it fell by "
            f"{smooth[0] - smooth[place]:.2g}, and {chance:.2g} may be chance): sweep over more or larger batches",
            learning_rates,
            losses,
        )
    if not diverged and smooth[-1] - smooth[place] <= chance:
        raise LRFinderError(
            f"the loss was still falling at a learning rate of {highest:g}: sweep to a higher rate",
            learning_rates,
            losses,
        )
    return SUGGESTED_FRACTION * learning_rates[place]


def smooth_losses(losses: tuple[float, ...]) -> NDArray[np.float64]:
    """Each loss averaged with those around it, so that no place is shifted: a bell as wide as a 25th of the curve."""
    places = np.arange(len(losses))
    weights = _gaussian_weights(places[:, None] - places, len(losses))
    averaged: NDArray[np.float64] = weights @ np.array(losses) / weights.sum(1)
    return averaged


def _estimate_noise(losses: tuple[float, ...]) -> float:
    """The standard error of a difference of two places of the smoothed curve.

    Read from the losses' steps from one to the next: the curve itself hardly moves in between. The median, as the
    steps are large where training falls apart.
    """
    of_one = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * 2**0.5)
    weights = _gaussian_weights(np.arange(len(losses)), len(losses))  # at the curve's end, where fewest are averaged
    return of_one * 2**0.5 * float((weights**2).sum() ** 0.5 / weights.sum())


def _gaussian_weights(distance: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    return np.exp(-0.5 * (distance / max(1.0, count / 25)) ** 2)
