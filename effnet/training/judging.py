"""How well logits fit labels, by the labels' kind: what every choice of a run is made by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effnet.data import Pictures
from effnet.prediction.pipeline import softmax

Doubles = NDArray[np.float64]

GAINS = tuple(float(gain) for gain in np.geomspace(0.25, 100, 64))  # of scores into logits
LEAST = 1e-12  # no probability is taken to be lower
FIGURES = {"one": "top-1", "any": "labels right", "value": "R²"}


def told(kind: str, figure: float) -> str:
    """ "top-1 93.1%"."""
    return f"{FIGURES[kind]} {figure:.3f}" if kind == "value" else f"{FIGURES[kind]} {figure:.1%}"


@dataclass(frozen=True)
class Score:
    """How good a network is on the selection split, its logits multiplied by ``gain``, which suits them best there."""

    losses: tuple[float, ...]  # of each picture
    top1: float  # the figure of `FIGURES`
    gain: float

    @property
    def loss(self) -> float:
        """The mean of ``losses``."""
        return sum(self.losses) / len(self.losses)


WORST = Score((float("inf"),), 0.0, 1.0)  # of a network that answers with no numbers


@dataclass(frozen=True, eq=False)
class Truth:
    """What is right about some pictures. ``wanted``: int64 (N,) classes for "one", else float (N, classes)."""

    wanted: NDArray[np.int64] | NDArray[np.float32]
    kind: str
    classes: int

    @classmethod
    def of(cls, pictures: Pictures) -> Truth:
        """That of ``pictures``."""
        kind = pictures.labels.kind
        return cls(pictures.targets if kind == "one" else pictures.wanted, kind, len(pictures.labels.names))

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, part: slice) -> Truth:
        return Truth(self.wanted[part], self.kind, self.classes)

    def matrix(self) -> Doubles:
        """As (N, classes): 1 for what is right and 0 for the rest, or the values."""
        return np.eye(self.classes)[self.wanted] if self.kind == "one" else self.wanted.astype(np.float64)

    def losses(self, logits: Doubles) -> Doubles:
        """(N, classes) -> (N,): −log p of the class, or the mean of −log p over labels, or of squared errors.

        Errors are in units of the values' spread.
        """
        found: Doubles
        if self.kind == "one":
            right = softmax(logits)[np.arange(len(self)), self.wanted]
            found = -np.log(np.maximum(right, LEAST))
        elif self.kind == "any":
            signed = np.where(self.wanted > 0, logits, -logits)
            found = np.logaddexp(0, -signed).mean(1)
        else:
            found = (((logits - self.wanted) / self.spread) ** 2).mean(1)
        return found

    @property
    def spread(self) -> Doubles:
        """Each value's standard deviation, (classes,)."""
        spread: Doubles = np.maximum(self.wanted.astype(np.float64).std(0), 1e-12)
        return spread

    def figure(self, logits: Doubles) -> float:
        """The share of pictures whose class is right; of labels that are; or of the variance that is explained."""
        if self.kind == "one":
            return float((logits.argmax(1) == self.wanted).mean())
        if self.kind == "any":
            return float(((logits > 0) == (self.wanted > 0)).mean())
        return 1 - float(self.losses(logits).mean())

    def score(self, logits: Doubles) -> Score:
        """How good ``logits`` (N, classes) are."""
        if not np.isfinite(logits).all():
            return WORST
        gain, _ = self.best_gain(logits)
        return Score(tuple(self.losses(gain * logits).tolist()), self.figure(logits), gain)

    def best_gain(self, scores: Doubles) -> tuple[float, float]:
        """The factor on ``scores`` (N, classes) under which they predict best as logits, and the loss then.

        Its inverse is the temperature of arXiv:1706.04599. Values are left as they are.
        """
        if self.kind == "value":
            return 1.0, float(self.losses(scores).mean())
        losses = [float(self.losses(gain * scores).mean()) for gain in GAINS]
        best = int(np.argmin(losses))
        return GAINS[best], losses[best]
