"""The store: who may train what, and what happens when somebody dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from effnet.lab.search import store as module
from effnet.lab.search.store import SearchStore

ABOUT = {"search": "test", "seed": 0}


def test_a_training_is_taken_once_and_kept(tmp_path: Path) -> None:
    one, other = SearchStore(tmp_path / "s.db", ABOUT), SearchStore(tmp_path / "s.db", ABOUT)
    assert one.claim(["a", "b"]) == "a"
    assert other.claim(["a", "b"]) == "b"
    assert one.claim(["a", "b"]) is None
    assert one.results() == {}
    one.finish("a", {"selected": 0.5})
    other.finish("a", {"selected": 0.9})  # it does not hold it
    assert other.results() == {"a": {"selected": 0.5}}
    assert other.claim(["a"]) is None
    other.release("b")
    assert one.claim(["a", "b"]) == "b"


def test_many_at_once_take_each_once(tmp_path: Path) -> None:
    jobs, taken, ready = [f"job{number}" for number in range(30)], [], Barrier(6)

    def take() -> None:
        mine = SearchStore(tmp_path / "s.db", ABOUT)
        ready.wait()
        while (job := mine.claim(jobs)) is not None:
            taken.append(job)

    threads = [Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(jobs)


def test_a_dead_process_loses_its_training(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom effnet.lab.search.store import Ledger\n"
        f"ledger = Ledger({str(tmp_path / 's.db')!r}, {ABOUT!r})\n"
        "assert ledger.take(['a']) == 'a'\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert SearchStore(tmp_path / "s.db", ABOUT).claim(["a"]) == "a"


def test_a_beat_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, here = SearchStore(tmp_path / "s.db", ABOUT), SearchStore(tmp_path / "s.db", ABOUT)
    monkeypatch.setattr(module, "STALE", 0.2)
    monkeypatch.setattr(module, "BEAT", 0.02)
    assert elsewhere.claim(["a"]) == "a"
    with elsewhere.heartbeat("a"):
        for _ in range(5):
            assert here.claim(["a"]) is None
            module.time.sleep(0.08)
    assert here.claim(["a"]) is None  # from now on it stands still
    module.time.sleep(0.3)
    assert here.claim(["a"]) == "a"
    elsewhere.finish("a", {"selected": 0.1})  # too late
    assert here.results() == {}
    here.finish("a", {"selected": 0.2})
    assert here.results() == {"a": {"selected": 0.2}}


def test_another_search_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    first = SearchStore(store, ABOUT)
    assert first.claim(["a"]) == "a"
    first.finish("a", {"selected": 0.5})
    with pytest.raises(ValueError, match=r"holds another search: base, seed differ; give another --store"):
        SearchStore(store, ABOUT | {"seed": 1, "base": "b0"})
    assert SearchStore(store, ABOUT).results() == {"a": {"selected": 0.5}}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://there", "cannot be opened as a store"),
        ("postgresql+nothing://x/y", "cannot be opened as a store"),
        ("mysql+pymysql://x/y", 'needs a driver: pip install "pymysql"'),
    ],
)
def test_no_address_of_a_store(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SearchStore(address, ABOUT)


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no database at all, but long enough to look at" * 50)
    with pytest.raises(ValueError, match="is no store of a search"):
        SearchStore(path, ABOUT)
    assert path.read_bytes().startswith(b"no database")
