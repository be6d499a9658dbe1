"""The roundings of one dimension in order: which there are, and where φ passes from one on to the next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor, log, sqrt
from typing import Self

from effnet.arch.scaling import RESOLUTION_STEP
from effnet.arch.spec import Arch

MARGIN = 1e-9  # of φ, and of multipliers as a share: what lies closer together is the same

Ends = Callable[[Arch, float, float], Iterable[float]]  # of a base's roundings, at least those between two values


@dataclass(frozen=True)
class Ladder:
    """One dimension's roundings in order. It starts at the base's value and grows by ``coefficient`` to the φ.

    ``ends``: the values at which one rounding gives way to the next. A coefficient of 1 has none: that dimension stays.
    """

    start: float
    coefficient: float
    lowest: float  # φ, and the highest: where the line begins and ends
    highest: float
    ends: tuple[float, ...]

    @classmethod
    def of(cls, base: Arch, start: float, coefficient: float, lowest: float, highest: float, ends: Ends) -> Self:
        """The ladder with those of ``ends`` that φ comes by, each once."""
        found: list[float] = []
        if coefficient > 1:
            low, high = (start * coefficient**phi for phi in (lowest, highest))
            for end in sorted(ends(base, low, high)):
                if low < end < high and end > (found[-1] if found else 0) * (1 + MARGIN):
                    found.append(end)
        return cls(start, coefficient, lowest, highest, tuple(found))

    def value(self, phi: float) -> float:
        """What φ asks for."""
        value: float = self.start * self.coefficient**phi
        return value

    def at(self, phi: float) -> int:
        """Which rounding φ gets."""
        return bisect_left(self.ends, self.value(phi))

    def between(self, step: int) -> tuple[float, float]:
        """The values that are rounded to that step."""
        low = self.ends[step - 1] if step > 0 else self.value(self.lowest)
        high = self.ends[step] if step < len(self.ends) else self.value(self.highest)
        return low, high

    def phis(self, step: int, beside: int = 0) -> tuple[float, float]:
        """From where to where φ gets that rounding, or one at most ``beside`` steps from it."""
        last = len(self.ends)
        low = self._phi(self.ends[step - beside - 1]) if step - beside > 0 else self.lowest
        high = self._phi(self.ends[step + beside]) if step + beside < last else self.highest
        return low, high

    def inside(self, step: int) -> float:
        """A value well within that rounding."""
        low, high = self.between(step)
        return sqrt(low * high) if self.ends else self.start

    def _phi(self, value: float) -> float:
        return log(value / self.start) / log(self.coefficient)


def width_ends(base: Arch, low: float, high: float) -> Iterator[float]:
    """From k channels to the next multiple it goes half-way, or earlier where k would be too small a share."""
    kinds = {stage.channels for stage in base.stages} | {stage.expand_from for stage in base.stages} - {0}
    if base.scale_ends:
        kinds |= {base.stem, base.head}
    for channels in kinds:
        step, least = base.divisor, base.round_floor
        for steps in range(max(1, floor(low * channels / step) - 1), ceil(high * channels / step) + 1):
            middle = step * (steps + 0.5)
            yield (min(middle, step * steps / least) if least else middle) / channels


def depth_ends(base: Arch, low: float, high: float) -> Iterator[float]:
    """A row of n layers goes from m of them to m + 1 at a depth of m / n."""
    for stage in base.stages if base.scale_ends else base.stages[1:-1]:
        for repeats in range(max(1, floor(low * stage.layers)), ceil(high * stage.layers) + 1):
            yield repeats / stage.layers


def resolution_ends(base: Arch, low: float, high: float) -> Iterator[float]:
    """Half-way from a multiple of the step to the next; the step itself is the smallest size."""
    for steps in range(max(1, floor(low / RESOLUTION_STEP)), ceil(high / RESOLUTION_STEP) + 1):
        yield (steps + 0.5) * RESOLUTION_STEP


def shortest(low: float, high: float, near: float) -> float:
    """The number of the fewest digits between two others; of several the nearest to ``near``."""
    margin = (high - low) / 100  # a rounding's very end is nobody's
    low, high = low + margin, high - margin
    near = min(max(near, low), high)
    for digits in range(15):
        for found in (round(near, digits), floor(high * 10**digits) / 10**digits, ceil(low * 10**digits) / 10**digits):
            if low <= found <= high:
                return found
    return near
