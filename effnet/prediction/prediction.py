"""What one picture shows, and how it is read off a network's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Labels

RIGHT = 0.5  # the least probability of a label that is told, where any may be right


@dataclass(frozen=True)
class Prediction:
    """What one picture shows, by the kind of the model's labels, or why it could not be read.

    "one": the likeliest labels with their probabilities. "any": the labels whose own probability is `RIGHT` or more,
    likeliest first, and none where none is. "value": ``values`` by their names, and no labels.
    """

    picture: str
    labels: tuple[str, ...] = ()  # likeliest first
    probabilities: tuple[float, ...] = ()
    error: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The likeliest label; empty where there is none, or the picture could not be read."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The likeliest label's probability; 0 where there is none, or the picture could not be read."""
        return self.probabilities[0] if self.probabilities else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``{"picture": …, "labels": [{"label": …, "probability": …}, …]}`` or ``{"picture", "error"}``.

        Of values ``{"picture": …, "values": {"age": 41.2, …}}``.
        """
        if self.error:
            return {"picture": self.picture, "error": self.error}
        if self.values:
            return {"picture": self.picture, "values": dict(self.values)}
        pairs = zip(self.labels, self.probabilities, strict=True)
        return {"picture": self.picture, "labels": [{"label": name, "probability": share} for name, share in pairs]}


def likeliest(answers: NDArray[np.float64], kind: str, top: int) -> NDArray[np.float64]:
    """(N, classes) -> (N, 2, top): the likeliest classes and their probabilities; of values all, in their order."""
    if kind == "value":
        return np.stack([np.broadcast_to(np.arange(answers.shape[1]), answers.shape), answers], 1)
    less = -answers
    if top < answers.shape[1]:  # sorting all of a thousand classes takes longer than a small network
        some = np.sort(np.argpartition(less, top - 1, axis=1)[:, :top], axis=1)
    else:
        some = np.broadcast_to(np.arange(answers.shape[1]), answers.shape)
    order = np.argsort(np.take_along_axis(less, some, 1), axis=1, kind="stable")
    best = np.take_along_axis(some, order, 1)
    return np.stack([best, np.take_along_axis(answers, best, 1)], 1)


def told(picture: str, row: NDArray[np.float64], labels: Labels) -> Prediction:
    """The prediction that a row (2, top) of `likeliest` means."""
    names = [labels.name(int(index)) for index in row[0]]
    if labels.kind == "value":
        return Prediction(picture, values={name: _shortest(value) for name, value in zip(names, row[1], strict=True)})
    count = len(names) if labels.kind == "one" else int((row[1] >= RIGHT).sum())
    return Prediction(picture, tuple(names[:count]), tuple(row[1, :count].tolist()))


def _shortest(value: float) -> float:
    """``value`` as the fewest digits that mean the same float32: 41.2, not 41.20000076293945."""
    return float(str(np.float32(value)))
