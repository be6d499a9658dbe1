"""The largest network within limits, of those beside the compound line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log
from types import MappingProxyType

from effnet.arch.asking import Cost, Spent, asked, fits
from effnet.arch.count import count
from effnet.arch.line import PRECISION, Line, Placed, line
from effnet.arch.line import Cost as Counted
from effnet.arch.record import number
from effnet.arch.scaling import ALPHA, BETA, GAMMA, Rounding, compared
from effnet.arch.spec import Arch
from effnet.arch.tables import ARCHS, resolve

IN_WORDS = MappingProxyType({"macs": "MACs", "params": "params", "bytes": "bytes of peak memory"})


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
    counts = {"macs": macs, "params": params, "bytes": bytes}
    limits = {name: limit for name, limit in counts.items() if limit is not None}
    costs = tuple(costs)
    if not limits and not costs:
        raise ValueError("fit needs a limit: give macs, params, bytes or costs")
    dear = {f"costs[{index}]": limit for index, (_, limit) in enumerate(costs)}
    for name, limit in (limits | dear).items():
        number(name, limit, 0, above=True)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        number(name, coefficient, 1, 100)
    along = line(base, alpha, beta, gamma, classes, channels)
    found = _counted(along, limits) if limits else None
    spent = Spent(costs)
    if found is None or (costs and spent.share(found.arch) > 1):
        found = asked(along, limits, spent, found)
    reached = [Limit(name, limit, getattr(found.cost, name)) for name, limit in limits.items()]
    if costs:
        reached += [
            Limit(name, limit, each) for (name, limit), each in zip(dear.items(), spent.of[found.arch], strict=True)
        ]
    report = compared(base, found.arch, found.phi, alpha, beta, gamma, classes, channels)
    ended = not costs and fits(along.cost(along.at(along.highest)), limits)
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
    if not fits(along.cost(best[0]), limits):
        raise ValueError(_too_large(along, limits))
    begin = along.last(lambda phi: fits(along.cost(along.at(phi, 1)), limits))
    end = along.last(lambda phi: fits(along.cost(along.at(phi, -1)), limits))
    closest = 0.0
    for place in along.near(begin - PRECISION, end + 2 * PRECISION):
        cost = along.cost(place)
        share = _share(cost, limits)
        if share >= closest and fits(cost, limits):
            best = [*best, place] if share == closest else [place]
            closest = share
    less = along.last(lambda phi: _share(along.cost(along.at(phi, 1)), limits) < closest)
    best += [place for place in along.near(less, begin) if _share(along.cost(place), limits) == closest]
    if fits(along.base_cost, limits) and _share(along.base_cost, limits) > closest:
        return Placed(along.base, 0.0, 0.0, along.base_cost)  # it need not be rounded as its line is
    return along.placed(min(best, key=lambda place: (along.off(place), -along.cost(place).macs)))


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
