"""Network architecture search: candidates proposed by NSGA-II, trained on a proxy task, the best of them retrained.

The search space and the reward are MnasNet's (arXiv:1807.11626). Candidates may start from the weights of a similar
one; the finalists are trained longer, from random weights and several seeds, which decides.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from effnet.arch import Arch, count, serde
from effnet.data.storage.atomic_write import atomic_write
from effnet.draw import search_plots
from effnet.lab.search import job_store, proxy_task, scoring, search_space, statistics, successive_halving
from effnet.net import EfficientNet
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import count_cores

if TYPE_CHECKING:
    import optuna

CANDIDATES = "effnet candidates"  # the Optuna study
POPULATION_SIZE = 20  # of NSGA-II; the first population starts from random weights
SKIPPED_SCORE_FRACTION = 1 / 3  # of the scores so far: below, a candidate is not trained, once scores are trusted
MAX_PROPOSALS_PER_TRAINING = 20  # beyond, the search space counts as exhausted
FINAL_SEEDS = 3
SEMIFINALISTS_FACTOR, SEMIFINAL_EPOCHS_DIVISOR = 5, 3  # the round before: 5 × as many networks, a third of the epochs
PROGRESS_SECONDS = 2.0  # between two progress reports of worker processes


@dataclass(frozen=True)
class NASConfig:
    """What to search for; ``target`` (above 0) is in the unit of the ``cost``, and ``epochs`` are a candidate's."""

    base: Arch
    target: float
    cost: str = "macs"
    pareto: bool = False
    epochs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        serde.check_float("target", self.target, 0, exclusive=True)

    @cached_property
    def space(self) -> search_space.SearchSpace:
        """The networks to search."""
        return search_space.SearchSpace(self.base)

    @property
    def identity(self) -> dict[str, Any]:
        """The config as plain data, by which a store is recognized."""
        space = {name: list(values) for name, values in self.space.options.items()}
        fields = {name: getattr(self, name) for name in ("target", "cost", "pareto", "epochs", "seed")}
        return {"search": "network", "space": space, "base": self.base.to_dict(), **fields}


@dataclass(frozen=True)
class NASCandidate:
    """A proposed network; it started from the weights of ``parent``, of which ``inherited`` tensors had its shape."""

    number: int
    choices: search_space.Choices
    macs: int
    params: int
    cost: float = 0.0
    status: str = "trained"
    score: float | None = None
    parent: int | None = None
    inherited: int = 0
    generation: int = 0  # number of its ancestors
    accuracy: float | None = None  # top-1 on the selection images; None if it was not trained
    loss: float | None = None
    reward: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class NASProgress:
    """All candidates so far, how many are to be trained, and the estimated seconds left; None if not known yet."""

    candidates: list[NASCandidate]
    trials: int
    seconds_left: float | None


@dataclass(frozen=True)
class Finalist:
    """A network trained longer, or the base (``number`` None); accuracies are means over seeds, as fractions."""

    number: int | None
    arch: Arch
    cost: float
    selection_accuracy: float
    test_accuracy: float
    reward: float


@dataclass(frozen=True)
class NASResult:
    """The outcome: ``finalists``, best first, the base among them; all ``candidates``, in the order proposed."""

    answer: Finalist
    finalists: tuple[Finalist, ...]
    candidates: tuple[NASCandidate, ...]
    score_correlation: statistics.RankCorrelation


def run_nas(
    config: NASConfig,
    dataset: proxy_task.SearchDataset,
    store: str,
    trials: int = 150,
    max_seconds: float | None = None,
    processes: int | None = None,
    final: int = 3,
    final_epochs: int = 20,
    on_progress: Callable[[NASProgress], object] = lambda progress: None,
    on_finals_progress: Callable[[int, int], object] = lambda done, total: None,
) -> NASResult:
    """Search for the best network, or continue the search that is in ``store``, which several machines may share.

    ``max_seconds`` limits the training of candidates. The ``final`` best are trained for ``final_epochs`` from several
    seeds, with the base. With one of ``processes`` (default: one per core) results are reproducible. Raises
    ``ValueError`` if the store belongs to another search or nothing could be trained, and ``ChildProcessError`` if a
    process failed.
    """
    candidates = _run_candidates(config, dataset, store, trials, max_seconds, processes or count_cores(), on_progress)
    trained = trained_candidates(candidates)
    if not trained:
        reasons = ", ".join(sorted({candidate.status for candidate in candidates})) or "there was no time"
        raise ValueError(f"no candidate was trained ({reasons}): choose a larger target, or allow more time")
    # The base's cost as it was measured along with the others, if it was
    base_cost = next((candidate.cost for candidate in trained if candidate.choices == config.space.base_choices), None)
    if base_cost is None:
        base_cost = scoring.CostFunction(config.cost, len(dataset.class_names))(config.base)
    numbers: dict[Arch, int | None] = {config.base: None}
    costs, keys = {config.base: base_cost}, {search_space.layers_key(config.base)}
    for candidate in sorted(trained, key=lambda candidate: (-candidate.reward, candidate.number)):
        arch = config.space.arch(candidate.choices, f"candidate_{candidate.number}")
        if search_space.layers_key(arch) not in keys:  # two processes may have trained the same one
            keys.add(search_space.layers_key(arch))
            numbers[arch], costs[arch] = candidate.number, candidate.cost
    halving = successive_halving.SuccessiveHalving(
        tuple(arch for arch in costs if arch != config.base),
        final_rungs(final, final_epochs),
        scoring.Reward(config.target, costs.__getitem__),
        (config.base,),
        config.seed,
    )

    def report(results: Mapping[str, Any], jobs: Sequence[job_store.TrainingJob]) -> None:
        on_finals_progress(sum(job.key in results for job in jobs), max(len(jobs), len(halving.expected_jobs())))

    results = job_store.run_jobs(store, config.identity, halving, dataset, processes=processes, on_progress=report)
    last = len(halving.rungs) - 1
    finalists = [
        Finalist(
            numbers[arch],
            arch if arch == config.base else replace(arch, name=f"{config.base.name}_found_{numbers[arch]}"),
            costs[arch],
            mean(halving.accuracies(last, arch, results)),
            mean(halving.accuracies(last, arch, results, "test_accuracy")),
            halving.mean_value(last, arch, results),
        )
        for arch in halving.participants(last, results) or ()
    ]
    finalists.sort(key=lambda finalist: -finalist.reward)
    return NASResult(finalists[0], tuple(finalists), tuple(candidates), score_correlation(candidates))


def final_rungs(final: int, epochs: int) -> tuple[successive_halving.Rung, successive_halving.Rung]:
    """Return the last two rounds, both from random weights."""
    semifinal = successive_halving.Rung(SEMIFINALISTS_FACTOR * final, max(1, epochs // SEMIFINAL_EPOCHS_DIVISOR), 1)
    return semifinal, successive_halving.Rung(final, epochs, FINAL_SEEDS)


def weights_folder(store: str) -> Path:
    """Return the folder of the candidates' weights: beside a store file, or in the working directory for an address."""
    if "://" in store:
        return Path(store.rpartition("/")[2].partition("?")[0] + ".weights")
    return Path(f"{store}.weights")


def open_candidates(
    store: str, config: NASConfig, dataset: proxy_task.SearchDataset
) -> AbstractContextManager["optuna.Study"]:
    """Open the candidates' study in ``store``. Raises ``ValueError`` if the store belongs to another search."""
    identity = job_store.search_identity(config.identity, dataset)
    directions = ("maximize", "minimize") if config.pareto else ("maximize",)
    return job_store.open_study(store, identity, CANDIDATES, directions)


def read_candidates(study: "optuna.Study") -> list[NASCandidate]:
    """Return all finished candidates, in the order proposed."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())
    return [NASCandidate(**trial.user_attrs["candidate"]) for trial in trials if "candidate" in trial.user_attrs]


def trained_candidates(candidates: Sequence[NASCandidate]) -> list[NASCandidate]:
    """Return those that were trained."""
    return [candidate for candidate in candidates if candidate.accuracy is not None]


def score_correlation(candidates: Sequence[NASCandidate]) -> statistics.RankCorrelation:
    """Return how well scores predict the accuracies of those that were trained."""
    scored = [(one.score, one.accuracy) for one in candidates if one.score is not None and one.accuracy is not None]
    return statistics.rank_correlation([score for score, _ in scored], [accuracy for _, accuracy in scored])


def pareto_front(candidates: Sequence[NASCandidate]) -> list[NASCandidate]:
    """Return the trained candidates that none other beats in accuracy at the same or a lower cost, cheapest first."""
    trained = trained_candidates(candidates)
    return [trained[index] for index in search_plots.pareto_front([(one.cost, one.accuracy or 0.0) for one in trained])]


def _run_candidates(
    config: NASConfig,
    dataset: proxy_task.SearchDataset,
    store: str,
    trials: int,
    max_seconds: float | None,
    processes: int,
    on_progress: Callable[[NASProgress], object],
) -> list[NASCandidate]:
    clock = _RemainingTime(trials, max_seconds, time.time())
    worker = NASWorker(config, weights_folder(store), trials, clock.deadline, is_single=processes == 1)
    with open_candidates(store, config, dataset) as study:
        if processes == 1:
            with torch_threads(1):
                worker.run(study, dataset, lambda candidates: on_progress(clock.progress(candidates)))
        else:
            with job_store.worker_processes(_run_worker, (store, worker), dataset, processes) as are_running:
                reported = 0.0
                while are_running():
                    if time.monotonic() - reported > PROGRESS_SECONDS:
                        reported = time.monotonic()
                        on_progress(clock.progress(read_candidates(study)))
        candidates = read_candidates(study)
    on_progress(NASProgress(candidates, trials, 0.0))
    return candidates


def _run_worker(store: str, worker: "NASWorker", dataset: proxy_task.SearchDataset) -> None:
    with open_candidates(store, worker.config, dataset) as study:
        worker.run(study, dataset)


@dataclass
class NASWorker:
    """One process of a search: proposes and trains until ``trials`` candidates are trained, or the time is up."""

    config: NASConfig
    weights_dir: Path
    trials: int
    deadline: float | None = None  # on the clock of `time.time`
    is_single: bool = True  # otherwise it leaves to others what they are training

    def run(
        self,
        study: "optuna.Study",
        dataset: proxy_task.SearchDataset,
        on_update: Callable[[list[NASCandidate]], object] = lambda candidates: None,
    ) -> None:
        """Search, calling ``on_update`` with all candidates after each one."""
        while self.deadline is None or time.time() < self.deadline:
            job_store.fail_abandoned_trials(study)
            candidates = read_candidates(study)
            on_update(candidates)
            done = len(trained_candidates(candidates))
            if done >= self.trials or len(candidates) >= MAX_PROPOSALS_PER_TRAINING * self.trials:
                return
            if not candidates:
                study.enqueue_trial(self.config.space.base_choices)  # the base comes first
            # The proposal depends on the finished candidates, not on which process proposes, nor on what a kill has cut
            # short: that is proposed again, and the search continues as if it had never stopped
            study.sampler = _make_sampler(Random(f"{self.config.seed}/{len(candidates)}").getrandbits(31))
            job_store.run_trial(study, partial(self._objective, dataset))

    def _objective(self, dataset: proxy_task.SearchDataset, trial: "optuna.Trial") -> float | tuple[float, float]:
        from optuna.exceptions import TrialPruned

        options = self.config.space.options.items()
        choices: search_space.Choices = {name: trial.suggest_categorical(name, values) for name, values in options}  # type: ignore[misc]
        candidate = self._evaluate_candidate(dataset, trial, choices)
        trial.set_user_attr("candidate", asdict(candidate))
        if candidate.accuracy is None:
            raise TrialPruned(candidate.status)
        return (candidate.accuracy, candidate.cost) if self.config.pareto else candidate.reward

    def _evaluate_candidate(
        self, dataset: proxy_task.SearchDataset, trial: "optuna.Trial", choices: search_space.Choices
    ) -> NASCandidate:
        """Train the network of ``choices``, or say why it is not worth it."""
        config, classes, number = self.config, len(dataset.class_names), trial.number
        candidates = read_candidates(trial.study)
        arch = config.space.arch(choices, f"candidate_{number}")
        counted = count(arch, classes=classes)
        candidate = NASCandidate(number, choices, counted.macs, counted.params)
        for running in [] if self.is_single else job_store.list_trials(trial.study, "RUNNING"):
            if running.number < number and running.params == trial.params:
                return replace(candidate, status=f"the same network as {running.number}")
        key = search_space.layers_key(arch)
        for other in trained_candidates(candidates):
            may_be_equal = (other.macs, other.params) == (counted.macs, counted.params)
            if may_be_equal and search_space.layers_key(config.space.arch(other.choices)) == key:
                return replace(candidate, cost=other.cost, status=f"the same network as {other.number}")
        cost = scoring.CostFunction(config.cost, classes)(arch)
        if cost > scoring.MAX_COST_FACTOR * config.target:
            return replace(candidate, cost=cost, status=f"costs over {scoring.MAX_COST_FACTOR:g} times the target")
        score = scoring.synflow_score(arch, classes)
        scores = sorted(other.score for other in candidates if other.score is not None)
        if score_correlation(candidates).is_clear and score < scores[int(len(scores) * SKIPPED_SCORE_FRACTION)]:
            return replace(candidate, cost=cost, score=score, status="low score")
        parent = self._find_parent(choices, candidates)
        weights = load_file(self._weights_path(parent.number)) if parent else {}
        result, model = proxy_task.train_proxy(
            arch, dataset, config.epochs, config.seed, initial_weights=weights, evaluate_test=False
        )
        self._save_weights(number, model)
        return replace(
            candidate,
            cost=cost,
            score=score,
            parent=parent.number if parent else None,
            generation=parent.generation + 1 if parent else 0,
            inherited=len(proxy_task.matching_weights(model, weights)),
            accuracy=result.selection_accuracy,
            loss=result.loss,
            reward=scoring.mnasnet_reward(result.selection_accuracy, cost, config.target),
            seconds=result.seconds,
        )

    def _find_parent(self, choices: search_space.Choices, candidates: Sequence[NASCandidate]) -> NASCandidate | None:
        """Return the most similar candidate with saved weights, the best of equals, once the population is complete."""
        trained = trained_candidates(candidates)
        if len(trained) < POPULATION_SIZE:
            return None

        def distance(candidate: NASCandidate) -> tuple[float, ...]:
            return search_space.count_different_choices(choices, candidate.choices), -candidate.reward, candidate.number

        return min((one for one in trained if self._weights_path(one.number).exists()), key=distance, default=None)

    def _weights_path(self, number: int) -> Path:
        return self.weights_dir / f"{number}.safetensors"

    def _save_weights(self, number: int, model: EfficientNet) -> None:
        """Save the weights for others to start from, in bfloat16 to halve the size."""
        weights = {
            name: (value.bfloat16() if value.is_floating_point() else value).contiguous()
            for name, value in model.state_dict().items()
        }
        self.weights_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._weights_path(number)) as partial_path:
            save_file(weights, partial_path)


def _make_sampler(seed: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import NSGAIISampler

    class OrderedNSGAIISampler(NSGAIISampler):
        def select_parent(self, study: "optuna.Study", generation: int) -> list["optuna.trial.FrozenTrial"]:
            """Sort the parents as they are read back later: a repeated proposal would else have other parents."""
            return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

    return OrderedNSGAIISampler(population_size=POPULATION_SIZE, seed=seed)


@dataclass
class _RemainingTime:
    """Estimates how long the remaining candidates will take, from those trained in this run."""

    trials: int
    max_seconds: float | None
    started_at: float
    trained_at_start: int = -1

    @property
    def deadline(self) -> float | None:
        return None if self.max_seconds is None else self.started_at + self.max_seconds

    def progress(self, candidates: list[NASCandidate]) -> NASProgress:
        trained, now = len(trained_candidates(candidates)), time.time()
        if self.trained_at_start < 0:
            self.trained_at_start = trained
        estimates = [] if self.deadline is None else [self.deadline - now]
        if trained > self.trained_at_start:
            estimates.append((now - self.started_at) / (trained - self.trained_at_start) * (self.trials - trained))
        return NASProgress(candidates, self.trials, max(0.0, min(estimates)) if estimates else None)
