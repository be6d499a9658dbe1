from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from effnet.data import ImageError
from effnet.data.storage import remote
from effnet.data.storage.errors import RetryPolicy
from effnet.data.webdataset_reader import TruncatedShardError, expand_braces, read_shard_images
from effnet.prediction import Predictor, bulk_chunks
from effnet.prediction.bulk import BulkResult, describe_predictor, predict_to_file
from effnet.prediction.bulk_chunks import list_chunks

QUICK = RetryPolicy(timeout=5, attempts=5, backoff=0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DEFAULT_RETRY", QUICK)
    monkeypatch.setattr(bulk_chunks, "IMAGES_PER_PART", 4)


def archive(jpegs: list[bytes], count: int, mode: str = "w") -> bytes:
    """A WebDataset shard: ``00000.jpg`` beside ``00000.cls`` and ``00000.json``, …"""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as made:  # type: ignore[call-overload]
        for number in range(count):
            for ending, content in (("jpg", jpegs[number % len(jpegs)]), ("cls", b"3"), ("json", b"{}")):
                info = tarfile.TarInfo(f"{number:05}.{ending}")
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def shard(tmp_path: Path, jpegs: list[bytes]) -> Path:
    path = tmp_path / "shard-000.tar"
    path.write_bytes(archive(jpegs, 10))
    return path


def names(shard: object, count: int) -> list[str]:
    return [f"{shard}/{number:05}.jpg" for number in range(count)]


Into = Callable[..., BulkResult]


@pytest.fixture
def into(weights: Path, tmp_path: Path) -> Into:
    def call(name: str, *sources: object) -> BulkResult:
        make = partial(Predictor, weights, batch_size=8)
        return predict_to_file(tmp_path / name, [str(one) for one in sources], make, describe_predictor(weights))

    return call


def rows(path: Path) -> dict[str, str]:
    """Path → error of a result."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["path"] for row in found}) == len(found)
    return {row["path"]: row["error"] for row in found}


@pytest.mark.parametrize(("mode", "ending"), [("w", "tar"), ("w:gz", "tar.gz"), ("w:gz", "tgz"), ("w:xz", "tar.xz")])
def test_members(tmp_path: Path, jpegs: list[bytes], mode: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(archive(jpegs, 6, mode))
    assert list(read_shard_images(str(path))) == list(zip(names(path, 6), jpegs, strict=False))
    assert list(read_shard_images(str(path), start=4)) == list(zip(names(path, 6)[4:], jpegs[4:6], strict=True))


def test_truncated_shard(shard: Path, jpegs: list[bytes]) -> None:
    whole = shard.read_bytes()
    with tarfile.open(shard) as opened:
        members = opened.getmembers()
    in_data, in_header = members[9].offset_data + 100, members[9].offset + 100
    between = members[9].offset  # which tarfile itself takes for the end
    for cut in (in_data, in_header, between):
        shard.write_bytes(whole[:cut])
        *good, (name, error) = read_shard_images(str(shard))
        assert [one for one, _ in good] == names(shard, 3)
        assert [content for _, content in good] == jpegs[:3]
        assert name == str(shard)
        assert isinstance(error, TruncatedShardError)
        assert str(error).startswith(f"{shard} breaks off after {4 if cut == in_data else 3} ")
    damaged = bytearray(whole)
    damaged[between : between + 512] = b"\xff" * 512
    shard.write_bytes(damaged)
    *good, (_, error) = read_shard_images(str(shard))
    assert len(good) == 3
    assert "it is damaged, or not a tar archive" in str(error)


def test_truncated_compressed_shard(tmp_path: Path, jpegs: list[bytes]) -> None:
    path = tmp_path / "a.tar.gz"
    content = archive(jpegs, 10, "w:gz")
    path.write_bytes(content[: len(content) // 2])
    *good, (_, error) = read_shard_images(str(path))
    assert 2 < len(good) < 8
    assert isinstance(error, TruncatedShardError)


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    for name, content in (("text.tar", b"<html>" * 200), ("short.tar.gz", b"\x1f\x8b\x08"), ("empty.tar", b"")):
        (tmp_path / name).write_bytes(content)
        ((found, error),) = read_shard_images(str(tmp_path / name))
        assert found == str(tmp_path / name)
        assert isinstance(error, TruncatedShardError)
    ((_, error),) = read_shard_images(str(tmp_path / "no.tar"))
    assert str(error) == f"{tmp_path / 'no.tar'} does not exist"
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    ((_, error),) = read_shard_images(str(tmp_path / "none.tar"))
    assert isinstance(error, ImageError)
    assert not isinstance(error, TruncatedShardError)
    assert str(error) == f"{tmp_path / 'none.tar'} contains no images"


def test_expand_braces() -> None:
    assert expand_braces("s3://b/x-{008..010}.tar") == [f"s3://b/x-{n}.tar" for n in ("008", "009", "010")]
    assert expand_braces("{0..1}-{5..6}.tar") == ["0-5.tar", "0-6.tar", "1-5.tar", "1-6.tar"]
    assert expand_braces("{0..1}.jpg") == ["{0..1}.jpg"]


def test_truncated_shard_is_reported_and_retried(into: Into, shard: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "shard-001.tar").write_bytes(archive(jpegs, 9))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) * 4 // 10])
    pattern = tmp_path / "shard-{000..001}.tar"
    first = into("result.jsonl", pattern)
    found = rows(tmp_path / "result.jsonl")
    assert first == BulkResult(len(found), 1, broken_shards=1)
    assert "breaks off after" in found.pop(str(shard))
    assert list(found)[-9:] == names(tmp_path / "shard-001.tar", 9)
    assert 2 < len(found) - 9 < 8

    untouched = {path: path.stat().st_mtime_ns for path in (tmp_path / ".result.jsonl.parts").glob("*.last.jsonl")}
    assert into("result.jsonl", pattern) == first
    shard.write_bytes(whole)  # restored
    assert into("result.jsonl", pattern) == BulkResult(19, 0)
    assert list(rows(tmp_path / "result.jsonl")) == names(shard, 10) + names(tmp_path / "shard-001.tar", 9)
    assert untouched
    assert not (tmp_path / ".result.jsonl.parts").exists()
    assert into("result.jsonl", pattern).already_done


class Server(ThreadingHTTPServer):
    """Serves ``files``; first responds with the statuses in ``statuses``, and truncates bodies to ``max_bytes``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.statuses: list[int] = []
        self.max_bytes: int | None = None
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range", ""))
        content = server.files.get(self.path)
        if server.statuses or content is None:
            self.send_response(server.statuses.pop(0) if server.statuses else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.max_bytes])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def test_over_http(into: Into, server: Server, jpegs: list[bytes], tmp_path: Path) -> None:
    server.files = {"/a.tar": archive(jpegs, 10), "/one.jpg": jpegs[0]}
    shard, image, absent = (f"{server.url}/{name}" for name in ("a.tar", "one.jpg", "no.jpg"))
    assert into("result.jsonl", shard, image, absent) == BulkResult(12, 1)
    found = rows(tmp_path / "result.jsonl")
    assert list(found) == [*names(shard, 10), image, absent]
    assert found[absent] == f"{absent} does not exist"


def test_busy_server(server: Server, jpegs: list[bytes]) -> None:
    server.files = {"/a.tar": archive(jpegs, 10), "/one.jpg": jpegs[0]}
    server.statuses = [503] * 3
    assert [name for name, _ in read_shard_images(f"{server.url}/a.tar")] == names(f"{server.url}/a.tar", 10)
    assert len(server.asked) == 4
    server.statuses = [503] * 3
    assert remote.read_remote_file(f"{server.url}/one.jpg", QUICK) == jpegs[0]
    server.statuses = [503] * 5
    ((_, error),) = read_shard_images(f"{server.url}/a.tar")
    assert isinstance(error, TruncatedShardError)
    assert str(error) == f"{server.url}/a.tar cannot be read: the server failed (status 503)"
    server.statuses = [503] * 5
    assert "the server failed (status 503)" in str(remote.read_remote_file(f"{server.url}/one.jpg", QUICK))


def test_broken_connection_is_resumed(server: Server, jpegs: list[bytes]) -> None:
    server.files, server.max_bytes = {"/a.tar": archive(jpegs, 10)}, 9000
    found = list(read_shard_images(f"{server.url}/a.tar"))
    assert [content for _, content in found] == [jpegs[number % 8] for number in range(10)]
    assert "bytes=9000-" in server.asked


def test_stores(into: Into, jpegs: list[bytes], tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for name in ("a/1.jpg", "a/deep/2.jpg", "a/.hidden.jpg", "a/notes.txt", "b.jpg"):
        store.pipe(f"/bucket/{name}", jpegs[0])
    store.pipe("/bucket/s/x-0.tar", archive(jpegs, 5))
    try:
        assert into("r.jsonl", "memory://bucket/") == BulkResult(8, 0)
        expected = [f"memory:///bucket/{name}" for name in ("b.jpg", "a/1.jpg", "a/deep/2.jpg")]
        assert list(rows(tmp_path / "r.jsonl")) == expected + names("memory:///bucket/s/x-0.tar", 5)
        assert into("s.jsonl", "memory://bucket/s/*.tar").images == 5
        assert into("t.jsonl", "memory://bucket/b.jpg").images == 1
        with pytest.raises(FileNotFoundError, match="does not exist"):
            into("u.jsonl", "memory://bucket/no")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            into("u.jsonl", "memory://no/")
    finally:
        store.rm("/bucket", recursive=True)
    with pytest.raises((ValueError, ImportError), match="not a URL that can be read"):
        into("u.jsonl", "nothing://x/y")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jpg").write_bytes(jpegs[0])
    assert into("v.jsonl", f"file://{tmp_path}/here").images == 1


def test_unreachable_store_stops_the_work(into: Into, jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/1.jpg", jpegs[0])

    def down(*_: object, **__: object) -> None:
        raise TimeoutError

    try:
        (chunk,) = list_chunks(["memory://bucket/"])
        monkeypatch.setattr(type(store), "open", down)
        with pytest.raises(remote.RemoteStoreError, match="cannot be read: the server stopped responding"):
            list(chunk.images())
    finally:
        monkeypatch.undo()
        store.rm("/bucket", recursive=True)
