"""Learning rate finder: a sweep over rising learning rates (arXiv:1506.01186).

The suggestion is a tenth of the learning rate at which the smoothed loss is lowest: beyond, the loss rises, and a whole
run needs more distance from that edge than a hundred batches show. The point of steepest descent, which others take,
lies closer to the edge and is the slope of a noisy curve.
"""

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from math import inf, isfinite

import numpy as np
import torch

from effnet.data.loader import TrainingLoader
from effnet.draw.report_plots import plot_lr_finder
from effnet.net import EfficientNet
from effnet.tasks import Float64Array
from effnet.training import distributed, loop, recipes, schedule

BATCHES, MIN_BATCHES = 100, 10  # of a sweep, and below how many its curve says nothing
SUGGESTED_FRACTION = 0.1  # of the learning rate at which the loss is lowest
DIVERGENCE_FACTOR = 4.0  # times the lowest loss: training has diverged


@dataclass(frozen=True)
class LRSweep:
    """The batch loss at each of the rising ``learning_rates``, and the ``suggested`` one."""

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float

    def to_svg(self) -> str:
        """Return the curve as SVG."""
        title = f"Loss over the learning rate: {self.suggested:.2g} is a tenth of where it is lowest"
        smooth = smooth_losses(self.losses).tolist()
        return plot_lr_finder(self.learning_rates, self.losses, smooth, title, self.suggested).svg


def sweep_model(
    model: EfficientNet, recipe: recipes.Recipe, loss: loop.Loss, loader: TrainingLoader, device: torch.device
) -> LRSweep:
    """Find a learning rate for a copy of ``model``, for the batch size of ``recipe``; close ``loader``."""
    step = loop.TrainStep(copy.deepcopy(model), recipe, loss, distributed.SingleProcess(device))
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))

    def train_batch(learning_rate: float) -> float:
        schedule.set_learning_rate(step.optimizer, learning_rate)
        return step(*next(batches))

    with closing(loader):
        return find_learning_rate(train_batch)


def find_learning_rate(step: Callable[[float], float], lowest: float = 1e-6, highest: float = 1.0) -> LRSweep:
    """Raise the learning rate geometrically from batch to batch until the loss is NaN or four times the lowest.

    ``step(learning_rate)`` trains on one more batch and returns its loss; the network is ruined in the end. Raises
    ``ValueError`` where the losses suggest nothing.
    """
    learning_rates: list[float] = []
    losses: list[float] = []
    best, diverged = inf, True
    for learning_rate in np.geomspace(lowest, highest, BATCHES).tolist():
        loss = step(learning_rate)
        if not isfinite(loss):
            break
        learning_rates.append(learning_rate)
        losses.append(loss)
        if len(losses) >= MIN_BATCHES:
            recent = sum(losses[-MIN_BATCHES // 2 :]) / (MIN_BATCHES // 2)
            best = min(best, recent)
            if recent > best + (DIVERGENCE_FACTOR - 1) * abs(best):
                break
    else:
        diverged = False
    curve = tuple(learning_rates), tuple(losses)
    return LRSweep(*curve, _suggest(*curve, lowest, highest, diverged))


def _suggest(
    learning_rates: tuple[float, ...], losses: tuple[float, ...], lowest: float, highest: float, diverged: bool
) -> float:
    if len(losses) < MIN_BATCHES:
        raise ValueError(
            f"the loss diverged after {len(losses)} batches, at a learning rate near {lowest:g}: start lower"
        )
    smooth = smooth_losses(losses)
    index = int(smooth.argmin())
    noise = 2 * _estimate_noise(losses) + 1e-9 * abs(float(smooth[0]))
    if smooth[0] - smooth[index] <= noise:
        raise ValueError(
            f"no learning rate between {lowest:g} and {learning_rates[-1]:g} clearly lowered the loss (by "
            f"{smooth[0] - smooth[index]:.2g}, noise level {noise:.2g}): use more or larger batches"
        )
    if not diverged and smooth[-1] - smooth[index] <= noise:
        raise ValueError(f"the loss was still falling at a learning rate of {highest:g}: sweep to a higher one")
    return SUGGESTED_FRACTION * learning_rates[index]


def smooth_losses(losses: tuple[float, ...]) -> Float64Array:
    """Return the losses averaged with their neighbors by a Gaussian as wide as 1/25 of the curve."""
    index = np.arange(len(losses))
    weights = _gaussian_weights(index[:, None] - index, len(losses))
    return np.asarray(weights @ np.array(losses) / weights.sum(1))


def _estimate_noise(losses: tuple[float, ...]) -> float:
    """Return the standard error of the difference of two points of the smoothed curve.

    It is estimated from the steps between neighboring losses, between which the curve itself hardly moves; by their
    median, as steps are large where training diverges.
    """
    std = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * 2**0.5)
    weights = _gaussian_weights(np.arange(len(losses)), len(losses))  # at the curve's end, where fewest are averaged
    return std * 2**0.5 * float((weights**2).sum() ** 0.5 / weights.sum())


def _gaussian_weights(distance: np.ndarray, count: int) -> Float64Array:
    return np.exp(-0.5 * (distance / max(1.0, count / 25)) ** 2)
