"""The search for a network: candidates, the best of them trained longer from random weights, and the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from effnet.arch import Arch
from effnet.bench.run import torch_threads
from effnet.clock.machine import cores
from effnet.search.candidates import Candidate, Plan, Searcher, candidates, opened, trained, trust
from effnet.search.crew import crew
from effnet.search.examples import Examples
from effnet.search.halving import Halving, Rung
from effnet.search.jobs import Job, identity, perform
from effnet.search.ledger import Ledger, Result
from effnet.search.proxy import PROXY
from effnet.search.reward import Cost, reward
from effnet.search.score import Correlation
from effnet.search.space import same

TRIALS = 150
FINAL, FINAL_EPOCHS, FINAL_SEEDS = 3, 20, 3
ROUND, ROUND_SHARE = 5, 3  # before the finals, so many times as many networks take part, for a third of the epochs
TOLD = 2.0  # seconds between two looks at what the processes have done


@dataclass(frozen=True)
class Standing:
    """Where a search stands: all candidates so far, how many are to be trained, seconds left (None: not known yet)."""

    found: list[Candidate]
    trials: int
    left: float | None


@dataclass(frozen=True)
class Finalist:
    """A network trained longer from random weights, means over seeds.

    ``accuracy`` is what it is chosen by, ``judged`` of pictures that nothing was chosen by, as fractions; ``number`` is
    its candidate's, None for the base.
    """

    number: int | None
    arch: Arch
    cost: float
    accuracy: float
    judged: float
    reward: float


@dataclass(frozen=True)
class Found:
    """What a search came to. ``finalists``: the best first, the base among them; ``candidates``: all, as proposed."""

    answer: Finalist
    finalists: tuple[Finalist, ...]
    candidates: tuple[Candidate, ...]
    trust: Correlation

    @property
    def candidates_by_number(self) -> dict[int, Candidate]:
        """The candidates by their numbers, which retries leave gaps in."""
        return {one.number: one for one in self.candidates}


@dataclass(frozen=True)
class Worth:
    """The reward of an accuracy, as the value that successive halving chooses by."""

    target: float
    costs: Mapping[Arch, float]

    def __call__(self, arch: Arch, accuracy: float) -> float:
        """The reward of ``arch``."""
        return reward(accuracy, self.costs[arch], self.target)


def rungs(final: int, epochs: int) -> tuple[Rung, Rung]:
    """The last two rounds, both from random weights."""
    return Rung(ROUND * final, max(1, epochs // ROUND_SHARE), 1), Rung(final, epochs, FINAL_SEEDS)


def search(
    plan: Plan,
    examples: Examples,
    store: str,
    trials: int = TRIALS,
    limit: float | None = None,
    processes: int | None = None,
    final: int = FINAL,
    final_epochs: int = FINAL_EPOCHS,
    told: Callable[[Standing], object] = lambda standing: None,
    told_finals: Callable[[int, int], object] = lambda done, total: None,
) -> Found:
    """The best network that ``trials`` candidates lead to, or those that can be trained within ``limit`` seconds.

    ``store`` is a file, or an address that SQLAlchemy takes; what it holds of this search is gone on from, and it may
    be shared by several machines. ``processes``: one a core if None, each on one thread; with 1, the same seed gives
    the same result. The best candidates and the base are then trained from random weights, the ``final`` best of them
    for ``final_epochs`` from several seeds: that decides.
    Raises ``ValueError`` for the store of another search and where no candidate could be trained;
    ``ChildProcessError`` where a process fails.
    """
    Ledger(store, identity(plan.about, examples, PROXY))  # refuses another search's before Optuna writes into it
    found = _candidates(plan, examples, store, trials, limit, processes or cores(), told)
    done = trained(found)
    if not done:
        fates = ", ".join(sorted({one.fate for one in found})) or "there was no time"
        raise ValueError(f"no candidate was trained ({fates}): give a larger target, or more time")
    numbers: dict[Arch, int | None] = {plan.base: None}
    # As it was measured when the others were, where it was
    own = next((one.cost for one in done if one.choices == plan.space.start), None)
    costs = {plan.base: Cost(plan.cost, len(examples.names))(plan.base) if own is None else own}
    seen = {same(plan.base)}
    for one in sorted(done, key=lambda each: (-each.reward, each.number)):
        arch = plan.space.arch(one.choices, f"candidate_{one.number}")
        if same(arch) not in seen:  # two processes may have trained the same one
            seen.add(same(arch))
            numbers[arch], costs[arch] = one.number, one.cost
    halving = Halving(
        tuple(arch for arch in costs if arch != plan.base),
        rungs(final, final_epochs),
        Worth(plan.target, costs),
        (plan.base,),
        plan.seed,
    )

    def heard(results: Mapping[str, Result], jobs: Sequence[Job]) -> None:
        told_finals(sum(job.key in results for job in jobs), max(len(jobs), len(halving.expected())))

    results = perform(store, plan.about, halving, examples, processes=processes, told=heard)
    last = len(halving.rungs) - 1
    finalists = [
        Finalist(
            numbers[arch],
            arch if arch == plan.base else replace(arch, name=f"{plan.base.name}_found_{numbers[arch]}"),
            costs[arch],
            mean(halving.accuracies(last, arch, results)),
            mean(halving.accuracies(last, arch, results, "judged")),
            halving.mean(last, arch, results),
        )
        for arch in halving.taking(last, results) or ()
    ]
    finalists.sort(key=lambda one: -one.reward)
    return Found(finalists[0], tuple(finalists), tuple(found), trust(found))


def weights_beside(store: str) -> Path:
    """The folder of the candidates' tensors: beside a file, and of an address in the working folder."""
    if "://" in store:
        return Path(store.rpartition("/")[2].partition("?")[0] + ".weights")
    return Path(f"{store}.weights")


def _candidates(
    plan: Plan,
    examples: Examples,
    store: str,
    trials: int,
    limit: float | None,
    processes: int,
    told: Callable[[Standing], object],
) -> list[Candidate]:
    clock = _Clock(trials, limit, time.time())
    with opened(store, plan) as study:
        searcher = Searcher(plan, weights_beside(store), trials, clock.until, alone=processes == 1)
        if processes == 1:
            with torch_threads(1):
                searcher.search(study, examples, lambda found: told(clock.standing(found)))
        else:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "examples.safetensors"
                examples.save(path)
                with crew(_search, (store, searcher, path), processes) as working:
                    looked = 0.0
                    while working():
                        if time.monotonic() - looked > TOLD:
                            looked = time.monotonic()
                            told(clock.standing(candidates(study)))
        found = candidates(study)
        told(Standing(found, trials, 0.0))
        return found


def _search(store: str, searcher: Searcher, path: Path) -> None:
    """What each process does."""
    with opened(store, searcher.plan) as study:
        searcher.search(study, Examples.load(path))


@dataclass
class _Clock:
    """How much longer the candidates will take, by how long those of this run took."""

    trials: int
    limit: float | None
    begun: float
    before: int = -1

    @property
    def until(self) -> float | None:
        return None if self.limit is None else self.begun + self.limit

    def standing(self, found: list[Candidate]) -> Standing:
        done, now = len(trained(found)), time.time()
        if self.before < 0:
            self.before = done
        guesses = [] if self.until is None else [self.until - now]
        if done > self.before:
            guesses.append((now - self.begun) / (done - self.before) * (self.trials - done))
        return Standing(found, self.trials, max(0.0, min(guesses)) if guesses else None)
