"""Training jobs of a search: stored in Optuna's database, run by one or several processes.

Every job is an Optuna trial. It waits in the queue until a worker claims it, sends heartbeats while it trains, and is
queued again if its worker dies. SQLite serves one machine, PostgreSQL (or any other address that SQLAlchemy takes)
several at once.
"""

import json
import os
import signal
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch

from effnet.arch import Arch, serde
from effnet.lab.search import proxy_task
from effnet.runtime.torch import torch_threads
from effnet.timing.child_process import describe_exit
from effnet.timing.machine import count_cores

if TYPE_CHECKING:
    import optuna

TRAININGS = "effnet trainings"  # the study that `run_jobs` keeps its jobs in
HEARTBEAT_SECONDS, STALE_SECONDS = 5, 30  # between two heartbeats; without one, until a job is given to another worker
SQLITE_TIMEOUT_SECONDS = 60  # for another process's write
POLL_SECONDS = 0.5
ANONYMOUS_NAME = "network"  # networks that differ in name only are trained once

TrainingResult = dict[str, Any]  # the fields of `ProxyResult`


@dataclass(frozen=True)
class TrainingJob:
    """One short training of ``arch``; everything random depends on ``seed``."""

    arch: Arch
    epochs: int
    seed: int

    @cached_property
    def key(self) -> str:
        """The job's name in the store."""
        content = [replace(self.arch, name=ANONYMOUS_NAME).to_dict(), self.epochs, self.seed]
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


# The rule of a search: from the results so far, by `TrainingJob.key`, to all jobs wanted up to now, done or not. Once
# all of them are done it may want more; when it does not, the search is over. It must depend on nothing but the
# results, so that all processes agree.
JobRule = Callable[[Mapping[str, TrainingResult]], Sequence[TrainingJob]]
ProgressCallback = Callable[[Mapping[str, TrainingResult], Sequence[TrainingJob]], object]


def run_jobs(
    store: str | Path,
    settings: Mapping[str, Any],
    rule: JobRule,
    dataset: proxy_task.SearchDataset,
    processes: int | None = None,
    on_progress: ProgressCallback = lambda results, jobs: None,
) -> dict[str, TrainingResult]:
    """Run every job that ``rule`` wants and return all results; jobs already done in ``store`` are not repeated.

    ``store`` is an SQLite file or the address of a database, which other processes and machines may work on at the same
    time. ``settings`` identify the search. ``processes`` have one thread each (default: one per core); with 1, jobs run
    in this process, in the order of the rule. ``on_progress`` gets all results and all jobs wanted. Raises
    ``ValueError`` if the store belongs to another search, and ``ChildProcessError`` if a worker failed.
    """
    identity = search_identity(settings, dataset)
    processes = processes or count_cores()
    with open_study(store, identity, TRAININGS) as study:
        if processes == 1 or not _enqueue_missing(study, rule):
            with torch_threads(1):
                return _work(study, rule, dataset, on_progress)
        with worker_processes(_run_worker, (str(store), identity, rule), dataset, processes) as are_running:
            reported = -1
            while are_running():
                _enqueue_missing(study, rule)
                results = read_results(study)
                if len(results) != reported:
                    reported = len(results)
                    on_progress(results, rule(results))
        return read_results(study)


def search_identity(settings: Mapping[str, Any], dataset: proxy_task.SearchDataset) -> dict[str, Any]:
    """Return what tells a search from every other: ``settings``, its images and the recipe."""
    return {**settings, "images": dataset.fingerprint, "recipe": asdict(proxy_task.PROXY_RECIPE)}


def read_results(study: "optuna.Study") -> dict[str, TrainingResult]:
    """Return the result of every finished job, by its key."""
    return {trial.user_attrs["job"]: trial.user_attrs["result"] for trial in list_trials(study, "COMPLETE")}


def list_trials(study: "optuna.Study", *states: str) -> list["optuna.trial.FrozenTrial"]:
    """Return the trials that are in one of these ``states``, such as "RUNNING"."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=tuple(TrialState[state] for state in states))


def _enqueue_missing(study: "optuna.Study", rule: JobRule) -> bool:
    """Queue the jobs that are neither done nor pending; return whether any is not done."""
    fail_abandoned_trials(study)
    results = read_results(study)
    missing = {job.key: job for job in rule(results) if job.key not in results}
    if missing:
        pending = {trial.user_attrs.get("job") for trial in list_trials(study, "WAITING", "RUNNING")}
        for key, job in missing.items():
            if key not in pending:
                attributes = {"job": key, "network": job.arch.name, "epochs": job.epochs, "seed": job.seed}
                study.enqueue_trial({}, user_attrs=attributes)
    return bool(missing)


def _work(
    study: "optuna.Study",
    rule: JobRule,
    dataset: proxy_task.SearchDataset,
    on_progress: ProgressCallback = lambda results, jobs: None,
    enqueue: bool = True,
) -> dict[str, TrainingResult]:
    """Train until nothing is missing; ``enqueue`` what is missing, unless a parent process does so."""
    while True:
        results = read_results(study)
        jobs = rule(results)
        on_progress(results, jobs)
        if all(job.key in results for job in jobs):
            return results
        if enqueue:
            _enqueue_missing(study, rule)
        if list_trials(study, "WAITING"):
            run_trial(study, partial(_train, rule, dataset))
        else:
            time.sleep(POLL_SECONDS)


def _train(rule: JobRule, dataset: proxy_task.SearchDataset, trial: "optuna.Trial") -> float:
    """Train the job of ``trial``; it is pruned if it is a duplicate or no longer wanted."""
    from optuna.exceptions import TrialPruned

    key, study = trial.user_attrs.get("job", ""), trial.study
    job = {job.key: job for job in rule(read_results(study))}.get(key)
    # Two parties may have queued the same job at the same moment: the lowest number counts
    rivals = (other for other in list_trials(study, "WAITING", "RUNNING", "COMPLETE") if other.number < trial.number)
    if job is None or any(other.user_attrs.get("job") == key for other in rivals):
        raise TrialPruned
    result, _ = proxy_task.train_proxy(job.arch, dataset, job.epochs, job.seed)
    trial.set_user_attr("result", asdict(result))
    return result.selection_accuracy


def _run_worker(store: str, identity: dict[str, Any], rule: JobRule, dataset: proxy_task.SearchDataset) -> None:
    with open_study(store, identity, TRAININGS) as study:
        _work(study, rule, dataset, enqueue=False)


def run_trial(study: "optuna.Study", objective: Callable[["optuna.Trial"], Any]) -> None:
    """Run ``objective`` on the next trial of ``study``, and record which process works on it.

    A worker that stood still for so long that its trial was given to another one drops its result.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    overtaken = False

    def run(trial: "optuna.Trial") -> Any:
        nonlocal overtaken
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        try:
            return objective(trial)
        except UpdateFinishedTrialError:
            overtaken = True
            raise

    try:
        study.optimize(run, n_trials=1)
    except ValueError:  # a trial that has failed takes no result
        if not overtaken:
            raise


def fail_abandoned_trials(study: "optuna.Study") -> None:
    """Mark trials as failed whose process is dead, or whose heartbeat has stopped."""
    import optuna

    optuna.storages.fail_stale_trials(study)
    for trial in list_trials(study, "RUNNING"):
        host, _, pid = trial.user_attrs.get("worker", "").rpartition(":")
        if host == socket.gethostname() and not _is_alive(int(pid)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def hide_password(store: str | Path) -> str:
    """Return ``store`` as it is shown to users: an address without its password."""
    if "://" not in str(store):
        return str(store)
    import sqlalchemy

    try:
        return sqlalchemy.make_url(str(store)).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(an invalid address)"  # which may contain one


@contextmanager
def open_study(
    store: str | Path, identity: Mapping[str, Any], name: str, directions: Sequence[str] = ("maximize",)
) -> Iterator["optuna.Study"]:
    """Open the study ``name``, created if missing.

    Raises ``ValueError`` if ``store`` belongs to another search, ``OSError`` if it cannot be written.
    """
    optuna = serde.import_extra("optuna", "search", "searches require")
    recorded = json.loads(json.dumps(identity))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # it logs tracebacks of what it raises
        storage = _open_storage(str(store))
        try:
            _check_identity(storage, recorded, store)
            study = optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True, directions=list(directions)
            )
            if "search" not in study.user_attrs:
                study.set_user_attr("search", recorded)
            yield study
        except Exception as error:
            if reason := _disk_error(error):
                text = f"{hide_password(store)} could not be written: {reason}; finished trainings are kept: "
                raise OSError(f"{text}run the same command again to continue") from error
            raise
        finally:
            optuna.logging.set_verbosity(verbosity)
            storage.remove_session()
            storage.engine.dispose()


def _disk_error(error: BaseException | None) -> str:
    """Return why SQLite could not write, or "": Optuna raises other errors while it handles that one."""
    while error is not None:
        if isinstance(error, sqlite3.OperationalError):
            text = str(error)
            return (
                "the disk is full" if "disk is full" in text else text if "readonly" in text or "disk" in text else ""
            )
        error = error.__cause__ or error.__context__
    return ""


def _check_identity(storage: "optuna.storages.RDBStorage", identity: dict[str, Any], store: str | Path) -> None:
    for study in storage.get_all_studies():
        there = study.user_attrs.get("search", identity)
        others = sorted(name for name in there.keys() | identity.keys() if there.get(name) != identity.get(name))
        if others:
            raise ValueError(
                f"{hide_password(store)} contains another search: {', '.join(others)} "
                f"{'differ' if len(others) > 1 else 'differs'}; choose another --store, or repeat the options of that "
                "search to continue it"
            )


def _open_storage(store: str) -> "optuna.storages.RDBStorage":
    import optuna
    import sqlalchemy

    failures = sqlalchemy.exc.DatabaseError, optuna.exceptions.StorageInternalError
    is_file, shown = "://" not in store, hide_password(store)
    if is_file:
        Path(store).parent.mkdir(parents=True, exist_ok=True)
    open_database = partial(
        optuna.storages.RDBStorage,
        f"sqlite:///{store}" if is_file else store,
        engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}} if is_file else {},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=STALE_SECONDS,
    )
    try:
        try:
            storage = open_database()
        except failures:
            time.sleep(1)  # another process may have created the tables at the same moment
            storage = open_database()
    except sqlalchemy.exc.ArgumentError as error:
        raise ValueError(f"cannot open the store {shown}: {error}") from None
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "a database driver"
        driver = "psycopg[binary]" if missing == "psycopg" else missing
        raise ValueError(f'{shown} requires a database driver: pip install "{driver}"') from None
    except failures as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[-1]
        raise ValueError(f"{shown} is not the store of a search ({reason}): choose another --store") from None
    except RuntimeError as error:  # written by another version of Optuna
        raise ValueError(f"cannot open the store {shown}: {error}") from None
    if is_file:
        sqlalchemy.event.listen(storage.engine, "connect", _configure_sqlite)
        sqlalchemy.event.listen(storage.engine, "begin", _begin_immediately)
        storage.engine.dispose()  # the connection that the tables were created with
    return storage


def _configure_sqlite(connection: Any, _: object) -> None:
    """Optuna commits every parameter separately: in this mode commits need not wait for the disk, and are as safe."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.isolation_level = None  # transactions begin as below


def _begin_immediately(connection: Any) -> None:
    """SQLite has no row locks: without the write lock from the start, two workers could claim the same trial."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def worker_processes(
    work: Callable[..., None], arguments: tuple[Any, ...], dataset: proxy_task.SearchDataset, processes: int
) -> Iterator[Callable[[], bool]]:
    """Start ``processes`` that each call ``work(*arguments, dataset)`` on one thread, and kill them after the block.

    Yields a function that waits a moment and returns whether any is running; ``ChildProcessError`` if one has failed.
    """
    folder = TemporaryDirectory()
    path = Path(folder.name) / "dataset.safetensors"
    child = partial(get_context("spawn").Process, target=_run_child, args=(work, arguments, path, os.getpid()))
    workers = [child(daemon=True) for _ in range(processes)]

    def are_running() -> bool:
        next((worker for worker in workers if worker.is_alive()), workers[0]).join(POLL_SECONDS)
        failed = next((worker.exitcode for worker in workers if worker.exitcode), None)
        if failed is not None:
            raise ChildProcessError(f"a worker process of the search {describe_exit(failed)}")
        return any(worker.is_alive() for worker in workers)

    try:
        dataset.save(path)
        for worker in workers:
            worker.start()
        yield are_running
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()
        folder.cleanup()


def _run_child(work: Callable[..., None], arguments: tuple[Any, ...], path: Path, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and kills this process
    Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    work(*arguments, proxy_task.SearchDataset.load(path))


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
