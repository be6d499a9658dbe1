"""The largest network within limits: φ as the dial, the count and any other cost as the scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from effnet.arch.count import Count, count
from effnet.arch.record import number
from effnet.arch.scaling import scale
from effnet.arch.spec import Arch
from effnet.arch.tables import resolve

Cost = Callable[[Arch], float]

# φ from about 1/70 of the base's MACs to 2,500 times them, in steps finer than any rounding.
PHIS = tuple(step / 20 for step in range(-130, 241))


def fit(
    arch: str | Arch,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    costs: Iterable[tuple[Cost, float]] = (),
) -> Arch:
    """The largest network on ``arch``'s compound line that stays within every limit.

    ``macs`` and ``bytes`` (peak activation memory of inference, as in ``count``) are for one picture at the network's
    own resolution. Each of ``costs`` is a function of the arch and its limit, such as a measured latency in seconds;
    being dear, it is called for few candidates only, by bisection, and the answer's own cost was within its limit when
    it was called. Raises ``ValueError`` when nothing is limited or even the smallest network is too large.
    """
    base = resolve(arch)
    limits = {"macs": macs, "params": params, "bytes": bytes}
    named = {name: limit for name, limit in limits.items() if limit is not None}
    costs = tuple(costs)
    if not named and not costs:
        raise ValueError("fit needs a limit: give macs, params, bytes or costs")
    for name, limit in named.items():
        number(name, limit, 0, above=True)
    line = _line(base)
    within = [found.arch for found in line if all(getattr(found, name) <= limit for name, limit in named.items())]
    if not within:
        smallest = line[0]
        over = ", ".join(
            f"{getattr(smallest, name):,} {name} where {limit:,.0f} are allowed"
            for name, limit in named.items()
            if getattr(smallest, name) > limit
        )
        raise ValueError(f"no network on {base.name}'s line is that small: the smallest has {over}")
    return _largest(within, costs) if costs else within[-1]


@lru_cache(maxsize=32)
def _line(base: Arch) -> tuple[Count, ...]:
    """The distinct networks along the compound line, counted, smallest first (by MACs)."""
    found: dict[tuple[int, int], Count] = {}
    for phi in PHIS:
        try:
            counted = count(scale(base, phi))
        except ValueError:  # wider or deeper than an arch can be
            continue
        found.setdefault((counted.macs, counted.params), counted)
    return tuple(found[cost] for cost in sorted(found))


def _largest(candidates: list[Arch], costs: tuple[tuple[Cost, float], ...]) -> Arch:
    """The last of ``candidates`` (in order of size) within every cost, by bisection."""
    best, low, high = None, 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        if all(cost(candidates[middle]) <= limit for cost, limit in costs):
            best, low = candidates[middle], middle + 1
        else:
            high = middle - 1
    if best is None:
        raise ValueError(f"no network on the line of {candidates[0].name.split('_phi')[0]} is within the given costs")
    return best
