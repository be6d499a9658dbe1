"""Costs that are dear, such as a measured latency: asked for of few networks, until one is close to its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, log

from effnet.arch.ladder import MARGIN
from effnet.arch.line import Cost as Counted
from effnet.arch.line import Line, Placed
from effnet.arch.spec import Arch

Cost = Callable[[Arch], float]

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


def asked(along: Line, limits: Mapping[str, float], spent: Spent, first: Placed | None) -> Placed:
    """The network beside the line whose costs come close to their limits and not above; it also keeps ``limits``.

    ``first``: the one that ``limits`` alone would give, known to be too dear.
    Raises ``ValueError`` where even the smallest network of the line is too dear.
    """
    found = _searched(along, limits, spent, first)
    for _ in range(DOUBTED_MOST):
        if not spent.doubted(found.arch):
            break
        found = _searched(along, limits, spent, first)  # asks for nothing that was asked for before
    return found


def _searched(along: Line, limits: Mapping[str, float], spent: Spent, first: Placed | None) -> Placed:
    """The network on the line whose largest share of a cost's limit is close to 1 and not above it.

    Costs are taken to grow as a power of the MACs, which is found on the way; each answer narrows the part of the line
    that is left.
    """
    floor, roof = along.lowest, along.highest
    if limits:
        roof = along.last(lambda phi: fits(along.cost(along.at(phi)), limits))
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
        if under[0] < log((cost := along.cost(place)).macs) < over[0] and fits(cost, limits)
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


def fits(cost: Counted, limits: Mapping[str, float]) -> bool:
    """Whether ``cost`` is within all the ``limits`` of what is counted."""
    return all(getattr(cost, name) <= limit for name, limit in limits.items())
