"""Costs that are dear, such as a measured latency: asked for of few networks, until one is close to its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from types import MappingProxyType

from effnet.arch.compound_line import EQUAL_TOLERANCE, PHI_TOLERANCE, CompoundLine, LinePoint, make_line
from effnet.arch.compound_line import NetworkCost as Counted
from effnet.arch.counting import count
from effnet.arch.scaling import ALPHA, BETA, GAMMA, RoundingReport, compare_rounding
from effnet.arch.serde import check_float
from effnet.arch.spec import Arch
from effnet.arch.variants import ARCHS, resolve_arch

CostFunction = Callable[[Arch], float]


LogPoint = tuple[float, float]  # logarithms of a network's MACs, and of the share of its limit that a cost takes


CLOSE_ENOUGH_SHARE = (
    0.95  # a cost of this share of its limit is close enough: the next candidate would be asked for in vain
)


TARGET_SHARE = 0.975  # of the limit: in the middle of what is close


MAX_MACS_GROWTH = 16  # times the MACs of what was asked for before, that a wrong guess costs no hour


MAX_EVALUATIONS = 60  # networks: every fourth halves what is left of a line that has a few thousand


MAX_NEIGHBOR_EVALUATIONS = 8  # networks beside the line


PHI_NEIGHBORHOOD = (
    2.0  # of φ, to either side of a step of the line that is too large: what lies beside the line there fills it
)


REMEASURE_TOLERANCE = (
    0.1  # of a cost: what comes out less by more than this when it is asked for again was disturbed before
)


MAX_RESTARTS = 3  # times that the search starts anew for that


LOG_MACS_TOLERANCE = (
    0.015  # of the logarithm of MACs: of networks this near to the wanted ones the nearest to the line is asked for
)


MIN_SHARE = 1e-9  # a share whose logarithm stands for that of nothing


class MeasuredCosts:
    """What the networks that were asked for cost, in ``of``. Each is asked for once, those that decide a second time.

    ``close``: a network that takes this share of a limit is close enough.
    """

    def __init__(self, costs: tuple[tuple[CostFunction, float], ...]) -> None:
        self._costs, self.close_enough = costs, CLOSE_ENOUGH_SHARE
        self.by_arch: dict[Arch, tuple[float, ...]] = {}
        self._remeasured: set[Arch] = set()

    def limit_share(self, arch: Arch) -> float:
        """The largest part of a cost's limit that ``arch`` takes."""
        if arch not in self.by_arch:
            self.by_arch[arch] = tuple(cost(arch) for cost, _ in self._costs)
        return max(taken / limit for taken, (_, limit) in zip(self.by_arch[arch], self._costs, strict=True))

    def remeasure(self, found: Arch) -> bool:
        """Asks again for ``found`` and, unless that is close to its limit, for the one that is just too dear.

        Whether one cost less than before by more than `DOUBT`. Only then it has another cost from now on: smaller
        differences are in the nature of measuring, and there would be no end to them. From then on, what is within
        them of a limit is close enough.
        """
        deciding = [found]
        if self.limit_share(found) < self.close_enough:
            deciding += sorted((arch for arch in self.by_arch if self.limit_share(arch) > 1), key=self.limit_share)[:1]
        changed = False
        for arch in deciding:
            if arch not in self._remeasured:
                self._remeasured.add(arch)
                before, now = self.by_arch[arch], tuple(cost(arch) for cost, _ in self._costs)
                if any(later < (1 - REMEASURE_TOLERANCE) * first for later, first in zip(now, before, strict=True)):
                    self.by_arch[arch], changed = tuple(map(min, now, before)), True
                    self.close_enough = 1 - REMEASURE_TOLERANCE
        return changed


def search_measured(
    along: CompoundLine, limits: Mapping[str, float], spent: MeasuredCosts, first: LinePoint | None
) -> LinePoint:
    """The network beside the line whose costs come close to their limits and not above; it also keeps ``limits``.

    ``first``: the one that ``limits`` alone would give, known to be too dear.
    Raises ``ValueError`` where even the smallest network of the line is too dear.
    """
    found = _search_along_line(along, limits, spent, first)
    for _ in range(MAX_RESTARTS):
        if not spent.remeasure(found.arch):
            break
        found = _search_along_line(along, limits, spent, first)  # asks for nothing that was asked for before
    return found


def _search_along_line(
    along: CompoundLine, limits: Mapping[str, float], spent: MeasuredCosts, first: LinePoint | None
) -> LinePoint:
    """The network on the line whose largest share of a cost's limit is close to 1 and not above it.

    Costs are taken to grow as a power of the MACs, which is found on the way; each answer narrows the part of the line
    that is left.
    """
    floor, roof = along.lowest, along.highest
    if limits:
        roof = along.last_phi(lambda phi: within_limits(along.cost(along.place_at(phi)), limits))
    under: LogPoint | None = None  # of the largest network that is within
    over: LogPoint | None = None  # of the smallest that is not
    before: LogPoint | None = None
    best, phi = None, min(max(0.0, floor), roof)
    if first is not None:
        over = before = (log(first.cost.macs), log(spent.limit_share(first.arch)))
        phi = along.phi_for_macs(exp(over[0] - over[1]) * TARGET_SHARE)
    for turn in range(1, MAX_EVALUATIONS + 1):
        phi = min(max(phi, floor + EQUAL_TOLERANCE), roof - EQUAL_TOLERANCE)
        place = along.place_at(phi)
        here = along.point_at(place)
        taken = spent.limit_share(here.arch)
        point = (log(along.cost(place).macs), log(max(taken, MIN_SHARE)))
        if taken <= 1:
            best, under, floor = here, point, along.phi_range(place)[1]
            if taken >= spent.close_enough:
                break
        else:
            over, roof = point, along.phi_range(place)[0]
        if roof - floor <= 2 * EQUAL_TOLERANCE:
            break
        target = _next_log_macs(point, before, under, over, halve=turn % 4 == 0)
        phi, before = along.phi_for_macs(exp(target)), point
    if best is None:
        raise ValueError(
            f"no network on {along.base.name}'s line is within the given costs: the smallest, of φ = {along.lowest:g}, "
            f"takes {exp(point[1]):.3g} times what is allowed"
        )
    assert under is not None
    if over is None or under[1] >= log(spent.close_enough):
        return best
    return _search_beside_line(along, limits, spent, best, floor, under, over)


def _search_beside_line(
    along: CompoundLine,
    limits: Mapping[str, float],
    spent: MeasuredCosts,
    best: LinePoint,
    phi: float,
    under: LogPoint,
    over: LogPoint,
) -> LinePoint:
    """A network within one rounding step of the line, where at φ the line itself steps over the limits of the costs.

    It is looked for between the MACs of ``under`` and ``over``, to either side of that step; ``best`` where there is
    none that is closer.
    """
    beside = [
        (log(cost.macs), along.distance(place), place)
        for place in along.places_between(phi - PHI_NEIGHBORHOOD, phi + PHI_NEIGHBORHOOD)
        if under[0] < log((cost := along.cost(place)).macs) < over[0] and within_limits(cost, limits)
    ]
    for turn in range(1, MAX_NEIGHBOR_EVALUATIONS + 1):
        beside = [each for each in beside if under[0] < each[0] < over[0]]
        if not beside:
            break
        target = _next_log_macs(under, None, under, over, halve=turn % 4 == 0)
        alike = [each for each in beside if abs(each[0] - target) < LOG_MACS_TOLERANCE]
        macs, _, place = (
            min(alike, key=lambda each: each[1]) if alike else min(beside, key=lambda each: abs(each[0] - target))
        )
        here = along.point_at(place)
        taken = spent.limit_share(here.arch)
        if taken > 1:
            over = macs, log(taken)
            continue
        if log(max(taken, MIN_SHARE)) > under[1]:
            best = here
        under = macs, log(max(taken, MIN_SHARE))
        if taken >= spent.close_enough:
            break
    return best


def _next_log_macs(
    point: LogPoint, before: LogPoint | None, under: LogPoint | None, over: LogPoint | None, halve: bool
) -> float:
    """The logarithm of the MACs to ask for next."""
    if under and over and (halve or over[0] <= under[0]):
        return (under[0] + over[0]) / 2
    one, other = (under, over) if under and over else (before, point)
    power = 1.0
    if one and other and one[0] != other[0]:
        power = min(max((other[1] - one[1]) / (other[0] - one[0]), 0.25), 4.0)
    return point[0] + min((log(TARGET_SHARE) - point[1]) / power, log(MAX_MACS_GROWTH))


def within_limits(cost: Counted, limits: Mapping[str, float]) -> bool:
    """Whether ``cost`` is within all the ``limits`` of what is counted."""
    return all(getattr(cost, name) <= limit for name, limit in limits.items())


# The largest network within limits, of those beside the compound line.


LIMIT_UNITS = MappingProxyType({"macs": "MACs", "params": "params", "bytes": "bytes of peak memory"})


@dataclass(frozen=True)
class Limit:
    """What was allowed of one cost, and what the network has of it."""

    name: str  # "macs", "params", "bytes", or "costs[0]" …
    allowed: float
    reached: float

    @property
    def share(self) -> float:
        """The part of the limit that is used."""
        return self.reached / self.allowed


@dataclass(frozen=True)
class FitResult:
    """The network that `fit` found, with its reasons.

    ``off``: how far the network lies from the line, as the largest of the three shares by which its width, depth and
    resolution leave what φ asks for (between two roundings, whichever end is nearer). 0: it is what `scale` makes of φ.
    """

    rounding: RoundingReport
    line_distance: float
    limits: tuple[Limit, ...]
    reached_line_end: bool  # the line ends before any limit is reached

    @property
    def arch(self) -> Arch:
        """The network."""
        return self.rounding.arch

    @property
    def phi(self) -> float:
        """The φ that the network is nearest to."""
        return self.rounding.phi

    @property
    def binding(self) -> Limit:
        """The limit of which the largest share is used: what stands in the way of a larger network."""
        return max(self.limits, key=lambda limit: limit.share)


def fit(
    arch: str | Arch,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    costs: Iterable[tuple[CostFunction, float]] = (),
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    classes: int = 1000,
    channels: int = 3,
) -> Arch:
    """The largest network beside ``arch``'s compound line that stays within every limit.

    ``macs`` and ``bytes`` (peak of the maps of inference, without the weights, as in ``count``) are for one picture at
    the network's own resolution, ``params`` with a classifier of so many ``classes``. Of all networks within one
    rounding step of the line (see `CompoundLine`) it is the one that comes closest to a limit; of equals the
    nearest to the line, then the one of the most MACs. Both ends of the line are where φ is −20 and 20, or where an
    arch can grow no further.
    Each of ``costs`` is a function of the arch and its limit, such as a measured latency in seconds. Being dear, it is
    asked for of a few networks on the line, until one is within 5 % of its limit and not above it; and where the line
    steps over that, of a few beside it. The network that is found, and where it is not as close the one that is just
    too dear, are asked about twice: what is measured comes out too large while the machine is disturbed.
    Raises ``ValueError`` when nothing is limited or even the smallest network is too large.
    """
    return fit_detailed(arch, macs, params, bytes, costs, alpha, beta, gamma, classes, channels).arch


def fit_detailed(
    arch: str | Arch,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    costs: Iterable[tuple[CostFunction, float]] = (),
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    classes: int = 1000,
    channels: int = 3,
) -> FitResult:
    """`fit` with its reasons: the rounding, what binds, how far from the line. Raises ``ValueError`` as `fit` does."""
    base = resolve_arch(arch)
    counts = {"macs": macs, "params": params, "bytes": bytes}
    limits = {name: limit for name, limit in counts.items() if limit is not None}
    costs = tuple(costs)
    if not limits and not costs:
        raise ValueError("fit needs a limit: give macs, params, bytes or costs")
    dear = {f"costs[{index}]": limit for index, (_, limit) in enumerate(costs)}
    for name, limit in (limits | dear).items():
        check_float(name, limit, 0, exclusive=True)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        check_float(name, coefficient, 1, 100)
    along = make_line(base, alpha, beta, gamma, classes, channels)
    found = _search_counted(along, limits) if limits else None
    spent = MeasuredCosts(costs)
    if found is None or (costs and spent.limit_share(found.arch) > 1):
        found = search_measured(along, limits, spent, found)
    reached = [Limit(name, limit, getattr(found.cost, name)) for name, limit in limits.items()]
    if costs:
        reached += [
            Limit(name, limit, each)
            for (name, limit), each in zip(dear.items(), spent.by_arch[found.arch], strict=True)
        ]
    report = compare_rounding(base, found.arch, found.phi, alpha, beta, gamma, classes, channels)
    ended = not costs and within_limits(along.cost(along.place_at(along.highest)), limits)
    return FitResult(report, found.distance, tuple(reached), ended)


def nearest_released(arch: Arch) -> Arch:
    """The released network that costs most nearly the same, in MACs and parameters.

    Among those of the same rows where several of them were released, or else among all: its `kin`.
    """
    macs, params = _log_macs_and_params(arch)

    def apart(known: Arch) -> float:
        other_macs, other_params = _log_macs_and_params(known)
        return (other_macs - macs) ** 2 + (other_params - params) ** 2

    return min(released_family(arch), key=apart)


def released_family(arch: Arch) -> tuple[Arch, ...]:
    """The released networks of ``arch``'s rows where there are several, or else all; in the order of their tables."""
    released = tuple(known for known in ARCHS.values() if known.name != "nano")
    alike = tuple(known for known in released if known.stages == arch.stages)
    return alike if len(alike) > 1 else released


@lru_cache(maxsize=64)
def _log_macs_and_params(arch: Arch) -> tuple[float, float]:
    """Of its MACs and of its parameters."""
    counted = count(arch)
    return log(counted.macs), log(counted.params)


def _search_counted(along: CompoundLine, limits: Mapping[str, float]) -> LinePoint:
    """Of the networks within one rounding step of the line and within ``limits`` the one that is closest to a limit.

    Every count grows with every dimension. So where even the largest place beside φ fits, none further down is closer;
    and where not even the smallest one does, none further up fits. Further down there may be equals, as memory does not
    grow with every channel: as far as the largest place beside φ has as much.
    """
    best = [along.place_at(along.lowest)]
    if not within_limits(along.cost(best[0]), limits):
        raise ValueError(_describe_smallest(along, limits))
    begin = along.last_phi(lambda phi: within_limits(along.cost(along.place_at(phi, 1)), limits))
    end = along.last_phi(lambda phi: within_limits(along.cost(along.place_at(phi, -1)), limits))
    closest = 0.0
    for place in along.places_between(begin - PHI_TOLERANCE, end + 2 * PHI_TOLERANCE):
        cost = along.cost(place)
        share = _max_share(cost, limits)
        if share >= closest and within_limits(cost, limits):
            best = [*best, place] if share == closest else [place]
            closest = share
    less = along.last_phi(lambda phi: _max_share(along.cost(along.place_at(phi, 1)), limits) < closest)
    best += [place for place in along.places_between(less, begin) if _max_share(along.cost(place), limits) == closest]
    if within_limits(along.base_cost, limits) and _max_share(along.base_cost, limits) > closest:
        return LinePoint(along.base, 0.0, 0.0, along.base_cost)  # it need not be rounded as its line is
    return along.point_at(min(best, key=lambda place: (along.distance(place), -along.cost(place).macs)))


def _max_share(cost: Counted, limits: Mapping[str, float]) -> float:
    shares: list[float] = [getattr(cost, name) / limit for name, limit in limits.items()]
    return max(shares)


def _describe_smallest(along: CompoundLine, limits: Mapping[str, float]) -> str:
    smallest = along.cost(along.place_at(along.lowest))
    over = ", ".join(
        f"{getattr(smallest, name):,} {LIMIT_UNITS[name]} where {limit:,.10g} are allowed"
        for name, limit in limits.items()
        if getattr(smallest, name) > limit
    )
    return f"no network on {along.base.name}'s line is that small: the smallest, of φ = {along.lowest:g}, has {over}"
