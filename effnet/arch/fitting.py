"""Fitting a network to limits: the largest one near the compound line within limits of counted and measured costs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import dist, exp, log
from types import MappingProxyType

from effnet.arch import compound_line, counting, scaling, serde, spec, variants
from effnet.arch.compound_line import CompoundLine, LinePlace, LinePoint, NetworkCost, make_line

CostFunction = Callable[[spec.Arch], float]

LIMIT_UNITS = MappingProxyType({"macs": "MACs", "params": "params", "memory": "bytes of peak memory"})

# Search under measured costs, which are expensive:
CLOSE_ENOUGH_SHARE = 0.95  # of a limit: closer candidates are not worth a measurement
TARGET_SHARE = 0.975  # of a limit: the middle of the range that is close enough
MAX_MACS_GROWTH = 16  # from one measured network to the next, so that a wrong guess does not cost an hour
MAX_EVALUATIONS = 60  # of networks on the line: every fourth halves the remaining line, which has a few thousand
MAX_NEIGHBOR_EVALUATIONS = 8  # of networks beside the line
PHI_NEIGHBORHOOD = 2.0  # φ on both sides of a too large step of the line, between which its neighbors are searched
REMEASURE_TOLERANCE = 0.1  # a cost that is lower by more than this when measured again was disturbed before
MAX_RESTARTS = 3  # of the search after a disturbed measurement
LOG_MACS_TOLERANCE = 0.015  # of networks with MACs this close to the target, the nearest to the line is measured
MIN_SHARE = 1e-9  # lower bound of a share whose logarithm is taken

LogPoint = tuple[float, float]  # logarithms of a network's MACs and of the largest share of a limit


@dataclass(frozen=True)
class Limit:
    """A limit of one cost, and the network's cost: ``reached`` of ``allowed``."""

    name: str  # "macs", "params", "memory", or "costs[0]", …
    allowed: float
    reached: float

    @property
    def share(self) -> float:
        """The fraction of the limit that is used."""
        return self.reached / self.allowed


@dataclass(frozen=True)
class FitResult:
    """The network that `fit` returns, with the reasons.

    ``line_distance`` is the largest relative deviation of width, depth or resolution from what the nearest φ requests
    (for roundings, from the nearer end of their range); 0 if `scale` returns this network.
    """

    rounding: scaling.RoundingReport
    line_distance: float
    limits: tuple[Limit, ...]
    reached_line_end: bool  # the line ends before any limit is reached

    @property
    def arch(self) -> spec.Arch:
        """The network."""
        return self.rounding.arch

    @property
    def phi(self) -> float:
        """The φ nearest to the network."""
        return self.rounding.phi

    @property
    def binding(self) -> Limit:
        """The limit that prevents a larger network: the one with the largest share used."""
        return max(self.limits, key=lambda limit: limit.share)


def fit(
    arch: str | spec.Arch,
    macs: float | None = None,
    params: float | None = None,
    memory: float | None = None,
    costs: Iterable[tuple[CostFunction, float]] = (),
    *,
    alpha: float = scaling.ALPHA,
    beta: float = scaling.BETA,
    gamma: float = scaling.GAMMA,
    classes: int = 1000,
    channels: int = 3,
) -> spec.Arch:
    """Return the largest network near the compound line of ``arch`` that stays within every limit.

    Of all networks within one rounding step of the line (see `effnet.arch.compound_line.CompoundLine`) it is the one
    that comes closest to a limit; of several the nearest to the line, then the one with the most MACs. The line ends at
    φ = −20 and 20, or where an arch cannot grow further.

    Measured costs are expensive, so they are evaluated for few networks on the line, until one is within 5 % below its
    limit; where the line steps over that range, for a few beside it. The resulting network and, unless it is that
    close, the smallest one that was too expensive are evaluated twice, since a measurement is too large while the
    machine is disturbed.

    Args:
        arch: The base, or the name of a published network.
        macs: Limit of the MACs for one image at the network's own resolution.
        params: Limit of the parameters, with a classifier of ``classes`` outputs.
        memory: Limit in bytes of the peak memory of the maps in inference, without the weights, as in `count`.
        costs: Pairs of a function of the arch, such as a measured latency in seconds, and its limit.
        alpha: Growth of the depth per φ.
        beta: Growth of the width.
        gamma: Growth of the resolution.
        classes: Outputs of the classifier.
        channels: Input channels.

    Raises:
        ValueError: There is no limit, or even the smallest network exceeds one.

    Example:
        >>> effnet.fit("b0", macs=1e9, costs=[(effnet.latency(threads=2), 0.020)])
    """
    return fit_detailed(arch, macs, params, memory, costs, alpha, beta, gamma, classes, channels).arch


def fit_detailed(
    arch: str | spec.Arch,
    macs: float | None = None,
    params: float | None = None,
    memory: float | None = None,
    costs: Iterable[tuple[CostFunction, float]] = (),
    alpha: float = scaling.ALPHA,
    beta: float = scaling.BETA,
    gamma: float = scaling.GAMMA,
    classes: int = 1000,
    channels: int = 3,
) -> FitResult:
    """Like `fit`, but return the reasons too."""
    base = variants.resolve_arch(arch)
    counts = {"macs": macs, "params": params, "memory": memory}
    limits = {name: limit for name, limit in counts.items() if limit is not None}
    costs = tuple(costs)
    if not limits and not costs:
        raise ValueError("fit needs a limit: pass macs, params, memory or costs")
    measured_limits = {f"costs[{index}]": limit for index, (_, limit) in enumerate(costs)}
    for name, limit in (limits | measured_limits).items():
        serde.check_float(name, limit, 0, exclusive=True)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        serde.check_float(name, coefficient, 1, 100)
    line = make_line(base, alpha, beta, gamma, classes, channels)
    point = _search_counted(line, limits) if limits else None
    search = _MeasuredSearch(line, limits, costs)
    if point is None or (costs and search.share(point.arch) > 1):
        point = search.run(point)
    used = [Limit(name, limit, _cost_value(point.cost, name)) for name, limit in limits.items()]
    if costs:
        used += map(Limit, measured_limits, measured_limits.values(), search.costs[point.arch])
    report = scaling.compare_rounding(base, point.arch, point.phi, alpha, beta, gamma, classes, channels)
    reached_line_end = not costs and _within(line.cost(line.place_at(line.highest)), limits)
    return FitResult(report, point.distance, tuple(used), reached_line_end)


def nearest_released(arch: spec.Arch) -> spec.Arch:
    """Return the network in `released_family` whose MACs and parameters are closest, on logarithmic scales."""
    costs = _log_macs_and_params(arch)
    return min(released_family(arch), key=lambda released: dist(costs, _log_macs_and_params(released)))


def released_family(arch: spec.Arch) -> tuple[spec.Arch, ...]:
    """Return the released networks with the rows of ``arch`` if there are several, or else all, in table order."""
    released = tuple(known for known in variants.RELEASED_ARCHS if known.name != "nano")
    family = tuple(known for known in released if known.stages == arch.stages)
    return family if len(family) > 1 else released


@lru_cache(maxsize=64)
def _log_macs_and_params(arch: spec.Arch) -> tuple[float, float]:
    counted = counting.count(arch)
    return log(counted.macs), log(counted.params)


# --- Limits of counted costs -------------------------------------------------------------------------------------


def _search_counted(line: CompoundLine, limits: Mapping[str, float]) -> LinePoint:
    """Return the network within one rounding step of the line and within ``limits`` that is closest to a limit.

    Every count grows with every dimension. So below a φ where even the largest place beside the line fits, none is
    closer; above a φ where not even the smallest one fits, none fits. Below there may be equals, since memory does not
    grow with every channel: as far down as the largest place beside φ reaches the same.
    """
    best = [line.place_at(line.lowest)]
    if not _within(line.cost(best[0]), limits):
        raise ValueError(_describe_smallest(line, limits))
    begin = line.last_phi(lambda phi: _within(line.cost(line.place_at(phi, 1)), limits))
    end = line.last_phi(lambda phi: _within(line.cost(line.place_at(phi, -1)), limits))
    closest = 0.0
    for place in line.places_between(begin - compound_line.PHI_TOLERANCE, end + 2 * compound_line.PHI_TOLERANCE):
        cost = line.cost(place)
        share = _max_share(cost, limits)
        if share >= closest and _within(cost, limits):
            best = [*best, place] if share == closest else [place]
            closest = share
    below = line.last_phi(lambda phi: _max_share(line.cost(line.place_at(phi, 1)), limits) < closest)
    best += [place for place in line.places_between(below, begin) if _max_share(line.cost(place), limits) == closest]
    if _within(line.base_cost, limits) and _max_share(line.base_cost, limits) > closest:
        return LinePoint(line.base, 0.0, 0.0, line.base_cost)  # it need not be rounded like its line
    return line.point_at(min(best, key=lambda place: (line.distance(place), -line.cost(place).macs)))


def _cost_value(cost: NetworkCost, name: str) -> float:
    return {"macs": cost.macs, "params": cost.params, "memory": cost.bytes}[name]


def _within(cost: NetworkCost, limits: Mapping[str, float]) -> bool:
    return all(_cost_value(cost, name) <= limit for name, limit in limits.items())


def _max_share(cost: NetworkCost, limits: Mapping[str, float]) -> float:
    return max(_cost_value(cost, name) / limit for name, limit in limits.items())


def _describe_smallest(line: CompoundLine, limits: Mapping[str, float]) -> str:
    smallest = line.cost(line.place_at(line.lowest))
    exceeded = ", ".join(
        f"{_cost_value(smallest, name):,} {LIMIT_UNITS[name]} (limit {limit:,.10g})"
        for name, limit in limits.items()
        if _cost_value(smallest, name) > limit
    )
    return f"even the smallest scaled {line.base.name} (φ = {line.lowest:g}) exceeds the limit: it has {exceeded}"


# --- Limits of measured costs ------------------------------------------------------------------------------------


class _MeasuredSearch:
    """Search along and beside a line under expensive, measured costs; ``limits`` of counted costs hold as well.

    Every network is measured once, those that decide a second time; ``costs`` has the results.
    """

    def __init__(
        self, line: CompoundLine, limits: Mapping[str, float], cost_limits: tuple[tuple[CostFunction, float], ...]
    ) -> None:
        self.line, self.limits, self._cost_limits = line, limits, cost_limits
        self.costs: dict[spec.Arch, tuple[float, ...]] = {}
        self._close_enough = CLOSE_ENOUGH_SHARE
        self._remeasured: set[spec.Arch] = set()

    def share(self, arch: spec.Arch) -> float:
        """Return the largest share of a limit that ``arch`` takes, measuring it unless that has been done."""
        if arch not in self.costs:
            self.costs[arch] = tuple(cost(arch) for cost, _ in self._cost_limits)
        return max(cost / limit for cost, (_, limit) in zip(self.costs[arch], self._cost_limits, strict=True))

    def run(self, too_expensive: LinePoint | None) -> LinePoint:
        """Return the network whose costs come close to their limits without exceeding them.

        ``too_expensive`` is the network that the counted limits alone would give, if there are any. Raises
        ``ValueError`` if even the smallest network exceeds a limit.
        """
        result = self._search_line(too_expensive)
        for _ in range(MAX_RESTARTS):
            if not self._remeasure(result.arch):
                break
            result = self._search_line(too_expensive)  # measures only networks that are new
        return result

    def _remeasure(self, result: spec.Arch) -> bool:
        """Measure the result again and, unless it is close to its limit, the smallest network that is too expensive.

        Return whether a cost was lower by more than `REMEASURE_TOLERANCE`. Only then is it updated: smaller differences
        are in the nature of measurements, and the search would not end. From then on costs within this tolerance of a
        limit are close enough.
        """
        deciding = [result]
        if self.share(result) < self._close_enough:
            deciding += sorted((arch for arch in self.costs if self.share(arch) > 1), key=self.share)[:1]
        changed = False
        for arch in deciding:
            if arch not in self._remeasured:
                self._remeasured.add(arch)
                before, now = self.costs[arch], tuple(cost(arch) for cost, _ in self._cost_limits)
                if any(second < (1 - REMEASURE_TOLERANCE) * first for second, first in zip(now, before, strict=True)):
                    self.costs[arch], changed = tuple(map(min, now, before)), True
                    self._close_enough = 1 - REMEASURE_TOLERANCE
        return changed

    def _search_line(self, too_expensive: LinePoint | None) -> LinePoint:
        """Return the network on the line whose largest share of a limit is close to 1 and not above it.

        Costs are assumed to grow as a power of the MACs, which is estimated on the way; each measurement narrows the
        remaining part of the line.
        """
        line, lowest, highest = self.line, self.line.lowest, self.line.highest
        if self.limits:
            highest = line.last_phi(lambda phi: _within(line.cost(line.place_at(phi)), self.limits))
        below: LogPoint | None = None  # of the largest network within the limits
        above: LogPoint | None = None  # of the smallest one that exceeds one
        previous: LogPoint | None = None
        best, phi = None, min(max(0.0, lowest), highest)
        if too_expensive is not None:
            above = previous = (log(too_expensive.cost.macs), log(self.share(too_expensive.arch)))
            phi = line.phi_for_macs(exp(above[0] - above[1]) * TARGET_SHARE)
        for evaluation in range(1, MAX_EVALUATIONS + 1):
            phi = min(max(phi, lowest + compound_line.EQUAL_TOLERANCE), highest - compound_line.EQUAL_TOLERANCE)
            place = line.place_at(phi)
            candidate = line.point_at(place)
            share = self.share(candidate.arch)
            point = (log(line.cost(place).macs), log(max(share, MIN_SHARE)))
            if share <= 1:
                best, below, lowest = candidate, point, line.phi_range(place)[1]
                if share >= self._close_enough:
                    break
            else:
                above, highest = point, line.phi_range(place)[0]
            if highest - lowest <= 2 * compound_line.EQUAL_TOLERANCE:
                break
            target = _next_log_macs(point, previous, below, above, halve=evaluation % 4 == 0)
            phi, previous = line.phi_for_macs(exp(target)), point
        if best is None:
            raise ValueError(
                f"even the smallest scaled {line.base.name} (φ = {line.lowest:g}) exceeds the limit: "
                f"it takes {exp(point[1]):.3g} times what is allowed"
            )
        assert below is not None
        if above is None or below[1] >= log(self._close_enough):
            return best
        return self._search_beside_line(best, lowest, below, above)

    def _search_beside_line(self, best: LinePoint, phi: float, below: LogPoint, above: LogPoint) -> LinePoint:
        """Return a network within one rounding step of the line, which at φ itself steps over the limits.

        It is searched between the MACs of ``below`` and ``above``, on both sides of φ; ``best`` if none is closer.
        """
        line = self.line
        neighbors: list[tuple[float, float, LinePlace]] = [
            (log(cost.macs), line.distance(place), place)
            for place in line.places_between(phi - PHI_NEIGHBORHOOD, phi + PHI_NEIGHBORHOOD)
            if below[0] < log((cost := line.cost(place)).macs) < above[0] and _within(cost, self.limits)
        ]
        for evaluation in range(1, MAX_NEIGHBOR_EVALUATIONS + 1):
            neighbors = [neighbor for neighbor in neighbors if below[0] < neighbor[0] < above[0]]
            if not neighbors:
                break
            target = _next_log_macs(below, None, below, above, halve=evaluation % 4 == 0)
            close = [neighbor for neighbor in neighbors if abs(neighbor[0] - target) < LOG_MACS_TOLERANCE]
            nearest = min(neighbors, key=lambda neighbor: abs(neighbor[0] - target))
            log_macs, _, place = min(close, key=lambda neighbor: neighbor[1], default=nearest)
            candidate = line.point_at(place)
            share = self.share(candidate.arch)
            if share > 1:
                above = log_macs, log(share)
                continue
            if log(max(share, MIN_SHARE)) > below[1]:
                best = candidate
            below = log_macs, log(max(share, MIN_SHARE))
            if share >= self._close_enough:
                break
        return best


def _next_log_macs(
    point: LogPoint, previous: LogPoint | None, below: LogPoint | None, above: LogPoint | None, halve: bool
) -> float:
    if below and above and (halve or above[0] <= below[0]):
        return (below[0] + above[0]) / 2
    first, second = (below, above) if below and above else (previous, point)
    power = 1.0
    if first and second and first[0] != second[0]:
        power = min(max((second[1] - first[1]) / (second[0] - first[0]), 0.25), 4.0)
    return point[0] + min((log(TARGET_SHARE) - point[1]) / power, log(MAX_MACS_GROWTH))
