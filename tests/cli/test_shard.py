from __future__ import annotations

import json
from pathlib import Path

from effnet.data import open_data
from tests.cli.conftest import Run


def test_shard(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    done = run("shard", photos, out, "--resize", 24)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"effnet: 4 pictures are in 1 shards in {out}\n"
    train = open_data(out).train
    assert train is not None
    assert train.labels.names == ("ant", "bee")
    again = run("shard", photos, out, "--resize", 24)
    assert (again.status, again.err) == (0, f"effnet: 4 pictures are in 1 shards in {out}, and were there before\n")
    other = run("shard", photos, out)
    assert other.status == 1
    assert other.err == (
        f"effnet: {out} has shards of other pictures, or of these by other options: give another folder\n"
    )


def test_what_is_left_out(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "bee" / "no.jpg").write_bytes(b"nothing")
    done = run("shard", photos, tmp_path / "a", "--json")
    assert done.status == 0
    said = json.loads(done.out)
    assert said == {
        "shards": ["train-000000.tar"],
        "pictures": 4,
        "left_out": [f"{photos / 'bee' / 'no.jpg'} is not a picture, or of no known format"],
        "before": False,
    }
    strict = run("shard", photos, tmp_path / "b", "--strict")
    assert strict.status == 1
    assert strict.err == f"effnet: {said['left_out'][0]}\n"
    shown = run("shard", photos, tmp_path / "c")
    assert shown.err.endswith(f"left out, since they could not be read: 1\neffnet:   {said['left_out'][0]}\n")
