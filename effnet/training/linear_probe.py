"""A linear head on frozen features, in closed form: ridge regression, its strength chosen by leaving one out.

The features are computed once. From one eigendecomposition come, for every strength, the predictions that each picture
would get from a head fitted on all the others (the PRESS identity): choosing costs nothing and no picture is wasted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effnet.net import EfficientNet
from effnet.training.metrics import (
    Doubles,
    Targets,
)

REGULARIZATION_STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 9))  # times the features' mean variance


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear head: ``features @ weight.T + bias`` are logits."""

    weight: Doubles  # (classes, features)
    bias: Doubles  # (classes,)
    regularization: float
    logit_scale: float
    losses: Doubles  # (N,): of each picture, by the head fitted on all the others
    metric: float  # the figure of `Truth.figure`, the same way

    @property
    def loss(self) -> float:
        """The mean of ``losses``."""
        return float(self.losses.mean())

    def logits(self, features: NDArray[np.float32]) -> Doubles:
        """(N, features) -> (N, classes)."""
        out: Doubles = features.astype(np.float64) @ self.weight.T + self.bias
        return out


def fit_linear_probe(features: NDArray[np.float32], targets: Targets) -> LinearProbe:
    """The head of the strength and gain under which left-out pictures are least surprising.

    ``features`` (N, D). N below D costs an N×N problem, else a D×D one.
    """
    x = features.astype(np.float64)
    y = targets.to_matrix()  # (N, classes)
    border = (
        0.5 if targets.task == "multilabel" else 0.0
    )  # a score between 0, not so, and 1, so, becomes a logit around 0
    mean, share = x.mean(0), y.mean(0)
    x, y = x - mean, y - share
    left, variances = _left_singular_vectors(x)  # (N, R), (R,)
    seen = left.T @ y  # (R, classes)
    best: tuple[float, float, float, float, Doubles] | None = None
    for strength in REGULARIZATION_STRENGTHS:
        ridge = strength * variances.sum() / len(x)
        shrink = variances / (variances + ridge)  # (R,)
        fitted = left @ (shrink[:, None] * seen)
        leverage = 1 / len(x) + (left**2) @ shrink  # (N,)
        left_out = y - (y - fitted) / np.maximum(1 - leverage, 1e-9)[:, None] + share - border  # (N, classes) scores
        gain, loss = targets.fit_logit_scale(left_out)
        if best is None or loss < best[0]:
            best = (loss, strength, gain, ridge, left_out)
    assert best is not None
    _, strength, gain, ridge, left_out = best
    weight = x.T @ (left @ (seen / (variances + ridge)[:, None]))  # (D, classes)
    losses, figure = targets.losses(gain * left_out), targets.metric(left_out)
    return LinearProbe(gain * weight.T, gain * (share - border - mean @ weight), strength, gain, losses, figure)


def _left_singular_vectors(x: Doubles) -> tuple[Doubles, Doubles]:
    """Left singular vectors (N, R) of ``x`` (N, D) and the squared singular values (R,), through the smaller side."""
    wide = x.shape[0] <= x.shape[1]
    variances, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = variances > variances[-1] * 1e-10
    variances, vectors = variances[kept], vectors[:, kept]
    return (vectors if wide else (x @ vectors) / np.sqrt(variances)), variances


def set_head(model: EfficientNet, probe: LinearProbe) -> None:
    """Puts the probe's numbers into the classifier."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(probe.weight))
        model.classifier.bias.copy_(torch.from_numpy(probe.bias))
