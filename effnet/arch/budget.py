"""The largest network within limits: those beside the compound line are counted, other costs are asked for along it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from types import MappingProxyType

from effnet.arch.count import count
from effnet.arch.ladder import MARGIN
from effnet.arch.line import PRECISION, Line, Placed, line
from effnet.arch.line import Cost as Counted
from effnet.arch.record import number
from effnet.arch.scaling import ALPHA, BETA, GAMMA, Rounding, compared
from effnet.arch.spec import Arch
from effnet.arch.tables import ARCHS, resolve

Cost = Callable[[Arch], float]

IN_WORDS = MappingProxyType({"macs": "MACs", "params": "params", "bytes": "bytes of peak memory"})

Point = tuple[float, float]  # logarithms of a network's MACs, and of the share of its limit that a cost takes

CLOSE = 0.95  # a cost of this share of its limit is close enough: the next candidate would be asked for in vain
AIM = 0.975  # of the limit: in the middle of what is close
GROWTH_MOST = 16  # times the MACs of what was asked for before, that a wrong guess costs no hour
ASKED_MOST = 60  # networks: every fourth halves what is left of a line that has a few thousand
BESIDE_MOST = 8  # networks beside the line
REACH = 2.0  # of φ, to either side of a step of the line that is too large: what lies beside the line there fills it
DOUBT = 0.1  # of a cost: what comes out less by more than this when it is asked for again was disturbed before
DOUBTED_MOST = 3  # times that the search starts anew for that
ALIKE = 0.015  # of the logarithm of MACs: of networks this near to the wanted ones the nearest to the line is asked for
TINY = 1e-9  # a share whose logarithm stands for that of nothing


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
class Fitted:
    """The network that `fit` found, with its reasons.

    ``off``: how far the network lies from the line, as the largest of the three shares by which its width, depth and
    resolution leave what φ asks for (between two roundings, whichever end is nearer). 0: it is what `scale` makes of φ.
    """

    rounding: Rounding
    off: float
    limits: tuple[Limit, ...]
    ended: bool  # the line ends before any limit is reached

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


class Spent:
    """What the networks that were asked for cost, in ``of``. Each is asked for once, those that decide a second time.

    ``close``: a network that takes this share of a limit is close enough.
    """

    def __init__(self, costs: tuple[tuple[Cost, float], ...]) -> None:
        self._costs, self.close = costs, CLOSE
        self.of: dict[Arch, tuple[float, ...]] = {}
        self._twice: set[Arch] = set()

    def share(self, arch: Arch) -> float:
        """The largest part of a cost's limit that ``arch`` takes."""
        if arch not in self.of:
            self.of[arch] = tuple(cost(arch) for cost, _ in self._costs)
        return max(taken / limit for taken, (_, limit) in zip(self.of[arch], self._costs, strict=True))

    def doubted(self, found: Arch) -> bool:
        """Asks again for ``found`` and, unless that is close to its limit, for the one that is just too dear.

        Whether one cost less than before by more than `DOUBT`. Only then it has another cost from now on: smaller
        differences are in the nature of measuring, and there would be no end to them. From then on, what is within
        them of a limit is close enough.
        """
        deciding = [found]
        if self.share(found) < self.close:
            deciding += sorted((arch for arch in self.of if self.share(arch) > 1), key=self.share)[:1]
        changed = False
        for arch in deciding:
            if arch not in self._twice:
                self._twice.add(arch)
                before, now = self.of[arch], tuple(cost(arch) for cost, _ in self._costs)
                if any(later < (1 - DOUBT) * first for later, first in zip(now, before, strict=True)):
                    self.of[arch], changed = tuple(map(min, now, before)), True
                    self.close = 1 - DOUBT
        return changed


def fit(
    arch: str | Arch,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    costs: Iterable[tuple[Cost, float]] = (),
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
    rounding step of the line (see `effnet.arch.line.Line`) it is the one that comes closest to a limit; of equals the
    nearest to the line, then the one of the most MACs. Both ends of the line are where φ is −20 and 20, or where an
    arch can grow no further.
    Each of ``costs`` is a function of the arch and its limit, such as a measured latency in seconds. Being dear, it is
    asked for of a few networks on the line, until one is within 5 % of its limit and not above it; and where the line
    steps over that, of a few beside it. The network that is found, and where it is not as close the one that is just
    too dear, are asked about twice: what is measured comes out too large while the machine is disturbed.
    Raises ``ValueError`` when nothing is limited or even the smallest network is too large.
    """
    return fitted(arch, macs, params, bytes, costs, alpha, beta, gamma, classes, channels).arch


def fitted(
    arch: str | Arch,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    costs: Iterable[tuple[Cost, float]] = (),
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    classes: int = 1000,
    channels: int = 3,
) -> Fitted:
    """`fit` with its reasons: the rounding, what binds, how far from the line. Raises ``ValueError`` as `fit` does."""
    base = resolve(arch)
    asked = {"macs": macs, "params": params, "bytes": bytes}
    limits = {name: limit for name, limit in asked.items() if limit is not None}
    costs = tuple(costs)
    if not limits and not costs:
        raise ValueError("fit needs a limit: give macs, params, bytes or costs")
    dear = {f"costs[{index}]": limit for index, (_, limit) in enumerate(costs)}
    for name, limit in (limits | dear).items():
        number(name, limit, 0, above=True)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        number(name, coefficient, 1, 100)
    along = line(base, alpha, beta, gamma, classes, channels)
    found = counted = _counted(along, limits) if limits else None
    spent = Spent(costs)
    if counted is None or (costs and spent.share(counted.arch) > 1):
        found = _asked(along, limits, spent, counted)
        for _ in range(DOUBTED_MOST):
            if not spent.doubted(found.arch):
                break
            found = _asked(along, limits, spent, counted)  # asks for nothing that was asked for before
    assert found is not None
    reached = [Limit(name, limit, getattr(found.cost, name)) for name, limit in limits.items()]
    if costs:
        reached += [
            Limit(name, limit, each) for (name, limit), each in zip(dear.items(), spent.of[found.arch], strict=True)
        ]
    report = compared(base, found.arch, found.phi, alpha, beta, gamma, classes, channels)
    ended = not costs and _fits(along.cost(along.at(along.highest)), limits)
    return Fitted(report, found.off, tuple(reached), ended)


def nearest(arch: Arch) -> Arch:
    """The released network that costs most nearly the same, in MACs and parameters.

    Among those of the same rows where several of them were released, or else among all: its `kin`.
    """
    macs, params = _logarithms(arch)

    def apart(known: Arch) -> float:
        other_macs, other_params = _logarithms(known)
        return (other_macs - macs) ** 2 + (other_params - params) ** 2

    return min(kin(arch), key=apart)


def kin(arch: Arch) -> tuple[Arch, ...]:
    """The released networks of ``arch``'s rows where there are several, or else all; in the order of their tables."""
    released = tuple(known for known in ARCHS.values() if known.name != "nano")
    alike = tuple(known for known in released if known.stages == arch.stages)
    return alike if len(alike) > 1 else released


@lru_cache(maxsize=64)
def _logarithms(arch: Arch) -> tuple[float, float]:
    """Of its MACs and of its parameters."""
    counted = count(arch)
    return log(counted.macs), log(counted.params)


def _counted(along: Line, limits: Mapping[str, float]) -> Placed:
    """Of the networks within one rounding step of the line and within ``limits`` the one that is closest to a limit.

    Every count grows with every dimension. So where even the largest place beside φ fits, none further down is closer;
    and where not even the smallest one does, none further up fits. Further down there may be equals, as memory does not
    grow with every channel: as far as the largest place beside φ has as much.
    """
    best = [along.at(along.lowest)]
    if not _fits(along.cost(best[0]), limits):
        raise ValueError(_too_large(along, limits))
    begin = along.last(lambda phi: _fits(along.cost(along.at(phi, 1)), limits))
    end = along.last(lambda phi: _fits(along.cost(along.at(phi, -1)), limits))
    closest = 0.0
    for place in along.near(begin - PRECISION, end + 2 * PRECISION):
        cost = along.cost(place)
        share = _share(cost, limits)
        if share >= closest and _fits(cost, limits):
            best = [*best, place] if share == closest else [place]
            closest = share
    less = along.last(lambda phi: _share(along.cost(along.at(phi, 1)), limits) < closest)
    best += [place for place in along.near(less, begin) if _share(along.cost(place), limits) == closest]
    if _fits(along.base_cost, limits) and _share(along.base_cost, limits) > closest:
        return Placed(along.base, 0.0, 0.0, along.base_cost)  # it need not be rounded as its line is
    return along.placed(min(best, key=lambda place: (along.off(place), -along.cost(place).macs)))


def _fits(cost: Counted, limits: Mapping[str, float]) -> bool:
    return all(getattr(cost, name) <= limit for name, limit in limits.items())


def _share(cost: Counted, limits: Mapping[str, float]) -> float:
    shares: list[float] = [getattr(cost, name) / limit for name, limit in limits.items()]
    return max(shares)


def _too_large(along: Line, limits: Mapping[str, float]) -> str:
    smallest = along.cost(along.at(along.lowest))
    over = ", ".join(
        f"{getattr(smallest, name):,} {IN_WORDS[name]} where {limit:,.10g} are allowed"
        for name, limit in limits.items()
        if getattr(smallest, name) > limit
    )
    return f"no network on {along.base.name}'s line is that small: the smallest, of φ = {along.lowest:g}, has {over}"


def _asked(along: Line, limits: Mapping[str, float], spent: Spent, first: Placed | None) -> Placed:
    """The network on the line whose largest share of a cost's limit is close to 1 and not above it.

    ``first``: the one that ``limits`` alone would give, known to be too dear. Costs are taken to grow as a power of the
    MACs, which is found on the way; each answer narrows the part of the line that is left.
    """
    floor, roof = along.lowest, along.highest
    if limits:
        roof = along.last(lambda phi: _fits(along.cost(along.at(phi)), limits))
    under: Point | None = None  # of the largest network that is within
    over: Point | None = None  # of the smallest that is not
    before: Point | None = None
    best, phi = None, min(max(0.0, floor), roof)
    if first is not None:
        over = before = (log(first.cost.macs), log(spent.share(first.arch)))
        phi = along.phi_of(exp(over[0] - over[1]) * AIM)
    for turn in range(1, ASKED_MOST + 1):
        phi = min(max(phi, floor + MARGIN), roof - MARGIN)
        place = along.at(phi)
        here = along.placed(place)
        taken = spent.share(here.arch)
        point = (log(along.cost(place).macs), log(max(taken, TINY)))
        if taken <= 1:
            best, under, floor = here, point, along.span(place)[1]
            if taken >= spent.close:
                break
        else:
            over, roof = point, along.span(place)[0]
        if roof - floor <= 2 * MARGIN:
            break
        target = _next(point, before, under, over, halve=turn % 4 == 0)
        phi, before = along.phi_of(exp(target)), point
    if best is None:
        raise ValueError(
            f"no network on {along.base.name}'s line is within the given costs: the smallest, of φ = {along.lowest:g}, "
            f"takes {exp(point[1]):.3g} times what is allowed"
        )
    assert under is not None
    if over is None or under[1] >= log(spent.close):
        return best
    return _between(along, limits, spent, best, floor, under, over)


def _between(
    along: Line,
    limits: Mapping[str, float],
    spent: Spent,
    best: Placed,
    phi: float,
    under: Point,
    over: Point,
) -> Placed:
    """A network within one rounding step of the line, where at φ the line itself steps over the limits of the costs.

    It is looked for between the MACs of ``under`` and ``over``, to either side of that step; ``best`` where there is
    none that is closer.
    """
    beside = [
        (log(cost.macs), along.off(place), place)
        for place in along.near(phi - REACH, phi + REACH)
        if under[0] < log((cost := along.cost(place)).macs) < over[0] and _fits(cost, limits)
    ]
    for turn in range(1, BESIDE_MOST + 1):
        beside = [each for each in beside if under[0] < each[0] < over[0]]
        if not beside:
            break
        target = _next(under, None, under, over, halve=turn % 4 == 0)
        alike = [each for each in beside if abs(each[0] - target) < ALIKE]
        macs, _, place = (
            min(alike, key=lambda each: each[1]) if alike else min(beside, key=lambda each: abs(each[0] - target))
        )
        here = along.placed(place)
        taken = spent.share(here.arch)
        if taken > 1:
            over = macs, log(taken)
            continue
        if log(max(taken, TINY)) > under[1]:
            best = here
        under = macs, log(max(taken, TINY))
        if taken >= spent.close:
            break
    return best


def _next(point: Point, before: Point | None, under: Point | None, over: Point | None, halve: bool) -> float:
    """The logarithm of the MACs to ask for next."""
    if under and over and (halve or over[0] <= under[0]):
        return (under[0] + over[0]) / 2
    one, other = (under, over) if under and over else (before, point)
    power = 1.0
    if one and other and one[0] != other[0]:
        power = min(max((other[1] - one[1]) / (other[0] - one[0]), 0.25), 4.0)
    return point[0] + min((log(AIM) - point[1]) / power, log(GROWTH_MOST))
