"""Published weights brought here: whole and checked, or not at all, whatever the server does."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effnet.data.storage.cache_dir import configured_cache_dir, writable_cache_dir
from effnet.data.storage.errors import RetryPolicy
from effnet.metadata import Numerics, Preprocess
from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.download import DownloadError, RemoteFile, apply_mirror, cache_key, download_file
from effnet.weights.fetch import fetch
from tests.weights.server import Shelf, serving

CONTENT = bytes(range(256)) * 8192  # 2 MiB: the client may lose what it has buffered when a connection breaks off
HASH = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(timeout=0.3, attempts=3, backoff=0.01)


@pytest.fixture
def server() -> Iterator[Shelf]:
    with serving() as shelf:
        shelf.files["/models/b0.pth"] = CONTENT
        yield shelf


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EFFNET_OFFLINE", "HF_HUB_OFFLINE", "EFFNET_MIRROR", "EFFNET_BUNDLE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"


def card(**fields: Any) -> CatalogEntry:
    about = {"name": "b0/test", "arch": "b0", "layout": "timm", "publisher": "timm", "citation": "here"}
    return CatalogEntry(**about, numerics=Numerics(), preprocess=Preprocess(), **fields)


def get(server: Shelf, path: Path, hash: str | None = HASH, **more: Any) -> Path:
    return download_file(f"{server.url}/models/b0.pth", path, hash, QUICK, **more)


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
    assert download_file(f"{server.url}/moved/models/b0.pth", tmp_path / "f", HASH, QUICK).read_bytes() == CONTENT
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
    assert download_file(f"{server.url}/moved/models/b0.pth", tmp_path / "f", HASH, QUICK).read_bytes() == CONTENT
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
def test_nobody_there_is_told_at_once(tmp_path: Path, url: str, reason: str) -> None:
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=f"^{reason}$"):
        download_file(url, tmp_path / "x", retry=RetryPolicy(backoff=60))
    assert time.monotonic() - begun < 30


def test_a_server_that_never_answers(server: Shelf, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match=r"^the server stopped responding$"):
            download_file(url, tmp_path / "x", retry=RetryPolicy(timeout=0.1, attempts=2, backoff=0.01))


def test_a_full_disk_is_told_before(server: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

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
    started = subprocess.Popen(words, text=True, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"})
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


# Cards -----------------------------------------------------------------------------------------------------------


def test_a_card_is_fetched_into_the_home_under_its_publishers_name(
    server: Shelf, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        path = fetch(card(url=f"{server.url}/models/b0.pth", hash=HASH))
    host = server.url.removeprefix("http://").replace(":", "_")
    assert path == own_home / "weights" / host / "models" / "b0.pth"
    assert path.read_bytes() == CONTENT
    assert caplog.messages == [f"b0/test: downloading {server.url}/models/b0.pth"]
    assert fetch(card(url=f"{server.url}/models/b0.pth")) == path
    assert len(server.requests) == 1


def test_the_log_tells_of_what_takes_long(
    server: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("effnet.weights.fetch._LOG_EVERY_BYTES", 0)
    server.files["/models/b0.pth"] = bytes(3_000_000)
    with caplog.at_level(logging.INFO, "effnet"):
        fetch(card(url=f"{server.url}/models/b0.pth"))
    assert 8 <= len(caplog.messages) - 1 <= 10
    assert caplog.messages[-1] in ("b0/test: 2 of 3 MB", "b0/test: 3 of 3 MB")


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


def test_the_home_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EFFNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configured_cache_dir() == tmp_path / ".cache" / "effnet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert configured_cache_dir() == tmp_path / "caches" / "effnet"


def test_a_home_that_cannot_be_written_gives_way_to_a_folder_of_ones_own(
    server: Shelf, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = fetch(card(url=f"{server.url}/models/b0.pth", hash=HASH))
    assert path.is_relative_to(writable_cache_dir())
    assert writable_cache_dir().parent == tmp_path
    assert writable_cache_dir().stat().st_mode & 0o777 == 0o700
    assert fetch(card(url=f"{server.url}/models/b0.pth"), offline=True) == path
    assert not own_home.exists()


@pytest.mark.parametrize(
    ("variable", "stated"),
    [("EFFNET_OFFLINE", None), ("HF_HUB_OFFLINE", None), ("", True)],
    ids=["ours", "hub's", "stated"],
)
def test_offline_nobody_is_asked(
    server: Shelf, own_home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, stated: bool | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    url = f"{server.url}/models/b0.pth"
    with pytest.raises(DownloadError) as raised:
        fetch(card(url=url), offline=stated)
    place = own_home / cache_key(url)
    assert str(raised.value) == (
        f"b0/test: {url} is not available (it is not cached and offline mode is on); copy it to "
        f"{place}, or on a machine with a network run effnet models b0/test --bundle weights.zip and set "
        "EFFNET_BUNDLE=weights.zip here, or pass a file (--model FILE; for training --weights FILE, or --weights none "
        "for random weights)"
    )
    assert server.requests == []
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)  # by hand, as it says
    assert fetch(card(url=url), offline=stated) == place


def test_the_answer_of_a_bad_server_is_in_the_sentence(server: Shelf) -> None:
    with pytest.raises(
        DownloadError, match=r"^b0/test: http.*/none\.pth is not available \(the server has no such file"
    ) as e:
        fetch(card(url=f"{server.url}/none.pth"))
    assert e.value.not_found


# Mirrors ---------------------------------------------------------------------------------------------------------


def test_a_mirror_is_asked_in_the_publishers_place(
    server: Shelf, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/pub/example.org/m/b0.pth"] = CONTENT
    server.files["/pub/huggingface.co/timm/b0/resolve/main/model.safetensors"] = CONTENT[1:]
    monkeypatch.setenv("EFFNET_MIRROR", f"{server.url}/pub/")
    assert fetch(card(url="https://example.org/m/b0.pth")) == own_home / "weights/example.org/m/b0.pth"
    path = fetch(card(hub="timm/b0", file="model.safetensors"))
    assert path == own_home / "weights/huggingface.co/timm/b0/resolve/main/model.safetensors"
    assert path.read_bytes() == CONTENT[1:]


def test_a_filled_home_is_a_mirror(server: Shelf, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/m/b0.pth"
    monkeypatch.setenv("EFFNET_MIRROR", f"{server.url}/weights")
    assert apply_mirror(url) == f"{server.url}/{cache_key(url)}"


def test_a_mirror_must_be_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_MIRROR", "mirror.local")
    with pytest.raises(ValueError, match=r"^EFFNET_MIRROR=mirror\.local: give an address that begins with https://"):
        fetch(card(url="https://example.org/m/b0.pth"))


# Archives --------------------------------------------------------------------------------------------------------


def archive(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


CHECKPOINT = {"b0/model.ckpt.index": b"i", "b0/model.ckpt.data-00000-of-00001": b"d", "b0/model.ckpt.meta": b"m"}


@pytest.mark.parametrize("wanted", ["", "b0/model.ckpt"])
@pytest.mark.parametrize("dot", ["", "./"])
def test_of_an_archive_the_checkpoint_is_taken(server: Shelf, wanted: str, dot: str) -> None:
    server.files["/b0.tar.gz"] = archive({dot + name: content for name, content in CHECKPOINT.items()} | {"b0/x": b"x"})
    one = card(url=f"{server.url}/b0.tar.gz", file=wanted)
    path = fetch(one)
    assert path.name == "model.ckpt.index"
    assert sorted(near.name for near in path.parent.iterdir()) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    assert fetch(one, offline=True) == path
    assert len(server.requests) == 1


def test_another_file_of_the_same_archive_needs_no_network(server: Shelf) -> None:
    server.files["/b0.tar.gz"] = archive({**CHECKPOINT, "b0/b0-int8.tflite": b"t"})
    fetch(card(url=f"{server.url}/b0.tar.gz"))
    path = fetch(card(url=f"{server.url}/b0.tar.gz", file="b0/b0-int8.tflite"), offline=True)
    assert path.read_bytes() == b"t"


@pytest.mark.parametrize(
    "members",
    [
        {"../model.pth": b"x"},
        {"/model.pth": b"x"},
        {"model.pth": link("model.pth", "/etc/passwd")},
        {"model.pth": link("model.pth", "other", tarfile.LNKTYPE)},
        {"a/../../model.pth": b"x"},
        {},
    ],
    ids=["above", "from the root", "symbolic link", "hard link", "above in the middle", "empty"],
)
@pytest.mark.parametrize("wanted", ["model.pth", "../model.pth", "a/../../model.pth", "/model.pth"])
def test_nothing_is_taken_from_or_put_elsewhere(
    server: Shelf, own_home: Path, members: dict[str, Any], wanted: str
) -> None:
    server.files["/b0.tgz"] = archive(members)
    with pytest.raises(DownloadError, match=r"b0\.tgz has no .*model\.pth in it"):
        fetch(card(url=f"{server.url}/b0.tgz", file=wanted))
    assert [one.name for one in own_home.rglob("model.pth*")] == []


def test_two_checkpoints_are_not_chosen_from(server: Shelf) -> None:
    others = {name.replace("b0/", "b1/"): content for name, content in CHECKPOINT.items()}
    server.files["/b0.tgz"] = archive({**CHECKPOINT, **others})
    with pytest.raises(DownloadError, match="has no single checkpoint in it"):
        fetch(card(url=f"{server.url}/b0.tgz"))
    assert fetch(card(url=f"{server.url}/b0.tgz", file="b1/model.ckpt")).parent.name == "b1"


@pytest.mark.parametrize("content", [archive(CHECKPOINT)[:100], b"not an archive", b""], ids=["half", "text", "empty"])
def test_a_damaged_archive_is_named(server: Shelf, content: bytes) -> None:
    server.files["/b0.tgz"] = content
    with pytest.raises(DownloadError, match=r"b0\.tgz is damaged or not an archive: delete it"):
        fetch(card(url=f"{server.url}/b0.tgz"))


# The hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(server: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """The hub's library asks our server, and caches in a folder of the test's."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    server.files["/timm/b0.x/resolve/main/model.safetensors"] = CONTENT
    return server


ON_THE_HUB = {"hub": "timm/b0.x", "file": "model.safetensors"}


def test_the_hubs_library_is_asked_once(hub: Shelf, tmp_path: Path) -> None:
    path = fetch(card(**ON_THE_HUB, hash=HASH))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hub")
    assert len(hub.requests) == 1
    assert fetch(card(**ON_THE_HUB), offline=True) == path
    assert fetch(card(**ON_THE_HUB)) == path
    assert len(hub.requests) == 1


def test_what_the_hub_sends_is_checked(hub: Shelf) -> None:
    with pytest.raises(DownloadError, match="not the published one"):
        fetch(card(**ON_THE_HUB, hash="sha256:00"))
    with pytest.raises(DownloadError, match="offline mode is on"):
        fetch(card(**ON_THE_HUB), offline=True)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hub": "timm/b0.x", "file": "none.bin"}, r"timm/b0\.x has no file none\.bin"),
        ({"hub": "timm/none", "file": "x.bin"}, "the hub has no repository timm/none, or it requires a login"),
    ],
)
def test_what_the_hub_has_not(hub: Shelf, fields: dict[str, str], reason: str) -> None:
    with pytest.raises(DownloadError, match=reason) as raised:
        fetch(card(**fields))
    assert raised.value.not_found


def test_without_a_network_the_hub_is_given_up_at_once(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="the server refuses connections"):
        fetch(card(**ON_THE_HUB))
    assert time.monotonic() - begun < 5


def test_what_belongs_beside_is_brought_too(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["/timm/b0.x/resolve/main/config.json"] = b"{}"
    origin = RemoteFile("timm/b0.x", **ON_THE_HUB, companions=("config.json", "preprocessor_config.json"))
    assert sorted(one.name for one in fetch(origin).parent.iterdir()) == ["config.json", "model.safetensors"]
