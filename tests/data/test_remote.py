"""The client for remote files against a real HTTP server with the faults that servers have."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection

import fsspec
import pytest

from effnet.data.image_io import ImageError
from effnet.data.storage import remote
from effnet.data.storage.errors import HTTPStatusError, RetryPolicy, describe_error, is_permanent, is_unreachable
from tests.weights.server import Shelf, serving

CONTENT = bytes(range(256)) * 800
QUICK = RetryPolicy(timeout=0.5, attempts=3, backoff=0.01)


@pytest.fixture
def server() -> Iterator[Shelf]:
    with serving() as shelf:
        shelf.files["/a.bin"] = CONTENT
        yield shelf


def read_all(url: str, offset: int = 0) -> bytes:
    with remote.open_remote(url, offset, QUICK) as file:
        return b"".join(iter(lambda: file.read(1000), b""))


@pytest.mark.parametrize("fault", [None, "chunked", "no length", "slow"])
def test_one_request_for_a_file(server: Shelf, fault: str | None) -> None:
    server.faults = [fault]
    assert read_all(f"{server.url}/a.bin") == CONTENT
    assert server.ranges == [""]


@pytest.mark.parametrize("fault", [None, "whole"])
def test_from_an_offset(server: Shelf, fault: str | None) -> None:
    """A server may ignore the range and send all of it."""
    server.faults = [fault]
    assert read_all(f"{server.url}/a.bin", 70_000) == CONTENT[70_000:]
    assert server.ranges == ["bytes=70000-"]


def test_response(server: Shelf) -> None:
    with remote.open_http(f"{server.url}/moved/a.bin", {"Range": "bytes=5-"}) as response:
        assert (response.status, response.length) == (206, len(CONTENT) - 5)
        assert response.headers["content-range"] == f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"
        assert response.read(2) == CONTENT[5:7]
    with remote.open_http(f"{server.url}/a.bin", method="HEAD") as response:
        assert response.length == len(CONTENT)


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (403, HTTPStatusError, "the server denies access (status 403)"),
        (503, HTTPStatusError, "the server failed (status 503)"),
        ("drop", ConnectionError, "the connection broke off"),
        ("chunked drop", ConnectionError, "the connection broke off"),
        ("stall", TimeoutError, "the server stopped responding"),
    ],
)
def test_errors(server: Shelf, fault: int | str, kind: type[OSError], reason: str) -> None:
    server.faults = [fault]
    with pytest.raises(kind) as raised:
        read_all(f"{server.url}/a.bin")
    assert describe_error(raised.value) == reason
    assert is_permanent(raised.value) == (fault == 403)
    assert not is_unreachable(raised.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/x", "the server refuses connections"),
        ("http://nowhere.invalid/x", "host not found; there may be no network"),
    ],
)
def test_unreachable(url: str, reason: str) -> None:
    with pytest.raises(OSError) as raised:
        read_all(url)
    assert describe_error(raised.value) == reason
    assert is_unreachable(raised.value)


def test_not_found(server: Shelf) -> None:
    url = f"{server.url}/none"
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        read_all(url)
    assert str(remote.read_remote_file(url, QUICK)) == f"{url} does not exist"
    assert len(server.requests) == 2


def test_retries(server: Shelf) -> None:
    server.faults = [503, "drop"]
    assert remote.read_remote_file(f"{server.url}/a.bin", QUICK) == CONTENT
    server.faults = [503] * 3
    error = remote.read_remote_file(f"{server.url}/a.bin", QUICK)
    assert isinstance(error, ImageError)
    assert str(error) == f"{server.url}/a.bin cannot be read: the server failed (status 503)"


@pytest.mark.parametrize("fault", ["drop", "chunked drop"])
def test_a_broken_connection_is_resumed_where_it_broke(
    server: Shelf, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DEFAULT_RETRY", QUICK)
    server.faults = [fault] * 6
    with remote.ResumingReader(f"{server.url}/a.bin") as reader:
        assert b"".join(iter(lambda: reader.read(4096), b"")) == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges[:3] == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_stores() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/a.bin", CONTENT)
    try:
        assert read_all("memory://bucket/a.bin", 10) == CONTENT[10:]
        assert remote.content_version("memory://bucket/a.bin").startswith(str(len(CONTENT)))
        files.pipe("/bucket/b.jpg", b"x")
        found = list(remote.list_remote_files("memory://bucket/"))
        assert found == ["memory:///bucket/a.bin", "memory:///bucket/b.jpg"]
    finally:
        files.rm("/bucket", recursive=True)


def test_versions(server: Shelf) -> None:
    before = remote.content_version(f"{server.url}/a.bin")
    server.files["/a.bin"] = CONTENT[::-1]
    after = remote.content_version(f"{server.url}/a.bin")
    assert before
    assert before != after
    assert remote.content_version("http://127.0.0.1:1/x") == ""


def _read_in_child(url: str, pipe: Connection) -> None:
    pipe.send(remote.read_remote_file(url, QUICK))


def test_forked_workers_read_too(server: Shelf) -> None:
    """A data loader's workers are forked from a process whose client already runs."""
    assert read_all(f"{server.url}/a.bin") == CONTENT
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_read_in_child, args=(f"{server.url}/a.bin", there))
    child.start()
    assert here.poll(30)
    assert here.recv() == CONTENT
    child.join(30)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [("https://h/x", True), ("s3://b/x", True), ("memory://x", True), ("C:\\x", False), ("a/b", False)],
)
def test_is_remote(name: str, expected: bool) -> None:
    assert remote.is_remote(name) == expected
