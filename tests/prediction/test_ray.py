"""Bulk prediction on Ray, in its own process: Ray leaves threads, warnings and sockets behind."""

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
from effnet.prediction import bulk, bulk_chunks

bulk_chunks.NAMES_PER_CHUNK, bulk_chunks._MAX_NAMES_PER_CHUNK = 8, 32  # many chunks in few images
model, source, out, pids = sys.argv[1:]

def make():
    import os, time
    import torch
    from effnet.prediction import Predictor
    torch.set_num_threads(1)
    (Path(pids) / str(os.getpid())).touch()
    class Slow(Predictor):
        def stream(self, named_images, *args, **options):
            for one in super().stream(named_images, *args, **options):
                time.sleep(0.01)
                yield one
    return Slow(model, batch_size=8)

killed = []
def kill():
    "Once there are some parts, the first worker."
    while len(list(bulk.PartialResults(Path(out)).folder.glob("*.jsonl"))) < 3:
        time.sleep(0.01)
    victim = min(Path(pids).iterdir(), key=lambda path: path.stat().st_mtime)
    os.kill(int(victim.name), signal.SIGKILL)
    killed.append(int(victim.name))

killer = threading.Thread(target=kill)
killer.start()
done = bulk.predict_to_file(out, [source], make, bulk.describe_predictor(model), top=2, ray_address="local")
killer.join()
again = bulk.predict_to_file(out, [source], make, bulk.describe_predictor(model), top=2, ray_address="local")
print(json.dumps([done.images, done.unreadable, again.already_done, len(killed), len(list(Path(pids).iterdir()))]))
"""


def test_missing_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[ray\]"'):
        next(predict_on_cluster("local", lambda: pytest.fail("nothing to make"), [], top=1))


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.sweep
def test_killed_worker(weights: Path, jpegs: list[bytes], tmp_path: Path) -> None:
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
    images, unread, again, killed, workers = json.loads(done.stdout.splitlines()[-1])
    assert (images, unread, again, killed) == (200, 1, True, 1)
    assert workers >= 2  # the killed one was replaced
    found = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert sorted(found) == sorted(str(path) for path in photos.rglob("*.jpg"))
    assert not (tmp_path / ".result.jsonl.parts").exists()
