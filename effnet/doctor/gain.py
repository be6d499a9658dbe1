"""Whether one reading is better than another: differences on the same pictures, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# About twenty readings are tried: at three standard errors one in forty healthy models would hear of a false cause.
SURE = 3.0
LIKELY = 2.0  # enough where batch norm's statistics say the same
WORTH = 0.01  # of log-likelihood, in nats: less is not worth a change
TEMPERATURES = np.geomspace(0.01, 1000, 76)  # in standard deviations of the logits


@dataclass(frozen=True, eq=False)
class Score:
    """How well logits fit: per picture, whether the likeliest class is the true one, and log p of the true class."""

    right: NDArray[np.bool_]
    likelihood: Doubles

    @property
    def top1(self) -> float:
        """The share of pictures whose likeliest class is the true one."""
        return float(self.right.mean())

    def first(self, count: int) -> Score:
        """Of the first ``count`` pictures."""
        return Score(self.right[:count], self.likelihood[:count])


@dataclass(frozen=True)
class Gain:
    """Mean differences of top-1 and log-likelihood, with the standard errors of these means."""

    top1: float
    top1_error: float
    likelihood: float
    likelihood_error: float

    @property
    def sigmas(self) -> float:
        """The gain in likelihood in standard errors."""
        return self.likelihood / max(self.likelihood_error, 1e-9)

    def real(self, least: float = SURE, worth: float = WORTH) -> bool:
        """Whether it is above chance by ``least`` standard errors, in one measure or both, and worth a change."""
        by_top1 = self.top1 > least * max(self.top1_error, 1e-9) and self.likelihood > -WORTH
        return by_top1 or (self.likelihood > worth and self.sigmas > least and self.top1 > -self.top1_error)


def score(logits: Doubles, targets: NDArray[np.int64]) -> Score:
    """(N, classes) and the true outputs (N,), at the temperature under which the targets are least surprising.

    So a reading that only makes the network surer or less sure of itself gains nothing (arXiv:1706.04599).
    """
    rows = np.arange(len(targets))
    shifted = (logits - logits.max(1, keepdims=True)) / max(float(logits.std()), 1e-9)
    best: Doubles | None = None
    for temperature in TEMPERATURES:
        scaled = shifted / temperature
        likelihood: Doubles = scaled[rows, targets] - np.log(np.exp(scaled).sum(1))
        if best is None or likelihood.mean() > best.mean():
            best = likelihood
    assert best is not None
    return Score(logits.argmax(1) == targets, best)


def gain(new: Score, old: Score) -> Gain:
    """What ``new`` has over ``old`` on the pictures that both have seen: the first ones."""
    count = min(len(new.right), len(old.right))
    new, old = new.first(count), old.first(count)
    top1, top1_error = _mean(new.right.astype(float) - old.right.astype(float))
    return Gain(top1, top1_error, *_mean(new.likelihood - old.likelihood))


def _mean(differences: Doubles) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
