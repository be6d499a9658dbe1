"""How long trainings will take, from a few steps of some of them: said before hours are spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

import numpy as np

from effnet.arch import Arch, count
from effnet.lab.search.dataset import LabeledImages, SearchDataset
from effnet.lab.search.nas import NASConfig, final_rungs
from effnet.lab.search.proxy_training import PROXY_RECIPE, train_proxy
from effnet.lab.search.scheduler import TrainingJob
from effnet.lab.search.scoring import MAX_COST_FACTOR, CostFunction, format_cost
from effnet.lab.search.statistics import detectable_difference
from effnet.lab.search.successive_halving import SuccessiveHalving
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import count_cores
from effnet.training.recipes import Recipe

TIMED_NETWORKS = 5  # networks, from the smallest to the largest


TIMING_SECONDS = 2.0  # for all of them, about


FORWARD_FRACTION = 1 / 3  # of a training step: it computes the gradients of maps and of weights besides


@dataclass(frozen=True)
class TrainingSpeed:
    """Seconds that a picture takes in training, as a line over MACs: ``fixed`` + ``by_macs`` × MACs."""

    fixed_seconds: float
    seconds_per_mac: float

    def seconds_per_image(self, macs: float) -> float:
        """Seconds of one picture, forward and backward."""
        return self.fixed_seconds + self.seconds_per_mac * macs


def estimate_seconds(
    jobs: Sequence[TrainingJob], dataset: SearchDataset, recipe: Recipe = PROXY_RECIPE, processes: int | None = None
) -> float:
    """Seconds that ``jobs`` take in so many ``processes`` of one thread each (one a core if None).

    A few steps of at most five of their networks are timed here and now, about two seconds in all; the others are
    taken to lie between them by their MACs. A machine with other work, or memory too slow for all processes at once,
    makes it longer.
    """
    if not jobs:
        return 0.0
    classes = len(dataset.class_names)
    macs = {arch: count(arch, classes=classes).macs for arch in {job.arch for job in jobs}}
    ordered = sorted(macs, key=lambda arch: (macs[arch], arch.name))
    places = np.linspace(0, len(ordered) - 1, min(TIMED_NETWORKS, len(ordered))).round().astype(int)
    at = _fit_speed({macs[ordered[place]]: ordered[place] for place in places}, dataset, recipe)
    evaluated = (len(dataset.selection) + (len(dataset.test) if dataset.has_test else 0)) * FORWARD_FRACTION
    each = [at.seconds_per_image(macs[job.arch]) * (job.epochs * len(dataset.train) + evaluated) for job in jobs]
    return max(sum(each) / (processes or count_cores()), max(each))


def _fit_speed(networks: dict[int, Arch], dataset: SearchDataset, recipe: Recipe) -> TrainingSpeed:
    """The line through the times of ``networks``, by their MACs; through the origin where there is only one."""
    share = TIMING_SECONDS / len(networks)
    with torch_threads(1):
        timed = {macs: _time_training(arch, dataset, recipe, share) for macs, arch in networks.items()}
    if len(timed) == 1:
        macs, seconds = timed.popitem()
        return TrainingSpeed(0.0, seconds / macs)
    taken = np.array(list(timed.values()))
    rows = np.array([[1.0, macs] for macs in timed]) / taken[:, None]
    # over the times, so that the share counts by which each is missed: else the smallest would not count at all
    fixed, by_macs = np.linalg.lstsq(rows, np.ones(len(taken)), rcond=None)[0]
    return TrainingSpeed(max(0.0, float(fixed)), max(0.0, float(by_macs)))


def _time_training(arch: Arch, dataset: SearchDataset, recipe: Recipe, budget: float) -> float:
    """Seconds of one picture in training, from what some more steps take beyond a first one."""
    batch = min(recipe.batch_size, len(dataset.train))
    first = train_proxy(arch, _shrink_dataset(dataset, batch), 1, 0, recipe)[0].seconds
    steps = max(2, min(20, int(budget / first)))
    longer = train_proxy(arch, _shrink_dataset(dataset, batch), 1 + steps, 0, recipe)[0].seconds
    return max(longer - first, longer / (2 * steps)) / (steps * batch)


def _shrink_dataset(dataset: SearchDataset, number: int) -> SearchDataset:
    """So few of the pictures to learn from that an epoch is one step, and one to evaluate on."""

    def part(of: LabeledImages, most: int) -> LabeledImages:
        return LabeledImages(of.images[:most].clone(), of.classes[:most].clone())

    one = part(dataset.selection, 1)
    return replace(dataset, train=part(dataset.train, number), selection=one, test=one, has_test=False)


# What a network search would take and what it could tell, before it is begun.


SAMPLED_NETWORKS = 1000


BYTES_PER_WEIGHT = 2  # bytes of a number that is kept


@dataclass(frozen=True)
class NASEstimate:
    """What a search of so many ``combinations`` would take, in seconds, and keep, in bytes.

    ``share`` of the space's networks are not too dear to be trained; ``apart``: differences of accuracy below it, as a
    fraction, may be chance.
    """

    combinations: int
    affordable_fraction: float
    candidates_seconds: float
    finals_seconds: float
    stored_bytes: float
    detectable_difference: float


def estimate_nas(
    config: NASConfig,
    dataset: SearchDataset,
    trials: int,
    finalists: int,
    final_epochs: int,
    processes: int | None = None,
) -> NASEstimate:
    """What `effnet.lab.search.nas.search` would take here: a few steps of some networks of the space are timed.

    With latency as the cost each candidate takes some seconds more, which are not counted. Raises ``ValueError`` where
    there are too few pictures for a verdict, and where all networks are too dear for the target.
    """
    apart = detectable_difference(len(dataset.selection))
    classes, drawn = len(dataset.class_names), Random(config.seed)
    least = CostFunction(config.cost, classes)(
        config.space.smallest_arch(CostFunction("params" if config.cost == "params" else "macs", classes))
    )
    if least > MAX_COST_FACTOR * config.target:
        raise ValueError(
            f"no network around {config.base.name} is that small: the smallest has {format_cost(least, config.cost)}, and "
            f"{MAX_COST_FACTOR:g} times the target of {format_cost(config.target, config.cost)} is the most that is trained"
        )
    archs = [config.space.arch(config.space.random_choices(drawn)) for _ in range(SAMPLED_NETWORKS)]
    if config.cost != "latency":
        archs = [arch for arch in archs if CostFunction(config.cost, classes)(arch) <= MAX_COST_FACTOR * config.target]
    some = [config.base, *archs]
    jobs = [TrainingJob(some[number % len(some)], config.epochs, config.seed) for number in range(trials)]
    halving = SuccessiveHalving(
        tuple(some[:trials]), final_rungs(finalists, final_epochs), _accuracy_value, (config.base,), config.seed
    )
    finals = halving.expected_jobs()
    size = mean(count(arch, classes=classes).params for arch in some) * BYTES_PER_WEIGHT
    return NASEstimate(
        combinations=config.space.size,
        affordable_fraction=len(archs) / SAMPLED_NETWORKS,
        candidates_seconds=estimate_seconds(
            jobs, replace(dataset, has_test=False), processes=processes
        ),  # they are not judged
        finals_seconds=estimate_seconds(finals, dataset, processes=processes),
        stored_bytes=size * trials,
        detectable_difference=apart,
    )


def _accuracy_value(arch: object, accuracy: float) -> float:
    return accuracy
