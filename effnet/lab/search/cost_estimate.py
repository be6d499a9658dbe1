"""Duration of a search, estimated before it starts from a few training steps of some of its networks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

import numpy as np

from effnet.arch import Arch, count
from effnet.lab.search import job_store, nas, proxy_task, scoring, statistics, successive_halving
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import count_cores

TIMED_NETWORKS = 5  # from the smallest to the largest
TIMING_SECONDS = 2.0  # for all of them, roughly
FORWARD_FRACTION = 1 / 3  # of a training step, which also computes the gradients of activations and weights
SAMPLED_NETWORKS = 1000  # of a search space
BYTES_PER_WEIGHT = 2  # of saved candidates


def estimate_seconds(
    jobs: Sequence[job_store.TrainingJob], dataset: proxy_task.SearchDataset, processes: int | None = None
) -> float:
    """Estimate how long ``jobs`` take in ``processes`` with one thread each (default: one per core), in two seconds.

    A few steps of at most five of the networks are timed, and the others interpolated by their MACs.
    """
    if not jobs:
        return 0.0
    classes = len(dataset.class_names)
    macs = {arch: count(arch, classes=classes).macs for arch in {job.arch for job in jobs}}
    ordered = sorted(macs, key=lambda arch: (macs[arch], arch.name))
    timed = np.linspace(0, len(ordered) - 1, min(TIMED_NETWORKS, len(ordered))).round().astype(int)
    fixed_seconds, seconds_per_mac = _fit_speed({macs[ordered[index]]: ordered[index] for index in timed}, dataset)
    evaluation = (len(dataset.selection) + (len(dataset.test) if dataset.has_test else 0)) * FORWARD_FRACTION
    seconds = [
        (fixed_seconds + seconds_per_mac * macs[job.arch]) * (job.epochs * len(dataset.train) + evaluation)
        for job in jobs
    ]
    return max(sum(seconds) / (processes or count_cores()), max(seconds))


def _fit_speed(networks: dict[int, Arch], dataset: proxy_task.SearchDataset) -> tuple[float, float]:
    """Return training seconds per image as a line over the MACs: fixed, and per MAC; of one network only the latter."""
    budget = TIMING_SECONDS / len(networks)
    with torch_threads(1):
        timed = {macs: _time_training(arch, dataset, budget) for macs, arch in networks.items()}
    if len(timed) == 1:
        macs, seconds = timed.popitem()
        return 0.0, seconds / macs
    times = np.array(list(timed.values()))
    # Rows over times: least squares of the relative errors, or the smallest network would hardly count
    rows = np.array([[1.0, macs] for macs in timed]) / times[:, None]
    fixed, per_mac = np.linalg.lstsq(rows, np.ones(len(times)), rcond=None)[0]
    return max(0.0, float(fixed)), max(0.0, float(per_mac))


def _time_training(arch: Arch, dataset: proxy_task.SearchDataset, budget: float) -> float:
    """Return the training seconds of one image: what further steps take beyond a first one."""
    batch_size = min(proxy_task.PROXY_RECIPE.batch_size, len(dataset.train))
    one_step = _shrink_dataset(dataset, batch_size)
    first = proxy_task.train_proxy(arch, one_step, 1, 0)[0].seconds
    steps = max(2, min(20, int(budget / first)))
    longer = proxy_task.train_proxy(arch, one_step, 1 + steps, 0)[0].seconds
    return max(longer - first, longer / (2 * steps)) / (steps * batch_size)


def _shrink_dataset(dataset: proxy_task.SearchDataset, number: int) -> proxy_task.SearchDataset:
    """Keep ``number`` images to train on, an epoch of one step, and a single one to evaluate on."""

    def shrink(split: proxy_task.LabeledImages, size: int) -> proxy_task.LabeledImages:
        return proxy_task.LabeledImages(split.images[:size].clone(), split.classes[:size].clone())

    one = shrink(dataset.selection, 1)
    return replace(dataset, train=shrink(dataset.train, number), selection=one, test=one, has_test=False)


@dataclass(frozen=True)
class NASEstimate:
    """What a network search would take; ``affordable_fraction`` of all ``combinations`` are cheap enough to train."""

    combinations: int
    affordable_fraction: float
    candidates_seconds: float
    finals_seconds: float
    stored_bytes: float
    detectable_difference: float  # of accuracies, as a fraction; less may be chance


def estimate_nas(
    config: nas.NASConfig,
    dataset: proxy_task.SearchDataset,
    trials: int,
    finalists: int,
    final_epochs: int,
    processes: int | None = None,
) -> NASEstimate:
    """Estimate what `effnet.lab.search.nas.run_nas` would take, timing a few steps of some networks of the space.

    Raises ``ValueError`` if there are too few images for a verdict, or if all networks are too expensive.
    """
    detectable = statistics.detectable_difference(len(dataset.selection))
    classes, rng, space = len(dataset.class_names), Random(config.seed), config.space
    cost, limit = scoring.CostFunction(config.cost, classes), scoring.MAX_COST_FACTOR * config.target
    smallest = cost(space.smallest_arch(scoring.CostFunction("params" if config.cost == "params" else "macs", classes)))
    if smallest > limit:
        raise ValueError(
            f"every network around {config.base.name} is too large: the smallest has "
            f"{scoring.format_cost(smallest, config.cost)}, and only networks up to {scoring.MAX_COST_FACTOR:g} times "
            f"the target of {scoring.format_cost(config.target, config.cost)} are trained"
        )
    archs = [space.arch(space.random_choices(rng)) for _ in range(SAMPLED_NETWORKS)]
    if config.cost != "latency":
        archs = [arch for arch in archs if cost(arch) <= limit]
    sample = [config.base, *archs]
    jobs = [job_store.TrainingJob(sample[number % len(sample)], config.epochs, config.seed) for number in range(trials)]
    halving = successive_halving.SuccessiveHalving(
        tuple(sample[:trials]),
        nas.final_rungs(finalists, final_epochs),
        lambda arch, accuracy: accuracy,
        (config.base,),
        config.seed,
    )
    bytes_each = mean(count(arch, classes=classes).params for arch in sample) * BYTES_PER_WEIGHT
    untested = replace(dataset, has_test=False)  # candidates are not tested
    return NASEstimate(
        combinations=space.size,
        affordable_fraction=len(archs) / SAMPLED_NETWORKS,
        candidates_seconds=estimate_seconds(jobs, untested, processes=processes),
        finals_seconds=estimate_seconds(halving.expected_jobs(), dataset, processes=processes),
        stored_bytes=bytes_each * trials,
        detectable_difference=detectable,
    )
