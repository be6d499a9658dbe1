"""How near answers are where they are values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import Record
from effnet.evaluation.headline import Headline

ERRORS_MOST, PAIRS_MOST = 100, 2000


@dataclass(frozen=True)
class ValueScore(Record):
    """One value: the errors in its own unit, and the share of its variance that is explained.

    ``pairs``: (true, predicted) of the pictures, or of `PAIRS_MOST` of them, evenly chosen.
    """

    name: str
    rmse: float
    mae: float
    r2: float
    pairs: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Miss(Record):
    """A value of a picture that was predicted far from what it is."""

    picture: str
    value: str
    true: float
    predicted: float


@dataclass(frozen=True)
class ValuesEvaluation(Record):
    """The result on one set of pictures, for labels of the kind "value". The overall figures are means of the values'.

    R² is 1 where every value is met, 0 where their mean would do as well, and below where it would do better; of values
    that are all alike it is 1 or 0.
    """

    RECORDS = MappingProxyType({"values": ValueScore, "mistakes": Miss})

    pictures: int
    rmse: float  # root of the mean squared error
    mae: float  # mean absolute error
    r2: float
    values: tuple[ValueScore, ...]
    mistakes: tuple[Miss, ...]  # the largest errors first, in units of each value's spread; at most `ERRORS_MOST`
    left_out: tuple[str, ...] = ()  # pictures that could not be read, and why
    split: str = ""
    kind: str = "value"

    @property
    def headline(self) -> Headline:
        """R²."""
        return Headline("R²", self.r2)

    def in_words(self) -> str:
        """One line for a person: "R² 0.912, RMSE 4.13, mean absolute error 3.02"."""
        return f"R² {self.r2:.3f}, RMSE {self.rmse:.4g}, mean absolute error {self.mae:.4g}"


def score_values(
    answers: NDArray[np.float64], wanted: NDArray[np.float64], names: Sequence[str], pictures: Sequence[str]
) -> ValuesEvaluation:
    """The evaluation of ``answers`` (N, values) against ``wanted`` (N, values), of pictures of these names."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    rmse, mae = (
        each(wanted, answers, multioutput="raw_values") for each in (root_mean_squared_error, mean_absolute_error)
    )
    # It needs two pictures, of which the second may be the first
    r2 = r2_score(*(np.repeat(each, 2, 0) for each in (wanted, answers)), multioutput="raw_values")
    step = -(-len(wanted) // PAIRS_MOST)
    spread = wanted.std(0)
    apart = np.abs(answers - wanted) / np.where(spread > 0, spread, 1)
    rows, columns = np.unravel_index(np.argsort(-apart, axis=None, kind="stable")[:ERRORS_MOST], apart.shape)
    return ValuesEvaluation(
        pictures=len(wanted),
        rmse=float(rmse.mean()),
        mae=float(mae.mean()),
        r2=float(r2.mean()),
        values=tuple(
            ValueScore(name, float(one), float(two), float(three), tuple(map(tuple, both.tolist())))
            for name, one, two, three, both in zip(
                names, rmse, mae, r2, np.stack([wanted, answers], 2)[::step].swapaxes(0, 1), strict=True
            )
        ),
        mistakes=tuple(
            Miss(pictures[row], names[column], float(wanted[row, column]), float(answers[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ),
    )
