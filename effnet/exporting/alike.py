"""How much of what a network answers is as it should be, by the kind of its labels."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEASURES = MappingProxyType({"one": "top-1", "any": "labels right", "value": "R²"})
TINY = 1e-12  # the least spread of a value


def answer(logits: NDArray[Any], kind: str) -> NDArray[Any]:
    """What logits (N, classes) say: the likeliest class (N,); which labels are right (N, classes); or the values."""
    if kind == "value":
        return logits
    said: NDArray[Any] = logits.argmax(1) if kind == "one" else logits >= 0
    return said


def share_right(logits: NDArray[Any], wanted: NDArray[Any], kind: str) -> float:
    """The share of ``wanted``, as `answer` has it, that ``logits`` give: of pictures, or of their labels.

    Of values it is the share of their variance, R², averaged over them: 1 at the most, and below 0 where the mean of
    ``wanted`` would be nearer.
    """
    if kind != "value":
        return float((answer(logits, kind) == wanted).mean())
    spread = np.maximum(np.var(wanted, 0, dtype=np.float64), TINY)
    return float(1 - (np.mean((logits.astype(np.float64) - wanted) ** 2, 0) / spread).mean())
