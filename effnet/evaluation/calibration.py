"""Whether probabilities mean what they say: of those told 0.8, are 8 in 10 right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import Record

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Bin(Record):
    """Predictions that are about equally sure: how many, how sure on average, and what share of them is right.

    Zeros where there are none. Of 15 bins the first holds probabilities up to 1/15, the last those from 14/15. Where
    any label may be right it is not pictures that are counted but each one's labels.
    """

    pictures: int
    confidence: float
    accuracy: float


def calibration_bins(confidence: NDArray[np.float64], right: NDArray[Any]) -> tuple[Bin, ...]:
    """The reliability diagram's numbers (arXiv:1706.04599): 15 equal bins of ``confidence``, the lowest first."""
    places = _places(confidence)
    counts = np.bincount(places, minlength=CALIBRATION_BINS)
    sums = (np.bincount(places, of, CALIBRATION_BINS) / np.maximum(counts, 1) for of in (confidence, right))
    return tuple(Bin(*values) for values in zip(counts.tolist(), *(of.tolist() for of in sums), strict=True))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[Any]) -> float:
    """Expected calibration error: |accuracy − confidence| averaged over 15 equal bins, by their pictures."""
    gaps = np.bincount(_places(confidence), right - confidence, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _places(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each, the first being 0."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
