"""How much of what a network answers is as it should be, by the kind of its labels."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRIC_NAMES = MappingProxyType({"one": "top-1", "any": "labels right", "value": "R²"})


MIN_VARIANCE = 1e-12  # the least spread of a value


def predict_labels(logits: NDArray[Any], kind: str) -> NDArray[Any]:
    """What logits (N, classes) say: the likeliest class (N,); which labels are right (N, classes); or the values."""
    if kind == "value":
        return logits
    said: NDArray[Any] = logits.argmax(1) if kind == "one" else logits >= 0
    return said


def score_predictions(logits: NDArray[Any], expected: NDArray[Any], kind: str) -> float:
    """The share of ``wanted``, as `answer` has it, that ``logits`` give: of pictures, or of their labels.

    Of values it is the share of their variance, R², averaged over them: 1 at the most, and below 0 where the mean of
    ``wanted`` would be nearer.
    """
    if kind != "value":
        return float((predict_labels(logits, kind) == expected).mean())
    spread = np.maximum(np.var(expected, 0, dtype=np.float64), MIN_VARIANCE)
    return float(1 - (np.mean((logits.astype(np.float64) - expected) ** 2, 0) / spread).mean())


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The probability of each number by itself, in float64."""
    # By the half that cannot overflow
    tail = np.exp(-np.abs(logits.astype(np.float64)))
    shares: NDArray[np.float64] = np.where(logits < 0, tail, 1) / (1 + tail)
    return shares


def apply_activation(logits: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """What logits (N, classes) mean by the labels' ``kind``, in float64: probabilities, or values as they are.

    Of "one", all of a row's are 1 in sum; of "any", each is by itself.
    """
    match kind:
        case "one":
            return softmax(logits)
        case "any":
            return sigmoid(logits)
    return logits.astype(np.float64)


MULTI_LABEL_THRESHOLD = 0.5  # the least probability of a label that is told, where any may be right


KIND_MEANINGS = {"one": "exactly one is right", "any": "any of them may be right", "value": "each is a number"}
