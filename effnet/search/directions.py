"""A base grown in depth, width or resolution alone, or in all three, to the same MACs: as in Figures 3 and 8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log, sqrt

from effnet.arch import Arch, count
from effnet.search.grid import PAPER, Point, grown

COMPOUND, DEPTH, WIDTH, RESOLUTION = WAYS = ("compound", "depth", "width", "resolution")
CLOSE = 0.02  # of the MACs wanted: near enough
STEPS = 40  # halvings of an interval: far finer than a channel
NEAR = 0.3  # of φ, on either side, within which the compound network's rounding is chosen
MOST = 16.0  # times the MACs: beyond, nothing here was ever tried

Build = Callable[[float], Arch]


@dataclass(frozen=True)
class Grown:
    """One network of the study: which way it was grown, how many times the base's MACs were wanted, and its own."""

    way: str  # "base" or one of `WAYS`
    times: float
    arch: Arch
    macs: int
    goal: int  # the MACs that the ways of this size have in common

    @property
    def off(self) -> float:
        """How far its MACs are from those wanted, as a share."""
        return self.macs / self.goal - 1


def directions(
    base: Arch, times: Sequence[float] = (2, 4, 8), point: Point = PAPER, classes: int = 1000
) -> tuple[Grown, ...]:
    """``base``, and for each of ``times`` its four networks of equal MACs; ``point``: α, β, γ of the compound one.

    Pixels come in the coarsest steps, all the more where maps are halved. So the network of more resolution that comes
    nearest to ``times`` the MACs sets the goal for all four. Depth comes as near as a layer more or less in a single
    stage lets it, width by single channels. In the compound network layers and pixels are rounded, and the width makes
    up for what they miss: of all roundings nearby the one whose width stays closest to the line.
    Raises ``ValueError`` for sizes that are not above 1 and at most 16, or not in order, and for a triple that grows
    nothing.
    """
    if not times or list(times) != sorted(set(times)) or times[0] <= 1 or times[-1] > MOST:
        raise ValueError(f"sizes are times the base's MACs, above 1 to {MOST:g} in rising order, got {list(times)}")
    if point.total <= 1:
        raise ValueError("α, β and γ of 1 grow nothing: give another triple")

    def macs(arch: Arch) -> int:
        return count(arch, classes=classes).macs

    own = macs(base)
    found = [Grown("base", 1.0, base, own, own)]
    alpha, beta, gamma = point.triple
    for each in times:
        largest = _nearest(lambda by: grown(base, 1, 1, by), each * own, 1, 2 * sqrt(each), macs)
        goal = macs(largest)
        made = {
            COMPOUND: _compound(base, alpha, beta, gamma, goal, macs),
            DEPTH: _deeper(base, goal, 3 * each, macs),
            WIDTH: _nearest(lambda by: grown(base, 1, by, 1), goal, 1, 2 * sqrt(each), macs),
            RESOLUTION: largest,
        }
        for way, arch in made.items():
            named = replace(arch, name=f"{base.name}_{way}_x{each:g}")
            found.append(Grown(way, float(each), named, macs(named), goal))
    return tuple(found)


def _nearest(build: Build, goal: float, low: float, high: float, macs: Callable[[Arch], int]) -> Arch:
    """Of the networks that ``build`` makes of numbers from ``low`` to ``high``, the nearest to ``goal`` MACs."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(build(middle)) > goal else (middle, high)
    return min((build(low), build(high)), key=lambda arch: abs(log(macs(arch) / goal)))


def _deeper(base: Arch, goal: float, most: float, macs: Callable[[Arch], int]) -> Arch:
    """Depth alone: where layers in proportion miss ``goal``, a single stage has one more or less, or gives one away."""
    near = _nearest(lambda by: grown(base, by, 1, 1), goal, 1, most, macs)
    if abs(log(macs(near) / goal)) <= CLOSE:
        return near
    least, here = ([stage.layers for stage in arch.stages] for arch in (grown(base, 1, 1, 1), near))
    places = range(len(here)) if base.scale_ends else range(1, len(here) - 1)
    tried = [near]
    for one, other in product((None, *places), repeat=2):
        layers = list(here)
        if one is not None:
            layers[one] += 1
        if other is not None:
            layers[other] -= 1
        if all(each >= first for each, first in zip(layers, least, strict=True)):
            stages = zip(near.stages, layers, strict=True)
            tried.append(replace(near, stages=tuple(replace(stage, layers=each) for stage, each in stages)))
    return min(tried, key=lambda arch: abs(log(macs(arch) / goal)))


def _compound(base: Arch, alpha: float, beta: float, gamma: float, goal: int, macs: Callable[[Arch], int]) -> Arch:
    phi = log(goal / macs(base)) / log(alpha * beta**2 * gamma**2)
    if beta == 1:  # the width must stay
        return _nearest(lambda by: grown(base, alpha**by, 1, gamma**by), goal, 0, 2 * phi, macs)
    best: tuple[float, Arch] | None = None
    seen: set[tuple[object, ...]] = set()
    for step in range(-20, 21):
        at = max(0.0, phi + NEAR * step / 20)
        rounded = grown(base, alpha**at, 1, gamma**at)
        key = (rounded.resolution, tuple(stage.layers for stage in rounded.stages))
        if key in seen:
            continue
        seen.add(key)
        arch = _nearest(lambda by, at=at: grown(base, alpha**at, by, gamma**at), goal, 1, 4 * beta**at, macs)  # type: ignore[misc]
        off = abs(log(arch.width / base.width / beta**at))
        if best is None or off < best[0]:
            best = off, arch
    assert best
    return best[1]
