"""The candidates of a network search: proposed by Optuna, each trained for a short time, all kept in one store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from effnet.arch import Arch, count
from effnet.arch.record import number
from effnet.net import EfficientNet
from effnet.search.examples import Examples
from effnet.search.proxy import train
from effnet.search.reward import TOO_DEAR, Cost, reward
from effnet.search.score import Correlation, correlation, synflow
from effnet.search.space import Choices, Space, apart, same
from effnet.weights.atomic import replacing

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

STUDY = "effnet network"
POPULATION = 20  # NSGA-II's; as many are trained from random weights at first
BEAT, STALE = 5, 30  # seconds: how often a process says that it trains, and when one that does not is given up
LOWEST = 1 / 3  # of the scores so far: a candidate among these is not trained, once the score is worth it
TIRED = 20  # proposals for each that is trained, beyond which the space is taken to be exhausted


@dataclass(frozen=True)
class Plan:
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
        number("target", self.target, 0, float("inf"), above=True)

    @cached_property
    def space(self) -> Space:
        """All networks that there are to find."""
        return Space(self.base)

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain data: what a store is recognised by."""
        plain = {"search": "network", "space": {name: list(values) for name, values in self.space.options.items()}}
        return {**plain, "base": self.base.to_dict(), **{name: getattr(self, name) for name in _PLAIN}}


_PLAIN = ("target", "cost", "pareto", "epochs", "seed")


@dataclass(frozen=True)
class Candidate:
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
    fate: str = "trained"
    score: float | None = None
    parent: int | None = None
    inherited: int = 0
    generation: int = 0
    accuracy: float | None = None
    loss: float | None = None
    reward: float = 0.0
    seconds: float = 0.0


def candidates(study: Study) -> list[Candidate]:
    """All whose fate is known, in the order proposed."""
    found = (
        trial.user_attrs.get("candidate") for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()
    )
    return [Candidate(**one) for one in found if one]


def trained(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that have an accuracy."""
    return [one for one in found if one.accuracy is not None]


def trust(found: Sequence[Candidate]) -> Correlation:
    """How well the scores of all that were trained agree with their accuracies."""
    scored = [(one.score, one.accuracy) for one in found if one.score is not None and one.accuracy is not None]
    return correlation([score for score, _ in scored], [accuracy for _, accuracy in scored])


def front(found: Sequence[Candidate]) -> list[Candidate]:
    """Those trained that no other beats in accuracy without costing more; the cheapest first."""
    best, kept = -1.0, []
    for one in sorted(trained(found), key=lambda each: (each.cost, -(each.accuracy or 0), each.number)):
        if (one.accuracy or 0) > best:
            best = one.accuracy or 0
            kept.append(one)
    return kept


@contextmanager
def opened(store: str, plan: Plan) -> Iterator[Study]:
    """The study in ``store``, made if it is not there. Whose store it is has been seen to before."""
    try:
        import optuna
    except ImportError:
        raise ImportError('a network search needs Optuna: pip install "effnet[search]"') from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = _storage(store)
        try:
            towards = optuna.study.StudyDirection
            directions = [towards.MAXIMIZE, towards.MINIMIZE] if plan.pareto else [towards.MAXIMIZE]
            yield optuna.create_study(storage=storage, study_name=STUDY, load_if_exists=True, directions=directions)
        finally:
            optuna.logging.set_verbosity(verbosity)
            storage.remove_session()
            storage.engine.dispose()


def _storage(store: str) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy import event

    own = "://" not in store
    storage = RDBStorage(
        f"sqlite:///{store}" if own else store,
        engine_kwargs={"connect_args": {"timeout": 60}} if own else {},
        heartbeat_interval=BEAT,
        grace_period=STALE,
    )
    if own:
        event.listen(storage.engine, "connect", _quickly)
        storage.engine.dispose()  # the connection that it was made with
    return storage


def _quickly(connection: Any, _: object) -> None:
    """Optuna commits every choice by itself: with this they need not wait for the disk, and are as safe."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


@dataclass
class Searcher:
    """One process's part in a search: proposes and trains until ``trials`` candidates are trained, or time is up.

    ``weights`` is the folder in which those trained leave their tensors to be inherited. ``until`` is a time as
    `time.time` gives it. Unless it works ``alone`` it leaves to others what they are training at the moment.
    """

    plan: Plan
    weights: Path
    trials: int
    until: float | None = None
    alone: bool = True

    def search(
        self, study: Study, examples: Examples, told: Callable[[list[Candidate]], object] = lambda found: None
    ) -> None:
        """Works at ``study``, and tells all candidates each time one's fate is known."""
        while self.until is None or time.time() < self.until:
            found = candidates(study)
            told(found)
            done = len(trained(found))
            if done >= self.trials or len(found) >= TIRED * self.trials:
                return
            if not found:
                study.enqueue_trial(self.plan.space.start)  # the base is the first
            # What is drawn depends on whose fate is known, not on who draws, nor on what a kill has cut short: it is
            # drawn again, and a search goes on as if it had never stopped
            drawn = Random(f"{self.plan.seed}/{len(found)}").getrandbits(31)
            study.sampler = _sampler(drawn)
            study.optimize(partial(self._judged, examples), n_trials=1)

    def _judged(self, examples: Examples, trial: Trial) -> float | tuple[float, float]:
        from optuna.exceptions import TrialPruned

        options = self.plan.space.options.items()
        choices: Choices = {name: trial.suggest_categorical(name, values) for name, values in options}  # type: ignore[misc]
        one = self._tried(examples, trial.number, choices, candidates(trial.study), self._elsewhere(trial))
        trial.set_user_attr("candidate", asdict(one))
        if one.accuracy is None:
            raise TrialPruned(one.fate)
        return (one.accuracy, one.cost) if self.plan.pareto else one.reward

    def _elsewhere(self, trial: Trial) -> int | None:
        """The number of the earlier candidate that is the same and in training now, by another process."""
        from optuna.trial import TrialState

        if self.alone:
            return None
        running = trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((one.number for one in running if one.number < trial.number and one.params == trial.params), None)

    def _tried(
        self, examples: Examples, number: int, choices: Choices, found: Sequence[Candidate], elsewhere: int | None
    ) -> Candidate:
        """The candidate of ``choices``, trained, or with the reason why it is not worth it."""
        plan, classes = self.plan, len(examples.names)
        arch = plan.space.arch(choices, f"candidate_{number}")
        counted = count(arch, classes=classes)
        one = Candidate(number, choices, counted.macs, counted.params)
        if elsewhere is not None:
            return replace(one, fate=f"the same network as {elsewhere}")
        layers = same(arch)
        for other in trained(found):
            alike = (other.macs, other.params) == (counted.macs, counted.params)
            if alike and same(plan.space.arch(other.choices)) == layers:
                return replace(one, cost=other.cost, fate=f"the same network as {other.number}")
        cost = Cost(plan.cost, classes)(arch)
        if cost > TOO_DEAR * plan.target:
            return replace(one, cost=cost, fate=f"costs over {TOO_DEAR:g} times the target")
        score = synflow(arch, classes)
        if trust(found).clear and score < _limit(found):
            return replace(one, cost=cost, score=score, fate="low score")
        parent = self._parent(choices, found)
        tensors = load_file(self._file(parent.number)) if parent else None
        result, model = train(arch, examples, plan.epochs, plan.seed, inherited=tensors, judged=False)
        self._keep(number, model)
        mine = model.state_dict()
        return replace(
            one,
            cost=cost,
            score=score,
            parent=parent.number if parent else None,
            generation=parent.generation + 1 if parent else 0,
            inherited=sum(name in mine and mine[name].shape == value.shape for name, value in (tensors or {}).items()),
            accuracy=result.selected,
            loss=result.loss,
            reward=reward(result.selected, cost, plan.target),
            seconds=result.seconds,
        )

    def _parent(self, choices: Choices, found: Sequence[Candidate]) -> Candidate | None:
        """The nearest whose tensors are here, once so many are trained; of several the best."""
        done = trained(found)
        if len(done) < POPULATION:
            return None
        here = [one for one in done if self._file(one.number).exists()]
        return min(here, key=lambda one: (apart(choices, one.choices), -one.reward, one.number), default=None)

    def _file(self, number: int) -> Path:
        return self.weights / f"{number}.safetensors"

    def _keep(self, number: int, model: EfficientNet) -> None:
        """Leaves the tensors for others, in half the bytes."""
        halved = {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        self.weights.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(number)) as beside:
            save_file({name: value.contiguous() for name, value in halved.items()}, beside)


def _sampler(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    class Sampler(NSGAIISampler):
        def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
            """In the order in which they are found again later: else who is drawn again would have other parents."""
            return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

    return Sampler(population_size=POPULATION, seed=seed)


def _limit(found: Sequence[Candidate]) -> float:
    """The score below which a candidate is not worth its training."""
    scores = sorted(one.score for one in found if one.score is not None)
    return scores[int(len(scores) * LOWEST)]
