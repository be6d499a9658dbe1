"""Files brought here over HTTP: whole and checked, or not at all, whatever the server does."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from effnet.data.storage.errors import RetryPolicy
from effnet.weights import download
from effnet.weights.download import DownloadError, apply_mirror, cache_key, download_file
from tests.weights.server import CONTENT, HASH, Shelf

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY", RetryPolicy(timeout=0.3, attempts=3, backoff=0.01))


def get(server: Shelf, path: Path, hash: str | None = HASH, **more: Any) -> Path:
    return download_file(f"{server.url}/models/b0.pth", path, hash, **more)


def offsets(server: Shelf) -> list[int]:
    """Where each request starts."""
    return [int(span.removeprefix("bytes=").rstrip("-") or 0) for span in server.ranges]


def left(path: Path) -> set[str]:
    """Files in the folder of ``path`` except the lock."""
    return {one.name for one in path.parent.iterdir()} - {f"{path.name}.lock"}


# Good servers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, "chunked", "no length"])
def test_a_file_comes_whole_and_is_not_asked_for_again(server: Shelf, tmp_path: Path, fault: str | None) -> None:
    server.faults = [fault]
    path, reported = tmp_path / "a" / "b0.pth", []
    get(server, path, progress=lambda done, total: reported.append((done, total)))
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [""]
    assert left(path) == {"b0.pth"}
    assert reported[-1] == (len(CONTENT), len(CONTENT) if fault is None else None)
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)


@pytest.mark.parametrize(
    "hash",
    [HASH[:15], HASH.upper().replace("SHA", "sha"), f"md5:{hashlib.md5(CONTENT).hexdigest()}", None],
    ids=["first digits", "upper case", "md5", "none"],
)
def test_hashes_as_publishers_write_them(server: Shelf, tmp_path: Path, hash: str | None) -> None:
    assert get(server, tmp_path / "b0.pth", hash).read_bytes() == CONTENT


def test_a_redirect_is_followed(server: Shelf, tmp_path: Path) -> None:
    assert download_file(f"{server.url}/moved/models/b0.pth", tmp_path / "f", HASH).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/moved/models/b0.pth", "/models/b0.pth"]


def test_an_empty_file_is_a_file(server: Shelf, tmp_path: Path) -> None:
    server.files["/models/b0.pth"] = b""
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == b""


# Resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tagged", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_what_breaks_off_is_continued(server: Shelf, tmp_path: Path, fault: str, tagged: str) -> None:
    server.tagged, server.faults = tagged, [fault, fault]
    assert get(server, tmp_path / "b0.pth").read_bytes() == CONTENT
    first, second, third = offsets(server)
    assert first == 0 < second < third


def test_a_redirect_is_continued_too(server: Shelf, tmp_path: Path) -> None:
    server.faults = [None, "drop"]  # an answer for the redirect, one for the file
    assert download_file(f"{server.url}/moved/models/b0.pth", tmp_path / "f", HASH).read_bytes() == CONTENT
    _, first, _, second = offsets(server)
    assert [path for path, _ in server.requests] == ["/moved/models/b0.pth", "/models/b0.pth"] * 2
    assert first == 0 < second


def test_what_came_in_chunks_is_continued_with_a_length(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["chunked drop", "drop"]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == CONTENT
    first, second, third = offsets(server)
    assert first == 0 < second < third


def test_without_a_name_for_the_version_nothing_is_appended(server: Shelf, tmp_path: Path) -> None:
    server.tagged, server.faults = None, ["drop"]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == CONTENT
    assert server.ranges == ["", ""]


@pytest.mark.parametrize("fault", ["whole", None], ids=["ranges are ignored", "ranges are known"])
def test_a_file_that_changed_since_is_not_glued_to_the_old_half(
    server: Shelf, tmp_path: Path, fault: str | None
) -> None:
    server.faults = ["drop", 500, 500, 500]
    with pytest.raises(DownloadError, match=r"^the server failed \(status 500\)$"):
        get(server, tmp_path / "b0.pth", None)
    assert left(tmp_path / "b0.pth") >= {"b0.pth.part"}
    server.files["/models/b0.pth"] = other = CONTENT[::-1]
    server.faults = [fault]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == other
    assert offsets(server)[-1] > 0


def test_a_server_that_continues_another_version_is_not_believed(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["drop", 500, 500, 500]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "b0.pth", None)
    server.files["/models/b0.pth"] = other = CONTENT[::-1]
    server.faults = ["splice"]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == other


def test_a_server_that_ignores_ranges_starts_again(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["drop", "whole"]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == CONTENT
    first, second = offsets(server)
    assert first == 0 < second


def test_a_file_that_became_shorter_starts_again(server: Shelf, tmp_path: Path) -> None:
    server.tagged = "Last-Modified"  # the day is the first byte's: the version seems the same
    server.faults = ["drop", 500, 500, 500]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "b0.pth", None)
    server.files["/models/b0.pth"] = CONTENT[:1000]
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == CONTENT[:1000]


def test_a_part_that_went_bad_on_the_disk_is_got_again(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["drop", 500, 500, 500]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "b0.pth")
    part = tmp_path / "b0.pth.part"
    part.write_bytes(bytes(part.stat().st_size))  # as after a power cut
    assert get(server, tmp_path / "b0.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("notes", [b"", b"{", b"[]", b'{"validator": 1}', None])
def test_a_part_of_which_nothing_is_known_is_left(server: Shelf, tmp_path: Path, notes: bytes | None) -> None:
    (tmp_path / "b0.pth.part").write_bytes(b"old")
    if notes is not None:
        (tmp_path / "b0.pth.part.json").write_bytes(notes)
    assert get(server, tmp_path / "b0.pth", None).read_bytes() == CONTENT
    assert server.ranges == [""]


def test_a_whole_part_only_takes_its_place(server: Shelf, tmp_path: Path) -> None:
    (tmp_path / "b0.pth.part").write_bytes(CONTENT)
    (tmp_path / "b0.pth.part.json").write_text(f'{{"validator": "x", "total": {len(CONTENT)}}}')
    assert get(server, tmp_path / "b0.pth").read_bytes() == CONTENT
    assert server.requests == []


# Bad servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason", "requests"),
    [
        (404, r"the server has no such file \(status 404\)", 1),
        (403, r"the server denies access \(status 403\)", 1),
        (418, r"the server failed \(status 418\)", 1),
        (500, r"the server failed \(status 500\)", 3),
        (503, r"the server failed \(status 503\)", 3),
        (429, r"the server received too many requests \(status 429\)", 3),
        ("page", "the server sends a web page instead of the file", 1),
        ("corrupt", r"the downloaded file is not the published one \(its sha256 differs\); it was removed", 1),
    ],
)
def test_bad_answers_are_told_in_one_sentence(
    server: Shelf, tmp_path: Path, fault: int | str, reason: str, requests: int
) -> None:
    server.faults = [fault] * 9
    path = tmp_path / "b0.pth"
    with pytest.raises(DownloadError, match=f"^{reason}$") as raised:
        get(server, path)
    assert len(server.requests) == requests
    assert left(path) == set()
    assert raised.value.not_found is (fault == 404)


@pytest.mark.parametrize("fault", ["drop", "stall", "chunked drop"])
def test_a_server_that_never_gets_to_the_end(server: Shelf, tmp_path: Path, fault: str) -> None:
    server.tagged = None
    server.faults = [fault] * 99
    path = tmp_path / "b0.pth"
    with pytest.raises(DownloadError, match=r"^(the connection broke off|the server stopped responding)$"):
        get(server, path)
    assert left(path) <= {"b0.pth.part", "b0.pth.part.json"}
    assert 3 <= len(server.requests) < 30  # ends after three in a row that bring nothing new


def test_a_length_that_nobody_knows_needs_a_hash(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["no length"]
    with pytest.raises(DownloadError, match="does not state the file's length"):
        get(server, tmp_path / "b0.pth", None)
    assert left(tmp_path / "b0.pth") == set()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/x", "the server refuses connections"),
        ("http://nowhere.invalid/x", "host not found; there may be no network"),
    ],
)
def test_nobody_there_is_told_at_once(tmp_path: Path, url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY", RetryPolicy(backoff=60))
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=f"^{reason}$"):
        download_file(url, tmp_path / "x")
    assert time.monotonic() - begun < 30


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY", RetryPolicy(timeout=0.1, attempts=2, backoff=0.01))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match=r"^the server stopped responding$"):
            download_file(url, tmp_path / "x")


def test_a_full_disk_is_told_before(server: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        DownloadError, match=r"^its 2 MB do not fit on the disk of .* \(EFFNET_HOME sets another folder\)$"
    ):
        get(server, tmp_path / "b0.pth")
    assert left(tmp_path / "b0.pth") == set()


def test_a_disk_that_fills_up_meanwhile(server: Shelf, tmp_path: Path) -> None:
    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DownloadError, match=r"^the disk is full$"):
        get(server, tmp_path / "b0.pth", progress=full)
    assert not (tmp_path / "b0.pth").exists()
    assert len(server.requests) == 1


# Several processes -----------------------------------------------------------------------------------------------

FETCHING = (
    "import sys; from pathlib import Path; from effnet.weights.download import download_file; "
    "print('ready', flush=True); sys.stdin.readline(); download_file(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
)


def process(server: Shelf, path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", FETCHING, f"{server.url}/models/b0.pth", str(path), HASH]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen(words, text=True, **pipes)
    return started


def begin(*processes: subprocess.Popen[str]) -> None:
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()


def until(happened: Any) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_ask_once(server: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.faults = ["slow"]
    path = tmp_path / "b0.pth"
    other = process(server, path)
    begin(other)
    until(lambda: server.requests)
    assert not path.exists()
    threading.Timer(0.3, server.released.set).start()
    with caplog.at_level(logging.INFO, "effnet"):
        get(server, path)
    assert caplog.messages == ["b0.pth: another process is downloading it; waiting"]
    assert other.communicate(timeout=30)[1] == ""
    assert other.returncode == 0
    assert path.read_bytes() == CONTENT
    assert server.ranges == [""]


def test_a_process_that_is_killed_is_continued_by_the_next(server: Shelf, tmp_path: Path) -> None:
    server.faults = ["slow"]
    path, part = tmp_path / "b0.pth", tmp_path / "b0.pth.part"
    killed = process(server, path)
    begin(killed)
    until(lambda: part.exists() and part.stat().st_size > 20_000)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert not path.exists()
    size = part.stat().st_size
    assert 0 < size < len(CONTENT)
    assert get(server, path).read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={size}-"]


# URLs ----------------------------------------------------------------------------------------------------------------


def test_publishers_do_not_clash() -> None:
    urls = ("https://a.org/m/x.pth", "https://b.org/m/x.pth", "https://a.org/n/x.pth", "https://a.org/m/x.pth?v=1")
    assert len({cache_key(url) for url in urls}) == len(urls)
    assert {cache_key(url).rpartition("/")[2] for url in urls} == {"x.pth"}
    assert cache_key("https://me:secret@a.org:8443/m//%78.pth#top") == "weights/a.org_8443/m/x.pth"


@pytest.mark.parametrize(
    "url", ["https://a.org/../../x.pth", "https://a.org/%2e%2e/x.pth", "https://a.org", "file:///etc/passwd", "x.pth"]
)
def test_addresses_that_lead_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a file"):
        cache_key(url)


def test_a_filled_home_is_a_mirror(server: Shelf, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/m/b0.pth"
    monkeypatch.setenv("EFFNET_MIRROR", f"{server.url}/weights")
    assert apply_mirror(url) == f"{server.url}/{cache_key(url)}"
