"""The candidates of a network search: proposed by Optuna, each trained for a short time, all kept in one store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from effnet.arch import Arch, count
from effnet.arch.serde import check_float
from effnet.data.storage.atomic_write import atomic_write
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import PROXY_RECIPE, train_proxy
from effnet.lab.search.scheduler import TrainingJob, run_jobs, search_identity, worker_processes
from effnet.lab.search.scoring import (
    MAX_COST_FACTOR,
    CostFunction,
    RankCorrelation,
    mnasnet_reward,
    rank_correlation,
    synflow_score,
)
from effnet.lab.search.search_space import Choices, SearchSpace, count_different_choices, layers_key
from effnet.lab.search.store import SearchStore, TrainingResult
from effnet.lab.search.successive_halving import Rung, SuccessiveHalving
from effnet.net import EfficientNet
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import count_cores

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

STUDY_NAME = "effnet network"


POPULATION_SIZE = 20  # NSGA-II's; as many are trained from random weights at first


HEARTBEAT_SECONDS, STALE_SECONDS = (
    5,
    30,
)  # seconds: how often a process says that it trains, and when one that does not is given up


SKIPPED_SCORE_FRACTION = (
    1 / 3
)  # of the scores so far: a candidate among these is not trained, once the score is worth it


MAX_PROPOSALS_PER_TRAINING = 20  # proposals for each that is trained, beyond which the space is taken to be exhausted


@dataclass(frozen=True)
class NASConfig:
    """What a network search looks for, and how: stores of different plans do not mix.

    ``target`` is in the unit of the ``cost``; ``epochs`` what each candidate is trained for. Raises ``ValueError`` for
    a target that is not above 0.
    """

    base: Arch
    target: float
    cost: str = "macs"
    pareto: bool = False
    epochs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_float("target", self.target, 0, float("inf"), exclusive=True)

    @cached_property
    def space(self) -> SearchSpace:
        """All networks that there are to find."""
        return SearchSpace(self.base)

    @property
    def identity(self) -> dict[str, Any]:
        """The same as plain data: what a store is recognised by."""
        plain = {"search": "network", "space": {name: list(values) for name, values in self.space.options.items()}}
        return {**plain, "base": self.base.to_dict(), **{name: getattr(self, name) for name in _CONFIG_FIELDS}}


_CONFIG_FIELDS = ("target", "cost", "pareto", "epochs", "seed")


@dataclass(frozen=True)
class NASCandidate:
    """A network that was proposed, and what became of it.

    ``accuracy`` is top-1 on the pictures that the search chooses by, as a fraction; None where it was not trained, and
    then ``fate`` says why. ``parent`` is the number of the candidate that it began with the tensors of, of which
    ``inherited`` had its shapes; ``generation`` is how many ancestors it has, whose training it profits by too.
    """

    number: int
    choices: Choices
    macs: int
    params: int
    cost: float = 0.0
    status: str = "trained"
    score: float | None = None
    parent: int | None = None
    inherited: int = 0
    generation: int = 0
    accuracy: float | None = None
    loss: float | None = None
    reward: float = 0.0
    seconds: float = 0.0


def read_candidates(study: Study) -> list[NASCandidate]:
    """All whose fate is known, in the order proposed."""
    found = (
        trial.user_attrs.get("candidate") for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()
    )
    return [NASCandidate(**one) for one in found if one]


def trained_candidates(found: Sequence[NASCandidate]) -> list[NASCandidate]:
    """Those that have an accuracy."""
    return [one for one in found if one.accuracy is not None]


def score_correlation(found: Sequence[NASCandidate]) -> RankCorrelation:
    """How well the scores of all that were trained agree with their accuracies."""
    scored = [(one.score, one.accuracy) for one in found if one.score is not None and one.accuracy is not None]
    return rank_correlation([score for score, _ in scored], [accuracy for _, accuracy in scored])


def pareto_front(found: Sequence[NASCandidate]) -> list[NASCandidate]:
    """Those trained that no other beats in accuracy without costing more; the cheapest first."""
    best, kept = -1.0, []
    for one in sorted(trained_candidates(found), key=lambda each: (each.cost, -(each.accuracy or 0), each.number)):
        if (one.accuracy or 0) > best:
            best = one.accuracy or 0
            kept.append(one)
    return kept


@contextmanager
def open_study(store: str, plan: NASConfig) -> Iterator[Study]:
    """The study in ``store``, made if it is not there. Whose store it is has been seen to before."""
    try:
        import optuna
    except ImportError:
        raise ImportError('a network search needs Optuna: pip install "effnet[search]"') from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = _open_storage(store)
        try:
            towards = optuna.study.StudyDirection
            directions = [towards.MAXIMIZE, towards.MINIMIZE] if plan.pareto else [towards.MAXIMIZE]
            yield optuna.create_study(
                storage=storage, study_name=STUDY_NAME, load_if_exists=True, directions=directions
            )
        finally:
            optuna.logging.set_verbosity(verbosity)
            storage.remove_session()
            storage.engine.dispose()


def _open_storage(store: str) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy import event

    own = "://" not in store
    storage = RDBStorage(
        f"sqlite:///{store}" if own else store,
        engine_kwargs={"connect_args": {"timeout": 60}} if own else {},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=STALE_SECONDS,
    )
    if own:
        event.listen(storage.engine, "connect", _set_sqlite_pragmas)
        storage.engine.dispose()  # the connection that it was made with
    return storage


def _set_sqlite_pragmas(connection: Any, _: object) -> None:
    """Optuna commits every choice by itself: with this they need not wait for the disk, and are as safe."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


@dataclass
class NASWorker:
    """One process's part in a search: proposes and trains until ``trials`` candidates are trained, or time is up.

    ``weights`` is the folder in which those trained leave their tensors to be inherited. ``until`` is a time as
    `time.time` gives it. Unless it works ``alone`` it leaves to others what they are training at the moment.
    """

    plan: NASConfig
    weights_dir: Path
    trials: int
    deadline: float | None = None
    is_single: bool = True

    def run(
        self,
        study: Study,
        dataset: SearchDataset,
        on_update: Callable[[list[NASCandidate]], object] = lambda found: None,
    ) -> None:
        """Works at ``study``, and tells all candidates each time one's fate is known."""
        while self.deadline is None or time.time() < self.deadline:
            found = read_candidates(study)
            on_update(found)
            done = len(trained_candidates(found))
            if done >= self.trials or len(found) >= MAX_PROPOSALS_PER_TRAINING * self.trials:
                return
            if not found:
                study.enqueue_trial(self.plan.space.base_choices)  # the base is the first
            # What is drawn depends on whose fate is known, not on who draws, nor on what a kill has cut short: it is
            # drawn again, and a search goes on as if it had never stopped
            drawn = Random(f"{self.plan.seed}/{len(found)}").getrandbits(31)
            study.sampler = _make_sampler(drawn)
            study.optimize(partial(self._objective, dataset), n_trials=1)

    def _objective(self, dataset: SearchDataset, trial: Trial) -> float | tuple[float, float]:
        from optuna.exceptions import TrialPruned

        options = self.plan.space.options.items()
        choices: Choices = {name: trial.suggest_categorical(name, values) for name, values in options}  # type: ignore[misc]
        one = self._evaluate_candidate(
            dataset, trial.number, choices, read_candidates(trial.study), self._find_running_duplicate(trial)
        )
        trial.set_user_attr("candidate", asdict(one))
        if one.accuracy is None:
            raise TrialPruned(one.status)
        return (one.accuracy, one.cost) if self.plan.pareto else one.reward

    def _find_running_duplicate(self, trial: Trial) -> int | None:
        """The number of the earlier candidate that is the same and in training now, by another process."""
        from optuna.trial import TrialState

        if self.is_single:
            return None
        running = trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((one.number for one in running if one.number < trial.number and one.params == trial.params), None)

    def _evaluate_candidate(
        self,
        dataset: SearchDataset,
        number: int,
        choices: Choices,
        found: Sequence[NASCandidate],
        elsewhere: int | None,
    ) -> NASCandidate:
        """The candidate of ``choices``, trained, or with the reason why it is not worth it."""
        plan, classes = self.plan, len(dataset.class_names)
        arch = plan.space.arch(choices, f"candidate_{number}")
        counted = count(arch, classes=classes)
        one = NASCandidate(number, choices, counted.macs, counted.params)
        if elsewhere is not None:
            return replace(one, status=f"the same network as {elsewhere}")
        layers = layers_key(arch)
        for other in trained_candidates(found):
            alike = (other.macs, other.params) == (counted.macs, counted.params)
            if alike and layers_key(plan.space.arch(other.choices)) == layers:
                return replace(one, cost=other.cost, status=f"the same network as {other.number}")
        cost = CostFunction(plan.cost, classes)(arch)
        if cost > MAX_COST_FACTOR * plan.target:
            return replace(one, cost=cost, status=f"costs over {MAX_COST_FACTOR:g} times the target")
        score = synflow_score(arch, classes)
        if score_correlation(found).is_clear and score < _min_score(found):
            return replace(one, cost=cost, score=score, status="low score")
        parent = self._find_parent(choices, found)
        tensors = load_file(self._weights_path(parent.number)) if parent else None
        result, model = train_proxy(arch, dataset, plan.epochs, plan.seed, initial_weights=tensors, evaluate_test=False)
        self._save_weights(number, model)
        mine = model.state_dict()
        return replace(
            one,
            cost=cost,
            score=score,
            parent=parent.number if parent else None,
            generation=parent.generation + 1 if parent else 0,
            inherited=sum(name in mine and mine[name].shape == value.shape for name, value in (tensors or {}).items()),
            accuracy=result.selection_accuracy,
            loss=result.loss,
            reward=mnasnet_reward(result.selection_accuracy, cost, plan.target),
            seconds=result.seconds,
        )

    def _find_parent(self, choices: Choices, found: Sequence[NASCandidate]) -> NASCandidate | None:
        """The nearest whose tensors are here, once so many are trained; of several the best."""
        done = trained_candidates(found)
        if len(done) < POPULATION_SIZE:
            return None
        here = [one for one in done if self._weights_path(one.number).exists()]
        return min(
            here, key=lambda one: (count_different_choices(choices, one.choices), -one.reward, one.number), default=None
        )

    def _weights_path(self, number: int) -> Path:
        return self.weights_dir / f"{number}.safetensors"

    def _save_weights(self, number: int, model: EfficientNet) -> None:
        """Leaves the tensors for others, in half the bytes."""
        halved = {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        self.weights_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._weights_path(number)) as beside:
            save_file({name: value.contiguous() for name, value in halved.items()}, beside)


def _make_sampler(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    class Sampler(NSGAIISampler):
        def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
            """In the order in which they are found again later: else who is drawn again would have other parents."""
            return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

    return Sampler(population_size=POPULATION_SIZE, seed=seed)


def _min_score(found: Sequence[NASCandidate]) -> float:
    """The score below which a candidate is not worth its training."""
    scores = sorted(one.score for one in found if one.score is not None)
    return scores[int(len(scores) * SKIPPED_SCORE_FRACTION)]


# The search for a network: candidates, the best of them trained longer from random weights, and the answer.


DEFAULT_TRIALS = 150


FINALISTS, FINAL_EPOCHS, FINAL_SEEDS = 3, 20, 3


SEMIFINALISTS_FACTOR, SEMIFINAL_EPOCHS_DIVISOR = (
    5,
    3,
)  # before the finals, so many times as many networks take part, for a third of the epochs


PROGRESS_SECONDS = 2.0  # seconds between two looks at what the processes have done


@dataclass(frozen=True)
class NASProgress:
    """Where a search stands: all candidates so far, how many are to be trained, seconds left (None: not known yet)."""

    candidates: list[NASCandidate]
    trials: int
    seconds_left: float | None


@dataclass(frozen=True)
class Finalist:
    """A network trained longer from random weights, means over seeds.

    ``accuracy`` is what it is chosen by, ``judged`` of pictures that nothing was chosen by, as fractions; ``number`` is
    its candidate's, None for the base.
    """

    number: int | None
    arch: Arch
    cost: float
    selection_accuracy: float
    test_accuracy: float
    reward: float


@dataclass(frozen=True)
class NASResult:
    """What a search came to. ``finalists``: the best first, the base among them; ``candidates``: all, as proposed."""

    answer: Finalist
    finalists: tuple[Finalist, ...]
    candidates: tuple[NASCandidate, ...]
    score_correlation: RankCorrelation

    @property
    def candidates_by_number(self) -> dict[int, NASCandidate]:
        """The candidates by their numbers, which retries leave gaps in."""
        return {one.number: one for one in self.candidates}


@dataclass(frozen=True)
class NASReward:
    """The reward of an accuracy, as the value that successive halving chooses by."""

    target: float
    costs: Mapping[Arch, float]

    def __call__(self, arch: Arch, accuracy: float) -> float:
        """The reward of ``arch``."""
        return mnasnet_reward(accuracy, self.costs[arch], self.target)


def final_rungs(final: int, epochs: int) -> tuple[Rung, Rung]:
    """The last two rounds, both from random weights."""
    return Rung(SEMIFINALISTS_FACTOR * final, max(1, epochs // SEMIFINAL_EPOCHS_DIVISOR), 1), Rung(
        final, epochs, FINAL_SEEDS
    )


def run_nas(
    config: NASConfig,
    dataset: SearchDataset,
    store: str,
    trials: int = DEFAULT_TRIALS,
    max_seconds: float | None = None,
    processes: int | None = None,
    final: int = FINALISTS,
    final_epochs: int = FINAL_EPOCHS,
    on_progress: Callable[[NASProgress], object] = lambda standing: None,
    on_finals_progress: Callable[[int, int], object] = lambda done, total: None,
) -> NASResult:
    """The best network that ``trials`` candidates lead to, or those that can be trained within ``limit`` seconds.

    ``store`` is a file, or an address that SQLAlchemy takes; what it holds of this search is gone on from, and it may
    be shared by several machines. ``processes``: one a core if None, each on one thread; with 1, the same seed gives
    the same result. The best candidates and the base are then trained from random weights, the ``final`` best of them
    for ``final_epochs`` from several seeds: that decides.
    Raises ``ValueError`` for the store of another search and where no candidate could be trained;
    ``ChildProcessError`` where a process fails.
    """
    SearchStore(
        store, search_identity(config.identity, dataset, PROXY_RECIPE)
    )  # refuses another search's before Optuna writes into it
    found = _run_candidates(config, dataset, store, trials, max_seconds, processes or count_cores(), on_progress)
    done = trained_candidates(found)
    if not done:
        fates = ", ".join(sorted({one.status for one in found})) or "there was no time"
        raise ValueError(f"no candidate was trained ({fates}): give a larger target, or more time")
    numbers: dict[Arch, int | None] = {config.base: None}
    # As it was measured when the others were, where it was
    own = next((one.cost for one in done if one.choices == config.space.base_choices), None)
    costs = {config.base: CostFunction(config.cost, len(dataset.class_names))(config.base) if own is None else own}
    seen = {layers_key(config.base)}
    for one in sorted(done, key=lambda each: (-each.reward, each.number)):
        arch = config.space.arch(one.choices, f"candidate_{one.number}")
        if layers_key(arch) not in seen:  # two processes may have trained the same one
            seen.add(layers_key(arch))
            numbers[arch], costs[arch] = one.number, one.cost
    halving = SuccessiveHalving(
        tuple(arch for arch in costs if arch != config.base),
        final_rungs(final, final_epochs),
        NASReward(config.target, costs),
        (config.base,),
        config.seed,
    )

    def heard(results: Mapping[str, TrainingResult], jobs: Sequence[TrainingJob]) -> None:
        on_finals_progress(sum(job.key in results for job in jobs), max(len(jobs), len(halving.expected_jobs())))

    results = run_jobs(store, config.identity, halving, dataset, processes=processes, on_progress=heard)
    last = len(halving.rungs) - 1
    finalists = [
        Finalist(
            numbers[arch],
            arch if arch == config.base else replace(arch, name=f"{config.base.name}_found_{numbers[arch]}"),
            costs[arch],
            mean(halving.accuracies(last, arch, results)),
            mean(halving.accuracies(last, arch, results, "judged")),
            halving.mean_value(last, arch, results),
        )
        for arch in halving.participants(last, results) or ()
    ]
    finalists.sort(key=lambda one: -one.reward)
    return NASResult(finalists[0], tuple(finalists), tuple(found), score_correlation(found))


def weights_folder(store: str) -> Path:
    """The folder of the candidates' tensors: beside a file, and of an address in the working folder."""
    if "://" in store:
        return Path(store.rpartition("/")[2].partition("?")[0] + ".weights")
    return Path(f"{store}.weights")


def _run_candidates(
    config: NASConfig,
    dataset: SearchDataset,
    store: str,
    trials: int,
    max_seconds: float | None,
    processes: int,
    on_progress: Callable[[NASProgress], object],
) -> list[NASCandidate]:
    clock = _RemainingTime(trials, max_seconds, time.time())
    with open_study(store, config) as study:
        searcher = NASWorker(config, weights_folder(store), trials, clock.deadline, is_single=processes == 1)
        if processes == 1:
            with torch_threads(1):
                searcher.run(study, dataset, lambda found: on_progress(clock.progress(found)))
        else:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "examples.safetensors"
                dataset.save(path)
                with worker_processes(_run_worker, (store, searcher, path), processes) as working:
                    looked = 0.0
                    while working():
                        if time.monotonic() - looked > PROGRESS_SECONDS:
                            looked = time.monotonic()
                            on_progress(clock.progress(read_candidates(study)))
        found = read_candidates(study)
        on_progress(NASProgress(found, trials, 0.0))
        return found


def _run_worker(store: str, worker: NASWorker, path: Path) -> None:
    """What each process does."""
    with open_study(store, worker.plan) as study:
        worker.run(study, SearchDataset.load(path))


@dataclass
class _RemainingTime:
    """How much longer the candidates will take, by how long those of this run took."""

    trials: int
    max_seconds: float | None
    started_at: float
    trained_at_start: int = -1

    @property
    def deadline(self) -> float | None:
        return None if self.max_seconds is None else self.started_at + self.max_seconds

    def progress(self, found: list[NASCandidate]) -> NASProgress:
        done, now = len(trained_candidates(found)), time.time()
        if self.trained_at_start < 0:
            self.trained_at_start = done
        guesses = [] if self.deadline is None else [self.deadline - now]
        if done > self.trained_at_start:
            guesses.append((now - self.started_at) / (done - self.trained_at_start) * (self.trials - done))
        return NASProgress(found, self.trials, max(0.0, min(guesses)) if guesses else None)
