"""Processes that work beside this one: one thread each, and gone when it is gone, however it goes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch

from effnet.arch import Arch
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import PROXY_RECIPE, train_proxy
from effnet.lab.search.store import SearchStore, TrainingResult
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import count_cores
from effnet.training.recipes import Recipe

POLL_SECONDS = 0.5  # seconds between two looks at whether the others are still there


@contextmanager
def worker_processes(
    work: Callable[..., None], arguments: tuple[Any, ...], processes: int
) -> Iterator[Callable[[], bool]]:
    """So many ``processes`` that each do ``work(*arguments)``; they are ended with this block.

    Gives a function that says, after a short wait, whether any of them still works. It raises
    ``ChildProcessError`` where one has failed.
    """
    context = get_context("spawn")
    started: list[BaseProcess] = [
        context.Process(target=_run_worker, args=(work, arguments, os.getpid()), daemon=True) for _ in range(processes)
    ]

    def working() -> bool:
        next((one for one in started if one.is_alive()), started[0]).join(POLL_SECONDS)
        failed = next((one.exitcode for one in started if one.exitcode), None)
        if failed is not None:
            raise ChildProcessError(f"one of the processes of the search ended with status {failed}")
        return any(one.is_alive() for one in started)

    try:
        for one in started:
            one.start()
        yield working
    finally:
        for one in started:
            if one.pid is not None:
                one.kill()
                one.join()


def _run_worker(work: Callable[..., None], arguments: tuple[Any, ...], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this one
    Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    work(*arguments)


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


# A search as trainings that are wanted: done by several processes, each once, until nothing more is wanted.


ANONYMOUS_NAME = "network"  # networks that differ by their names alone are trained once


@dataclass(frozen=True)
class TrainingJob:
    """One short training: ``arch`` for ``epochs`` with all that is drawn depending on ``seed``."""

    arch: Arch
    epochs: int
    seed: int

    @cached_property
    def key(self) -> str:
        """What the store knows it by."""
        named = [replace(self.arch, name=ANONYMOUS_NAME).to_dict(), self.epochs, self.seed]
        return sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:32]


# The rule of a search: which trainings it wants, given the results so far by `Job.key`. It must depend on nothing else,
# so that all processes come to the same. It names all that are wanted up to now, done or not; when all of them are done
# it may want more, and when it does not, the search is over.
JobRule = Callable[[Mapping[str, TrainingResult]], Sequence[TrainingJob]]


def run_jobs(
    store: str | Path,
    identity: Mapping[str, Any],
    rule: JobRule,
    dataset: SearchDataset,
    recipe: Recipe = PROXY_RECIPE,
    processes: int | None = None,
    on_progress: Callable[[Mapping[str, TrainingResult], Sequence[TrainingJob]], None] = lambda results, jobs: None,
) -> dict[str, TrainingResult]:
    """Does every training that ``wanted`` wants, and gives all results; what ``store`` holds already is not done again.

    ``about`` says which search it is (with the pictures and the recipe, which are added): a store of another is
    refused. ``processes``: one a core if None; each computes on one thread. With 1 all is done in this process, in the
    order wanted. Others may work on the same store at the same time, on this machine or another. ``told`` hears the
    results and what is wanted whenever something is done. Raises ``ValueError`` for another search's store, and
    ``ChildProcessError`` where a process fails.
    """
    which = search_identity(identity, dataset, recipe)
    ledger = SearchStore(store, which)
    processes = processes or count_cores()
    found = ledger.results()
    if all(job.key in found for job in rule(found)):
        on_progress(found, rule(found))
        return found
    if processes == 1:
        with torch_threads(1):
            return _work_through(ledger, rule, dataset, recipe, on_progress)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "examples.safetensors"
        dataset.save(path)
        with worker_processes(_work_in_process, (str(store), which, rule, path, recipe), processes) as working:
            before = -1
            while working():
                found = ledger.results()
                if len(found) != before:
                    before = len(found)
                    on_progress(found, rule(found))
    return ledger.results()


def search_identity(settings: Mapping[str, Any], dataset: SearchDataset, recipe: Recipe) -> dict[str, Any]:
    """What tells a search from every other: ``about``, its pictures and how it trains."""
    return {**settings, "pictures": dataset.fingerprint, "recipe": asdict(recipe)}


def _work_through(
    ledger: SearchStore,
    rule: JobRule,
    dataset: SearchDataset,
    recipe: Recipe,
    on_progress: Callable[[Mapping[str, TrainingResult], Sequence[TrainingJob]], None] = lambda results, jobs: None,
) -> dict[str, TrainingResult]:
    while True:
        results = ledger.results()
        jobs = rule(results)
        on_progress(results, jobs)
        missing = {job.key: job for job in jobs if job.key not in results}
        if not missing:
            return results
        taken = ledger.claim(missing)
        if taken is None:
            time.sleep(POLL_SECONDS)
            continue
        try:
            with ledger.heartbeat(taken):
                done, _ = train_proxy(missing[taken].arch, dataset, missing[taken].epochs, missing[taken].seed, recipe)
        except BaseException:
            ledger.release(taken)
            raise
        ledger.finish(taken, asdict(done))


def _work_in_process(store: str, identity: dict[str, Any], rule: JobRule, path: Path, recipe: Recipe) -> None:
    _work_through(SearchStore(store, identity), rule, SearchDataset.load(path), recipe)
