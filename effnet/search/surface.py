"""Accuracy as a smooth function of how a doubling of MACs is divided among depth, width and resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np

from effnet.search.grid import Point

TERMS = 6
FINE = 200  # steps a side in which the surface's top is looked for


def shares(point: Point) -> tuple[float, float, float]:
    """The parts of the growth that depth, width and resolution have, of one: ln α, 2 ln β, 2 ln γ over their sum."""
    parts = [log(point.alpha), 2 * log(point.beta), 2 * log(point.gamma)]
    depth, width, resolution = (part / sum(parts) for part in parts)
    return depth, width, resolution


@dataclass(frozen=True)
class Surface:
    """A quadratic in the three shares, which sum to one: a term for each, and one for each two of them.

    (The mixture polynomial of Scheffé, 1958.) ``explained``: R², the part of the values' variance that it explains;
    ``chance``: how often values without any pattern would let it explain as much (the F-test against a constant).
    """

    terms: tuple[float, ...]
    explained: float
    chance: float

    def at(self, depth: float, width: float, resolution: float) -> float:
        """Its height at these shares."""
        return float(np.dot(self.terms, _row((depth, width, resolution))))

    def top(self) -> tuple[float, float, float]:
        """The shares at which it is highest."""
        every = (
            (depth / FINE, width / FINE, 1 - (depth + width) / FINE)
            for depth in range(FINE + 1)
            for width in range(FINE + 1 - depth)
        )
        return max(every, key=lambda at: self.at(*at))


def surface(points: Sequence[Point], values: Sequence[float]) -> Surface | None:
    """The surface that fits ``values`` at ``points`` best, by least squares; None of so few that it fits anything."""
    if len(points) <= TERMS + 1:
        return None
    from scipy.stats import f

    wanted = np.array(values)
    rows = np.array([_row(shares(point)) for point in points])
    terms, _, rank, _ = np.linalg.lstsq(rows, wanted, rcond=None)
    left, whole = float(((wanted - rows @ terms) ** 2).sum()), float(((wanted - wanted.mean()) ** 2).sum())
    if not whole or rank < TERMS:
        return None
    freedom = len(points) - TERMS
    ratio = ((whole - left) / (TERMS - 1)) / (left / freedom) if left else float("inf")
    return Surface(tuple(map(float, terms)), 1 - left / whole, float(f.sf(ratio, TERMS - 1, freedom)))


def _row(parts: tuple[float, float, float]) -> list[float]:
    return [*parts, *(one * other for one, other in combinations(parts, 2))]
