"""Ray runs in a process of its own: what it leaves in one (threads, warnings, sockets) is not for the other tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from effnet.prediction.ray import predict_on_cluster

WORK = """
import json, os, signal, sys, threading, time
from functools import partial
from pathlib import Path
import ray
from effnet.prediction import chunks, folder, parts
from effnet.prediction.bulk_chunks import Parts

chunks.NAMES, chunks._NAMES_MOST = 8, 32  # many chunks in few pictures
model, source, out, pids = sys.argv[1:]

def make():
    import os, time
    import torch
    from effnet.prediction import Predictor
    torch.set_num_threads(1)
    (Path(pids) / str(os.getpid())).touch()
    class Slow(Predictor):
        def stream(self, named, top=5):
            for one in super().stream(named, top):
                time.sleep(0.01)
                yield one
    return Slow(model, batch=8)

killed = []
def kill():
    "Once there are some parts, the first worker."
    while len(list(Parts(Path(out)).folder.glob("*.jsonl"))) < 3:
        time.sleep(0.01)
    victim = min(Path(pids).iterdir(), key=lambda path: path.stat().st_mtime)
    os.kill(int(victim.name), signal.SIGKILL)
    killed.append(int(victim.name))

killer = threading.Thread(target=kill)
killer.start()
done = folder.predict_into(out, [source], make, folder.described(model), top=2, cluster="local")
killer.join()
again = folder.predict_into(out, [source], make, folder.described(model), top=2, cluster="local")
print(json.dumps([done.pictures, done.unread, again.before, len(killed), len(list(Path(pids).iterdir()))]))
"""


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[ray\]"'):
        next(predict_on_cluster("local", lambda: pytest.fail("nothing to make"), [], top=1))


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_a_worker_killed_in_the_middle_of_its_work(weights: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    photos, pids, out = tmp_path / "photos", tmp_path / "pids", tmp_path / "result.jsonl"
    pids.mkdir()
    for number in range(200):
        path = photos / f"{number % 2}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpegs[number % 8][: 900 if number == 7 else None])
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(weights), str(photos), str(out), str(pids)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pictures, unread, again, killed, workers = json.loads(done.stdout.splitlines()[-1])
    assert (pictures, unread, again, killed) == (200, 1, True, 1)
    assert workers >= 2  # one was made in the place of the one that was killed
    found = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert sorted(found) == sorted(str(path) for path in photos.rglob("*.jpg"))
    assert not (tmp_path / ".result.jsonl.parts").exists()
