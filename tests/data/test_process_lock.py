"""Two processes never write one output; a lock that a kill left behind is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.data import open_data
from effnet.data.storage import process_lock
from effnet.data.storage.process_lock import LOCK_NAME, OutputInUseError, lock_output
from effnet.data.webdataset_writer import write_shards
from effnet.training.run_dir import RunDir

HOLD = (
    "import sys; from pathlib import Path; from effnet.data.storage.process_lock import lock_output\n"
    "with lock_output(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of ``folder`` until this block ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield holder
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_who_holds_it_is_named_and_a_kill_frees_it(photos: Path, tmp_path: Path) -> None:
    run, shards = tmp_path / "run", tmp_path / "shards"
    with another_process(run) as holder:
        named = rf"run is being written by process {holder.pid} on {gethostname()}, since 20\d\d-.*: wait for it"
        with pytest.raises(OutputInUseError, match=named), lock_output(run):
            pass
        with pytest.raises(OutputInUseError, match=named), RunDir(run).lock():
            pass
        with pytest.raises(OutputInUseError, match=named):
            effnet.train(
                photos, out=run, model="nano", weights="none", epochs=1, image_size=32, resume=True, loggers=()
            )
        assert [path.name for path in run.iterdir()] == [LOCK_NAME]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_output(run):
            pass
    assert not list(run.iterdir())
    with another_process(tmp_path / "other"), lock_output(run):
        pass  # another output
    write_plan = write_shards(open_data(str(photos)), shards)
    assert write_plan.images == 6
    assert not (shards / LOCK_NAME).exists()


def test_shards_are_written_by_one_process(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("effnet.data.webdataset_writer._write_split", lambda *_: exit())
        with pytest.raises(SystemExit):
            write_shards(open_data(str(photos)), tmp_path / "shards")
    with another_process(tmp_path / "shards"), pytest.raises(OutputInUseError, match="shards is being written by proc"):
        write_shards(open_data(str(photos)), tmp_path / "shards")
    assert write_shards(open_data(str(photos)), tmp_path / "shards").images == 6


def test_within_one_process(tmp_path: Path) -> None:
    with lock_output(tmp_path), pytest.raises(OutputInUseError, match="by this process"), lock_output(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), lock_output(tmp_path):
        raise ZeroDivisionError
    with lock_output(tmp_path):
        pass


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"pid": os.getpid(), "host": gethostname(), "since": "now"}),  # a reused number
        json.dumps({"pid": 2**22 + 1, "host": gethostname()}),
        json.dumps({"pid": 1, "host": "another-machine"}),
        *("", "{", "[1]", '{"pid": "x"}', '{"pid": -1}', "\0" * 50),
    ],
    ids=range(9),  # pytest-xdist collects in several processes, and their numbers differ
)
def test_a_file_that_was_left_behind_is_no_lock(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    RunDir(tmp_path).claim({}, resume=False, images=list)  # the folder counts as empty
    with lock_output(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_workers_of_a_killed_process_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may hold the lock that they inherited until they notice."""
    monkeypatch.setattr(process_lock, "ORPHAN_SECONDS", 0.2)
    with another_process(tmp_path):
        (tmp_path / LOCK_NAME).write_text(json.dumps({"pid": 2**22 + 1, "host": gethostname()}))
        with pytest.raises(OutputInUseError), lock_output(tmp_path):
            pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from errno import EACCES, ENOLCK

    for number in (ENOLCK, EACCES):
        monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: (_ for _ in ()).throw(OSError(number, "no")))  # noqa: B023
        if number == ENOLCK:
            with lock_output(tmp_path):
                pass
        else:
            with pytest.raises(OSError, match=str(tmp_path)), lock_output(tmp_path):
                pass
