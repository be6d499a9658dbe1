from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from effnet.data import ImageDataset, ImageError, check_images, open_data, read_image
from effnet.data import webdataset_reader as reader
from effnet.data.dataset import Item, Splits
from effnet.data.storage import cache_dir, remote
from effnet.data.storage.errors import RetryPolicy
from effnet.data.webdataset_writer import ShardSummary, write_shards
from effnet.metadata import Labels
from tests.data.conftest import encode
from tests.weights.server import Shelf, serving

NAMES = ("ant", "bee", "wasp")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setattr(remote, "DEFAULT_RETRY", RetryPolicy(timeout=5, attempts=5, backoff=0.01))
    with serving() as shelf:
        yield shelf


def jpeg(shade: int, side: int = 20) -> bytes:
    return encode(Image.new("RGB", (side + shade % 3, side), (shade % 256, 90, 30)), "JPEG")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_photos(root: Path, count: int = 30) -> Path:
    """``train`` with three classes and ``val`` with two of them."""
    for index in range(count):
        place = root / ("val" if index % 5 == 4 else "train") / NAMES[index % 3] / f"{index:02}.v.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(jpeg(index, 20 + 4 * (index % 7)))
    return root


def write_shards_of(root: Path, out: Path, **options: object) -> ShardSummary:
    return write_shards(open_data(root), out, **{"megabytes": 0.02, **options})  # type: ignore[arg-type]


def read_content(dataset: ImageDataset | None) -> dict[bytes, str]:
    """The bytes of every image, and its class."""
    found = {}
    for item in dataset.items:
        assert not isinstance(item.image, np.ndarray)
        bytes = item.image.read_bytes() if isinstance(item.image, Path) else item.image.read()
        assert isinstance(item.label, int)
        found[bytes] = dataset.labels.name(item.label)
    return found


def test_round_trip(tmp_path: Path) -> None:
    root, out = write_photos(tmp_path / "photos"), tmp_path / "shards"
    done = write_shards_of(root, out)
    assert done == ShardSummary(done.shards, 30, ())
    assert len(done.shards) > 3
    assert {name.split("-")[0] for name in done.shards} == {"train", "val"}
    before, after = open_data(root), open_data(out)
    assert after.train.labels.names == NAMES
    assert read_content(after.train) == read_content(before.train)
    assert read_content(after.val) == read_content(before.val)
    assert after.test is None
    pattern = out / f"train-{{000000..{sum(n[0] == 't' for n in done.shards) - 1:06}}}.tar"
    assert read_content(open_data(pattern).train) == read_content(before.train)
    assert read_content(open_data(f"{out}/val-*.tar").val) == read_content(before.val)
    both = open_data(f"{pattern}::{out}/val-*.tar")
    assert (read_content(both.train), read_content(both.val)) == (read_content(before.train), read_content(before.val))
    index = json.loads((out / "index.json").read_text())
    assert index["classes"] == list(NAMES)
    assert index["counts"]["train"] == list(before.train.class_counts())
    assert [one["name"] for one in index["shards"]] == list(done.shards)
    assert (out / "classes.txt").read_text().split() == list(NAMES)
    assert not list(out.glob(".*"))


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    for out in ("a", "b"):
        write_shards_of(root, tmp_path / out, max_short_side=24)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    sides = {min(read_image(item.image).size) for item in open_data(tmp_path / "a").train.items}  # type: ignore[union-attr]
    assert sides == {20, 24}


def test_the_index_beside_a_shard_equals_a_scan(tmp_path: Path) -> None:
    out = tmp_path / "shards"
    for name in write_shards_of(write_photos(tmp_path / "photos"), out).shards:
        beside = reader.Shard.from_url(str(out / name)).read_index()
        found = reader.scan_shard(out / name, str(out / name))
        assert beside == found
    (out / name).write_bytes((out / name).read_bytes()[:-1024])  # it no longer belongs to this shard
    assert reader.Shard.from_url(str(out / name)).read_index().bytes == beside.bytes - 1024


READING = """
import json, sys, webdataset
shards = webdataset.WebDataset(sys.argv[1:], shardshuffle=False)
print(json.dumps([[one["jpg"].hex(), one["cls"].decode(), json.loads(one["json"])["label"]] for one in shards]))
"""


def test_webdataset_reads_ours(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    out = tmp_path / "shards"
    done = write_shards_of(write_photos(tmp_path / "photos"), out)
    shards = [str(out / name) for name in done.shards if name.startswith("train")]
    command = [sys.executable, "-c", READING, *shards]  # in a process of its own: it leaves files open
    output = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout
    samples = json.loads(output)
    assert {bytes.fromhex(jpg): NAMES[int(number)] for jpg, number, _ in samples} == read_content(open_data(out).train)
    assert all(int(number) == label for _, number, label in samples)


@pytest.mark.parametrize("named", [True, False])
def test_ours_reads_what_webdataset_writes(tmp_path: Path, named: bool) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%04d.tar"), maxcount=4, verbose=0) as writer:
        for index in range(10):
            writer.write({"__key__": f"deep/{index:04}", "jpg": jpeg(index), "cls": index % 3})
    if named:
        (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    train = open_data(tmp_path / "train-{0000..0002}.tar").train
    assert train.labels == Labels(NAMES if named else ("0", "1", "2"))
    assert train.targets.tolist() == [index % 3 for index in range(10)]
    assert [read_image(item.image).getpixel((5, 5)) for item in train.items] == [
        read_image(jpeg(index)).getpixel((5, 5)) for index in range(10)
    ]


def test_labels_of_every_task(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1), "1.txt": b"wasp\n", "2.jpg": jpeg(2), "2.txt": b"ant"})
    train = open_data(one).train
    assert (train.labels, train.targets.tolist()) == (Labels(("ant", "wasp")), [1, 0])
    several = write_tar(
        tmp_path / "b.tar",
        {"1.jpg": jpeg(1), "1.json": b'{"labels": ["sun", "sea"]}', "2.jpg": jpeg(2), "2.json": b'{"labels": []}'},
    )
    train = open_data(several).train
    assert train.labels == Labels(("sea", "sun"), "multilabel")
    assert [item.label for item in train.items] == [(0, 1), ()]
    values = write_tar(tmp_path / "c.tar", {"1.jpg": jpeg(1), "1.json": b"2.5", "2.jpg": jpeg(2), "2.json": b"3"})
    train = open_data(values).train
    assert train.labels == Labels(("value",), "regression")
    assert [item.label for item in train.items] == [(2.5,), (3.0,)]


@pytest.mark.parametrize(
    ("kind", "labels"), [("multilabel", [(0, 2), ()]), ("regression", [(0.5, 1.0, 2.0), (0.0, 0.0, -1.0)])]
)
def test_written_labels_of_every_task(tmp_path: Path, kind: str, labels: list[tuple[float, ...]]) -> None:
    gray = [np.full((9, 7, 3), shade, np.uint8) for shade in (10, 90)]
    items = tuple(Item(gray[n], label, str(n)) for n, label in enumerate(labels))
    write_shards(Splits(ImageDataset(items, Labels(NAMES, kind)), None, None), tmp_path / "out")
    train = open_data(tmp_path / "out").train
    assert train.labels == Labels(NAMES, kind)
    found = {int(np.asarray(read_image(item.image))[0, 0, 0]): item.label for item in train.items}
    assert found == {10: labels[0], 90: labels[1]}


def test_an_archive_of_class_folders(tmp_path: Path) -> None:
    members = {f"set/{role}/{name}/{role}.jpg": jpeg(3) for role in ("train", "test") for name in ("ant", "bee")}
    splits = open_data(write_tar(tmp_path / "set.tar", members))
    assert splits.train.labels == splits.test.labels == Labels(("ant", "bee"))
    assert (len(splits.train), len(splits.test), splits.val) == (2, 2, None)
    plain = open_data(write_tar(tmp_path / "b.tar", {f"{name}/deep/1.jpg": jpeg(3) for name in NAMES})).train
    assert plain.labels == Labels(NAMES)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": jpeg(1), "2.jpg": jpeg(2)}, "has no labels: beside each image"),
        ({"1.txt": b"ant"}, "contains no images"),
        ({"1.jpg": jpeg(1), "1.json": b"[1]", "2.jpg": jpeg(1), "2.json": b"1"}, "are of several types"),
        ({"1.jpg": jpeg(1), "1.cls": b"-1", "2.jpg": jpeg(1), "2.cls": b"1"}, "1.jpg has the label -1, which"),
    ],
)
def test_refused_labels(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_data(write_tar(tmp_path / "a.tar", members))


def test_integers_beyond_the_names(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(1), "2.cls": b"3"})
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match=r"2\.jpg has the label 3, which .*classes\.txt does not have$"):
        open_data(shard)


def test_a_class_that_only_val_has(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"1.jpg": jpeg(1), "1.txt": b"ant", "2.jpg": jpeg(1), "2.txt": b"bee"})
    write_tar(tmp_path / "val-0.tar", {"1.jpg": jpeg(1), "1.txt": b"wasp"})
    with pytest.raises(ValueError, match=r"val-0\.tar/1\.jpg has the label 'wasp', which .* \(train\) does not have"):
        open_data(tmp_path)


def test_not_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", {})
    with pytest.raises(FileNotFoundError, match=r"a-1\.tar does not exist"):
        open_data(tmp_path / "a-{0..1}.tar")
    with pytest.raises(ValueError, match=r"b-\*\.tar has no shards"):
        open_data(tmp_path / "b-*.tar")
    (tmp_path / "c.tar.gz").touch()
    with pytest.raises(ValueError, match=r"is compressed, .* unpack it to \.tar"):
        open_data(tmp_path / "c.tar.gz")
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    write_tar(tmp_path / "photos" / "old.tar", {})
    with pytest.raises(ValueError, match=r"class 'cats' in .* has no images"):  # a folder of class folders after all
        open_data(tmp_path / "photos")


def test_a_truncated_shard(tmp_path: Path) -> None:
    members = {}
    for index in range(10):
        members |= {f"{index}.jpg": jpeg(index), f"{index}.cls": str(index % 2).encode()}
    shard = write_tar(tmp_path / "train-0.tar", members)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: whole.index(b"6.jpg") + 700])
    train = open_data(shard).train
    good, errors = check_images(train)
    assert good.targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert [str(error) for error in errors] == [f"{shard} breaks off after 6 images: it is truncated"]
    shard.write_bytes(whole)  # downloaded again
    train = open_data(shard).train
    assert len(train) == 10
    shard.write_bytes(whole[:3000])  # behind the index's back
    with pytest.raises(ImageError, match=r"train-0\.tar/9\.jpg is incomplete: the shard has become shorter"):
        train.items[9].image.read()  # type: ignore[union-attr]


def test_an_image_without_a_label(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", {f"{n}.jpg": jpeg(n) for n in range(3)} | {"0.cls": b"0", "2.cls": b"1"})
    train = open_data(shard).train
    assert train is not None
    good, errors = check_images(train)
    assert len(good) == 2
    assert [str(error) for error in errors] == [f"{shard}/1.jpg has no label beside it"]


def put(server: Shelf, out: Path) -> None:
    server.files |= {f"/{out.name}/{path.name}": path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("beside", [True, False])
def test_http_with_a_busy_server(server: Shelf, tmp_path: Path, home: Path, beside: bool) -> None:
    root, out = write_photos(tmp_path / "photos"), tmp_path / "shards"
    done = write_shards_of(root, out)
    put(server, out)
    source = f"{server.url}/shards"
    if not beside:
        server.files = {name: held for name, held in server.files.items() if not name.endswith(".tar.json")}
    server.faults = [503, 503, 503]
    splits = open_data(source)
    assert server.faults == []
    assert bool(list((home / "copies").glob("*.tar"))) is not beside
    server.faults = [503, 503, 503]
    assert read_content(splits.train) == read_content(open_data(root).train)
    assert server.faults == [] if beside else [503] * 3
    server.faults = []
    before = len(server.requests)
    again = open_data(f"{source}/train-{{000000..{sum(n[0] == 't' for n in done.shards) - 1:06}}}.tar")
    assert read_content(again.train) == read_content(open_data(root).train)
    assert not [path for path, _ in server.requests[before:] if path.endswith(".tar")]  # cached
    server.faults = [503] * 99
    with pytest.raises(OSError, match="the server failed"):
        open_data(f"{server.url}/shards/train-000000.tar?v=2")


def test_object_store(tmp_path: Path) -> None:
    out, store = tmp_path / "shards", fsspec.filesystem("memory")
    write_shards_of(write_photos(tmp_path / "photos"), out)
    try:
        for path in out.iterdir():
            store.pipe(f"/bucket/shards/{path.name}", path.read_bytes())
        expected = read_content(open_data(out).train)
        assert read_content(open_data("memory://bucket/shards/").train) == expected
        store.rm("/bucket/shards/index.json")
        assert read_content(open_data("memory://bucket/shards").train) == expected
        assert read_content(open_data("memory://bucket/shards/train-*.tar").train) == expected
        with pytest.raises(FileNotFoundError, match="does not exist"):
            open_data("memory://bucket/none")
    finally:
        store.rm("/bucket", recursive=True)


def test_the_file_cache_is_bounded(server: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {f"/{n}.tar": bytes([n]) * 1000 for n in range(6)}

    class Usage:
        free = 4000

    monkeypatch.setattr(cache_dir.shutil, "disk_usage", lambda _: Usage)
    (home / "copies").mkdir(parents=True)
    for n in (0, 1, 2, 0, 3, 4, 5):
        path = cache_dir.cached_file(f"{server.url}/{n}.tar", "")
        assert path.read_bytes() == bytes([n]) * 1000
        assert sum(one.stat().st_size for one in (home / "copies").iterdir()) <= 5000
    assert cache_dir.cached_file(f"{server.url}/5.tar", "").exists()
    assert len(server.requests) == 6


KILLED = """
import os, sys
from pathlib import Path
from effnet.data import open_data, webdataset_writer
add, left = webdataset_writer._add_sample, int(sys.argv[3])
def counted(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return add(*arguments)
webdataset_writer._add_sample = counted
webdataset_writer.write_shards(open_data(sys.argv[1]), Path(sys.argv[2]), megabytes=0.02)
"""


def test_a_kill_costs_no_more_than_a_shard(tmp_path: Path) -> None:
    root, out = write_photos(tmp_path / "photos"), tmp_path / "out"
    for left in (3, 13):
        command = [sys.executable, "-c", KILLED, str(root), str(out), str(left)]
        assert subprocess.run(command, check=False, timeout=60).returncode == -9
        assert not (out / "index.json").exists()
    partly = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert partly
    done = write_shards_of(root, out)
    assert done.images == 30
    assert all((out / name).stat().st_mtime_ns == when for name, when in partly.items())
    write_shards_of(root, tmp_path / "at once")
    for path in (tmp_path / "at once").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert len(list(out.iterdir())) == len(list((tmp_path / "at once").iterdir()))
    assert write_shards_of(root, out) == ShardSummary(done.shards, 30, (), already_complete=True)
    with pytest.raises(ValueError, match="has shards of other images or with other options"):
        write_shards_of(root, out, max_short_side=10)
    with pytest.raises(ValueError, match="is not empty: use a new folder"):
        write_shards_of(root, root)


def test_a_full_disk_costs_no_more_than_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_photos(tmp_path / "photos"), tmp_path / "out"
    sound, left = tarfile.TarFile.addfile, iter(range(50))

    def add(archive: tarfile.TarFile, header: tarfile.TarInfo, file: io.BytesIO) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sound(archive, header, file)

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "addfile", add)
        with pytest.raises(OSError, match=r"train-\d+\.tar could not be written: the disk is full") as raised:
            write_shards_of(root, out)
    assert "\n" not in str(raised.value)
    assert not list(out.glob("*.part"))
    partly = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert partly
    assert write_shards_of(root, out).images == 30
    assert all((out / name).stat().st_mtime_ns == when for name, when in partly.items())


def test_unreadable_images_are_skipped(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    (root / "train" / "ant" / "no.jpg").write_bytes(b"nothing")
    done = write_shards_of(root, tmp_path / "out")
    assert done.images == 30
    assert done.skipped == (f"{root / 'train' / 'ant' / 'no.jpg'} is not an image, or its format is unknown",)
    with pytest.raises(ImageError, match=r"no\.jpg is not an image"):
        write_shards_of(root, tmp_path / "strict", strict=True)
