"""What a network search would take and what it could tell, before it is begun."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from statistics import mean

from effnet.arch import count
from effnet.search.candidates import Plan
from effnet.search.enough import verdict_possible
from effnet.search.estimate import estimate
from effnet.search.examples import Examples
from effnet.search.halving import Halving
from effnet.search.jobs import Job
from effnet.search.network import rungs
from effnet.search.reward import TOO_DEAR, Cost, amount

DRAWN = 1000
HALF = 2  # bytes of a number that is kept


@dataclass(frozen=True)
class Prospect:
    """What a search of so many ``combinations`` would take, in seconds, and keep, in bytes.

    ``share`` of the space's networks are not too dear to be trained; ``apart``: differences of accuracy below it, as a
    fraction, may be chance.
    """

    combinations: int
    share: float
    candidates: float
    finals: float
    kept: float
    apart: float


def prospect(
    plan: Plan, examples: Examples, trials: int, final: int, final_epochs: int, processes: int | None = None
) -> Prospect:
    """What `effnet.search.network.search` would take here: a few steps of some networks of the space are timed.

    With latency as the cost each candidate takes some seconds more, which are not counted. Raises ``ValueError`` where
    there are too few pictures for a verdict, and where all networks are too dear for the target.
    """
    apart = verdict_possible(len(examples.select))
    classes, drawn = len(examples.names), Random(plan.seed)
    least = Cost(plan.cost, classes)(plan.space.smallest(Cost("params" if plan.cost == "params" else "macs", classes)))
    if least > TOO_DEAR * plan.target:
        raise ValueError(
            f"no network around {plan.base.name} is that small: the smallest has {amount(least, plan.cost)}, and "
            f"{TOO_DEAR:g} times the target of {amount(plan.target, plan.cost)} is the most that is trained"
        )
    archs = [plan.space.arch(plan.space.random(drawn)) for _ in range(DRAWN)]
    if plan.cost != "latency":
        archs = [arch for arch in archs if Cost(plan.cost, classes)(arch) <= TOO_DEAR * plan.target]
    some = [plan.base, *archs]
    jobs = [Job(some[number % len(some)], plan.epochs, plan.seed) for number in range(trials)]
    halving = Halving(tuple(some[:trials]), rungs(final, final_epochs), _any, (plan.base,), plan.seed)
    finals = halving.expected()
    size = mean(count(arch, classes=classes).params for arch in some) * HALF
    return Prospect(
        combinations=plan.space.size,
        share=len(archs) / DRAWN,
        candidates=estimate(jobs, replace(examples, unseen=False), processes=processes),  # they are not judged
        finals=estimate(finals, examples, processes=processes),
        kept=size * trials,
        apart=apart,
    )


def _any(arch: object, accuracy: float) -> float:
    return accuracy
