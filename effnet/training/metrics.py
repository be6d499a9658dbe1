"""How well logits fit labels, by the labels' kind: what every choice of a run is made by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effnet.data import ImageDataset, ImageError
from effnet.net import EfficientNet
from effnet.prediction.pipeline import run_batches
from effnet.runtime.torch import EagerEngine
from effnet.tasks import softmax

Doubles = NDArray[np.float64]


LOGIT_SCALES = tuple(float(gain) for gain in np.geomspace(0.25, 100, 64))  # of scores into logits


MIN_PROBABILITY = 1e-12  # no probability is taken to be lower


METRIC_NAMES = {"classification": "top-1", "multilabel": "labels right", "regression": "R²"}


def format_metric(task: str, value: float) -> str:
    """ "top-1 93.1%"."""
    return f"{METRIC_NAMES[task]} {value:.3f}" if task == "regression" else f"{METRIC_NAMES[task]} {value:.1%}"


@dataclass(frozen=True)
class SelectionScore:
    """How good a network is on the selection split, its logits multiplied by ``gain``, which suits them best there."""

    losses: tuple[float, ...]  # of each picture
    metric: float  # the figure of `FIGURES`
    logit_scale: float

    @property
    def loss(self) -> float:
        """The mean of ``losses``."""
        return sum(self.losses) / len(self.losses)


WORST_SCORE = SelectionScore((float("inf"),), 0.0, 1.0)  # of a network that answers with no numbers


@dataclass(frozen=True, eq=False)
class Targets:
    """What is right about some pictures. ``wanted``: int64 (N,) classes for "classification", else float (N, classes)."""

    values: NDArray[np.int64] | NDArray[np.float32]
    task: str
    classes: int

    @classmethod
    def from_dataset(cls, images: ImageDataset) -> Targets:
        """That of ``pictures``."""
        kind = images.labels.task
        return cls(images.targets if kind == "classification" else images.target_matrix, kind, len(images.labels.names))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Targets:
        return Targets(self.values[part], self.task, self.classes)

    def to_matrix(self) -> Doubles:
        """As (N, classes): 1 for what is right and 0 for the rest, or the values."""
        return np.eye(self.classes)[self.values] if self.task == "classification" else self.values.astype(np.float64)

    def losses(self, logits: Doubles) -> Doubles:
        """(N, classes) -> (N,): −log p of the class, or the mean of −log p over labels, or of squared errors.

        Errors are in units of the values' spread.
        """
        found: Doubles
        if self.task == "classification":
            right = softmax(logits)[np.arange(len(self)), self.values]
            found = -np.log(np.maximum(right, MIN_PROBABILITY))
        elif self.task == "multilabel":
            signed = np.where(self.values > 0, logits, -logits)
            found = np.logaddexp(0, -signed).mean(1)
        else:
            found = (((logits - self.values) / self.std) ** 2).mean(1)
        return found

    @property
    def std(self) -> Doubles:
        """Each value's standard deviation, (classes,)."""
        spread: Doubles = np.maximum(self.values.astype(np.float64).std(0), 1e-12)
        return spread

    def metric(self, logits: Doubles) -> float:
        """The share of pictures whose class is right; of labels that are; or of the variance that is explained."""
        if self.task == "classification":
            return float((logits.argmax(1) == self.values).mean())
        if self.task == "multilabel":
            return float(((logits > 0) == (self.values > 0)).mean())
        return 1 - float(self.losses(logits).mean())

    def score(self, logits: Doubles) -> SelectionScore:
        """How good ``logits`` (N, classes) are."""
        if not np.isfinite(logits).all():
            return WORST_SCORE
        gain, _ = self.fit_logit_scale(logits)
        return SelectionScore(tuple(self.losses(gain * logits).tolist()), self.metric(logits), gain)

    def fit_logit_scale(self, logits: Doubles) -> tuple[float, float]:
        """The factor on ``scores`` (N, classes) under which they predict best as logits, and the loss then.

        Its inverse is the temperature of arXiv:1706.04599. Values are left as they are.
        """
        if self.task == "regression":
            return 1.0, float(self.losses(logits).mean())
        losses = [float(self.losses(gain * logits).mean()) for gain in LOGIT_SCALES]
        best = int(np.argmin(losses))
        return LOGIT_SCALES[best], losses[best]


# A judge of networks on some pictures, each through its own preprocessing, and its finding put into the network.


EVAL_BATCH_SIZE = 32


def make_scorer(
    images: ImageDataset, device: str | None = None, decode: str = "reduced"
) -> Callable[[EfficientNet], SelectionScore]:
    """A function that says how good a network is on ``pictures``, at the size that its ``preprocess`` names.

    ``device``: None for the fastest that is there. It raises the ``PictureError`` of a picture that cannot be read.
    """
    truth = Targets.from_dataset(images)

    def judge(model: EfficientNet) -> SelectionScore:
        named = ((item.name, item.image) for item in images.items)
        rows = []
        for _, row in run_batches(
            EagerEngine(model, device).run, named, replace(model.preprocess, decode=decode), EVAL_BATCH_SIZE
        ):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
        return truth.score(np.stack(rows).astype(np.float64))

    return judge


def scale_logits(model: EfficientNet, logit_scale: float) -> None:
    """Multiplies the logits, so that probabilities mean what they say; no prediction changes."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.mul_(logit_scale)
        model.classifier.bias.mul_(logit_scale)
