"""A search as trainings that are wanted: done by several processes, each once, until nothing more is wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from effnet.arch import Arch
from effnet.bench.run import torch_threads
from effnet.clock.machine import cores
from effnet.search.crew import POLL, crew
from effnet.search.examples import Examples
from effnet.search.ledger import Ledger, Result
from effnet.search.proxy import PROXY, train
from effnet.training.recipe import Recipe

NAMELESS = "network"  # networks that differ by their names alone are trained once


@dataclass(frozen=True)
class Job:
    """One short training: ``arch`` for ``epochs`` with all that is drawn depending on ``seed``."""

    arch: Arch
    epochs: int
    seed: int

    @cached_property
    def key(self) -> str:
        """What the store knows it by."""
        named = [replace(self.arch, name=NAMELESS).to_dict(), self.epochs, self.seed]
        return sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:32]


# The rule of a search: which trainings it wants, given the results so far by `Job.key`. It must depend on nothing else,
# so that all processes come to the same. It names all that are wanted up to now, done or not; when all of them are done
# it may want more, and when it does not, the search is over.
Wanted = Callable[[Mapping[str, Result]], Sequence[Job]]


def perform(
    store: str | Path,
    about: Mapping[str, Any],
    wanted: Wanted,
    examples: Examples,
    recipe: Recipe = PROXY,
    processes: int | None = None,
    told: Callable[[Mapping[str, Result], Sequence[Job]], None] = lambda results, jobs: None,
) -> dict[str, Result]:
    """Does every training that ``wanted`` wants, and gives all results; what ``store`` holds already is not done again.

    ``about`` says which search it is (with the pictures and the recipe, which are added): a store of another is
    refused. ``processes``: one a core if None; each computes on one thread. With 1 all is done in this process, in the
    order wanted. Others may work on the same store at the same time, on this machine or another. ``told`` hears the
    results and what is wanted whenever something is done. Raises ``ValueError`` for another search's store, and
    ``ChildProcessError`` where a process fails.
    """
    which = identity(about, examples, recipe)
    ledger = Ledger(store, which)
    processes = processes or cores()
    found = ledger.results()
    if all(job.key in found for job in wanted(found)):
        told(found, wanted(found))
        return found
    if processes == 1:
        with torch_threads(1):
            return _work(ledger, wanted, examples, recipe, told)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "examples.safetensors"
        examples.save(path)
        with crew(_worker, (str(store), which, wanted, path, recipe), processes) as working:
            before = -1
            while working():
                found = ledger.results()
                if len(found) != before:
                    before = len(found)
                    told(found, wanted(found))
    return ledger.results()


def identity(about: Mapping[str, Any], examples: Examples, recipe: Recipe) -> dict[str, Any]:
    """What tells a search from every other: ``about``, its pictures and how it trains."""
    return {**about, "pictures": examples.fingerprint, "recipe": asdict(recipe)}


def _work(
    ledger: Ledger,
    wanted: Wanted,
    examples: Examples,
    recipe: Recipe,
    told: Callable[[Mapping[str, Result], Sequence[Job]], None] = lambda results, jobs: None,
) -> dict[str, Result]:
    while True:
        results = ledger.results()
        jobs = wanted(results)
        told(results, jobs)
        missing = {job.key: job for job in jobs if job.key not in results}
        if not missing:
            return results
        taken = ledger.take(missing)
        if taken is None:
            time.sleep(POLL)
            continue
        try:
            with ledger.beating(taken):
                done, _ = train(missing[taken].arch, examples, missing[taken].epochs, missing[taken].seed, recipe)
        except BaseException:
            ledger.give_back(taken)
            raise
        ledger.finish(taken, asdict(done))


def _worker(store: str, about: dict[str, Any], wanted: Wanted, path: Path, recipe: Recipe) -> None:
    _work(Ledger(store, about), wanted, Examples.load(path), recipe)
