"""Archives that are damaged, or say more than they hold: one sentence, and no more memory than the file has."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from effnet.data import webdataset_reader
from effnet.data.storage import archive
from effnet.data.storage.archive import DamagedArchiveError, iter_tar_members, open_tar, open_zip
from effnet.timing.memory import peak_memory
from effnet.weights.bundle import MANIFEST, list_bundles, open_bundle
from effnet.weights.download import DownloadError, extract_members
from effnet.weights.formats import tflite_schema
from effnet.weights.formats.keras_reader import ARCHIVE_CONFIG, ARCHIVE_WEIGHTS, read_keras
from effnet.weights.formats.pytorch import read_pytorch

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def torch_members() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save({"stem.weight": torch.arange(600.0)}, buffer)
    with zipfile.ZipFile(buffer) as saved:
        return {name: saved.read(name) for name in saved.namelist()}


def keras_members() -> dict[str, bytes]:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/conv2d/vars/0"] = np.arange(600, dtype=np.float32)
    return {
        ARCHIVE_WEIGHTS: buffer.getvalue(),
        ARCHIVE_CONFIG: b'{"class_name": "Functional", "config": {"layers": []}}',
    }


def bundle_members() -> dict[str, bytes]:
    return {MANIFEST: json.dumps({"files": {}, "entries": {}}).encode(), "weights/a": bytes(range(256)) * 8}


def open_bundle_member(path: Path) -> None:
    open_bundle(path)
    with open_zip(path) as opened:
        opened.read("weights/a")


READERS: dict[str, tuple[Callable[[Path], object], Callable[[], dict[str, bytes]]]] = {
    ".pth": (read_pytorch, torch_members),
    ".keras": (read_keras, keras_members),
    ".zip": (open_bundle_member, bundle_members),
}


def central(content: bytes, name: str) -> int:
    """Where the directory's entry of a member begins."""
    return content.rindex(b"PK\1\2", 0, content.rindex(name.encode()))


def local(content: bytes, name: str) -> int:
    return content.rindex(b"PK\3\4", 0, content.index(name.encode()))


def write_at(content: bytes, place: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return content[:place] + packed + content[place + len(packed) :]


def damage_data(content: bytes, name: str) -> bytes:
    start = local(content, name) + 30 + len(name)
    return (
        content[: start + 12] + bytes(byte ^ 0xFF for byte in content[start + 12 : start + 40]) + content[start + 40 :]
    )


# What is done to a packed archive and its largest member
DAMAGES: dict[str, Callable[[bytes, str], bytes]] = {
    "encrypted": lambda content, name: write_at(
        write_at(content, central(content, name) + 8, "<H", 1), local(content, name) + 6, "<H", 1
    ),
    "strongly encrypted": lambda content, name: write_at(content, central(content, name) + 8, "<H", 0x41),
    "unknown method": lambda content, name: write_at(content, central(content, name) + 10, "<H", 98),
    "zstandard": lambda content, name: write_at(content, central(content, name) + 10, "<H", 93),
    "wrong checksum": lambda content, name: write_at(content, central(content, name) + 16, "<I", 1),
    "states 4 GB": lambda content, name: write_at(content, central(content, name) + 24, "<I", 2**32 - 2),
    "states 900 MB": lambda content, name: write_at(content, central(content, name) + 24, "<I", 9 * 10**8),
    "states that it takes 4 GB": lambda content, name: write_at(content, central(content, name) + 20, "<I", 2**32 - 2),
    "too short": lambda content, name: write_at(content, central(content, name) + 24, "<I", 5),
    "behind the end": lambda content, name: write_at(content, central(content, name) + 42, "<I", 2**31),
    "another name": lambda content, name: write_at(content, local(content, name) + 30, "<B", 0x41),
    "cut off": lambda content, name: content[:-30],
    "cut at the directory": lambda content, name: content[: central(content, name)],
    "a directory of 4 GB": lambda content, name: write_at(content, content.rindex(b"PK\5\6") + 12, "<I", 2**32 - 2),
    "a directory of 16 MB": lambda content, name: write_at(content, content.rindex(b"PK\5\6") + 12, "<I", 2**24),
    "a directory before the start": lambda content, name: write_at(
        content, content.rindex(b"PK\5\6") + 16, "<I", 2**31 - 1
    ),
    "a name that is no text": lambda content, name: write_at(
        write_at(content, central(content, name) + 8, "<H", 0x800), central(content, name) + 46, "<B", 0xFF
    ),
    "data": damage_data,
}


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("method", METHODS)
def test_whole_archives_open(suffix: str, method: int, tmp_path: Path) -> None:
    read, members = READERS[suffix]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pack(members(), method))
    if suffix == ".keras":  # whose network is none of ours
        with pytest.raises(ValueError, match="no EfficientNet of keras"):
            read(path)
    else:
        read(path)


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(suffix: str, damage: str, tmp_path: Path) -> None:
    read, members = READERS[suffix]
    held, path = members(), tmp_path / f"m{suffix}"
    largest = max(held, key=lambda name: len(held[name]))
    for method in METHODS:
        path.write_bytes(DAMAGES[damage](pack(held, method), largest))
        with pytest.raises(ValueError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", READERS)
def test_any_byte_may_be_wrong(suffix: str, tmp_path: Path) -> None:
    chance, (read, members) = random.Random(0), READERS[suffix]
    path = tmp_path / f"m{suffix}"
    before = peak_memory()
    for number in range(200):
        damaged = bytearray(pack(members(), METHODS[number % 4]))
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(ValueError):
            read(path)
    assert peak_memory() - before < 300 * 2**20


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_inflates_to_gigabytes_is_not_inflated(
    suffix: str, method: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    read, members = READERS[suffix]
    bomb = members()
    largest = max(bomb, key=lambda name: len(bomb[name]))
    bomb[largest] = bytes(2**23)
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pack(bomb, method))
    with pytest.raises(ValueError, match=r"would inflate to|but stores"):
        read(path)


@pytest.mark.parametrize("suffix", READERS)
def test_two_members_of_one_name(suffix: str, tmp_path: Path) -> None:
    read, members = READERS[suffix]
    path, held = tmp_path / f"m{suffix}", members()
    largest = max(held, key=lambda name: len(held[name]))
    path.write_bytes(pack(held))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as packed:
        packed.writestr(largest, b"another")
    with pytest.raises(ValueError, match="2 members"):
        read(path)


def test_members_that_share_their_bytes_count_each(tmp_path: Path) -> None:
    # A bomb of D. Fifield's kind: every entry of the directory leads to the same data
    content = pack({"a": bytes(2**20)})
    entry = content[central(content, "a") : content.rindex(b"PK\5\6")]
    many = b"".join(entry[:46] + bytes([65 + number]) + entry[47:] for number in range(20))
    start = content.rindex(b"PK\5\6")
    directory = central(content, "a")
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 20, 20, len(many), directory, 0)
    (tmp_path / "m.zip").write_bytes(content[:directory] + many + end + content[start + 22 :])
    with open_zip(tmp_path / "m.zip") as opened:
        assert len(opened.names) == 20
        with pytest.raises(DamagedArchiveError):  # names in the local headers differ, and the sum would be too large
            [opened.read(name) for name in opened.names]


def test_more_members_than_any_archive_of_weights_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
    (tmp_path / "m.zip").write_bytes(pack({f"{index}": b"" for index in range(11)}))
    with pytest.raises(DamagedArchiveError, match="11 members"), open_zip(tmp_path / "m.zip"):
        pass
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        for index in range(11):
            tar.addfile(tarfile.TarInfo(f"{index}"))
    with pytest.raises(DamagedArchiveError), open_tar(tmp_path / "m.tar"):
        pass


def test_one_damaged_zip_in_the_cache_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path))
    monkeypatch.delenv("EFFNET_BUNDLE", raising=False)
    whole = pack(bundle_members())
    (tmp_path / "whole.zip").write_bytes(whole)
    (tmp_path / "other.zip").write_bytes(pack({"photo.jpg": b"no bundle"}))
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty.zip").write_bytes(b"")
    (tmp_path / "folder.zip").mkdir()
    for number, damage in enumerate(DAMAGES.values()):
        (tmp_path / f"damaged{number}.zip").write_bytes(damage(whole, MANIFEST))
    nested = MANIFEST, b'{"files": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    (tmp_path / "nested.zip").write_bytes(pack(dict([nested])))
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / MANIFEST).write_bytes(nested[1])
    found = list_bundles()
    assert tmp_path / "whole.zip" in [each.path for each in found]
    assert any("nested.zip" in text for text in caplog.messages)
    monkeypatch.setenv("EFFNET_BUNDLE", str(tmp_path / "nested.zip"))  # but one that was asked for
    with pytest.raises(
        ValueError, match=r"nested\.zip: its effnet-bundle\.json cannot be read \(.* nested more than 100"
    ):
        list_bundles()


def test_labels_behind_a_flatbuffer() -> None:
    with pytest.raises(ValueError, match=r"names labels\.txt, which cannot be read"):
        tflite_schema._read_labels_file(
            b"TFL3" + damage_data(pack({"labels.txt": b"cat dog " * 50}), "labels.txt"), "labels.txt"
        )


# Tar archives --------------------------------------------------------------------------------------------------------


def tar(members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda header: None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            change(header)
            packed.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def huge_header(kind: bytes, size: int = 2**31) -> bytes:
    header = tarfile.TarInfo("h")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


def negative_size(_: dict[str, bytes]) -> bytes:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"  # −256 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


TARS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "cut off": lambda members: tar(members)[:2000],
    "no header": lambda members: b"\x01" * 2048,
    "an extended header of 2 GB": lambda members: huge_header(tarfile.XHDTYPE) + tar(members),
    "a global header of 2 GB": lambda members: huge_header(tarfile.XGLTYPE) + tar(members),
    "a name of 2 GB": lambda members: huge_header(tarfile.GNUTYPE_LONGNAME) + tar(members),
    "a negative size": negative_size,
    "an extended size of −512": lambda members: tar(members, lambda header: header.pax_headers.update(size="-512")),
    "an extended size that is no number": lambda members: tar(
        members, lambda header: header.pax_headers.update(size="x")
    ),
    "a sparse map that is none": lambda members: tar(
        members, lambda header: header.pax_headers.update({"GNU.sparse.map": "a,b", "GNU.sparse.size": "9"})
    ),
    "gzip of something else": lambda members: gzip.compress(b"x" * 4096),
    "gzip that is damaged": lambda members: gzip.compress(tar(members))[:60] + b"\xff" * 40,
    "xz that is damaged": lambda members: b"\xfd7zXZ\x00" + b"\x01" * 200,
    "bz2 that is damaged": lambda members: b"BZh91AY&SY" + b"\x01" * 200,
    "gigabytes of zeros": lambda members: gzip.compress(tar({"m.index": bytes(2**23)})),
}


@pytest.mark.parametrize("damage", TARS)
def test_damaged_tar_archives(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    path = tmp_path / "b0.tgz"
    path.write_bytes(TARS[damage]({"b0/model.ckpt.index": b"i" * 900, "b0/model.ckpt.data-00000-of-00001": b"d" * 900}))
    before = peak_memory()
    with pytest.raises(DownloadError, match=r"is damaged or not an archive: delete it"):
        extract_members(path, "", tmp_path / "out")
    assert peak_memory() - before < 100 * 2**20
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", sorted(TARS.keys() - {"gigabytes of zeros"}))
def test_damaged_shards(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(TARS[damage]({"a.jpg": b"i" * 900, "b.jpg": b"d" * 900}))
    index = webdataset_reader.scan_shard(path, "s.tar")
    assert index.error.startswith("s.tar breaks off after ")
    *_, (_, last) = webdataset_reader.read_shard_images(str(path))
    assert isinstance(last, webdataset_reader.TruncatedShardError)


def test_nothing_is_unpacked_to_where_an_archive_says(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name in ("/m.ckpt.index", "../m.ckpt.index", "C:/m.ckpt.index", "..\\m.ckpt.index"):
            packed.addfile(tarfile.TarInfo(name))
        for name, kind in (("m.ckpt.index", tarfile.SYMTYPE), ("m.ckpt.data-0", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            packed.addfile(link)
    (tmp_path / "b0.tar").write_bytes(buffer.getvalue())
    with pytest.raises(DownloadError, match="no single checkpoint"):
        extract_members(tmp_path / "b0.tar", "", tmp_path / "out")


def test_any_byte_of_a_tar_may_be_wrong() -> None:
    chance, whole = random.Random(0), tar({f"{index}.jpg": b"i" * 100 for index in range(5)})
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 9)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with suppress(tarfile.TarError, EOFError):
            assert len(list(iter_tar_members(io.BytesIO(damaged), "r:"))) <= 10
