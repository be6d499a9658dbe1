"""The one figure by which an evaluation is quoted."""

from __future__ import annotations

from typing import NamedTuple


class Headline(NamedTuple):
    """The higher, the better, and 1 at the most, whatever the kind of labels."""

    name: str  # "top-1", "mean average precision", "R²"
    value: float
