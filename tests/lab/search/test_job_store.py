"""Jobs run by several processes: each once, the same results in any order, and none lost to a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from sqlalchemy.event import listen

from effnet.lab.search import job_store, proxy_task
from effnet.lab.search.job_store import TrainingJob, TrainingResult, open_study, read_results, run_jobs, run_trial
from effnet.lab.search.proxy_task import PROXY_RECIPE, SearchDataset
from tests.lab.search.rules import FIRST, LAST, rule

SETTINGS = {"search": "test"}
ROOT = Path(__file__).parents[3]


@contextmanager
def opened(store: Path, identity: Mapping[str, Any] = SETTINGS) -> Iterator[Any]:
    with open_study(store, identity, job_store.TRAININGS) as study:
        yield study


def results_in(store: Path, dataset: SearchDataset) -> dict[str, TrainingResult]:
    with opened(store, job_store.search_identity(SETTINGS, dataset)) as study:
        return read_results(study)


def without_seconds(results: Mapping[str, TrainingResult]) -> dict[str, TrainingResult]:
    return {
        job: {name: value for name, value in result.items() if name != "seconds"} for job, result in results.items()
    }


@pytest.fixture(scope="module")
def reference(striped: SearchDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingResult]:
    return run_jobs(tmp_path_factory.mktemp("reference") / "s.db", SETTINGS, rule, striped, processes=1)


def test_every_wanted_job_is_done(reference: dict[str, TrainingResult]) -> None:
    assert set(reference) == {job.key for job in (*FIRST, LAST)}
    assert all(set(one) == {"selection_accuracy", "test_accuracy", "loss", "seconds"} for one in reference.values())
    assert len({one["loss"] for one in reference.values()}) == 7  # seven seeds


def test_no_job_is_repeated(
    striped: SearchDataset, tmp_path: Path, reference: dict[str, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[tuple[int, int]] = []

    def on_progress(results: Mapping[str, TrainingResult], jobs: Sequence[TrainingJob]) -> None:
        progress.append((len(results), len(jobs)))

    first = run_jobs(tmp_path / "s.db", SETTINGS, rule, striped, processes=1, on_progress=on_progress)
    assert without_seconds(first) == without_seconds(reference)
    assert progress == [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 7), (7, 7)]

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(proxy_task, "train_proxy", never)
    monkeypatch.setattr(job_store, "worker_processes", never)
    assert run_jobs(tmp_path / "s.db", SETTINGS, rule, striped, processes=1) == first
    assert run_jobs(tmp_path / "s.db", SETTINGS, rule, striped) == first


def test_other_images_or_another_recipe_are_another_search(
    striped: SearchDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.db"
    assert results_in(store, striped) == {}
    with pytest.raises(ValueError, match="another search: images differs"):
        run_jobs(store, SETTINGS, rule, replace(striped, fingerprint="others"))
    monkeypatch.setattr(proxy_task, "PROXY_RECIPE", replace(PROXY_RECIPE, learning_rate=0.2))
    with pytest.raises(ValueError, match="another search: recipe differs"):
        run_jobs(store, SETTINGS, rule, striped)


def test_another_search_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with opened(store):
        pass
    before = store.read_bytes()
    with (
        pytest.raises(ValueError, match=r"another search: base, search differ; choose another --store"),
        opened(store, {"search": "other", "base": "b0"}),
    ):
        pass
    assert store.read_bytes() == before


def test_a_failed_job_can_be_run_again(striped: SearchDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    threads = torch.get_num_threads()
    with monkeypatch.context() as patched:
        patched.setattr(proxy_task, "train_proxy", fails)
        with pytest.raises(MemoryError):
            run_jobs(tmp_path / "s.db", SETTINGS, rule, striped, processes=1)
    assert torch.get_num_threads() == threads
    assert len(run_jobs(tmp_path / "s.db", SETTINGS, rule, striped, processes=1)) == 7


def test_the_key_depends_on_what_is_built(tiny: Any) -> None:
    job = TrainingJob(tiny, 3, 0)
    assert TrainingJob(replace(tiny, name="other"), 3, 0).key == job.key
    different = (TrainingJob(tiny, 4, 0), TrainingJob(tiny, 3, 1), TrainingJob(replace(tiny, resolution=9), 3, 0))
    assert len({job.key, *(one.key for one in different)}) == 4


def test_a_trial_is_claimed_once(tmp_path: Path) -> None:
    """Several workers at the same moment, as in several processes: each with its own connection."""
    store, claimed, ready = tmp_path / "s.db", [], Barrier(4)
    with opened(store) as study:
        for number in range(20):
            study.enqueue_trial({}, user_attrs={"job": number})

    def claim(trial: Any) -> float:
        claimed.append(trial.user_attrs["job"])
        return 0.0

    def work() -> None:
        with opened(store) as study:
            ready.wait()
            while job_store.list_trials(study, "WAITING"):
                run_trial(study, lambda trial: claim(trial) if "job" in trial.user_attrs else 0.0)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(20))


def test_duplicates_are_not_trained(
    striped: SearchDataset, tmp_path: Path, reference: dict[str, TrainingResult]
) -> None:
    """Two parties that queue the same jobs at the same moment."""
    store, identity = tmp_path / "s.db", job_store.search_identity(SETTINGS, striped)
    with opened(store, identity) as study:
        for _ in range(2):
            for job in FIRST:
                study.enqueue_trial({}, user_attrs={"job": job.key})
    results = run_jobs(store, SETTINGS, rule, striped, processes=1)
    assert without_seconds(results) == without_seconds(reference)
    with opened(store, identity) as study:
        assert len(job_store.list_trials(study, "COMPLETE")) == 7
        assert len(job_store.list_trials(study, "PRUNED")) == 6


def test_the_job_of_a_dead_process_is_run_again(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    code = (
        "import os\nfrom effnet.lab.search.job_store import TRAININGS, open_study, run_trial\n"
        f"with open_study({str(store)!r}, {SETTINGS!r}, TRAININGS) as study:\n"
        "    run_trial(study, lambda trial: os._exit(9))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    with opened(store) as study:
        assert len(job_store.list_trials(study, "RUNNING")) == 1
        job_store.fail_abandoned_trials(study)
        assert job_store.list_trials(study, "RUNNING") == []


def test_a_worker_whose_heartbeat_stopped_loses_its_job(tmp_path: Path) -> None:
    store = tmp_path / "s.db"

    def stand_still(trial: Any) -> float:
        with opened(store) as other:
            job_store.fail_abandoned_trials(other)
            assert len(job_store.list_trials(other, "RUNNING")) == 1  # its heartbeat is recent
            other.tell(trial.number, state=job_store.list_trials(other, "RUNNING")[0].state.FAIL)  # as stale trials are
        trial.set_user_attr("result", {"loss": 1.0})
        raise AssertionError("too late, and not noticed")

    with opened(store) as study:
        run_trial(study, stand_still)  # drops its result without an error
        assert read_results(study) == {}
        with pytest.raises(ValueError, match="of the training itself"):
            run_trial(study, lambda trial: (_ for _ in ()).throw(ValueError("of the training itself")))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense://there", "cannot open the store nonsense://there"),
        ("postgresql+nothing://x/y", "cannot open the store"),
        ("mysql+pymysql://me:secret@x/y", r'mysql\+pymysql://me:\*\*\*@x/y requires .*pip install "pymysql"'),
    ],
)
def test_bad_address(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), opened(address):  # type: ignore[arg-type]
        pass


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no database at all, but long enough to look at" * 50)
    with pytest.raises(ValueError, match="is not the store of a search"), opened(path):
        pass
    assert path.read_bytes().startswith(b"no database")


def kill_and_resume(
    striped: SearchDataset, folder: Path, processes: int, kills: int, seed: int
) -> dict[str, TrainingResult]:
    """Run the search of `rules` in a process that is killed at random moments and started again."""
    store, dataset, random = folder / "s.db", folder / "dataset", Random(seed)
    striped.save(dataset)
    command = [sys.executable, "-m", "tests.lab.search.rules", str(store), str(dataset), str(processes)]
    done: dict[str, TrainingResult] = {}
    for kill in range(kills + 1):
        running = subprocess.Popen(command, cwd=ROOT)
        if kill < kills:
            while not store.exists() and running.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 2.5))
            running.send_signal(signal.SIGKILL)
            running.wait()
        else:
            assert running.wait(timeout=120) == 0
        now = results_in(store, striped)
        assert done.items() <= now.items()  # with their seconds: a repeated training would have others
        done = now
    return done


def test_kill_and_resume(striped: SearchDataset, tmp_path: Path, reference: dict[str, TrainingResult]) -> None:
    assert without_seconds(kill_and_resume(striped, tmp_path, 2, 1, 0)) == without_seconds(reference)


@pytest.mark.sweep
def test_ten_kills(striped: SearchDataset, tmp_path: Path, reference: dict[str, TrainingResult]) -> None:
    assert without_seconds(kill_and_resume(striped, tmp_path, 2, 10, 1)) == without_seconds(reference)


def test_two_parties_at_one_store(striped: SearchDataset, tmp_path: Path, reference: dict[str, TrainingResult]) -> None:
    striped.save(tmp_path / "dataset")
    command = [sys.executable, "-m", "tests.lab.search.rules", str(tmp_path / "s.db"), str(tmp_path / "dataset"), "1"]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    assert without_seconds(results_in(tmp_path / "s.db", striped)) == without_seconds(reference)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("max_page_count = 1", "the disk is full"), ("query_only = 1", "attempt to write a readonly database")],
)
@pytest.mark.parametrize("in_trial", [True, False])
def test_a_store_that_cannot_be_written(setting: str, reason: str, in_trial: bool, tmp_path: Path) -> None:
    """On a full disk Optuna raises errors of its own while it handles the database's."""
    store = tmp_path / "s.db"
    with pytest.raises(OSError, match=f"could not be written: {reason}; finished trainings are kept") as raised:
        write_much(store, setting, in_trial)
    assert str(store) in str(raised.value)
    with open_study(store, {}, "full") as study:  # with room it goes on
        run_trial(study, lambda trial: 1.0)


def write_much(store: Path, setting: str, in_trial: bool) -> None:
    with open_study(store, {}, "full") as study:
        engine = study._storage._backend.engine  # type: ignore[attr-defined]
        listen(engine, "connect", lambda connection, record: connection.execute(f"PRAGMA {setting}"))
        engine.dispose()
        if in_trial:
            run_trial(study, lambda trial: trial.set_user_attr("much", "x" * 100_000) or 1.0)
        else:
            study.set_user_attr("much", "x" * 100_000)
