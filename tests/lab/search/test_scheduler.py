"""Trainings done by several processes: each once, the same in whatever order, and none lost to a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from effnet.lab.search import scheduler as module
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import PROXY_RECIPE
from effnet.lab.search.scheduler import TrainingJob, run_jobs
from effnet.lab.search.store import SearchStore, TrainingResult
from tests.lab.search.rules import FIRST, LAST, wanted

ABOUT = {"search": "test"}
ROOT = Path(__file__).parents[2]


def without_seconds(results: Mapping[str, TrainingResult]) -> dict[str, TrainingResult]:
    return {
        job: {name: value for name, value in result.items() if name != "seconds"} for job, result in results.items()
    }


@pytest.fixture(scope="module")
def alone(striped: SearchDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingResult]:
    return run_jobs(tmp_path_factory.mktemp("alone") / "s.db", ABOUT, wanted, striped, processes=1)


def test_all_that_is_wanted_is_done(alone: dict[str, TrainingResult]) -> None:
    assert set(alone) == {job.key for job in (*FIRST, LAST)}
    assert all(set(one) == {"selected", "judged", "loss", "seconds"} for one in alone.values())
    assert len({one["loss"] for one in alone.values()}) == 7  # seven seeds


def test_nothing_is_done_again(
    striped: SearchDataset, tmp_path: Path, alone: dict[str, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, int]] = []

    def told(results: Mapping[str, TrainingResult], jobs: Sequence[TrainingJob]) -> None:
        heard.append((len(results), len(jobs)))

    first = run_jobs(tmp_path / "s.db", ABOUT, wanted, striped, processes=1, on_progress=told)
    assert without_seconds(first) == without_seconds(alone)
    assert heard == [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 7), (7, 7)]

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", never)
    assert run_jobs(tmp_path / "s.db", ABOUT, wanted, striped, processes=1) == first
    assert run_jobs(tmp_path / "s.db", ABOUT, wanted, striped) == first  # nor is a process started


def test_other_pictures_or_another_recipe_are_another_search(striped: SearchDataset, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    SearchStore(store, module.search_identity(ABOUT, striped, PROXY_RECIPE))
    with pytest.raises(ValueError, match="another search: pictures differs"):
        run_jobs(store, ABOUT, wanted, replace(striped, fingerprint="others"))
    with pytest.raises(ValueError, match="another search: recipe differs"):
        run_jobs(store, ABOUT, wanted, striped, replace(PROXY_RECIPE, learning_rate=0.2))


def test_a_failed_training_can_be_taken_again(
    striped: SearchDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    threads = torch.get_num_threads()
    with monkeypatch.context() as patched:
        patched.setattr(module, "train", fails)
        with pytest.raises(MemoryError):
            run_jobs(tmp_path / "s.db", ABOUT, wanted, striped, processes=1)
    assert torch.get_num_threads() == threads
    assert len(run_jobs(tmp_path / "s.db", ABOUT, wanted, striped, processes=1)) == 7


def test_the_key_is_of_what_is_built(tiny: Any) -> None:
    job = TrainingJob(tiny, 3, 0)
    assert TrainingJob(replace(tiny, name="other"), 3, 0).key == job.key
    different = (TrainingJob(tiny, 4, 0), TrainingJob(tiny, 3, 1), TrainingJob(replace(tiny, resolution=9), 3, 0))
    assert len({job.key, *(one.key for one in different)}) == 4


def killed_and_resumed(
    striped: SearchDataset, folder: Path, processes: int, kills: int, seed: int
) -> dict[str, TrainingResult]:
    """The search of `rules` in a process of its own, which is killed at random moments and started again."""
    store, pictures, drawn = folder / "s.db", folder / "pictures", Random(seed)
    striped.save(pictures)
    command = [sys.executable, "-m", "tests.lab.search.rules", str(store), str(pictures), str(processes)]
    done: dict[str, TrainingResult] = {}
    for kill in range(kills + 1):
        running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if kill < kills:
            while not store.exists() and running.poll() is None:
                time.sleep(0.01)
            time.sleep(drawn.uniform(0, 2.5))
            running.send_signal(signal.SIGKILL)
            running.wait()
        else:
            assert running.wait(timeout=120) == 0
        now = SearchStore(store, module.search_identity(ABOUT, striped, PROXY_RECIPE)).results()
        assert done.items() <= now.items()  # with their seconds: a training done again would have others
        done = now
    return done


def test_killed_and_resumed(striped: SearchDataset, tmp_path: Path, alone: dict[str, TrainingResult]) -> None:
    assert without_seconds(killed_and_resumed(striped, tmp_path, 2, 1, 0)) == without_seconds(alone)


@pytest.mark.sweep
def test_ten_kills(striped: SearchDataset, tmp_path: Path, alone: dict[str, TrainingResult]) -> None:
    assert without_seconds(killed_and_resumed(striped, tmp_path, 2, 10, 1)) == without_seconds(alone)


def test_two_parties_at_one_store(striped: SearchDataset, tmp_path: Path, alone: dict[str, TrainingResult]) -> None:
    striped.save(tmp_path / "pictures")
    command = [sys.executable, "-m", "tests.lab.search.rules", str(tmp_path / "s.db"), str(tmp_path / "pictures"), "1"]
    both = [subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    found = SearchStore(tmp_path / "s.db", module.search_identity(ABOUT, striped, PROXY_RECIPE)).results()
    assert without_seconds(found) == without_seconds(alone)
