"""How long trainings will take, from a few steps of some of them: said before hours are spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effnet.arch import Arch, count
from effnet.bench.run import torch_threads
from effnet.clock.machine import cores
from effnet.search.examples import Examples, Part
from effnet.search.jobs import Job
from effnet.search.proxy import PROXY, train
from effnet.training.recipe import Recipe

TIMED = 5  # networks, from the smallest to the largest
SECONDS = 2.0  # for all of them, about
FORWARD = 1 / 3  # of a training step: it computes the gradients of maps and of weights besides


@dataclass(frozen=True)
class Pace:
    """Seconds that a picture takes in training, as a line over MACs: ``fixed`` + ``by_macs`` × MACs."""

    fixed: float
    by_macs: float

    def at(self, macs: float) -> float:
        """Seconds of one picture, forward and backward."""
        return self.fixed + self.by_macs * macs


def estimate(jobs: Sequence[Job], examples: Examples, recipe: Recipe = PROXY, processes: int | None = None) -> float:
    """Seconds that ``jobs`` take in so many ``processes`` of one thread each (one a core if None).

    A few steps of at most five of their networks are timed here and now, about two seconds in all; the others are
    taken to lie between them by their MACs. A machine with other work, or memory too slow for all processes at once,
    makes it longer.
    """
    if not jobs:
        return 0.0
    classes = len(examples.names)
    macs = {arch: count(arch, classes=classes).macs for arch in {job.arch for job in jobs}}
    ordered = sorted(macs, key=lambda arch: (macs[arch], arch.name))
    places = np.linspace(0, len(ordered) - 1, min(TIMED, len(ordered))).round().astype(int)
    at = _pace({macs[ordered[place]]: ordered[place] for place in places}, examples, recipe)
    evaluated = (len(examples.select) + (len(examples.judge) if examples.unseen else 0)) * FORWARD
    each = [at.at(macs[job.arch]) * (job.epochs * len(examples.fit) + evaluated) for job in jobs]
    return max(sum(each) / (processes or cores()), max(each))


def _pace(networks: dict[int, Arch], examples: Examples, recipe: Recipe) -> Pace:
    """The line through the times of ``networks``, by their MACs; through the origin where there is only one."""
    share = SECONDS / len(networks)
    with torch_threads(1):
        timed = {macs: _seconds(arch, examples, recipe, share) for macs, arch in networks.items()}
    if len(timed) == 1:
        macs, seconds = timed.popitem()
        return Pace(0.0, seconds / macs)
    taken = np.array(list(timed.values()))
    rows = np.array([[1.0, macs] for macs in timed]) / taken[:, None]
    # over the times, so that the share counts by which each is missed: else the smallest would not count at all
    fixed, by_macs = np.linalg.lstsq(rows, np.ones(len(taken)), rcond=None)[0]
    return Pace(max(0.0, float(fixed)), max(0.0, float(by_macs)))


def _seconds(arch: Arch, examples: Examples, recipe: Recipe, budget: float) -> float:
    """Seconds of one picture in training, from what some more steps take beyond a first one."""
    batch = min(recipe.batch, len(examples.fit))
    first = train(arch, _few(examples, batch), 1, 0, recipe)[0].seconds
    steps = max(2, min(20, int(budget / first)))
    longer = train(arch, _few(examples, batch), 1 + steps, 0, recipe)[0].seconds
    return max(longer - first, longer / (2 * steps)) / (steps * batch)


def _few(examples: Examples, pictures: int) -> Examples:
    """So few of the pictures to learn from that an epoch is one step, and one to evaluate on."""

    def part(of: Part, most: int) -> Part:
        return Part(of.pictures[:most].clone(), of.classes[:most].clone())

    one = part(examples.select, 1)
    return replace(examples, fit=part(examples.fit, pictures), select=one, judge=one, unseen=False)
