"""The compound line after rounding: the networks on and beside it, and the cost of each.

Width, depth and resolution are rounded. `RoundingSteps` lists the roundings of one dimension and the φ at which each
gives way to the next; `CompoundLine` combines the three.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import permutations
from math import ceil, exp, floor, log, sqrt
from typing import NamedTuple

from effnet.arch import counting, rounding_rules, scaling, spec

EQUAL_TOLERANCE = 1e-9  # of φ, and relative of multipliers: closer values are equal
PHI_TOLERANCE = 0.003  # of φ in a search along the line: finer than most roundings
MAX_PHI = 20.0  # on either side, as in `scale`
MAX_MULTIPLIER = 99.99  # of width and depth: an `Arch` allows 100, and powers are rounded
MAX_RESOLUTION = 8192  # pixels; a larger base is the largest of its line

ThresholdFunction = Callable[[float, float], Iterable[float]]  # thresholds between two values


class RoundingSteps:
    """The roundings of one dimension in order: ``start`` at φ = 0, growing by ``coefficient`` per φ.

    ``thresholds`` are the values at which one rounding gives way to the next. With a coefficient of 1 there are none:
    the dimension is constant. ``lowest`` and ``highest`` are the φ at which the line ends.
    """

    def __init__(
        self, start: float, coefficient: float, ends: tuple[float, float], find_thresholds: ThresholdFunction
    ) -> None:
        self.start, self.coefficient, (self.lowest, self.highest) = start, coefficient, ends
        self.thresholds: list[float] = []
        if coefficient > 1:
            low, high = map(self.value, ends)
            for value in sorted(find_thresholds(low, high)):
                last = self.thresholds[-1] if self.thresholds else 0
                if low < value < high and value > last * (1 + EQUAL_TOLERANCE):
                    self.thresholds.append(value)

    def value(self, phi: float) -> float:
        """Return the unrounded value at φ."""
        value: float = self.start * self.coefficient**phi
        return value

    def step_at(self, phi: float) -> int:
        """Return the index of the rounding at φ."""
        return bisect_left(self.thresholds, self.value(phi))

    def value_range(self, step: int) -> tuple[float, float]:
        """Return the lowest and highest value that are rounded to ``step``."""
        low = self.thresholds[step - 1] if step > 0 else self.value(self.lowest)
        high = self.thresholds[step] if step < len(self.thresholds) else self.value(self.highest)
        return low, high

    def phi_range(self, step: int, beside: int = 0) -> tuple[float, float]:
        """Return the lowest and highest φ whose rounding is at most ``beside`` steps from ``step``."""
        last = len(self.thresholds)
        low = self._phi(self.thresholds[step - beside - 1]) if step - beside > 0 else self.lowest
        high = self._phi(self.thresholds[step + beside]) if step + beside < last else self.highest
        return low, high

    def typical_value(self, step: int) -> float:
        """Return a value well inside the range of ``step``."""
        low, high = self.value_range(step)
        return sqrt(low * high) if self.thresholds else self.start

    def _phi(self, value: float) -> float:
        return log(value / self.start) / log(self.coefficient)


def _width_thresholds(base: spec.Arch, low: float, high: float) -> Iterator[float]:
    """Yield widths at which some channels are rounded up: half-way to the next multiple, or earlier by the floor."""
    rows = base.stages
    channel_counts = {size for row in rows for size in (row.channels, row.expand_from, *row.expanded, *row.squeezed)}
    channel_counts.discard(0)
    if base.scale_ends:
        channel_counts |= {base.stem, base.head}
    step, round_floor = base.divisor, base.round_floor
    for channels in channel_counts:
        for steps in range(max(1, floor(low * channels / step) - 1), ceil(high * channels / step) + 1):
            middle = step * (steps + 0.5)
            yield (min(middle, step * steps / round_floor) if round_floor else middle) / channels


def _depth_thresholds(base: spec.Arch, low: float, high: float) -> Iterator[float]:
    """Yield depths at which some row of n layers goes from m to m + 1: m / n."""
    for stage in base.stages if base.scale_ends else base.stages[1:-1]:
        for repeats in range(max(1, floor(low * stage.layers)), ceil(high * stage.layers) + 1):
            yield repeats / stage.layers


def _resolution_thresholds(low: float, high: float) -> Iterator[float]:
    """Yield the resolutions half-way between multiples of the step, which is the smallest resolution."""
    step = rounding_rules.RESOLUTION_STEP
    for steps in range(max(1, floor(low / step)), ceil(high / step) + 1):
        yield (steps + 0.5) * step


def shortest_decimal(low: float, high: float, near: float) -> float:
    """Return the number with the fewest digits between ``low`` and ``high``; of several the one closest to ``near``."""
    margin = (high - low) / 100  # keeps a distance from the thresholds themselves
    low, high = low + margin, high - margin
    near = min(max(near, low), high)
    for digits in range(15):
        for value in (round(near, digits), floor(high * 10**digits) / 10**digits, ceil(low * 10**digits) / 10**digits):
            if low <= value <= high:
                return value
    return near


class LinePlace(NamedTuple):
    """A network near the line: the index of the rounding of each dimension, from the line's lowest end."""

    width: int
    depth: int
    resolution: int


class NetworkCost(NamedTuple):
    """The cost of a network as in `count`."""

    macs: int
    params: int
    bytes: int


LayerRowCost = tuple[int, int, bool, NetworkCost]  # a layer's stage and place in it, whether it repeats, its cost


class LinePoint(NamedTuple):
    """A `LinePlace` as a network.

    ``distance``: the largest relative deviation of width, depth or resolution from their values at ``phi``, the nearest
    φ; 0 if `scale` returns this network.
    """

    arch: spec.Arch
    phi: float
    distance: float
    cost: NetworkCost


class CompoundLine:
    """``base`` scaled by every φ, after rounding. A dimension with a coefficient of 1 is constant.

    A *rounding step*: the distinct roundings of each dimension are numbered in order. For width these are the channels
    of stem, stages and head together, for depth the layers of all stages together, for resolution the multiples of 4
    pixels. A network is *within one rounding step of the line* if there is a φ such that in each of the three
    dimensions its number differs from that of φ by at most 1. Raises ``ValueError`` if all three coefficients are 1.
    """

    def __init__(
        self, base: spec.Arch, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
    ) -> None:
        if alpha == beta == gamma == 1:
            raise ValueError("nothing grows if alpha, beta and gamma are all 1: increase one of them")
        self.base, self.coefficients = base, (alpha, beta, gamma)
        self._count_arguments = (classes, channels)
        highest = [
            log(maximum / start) / log(coefficient)
            for coefficient, start, maximum in (
                (beta, base.width, MAX_MULTIPLIER),
                (alpha, base.depth, MAX_MULTIPLIER),
                (gamma, base.resolution, max(MAX_RESOLUTION, base.resolution)),
            )
            if coefficient > 1
        ]
        self.lowest, self.highest = -MAX_PHI, min(MAX_PHI, *highest)
        ends = self.lowest, self.highest
        self.width = RoundingSteps(base.width, beta, ends, partial(_width_thresholds, base))
        self.depth = RoundingSteps(base.depth, alpha, ends, partial(_depth_thresholds, base))
        self.resolution = RoundingSteps(base.resolution, gamma, ends, _resolution_thresholds)
        self.dimensions = self.width, self.depth, self.resolution
        # Further layers of a stage cost what the second one does, or the last one whose channels are listed
        stages = tuple(row.with_layers(max(2, len(row.expanded), len(row.squeezed))) for row in base.stages)
        self._distinct_layers_base = replace(base, depth=1.0, stages=stages)
        self._layer_operations: dict[int, tuple[counting.LayerOperations, ...]] = {}
        self._row_costs: dict[tuple[int, int], tuple[LayerRowCost, ...]] = {}
        self._repeats: dict[int, tuple[int, ...]] = {}

    @cached_property
    def base_cost(self) -> NetworkCost:
        """The cost of the base itself, which need not be rounded like its line."""
        counted = counting.count(self.base, None, *self._count_arguments)
        return NetworkCost(counted.macs, counted.params, counted.bytes)

    def place_at(self, phi: float, beside: int = 0) -> LinePlace:
        """Return the place of the line at φ, or the one ``beside`` steps larger in every dimension."""
        steps = ((dimension.step_at(phi) + beside, len(dimension.thresholds)) for dimension in self.dimensions)
        return LinePlace(*(min(max(step, 0), last) for step, last in steps))

    def phi_range(self, place: LinePlace, beside: int = 0) -> tuple[float, float]:
        """Return the φ between which the line is within ``beside`` steps of ``place``; reversed if it never is."""
        ranges = [dimension.phi_range(step, beside) for dimension, step in zip(self.dimensions, place, strict=True)]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    def places_between(self, begin: float, end: float) -> Iterator[LinePlace]:
        """Yield every place within one rounding step of the line between two φ."""
        first, last = self.place_at(begin, -1), self.place_at(end, 1)
        widths, depths, sides = (
            [(step, dimension.phi_range(step, 1)) for step in range(low, high + 1)]
            for dimension, low, high in zip(self.dimensions, first, last, strict=True)
        )
        for width, (width_low, width_high) in widths:
            for side, (side_low, side_high) in sides:
                low, high = max(begin, width_low, side_low), min(end, width_high, side_high)
                if low < high:
                    for depth, (depth_low, depth_high) in depths:
                        if max(low, depth_low) < min(high, depth_high):
                            yield LinePlace(width, depth, side)

    def last_phi(self, holds: Callable[[float], bool]) -> float:
        """Return the largest φ for which ``holds`` is true, to `PHI_TOLERANCE` below; it must be monotonic."""
        low, high = self.lowest, self.highest
        if holds(high):
            return high
        while high - low > PHI_TOLERANCE:
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    def phi_for_macs(self, macs: float) -> float:
        """Return about the φ at which the line reaches that many MACs, or the end of the line."""
        return self.last_phi(lambda phi: self.cost(self.place_at(phi)).macs <= macs)

    def cost(self, place: LinePlace) -> NetworkCost:
        """Return the cost of the network at ``place``: the same as `count`'s, but one count serves all depths."""
        repeats = self._repeats.get(place.depth)
        if repeats is None:
            repeats = rounding_rules.stage_depths(replace(self.base, depth=self.depth.typical_value(place.depth)))
            self._repeats[place.depth] = repeats
        macs = params = bytes_ = 0
        for stage, position, is_last, cost in self._distinct_layer_costs(place):
            beyond = repeats[stage - 1] - position if 0 < stage <= len(repeats) else 1
            times = beyond if is_last else min(beyond, 1)
            if times > 0:
                macs += times * cost.macs
                params += times * cost.params
                bytes_ = max(bytes_, cost.bytes)
        return NetworkCost(macs, params, bytes_)

    def _distinct_layer_costs(self, place: LinePlace) -> tuple[LayerRowCost, ...]:
        """Return the cost of every layer that differs from the one before it, and of its first repetition."""
        rows = self._row_costs.get((place.width, place.resolution))
        if rows is None:
            network = self._layer_operations.get(place.width)
            if network is None:
                arch = replace(self._distinct_layers_base, width=self.width.typical_value(place.width))
                layers = spec.layers(arch, *self._count_arguments)
                network = tuple((layer, counting.operations(layer)) for layer in layers)
                self._layer_operations[place.width] = network
            side = self._side(place)
            rows = tuple(
                (row.layer.stage, *self._place_in_stage(row.layer), NetworkCost(row.macs, row.params, row.bytes))
                for row in counting.count_layers(network, (side, side))
            )
            self._row_costs[place.width, place.resolution] = rows
        return rows

    def _place_in_stage(self, layer: spec.Layer) -> tuple[int, bool]:
        """Return the place of a layer in its stage, from 0, and whether further layers of the stage are like it."""
        if layer.kind not in spec.BLOCK_KINDS:
            return 0, False
        position = int(layer.name.rpartition(".")[2])
        return position, position + 1 == self._distinct_layers_base.stages[layer.stage - 1].layers

    def point_at(self, place: LinePlace) -> LinePoint:
        """Return the network at ``place``, with the shortest numbers that give it."""
        alpha, beta, gamma = self.coefficients
        low, high = self.phi_range(place)
        if high - low > EQUAL_TOLERANCE:
            if low <= 0 <= high and self.cost(place) == self.base_cost:
                return LinePoint(self.base, 0.0, 0.0, self.base_cost)
            if low <= 0 <= high:  # `scale` rounds at every φ but 0
                low, high = (low, -EQUAL_TOLERANCE) if -low > high else (EQUAL_TOLERANCE, high)
            phi = shortest_decimal(low, high, (low + high) / 2)
            return LinePoint(scaling.scale(self.base, phi, alpha, beta, gamma), phi, 0.0, self.cost(place))
        distance, phi = self._nearest(place)
        phi = round(phi, 4)
        width, depth = (
            shortest_decimal(*dimension.value_range(step), dimension.value(phi))
            if dimension.thresholds
            else dimension.start
            for dimension, step in ((self.width, place.width), (self.depth, place.depth))
        )
        side = self._side(place)
        arch = replace(
            self.base,
            name=f"{self.base.name}_w{width:g}_d{depth:g}_r{side}",
            width=width,
            depth=depth,
            resolution=side,
            dropout=scaling.scale_dropout(self.base, phi),
        )
        return LinePoint(arch, phi, distance, self.cost(place))

    def distance(self, place: LinePlace) -> float:
        """Return the distance from the line as in `LinePoint`; 0 on the line."""
        low, high = self.phi_range(place)
        return 0.0 if high - low > EQUAL_TOLERANCE else self._nearest(place)[0]

    def _nearest(self, place: LinePlace) -> tuple[float, float]:
        """Return the distance of a place beside the line, and the nearest φ.

        A value is within δ (in logarithms) of that of φ for φ between (low − δ) / growth and (high + δ) / growth. The
        intervals of all dimensions have a φ in common if every two of them do.
        """
        ranges = []
        for dimension, step in zip(self.dimensions, place, strict=True):
            if dimension.coefficient > 1:
                low, high = dimension.value_range(step)
                ranges.append((log(low / dimension.start), log(high / dimension.start), log(dimension.coefficient)))
        deltas = (
            (low / growth - high / other_growth) / (1 / growth + 1 / other_growth)
            for (low, _, growth), (_, high, other_growth) in permutations(ranges, 2)
        )
        delta = max(deltas, default=0.0)
        begin = max((low - delta) / growth for low, _, growth in ranges)
        end = min((high + delta) / growth for _, high, growth in ranges)
        return exp(delta) - 1, (begin + end) / 2

    def _side(self, place: LinePlace) -> int:
        if not self.resolution.thresholds:
            return self.base.resolution
        low, high = self.resolution.value_range(place.resolution)
        return rounding_rules.round_resolution((low + high) / 2)


@lru_cache(maxsize=32)
def make_line(
    base: spec.Arch, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
) -> CompoundLine:
    """Return the (cached) line of a base and coefficients, with the costs counted so far."""
    return CompoundLine(base, alpha, beta, gamma, classes, channels)
