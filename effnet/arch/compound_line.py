"""The roundings of one dimension in order: which there are, and where φ passes from one on to the next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import permutations
from math import ceil, exp, floor, log, sqrt
from typing import NamedTuple, Self

from effnet.arch.counting import LayerOperations, count, count_layers, layers_with_operations
from effnet.arch.scaling import RESOLUTION_STEP, scale, scale_dropout
from effnet.arch.spec import Arch, stage_depths

EQUAL_TOLERANCE = 1e-9  # of φ, and of multipliers as a share: what lies closer together is the same


ThresholdFunction = Callable[
    [Arch, float, float], Iterable[float]
]  # of a base's roundings, at least those between two values


@dataclass(frozen=True)
class RoundingSteps:
    """One dimension's roundings in order. It starts at the base's value and grows by ``coefficient`` to the φ.

    ``ends``: the values at which one rounding gives way to the next. A coefficient of 1 has none: that dimension stays.
    """

    start: float
    coefficient: float
    lowest: float  # φ, and the highest: where the line begins and ends
    highest: float
    thresholds: tuple[float, ...]

    @classmethod
    def of(
        cls,
        base: Arch,
        start: float,
        coefficient: float,
        lowest: float,
        highest: float,
        find_thresholds: ThresholdFunction,
    ) -> Self:
        """The ladder with those of ``ends`` that φ comes by, each once."""
        found: list[float] = []
        if coefficient > 1:
            low, high = (start * coefficient**phi for phi in (lowest, highest))
            for end in sorted(find_thresholds(base, low, high)):
                if low < end < high and end > (found[-1] if found else 0) * (1 + EQUAL_TOLERANCE):
                    found.append(end)
        return cls(start, coefficient, lowest, highest, tuple(found))

    def value(self, phi: float) -> float:
        """What φ asks for."""
        value: float = self.start * self.coefficient**phi
        return value

    def step_at(self, phi: float) -> int:
        """Which rounding φ gets."""
        return bisect_left(self.thresholds, self.value(phi))

    def value_range(self, step: int) -> tuple[float, float]:
        """The values that are rounded to that step."""
        low = self.thresholds[step - 1] if step > 0 else self.value(self.lowest)
        high = self.thresholds[step] if step < len(self.thresholds) else self.value(self.highest)
        return low, high

    def phi_range(self, step: int, beside: int = 0) -> tuple[float, float]:
        """From where to where φ gets that rounding, or one at most ``beside`` steps from it."""
        last = len(self.thresholds)
        low = self._phi(self.thresholds[step - beside - 1]) if step - beside > 0 else self.lowest
        high = self._phi(self.thresholds[step + beside]) if step + beside < last else self.highest
        return low, high

    def typical_value(self, step: int) -> float:
        """A value well within that rounding."""
        low, high = self.value_range(step)
        return sqrt(low * high) if self.thresholds else self.start

    def _phi(self, value: float) -> float:
        return log(value / self.start) / log(self.coefficient)


def width_thresholds(base: Arch, low: float, high: float) -> Iterator[float]:
    """From k channels to the next multiple it goes half-way, or earlier where k would be too small a share."""
    kinds = {stage.channels for stage in base.stages} | {stage.expand_from for stage in base.stages} - {0}
    if base.scale_ends:
        kinds |= {base.stem, base.head}
    for channels in kinds:
        step, least = base.divisor, base.round_floor
        for steps in range(max(1, floor(low * channels / step) - 1), ceil(high * channels / step) + 1):
            middle = step * (steps + 0.5)
            yield (min(middle, step * steps / least) if least else middle) / channels


def depth_thresholds(base: Arch, low: float, high: float) -> Iterator[float]:
    """A row of n layers goes from m of them to m + 1 at a depth of m / n."""
    for stage in base.stages if base.scale_ends else base.stages[1:-1]:
        for repeats in range(max(1, floor(low * stage.layers)), ceil(high * stage.layers) + 1):
            yield repeats / stage.layers


def resolution_thresholds(base: Arch, low: float, high: float) -> Iterator[float]:
    """Half-way from a multiple of the step to the next; the step itself is the smallest size."""
    for steps in range(max(1, floor(low / RESOLUTION_STEP)), ceil(high / RESOLUTION_STEP) + 1):
        yield (steps + 0.5) * RESOLUTION_STEP


def shortest_decimal(low: float, high: float, near: float) -> float:
    """The number of the fewest digits between two others; of several the nearest to ``near``."""
    margin = (high - low) / 100  # a rounding's very end is nobody's
    low, high = low + margin, high - margin
    near = min(max(near, low), high)
    for digits in range(15):
        for found in (round(near, digits), floor(high * 10**digits) / 10**digits, ceil(low * 10**digits) / 10**digits):
            if low <= found <= high:
                return found
    return near


# The compound line after rounding: networks that φ passes through, those a step beside them, and what each costs.


MAX_PHI = 20.0  # φ to either side, as `scale` takes it


MAX_MULTIPLIER = 99.99  # of width and depth: an `Arch` takes 100, and powers are rounded


MAX_RESOLUTION = 8192  # pixels; a base that is larger is its line's largest


PHI_TOLERANCE = 0.003  # of φ, where the line is searched: finer than most roundings


class LinePlace(NamedTuple):
    """A network beside the line: how many roundings of each dimension are smaller, from the line's lowest on."""

    width: int
    depth: int
    resolution: int


class NetworkCost(NamedTuple):
    """What `count` says of a network."""

    macs: int
    params: int
    bytes: int


LayerRowCost = tuple[
    int, bool, NetworkCost
]  # a layer's stage, whether it is there once however deep the network, its cost


class LinePoint(NamedTuple):
    """A place as a network. ``off``: how far width, depth or resolution must leave what φ asks for, as a share."""

    arch: Arch
    phi: float  # the one that it is nearest to
    distance: float  # 0: `scale` makes it of ``phi``
    cost: NetworkCost


class CompoundLine:
    """``base`` scaled by every φ, with what rounding makes of it. A dimension whose coefficient is 1 stays as it is.

    A *rounding step*: the distinct roundings of each dimension stand in a row. Of width these are the channels of stem,
    stages and head together, of depth the layers of all stages together, of resolution the multiples of 4 pixels. A
    network is *within one rounding step of the line* where there is a φ such that in each of the three rows it stands
    where φ does, or beside it.
    Raises ``ValueError`` where all three coefficients are 1.
    """

    def __init__(
        self, base: Arch, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
    ) -> None:
        if alpha == beta == gamma == 1:
            raise ValueError("alpha, beta and gamma are all 1, so that nothing grows: give one of them more")
        self.base, self.coefficients = base, (alpha, beta, gamma)
        self._count_arguments = (classes, channels)
        side_most = max(MAX_RESOLUTION, base.resolution)
        room = [
            log(most / start) / log(coefficient)
            for coefficient, start, most in (
                (beta, base.width, MAX_MULTIPLIER),
                (alpha, base.depth, MAX_MULTIPLIER),
                (gamma, base.resolution, side_most),
            )
            if coefficient > 1
        ]
        self.lowest, self.highest = -MAX_PHI, min(MAX_PHI, *room)
        ends = self.lowest, self.highest
        self.width = RoundingSteps.of(base, base.width, beta, *ends, width_thresholds)
        self.depth = RoundingSteps.of(base, base.depth, alpha, *ends, depth_thresholds)
        self.resolution = RoundingSteps.of(base, base.resolution, gamma, *ends, resolution_thresholds)
        self._two_layer_base = replace(base, depth=1.0, stages=tuple(replace(stage, layers=2) for stage in base.stages))
        self._layer_operations: dict[int, tuple[LayerOperations, ...]] = {}
        self._row_costs: dict[tuple[int, int], tuple[LayerRowCost, ...]] = {}
        self._repeats: dict[int, tuple[int, ...]] = {}

    @property
    def dimensions(self) -> tuple[RoundingSteps, RoundingSteps, RoundingSteps]:
        """Those of width, depth and resolution."""
        return self.width, self.depth, self.resolution

    @cached_property
    def base_cost(self) -> NetworkCost:
        """What the base itself costs, which need not be rounded as its line is."""
        counted = count(self.base, None, *self._count_arguments)
        return NetworkCost(counted.macs, counted.params, counted.bytes)

    def place_at(self, phi: float, beside: int = 0) -> LinePlace:
        """Where the line is at φ, or ``beside`` steps larger in every dimension (smaller, if negative)."""
        return LinePlace(
            *(min(max(ladder.step_at(phi) + beside, 0), len(ladder.thresholds)) for ladder in self.dimensions)
        )

    def phi_range(self, place: LinePlace, beside: int = 0) -> tuple[float, float]:
        """From which φ to which the line is at ``place``, or within ``beside`` steps; the wrong way round: never."""
        found = [ladder.phi_range(step, beside) for ladder, step in zip(self.dimensions, place, strict=True)]
        return max(low for low, _ in found), min(high for _, high in found)

    def places_between(self, begin: float, end: float) -> Iterator[LinePlace]:
        """Every place within one rounding step of where the line is between two φ."""
        first, last = self.place_at(begin, -1), self.place_at(end, 1)
        steps = [[(step, ladder.phi_range(step, 1)) for step in range(low, high + 1)]
                 for ladder, low, high in zip(self.dimensions, first, last, strict=True)]  # fmt: skip
        widths, depths, sides = steps
        for width, (low, high) in widths:
            for side, (from_, to) in sides:
                later, sooner = max(begin, low, from_), min(end, high, to)
                if later < sooner:
                    for depth, (from_, to) in depths:
                        if max(later, from_) < min(sooner, to):
                            yield LinePlace(width, depth, side)

    def last_phi(self, holds: Callable[[float], bool]) -> float:
        """The largest φ at which it ``holds``, less at most `PRECISION`; it must hold below that φ and not above."""
        low, high = self.lowest, self.highest
        if holds(high):
            return high
        while high - low > PHI_TOLERANCE:
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    def phi_for_macs(self, macs: float) -> float:
        """About where on the line a network has so many MACs; the line's end where none has."""
        return self.last_phi(lambda phi: self.cost(self.place_at(phi)).macs <= macs)

    def cost(self, place: LinePlace) -> NetworkCost:
        """What the network there costs: exactly as `count` has it, but one count serves all depths."""
        repeats = self._repeats.get(place.depth)
        if repeats is None:
            repeats = stage_depths(replace(self.base, depth=self.depth.typical_value(place.depth)))
            self._repeats[place.depth] = repeats
        macs = params = bytes_ = 0
        for stage, first, cost in self._rows(place):
            times = 1 if first else repeats[stage - 1] - 1
            if times:
                macs += times * cost.macs
                params += times * cost.params
                bytes_ = max(bytes_, cost.bytes)
        return NetworkCost(macs, params, bytes_)

    def _rows(self, place: LinePlace) -> tuple[LayerRowCost, ...]:
        """Every layer of the network there, if each stage had two: the others of a stage cost what the second does."""
        known = self._row_costs.get((place.width, place.resolution))
        if known is None:
            network = self._layer_operations.get(place.width)
            if network is None:
                pairs = replace(self._two_layer_base, width=self.width.typical_value(place.width))
                network = self._layer_operations[place.width] = tuple(
                    layers_with_operations(pairs, *self._count_arguments)
                )
            side = self._side(place)
            known = tuple(
                (row.layer.stage, not row.name.endswith(".1"), NetworkCost(row.macs, row.params, row.bytes))
                for row in count_layers(network, (side, side))
            )
            self._row_costs[place.width, place.resolution] = known
        return known

    def point_at(self, place: LinePlace) -> LinePoint:
        """The network there, with the shortest numbers that give it."""
        alpha, beta, gamma = self.coefficients
        low, high = self.phi_range(place)
        if high - low > EQUAL_TOLERANCE:
            if low <= 0 <= high and self.cost(place) == self.base_cost:
                return LinePoint(self.base, 0.0, 0.0, self.base_cost)
            if low <= 0 <= high:  # `scale` rounds at every φ but 0
                low, high = (low, -EQUAL_TOLERANCE) if -low > high else (EQUAL_TOLERANCE, high)
            phi = shortest_decimal(low, high, (low + high) / 2)
            return LinePoint(scale(self.base, phi, alpha, beta, gamma), phi, 0.0, self.cost(place))
        off, phi = self._nearest(place)
        phi = round(phi, 4)
        width, depth = (
            shortest_decimal(*ladder.value_range(step), ladder.value(phi)) if ladder.thresholds else ladder.start
            for ladder, step in ((self.width, place.width), (self.depth, place.depth))
        )
        side = self._side(place)
        name = f"{self.base.name}_w{width:g}_d{depth:g}_r{side}"
        arch = replace(
            self.base, name=name, width=width, depth=depth, resolution=side, dropout=scale_dropout(self.base, phi)
        )
        return LinePoint(arch, phi, off, self.cost(place))

    def distance(self, place: LinePlace) -> float:
        """By what share width, depth or resolution there leaves what the nearest φ asks for; 0 on the line."""
        low, high = self.phi_range(place)
        return 0.0 if high - low > EQUAL_TOLERANCE else self._nearest(place)[0]

    def _nearest(self, place: LinePlace) -> tuple[float, float]:
        """How far from the line a place beside it is, and from which φ.

        A value is within δ (of logarithms) of what φ asks for where φ lies between (low − δ) / growth and
        (high + δ) / growth. These intervals of all dimensions have a φ in common where every two of them have.
        """
        rows = []
        for ladder, step in zip(self.dimensions, place, strict=True):
            if ladder.coefficient > 1:
                low, high = ladder.value_range(step)
                rows.append((log(low / ladder.start), log(high / ladder.start), log(ladder.coefficient)))
        off = max(
            ((low / growth - high / other) / (1 / growth + 1 / other)
             for (low, _, growth), (_, high, other) in permutations(rows, 2)),
            default=0.0,
        )  # fmt: skip
        begin, end = (
            max((low - off) / growth for low, _, growth in rows),
            min((high + off) / growth for _, high, growth in rows),
        )
        return exp(off) - 1, (begin + end) / 2

    def _side(self, place: LinePlace) -> int:
        if not self.resolution.thresholds:
            return self.base.resolution
        low, high = self.resolution.value_range(place.resolution)
        return max(RESOLUTION_STEP, round((low + high) / 2 / RESOLUTION_STEP) * RESOLUTION_STEP)


@lru_cache(maxsize=32)
def make_line(
    base: Arch, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
) -> CompoundLine:
    """The line of that base and those coefficients, with what was counted on it before."""
    return CompoundLine(base, alpha, beta, gamma, classes, channels)
