from __future__ import annotations

import json
from pathlib import Path

from effnet.data import open_data
from tests.cli.conftest import Run


def test_shard(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    done = run("shard", photos, out, "--resize", 24)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"effnet: 4 images in 1 shards in {out}\n"
    train = open_data(out).train
    assert train is not None
    assert train.labels.names == ("ant", "bee")
    repeated = run("shard", photos, out, "--resize", 24)
    assert (repeated.status, repeated.err) == (0, f"effnet: 4 images in 1 shards in {out} (they already existed)\n")
    other = run("shard", photos, out)
    assert other.status == 1
    assert other.err.startswith(f"effnet: {out} has shards of other images")


def test_unreadable_images(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "bee" / "no.jpg").write_bytes(b"nothing")
    done = run("shard", photos, tmp_path / "a", "--json")
    assert done.status == 0
    data = json.loads(done.out)
    assert data == {"shards": ["train-000000.tar"], "images": 4, "skipped": data["skipped"], "already_complete": False}
    assert data["skipped"][0].startswith(str(photos / "bee" / "no.jpg"))
    strict = run("shard", photos, tmp_path / "b", "--strict")
    assert strict.status == 1
    assert strict.err == f"effnet: {data['skipped'][0]}\n"
    shown = run("shard", photos, tmp_path / "c")
    assert shown.err.endswith(f"skipped, because they could not be read: 1\neffnet:   {data['skipped'][0]}\n")


def test_one_image_under_two_labels_is_said(run: Run, photos: Path, weights: Path, tmp_path: Path) -> None:
    (photos / "bee" / "copy.jpg").write_bytes((photos / "ant" / "1.jpg").read_bytes())
    said = "1 image has several labels: ant/1.jpg (ant) = bee/copy.jpg (bee)"
    for words in (("shard", photos, tmp_path / "a"), ("evaluate", weights, photos)):
        done = run(*words)
        assert (done.status, done.err.count(said)) == (0, 1), words
