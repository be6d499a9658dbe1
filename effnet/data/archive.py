"""Tar shards whose members can be read in any order: what lies where in them is found once, and kept."""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from os.path import basename
from pathlib import Path
from typing import IO, Any, NamedTuple

from effnet.data.gather import BYTES_MOST
from effnet.data.pixels import PictureError
from effnet.data.storage.atomic import replacing
from effnet.data.storage.copies import copy_of
from effnet.data.storage.home import store
from effnet.data.storage.remote import fetched, is_remote, version
from effnet.data.storage.tar import Header, broken_off, is_picture

Raw = int | float | str | list[Any] | None  # a label as it stands in a shard; None where there is none

BESIDE = ".json"  # what ends the name of a shard's index that lies beside it
_FORMAT = 1  # of an index that is kept: raised whenever shards are read otherwise
_TEXT_MOST = 2**16
_LABELS = ("cls", "json", "txt")  # members that say what a picture shows, the first of them that there is
_KEYS = ("label", "labels", "cls", "class", "target", "targets")  # of a JSON object


class Sample(NamedTuple):
    """A picture in a shard: the member's name, where its bytes begin, how many there are, and its label."""

    name: str
    offset: int
    size: int
    label: Raw


@dataclass(frozen=True)
class Index:
    """What is in a shard of so many ``bytes``. ``error``: why it could not be read to its end; "" where it could."""

    bytes: int
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    def text(self) -> str:
        """As JSON."""
        said = {"format": _FORMAT, "bytes": self.bytes, "samples": self.samples, "error": self.error}
        return json.dumps(said, ensure_ascii=False)


@dataclass(frozen=True, eq=False, slots=True)
class Archive:
    """A shard on this disk or elsewhere, of one version."""

    address: str
    version: str

    @classmethod
    def of(cls, address: str) -> Archive:
        """The shard as it is now. Raises ``FileNotFoundError`` for one on this disk that is not there."""
        if is_remote(address):
            return cls(address, version(address))
        try:
            here = os.stat(address)
        except FileNotFoundError:
            raise FileNotFoundError(f"{address} does not exist") from None
        return cls(os.path.abspath(address), f"{here.st_size} {here.st_mtime_ns}")

    def path(self) -> Path:
        """Where it is on this disk, brought there if need be. Raises ``OSError`` where that cannot be done."""
        return copy_of(self.address, self.version) if is_remote(self.address) else Path(self.address)

    def index(self) -> Index:
        """What is in it: as its writer has left beside it, as it was found earlier, or else found now.

        Raises ``OSError`` where it cannot be had, and ``ValueError`` for one that is compressed.
        """
        if not self.address.lower().partition("?")[0].endswith(".tar"):
            raise ValueError(f"{self.address} is compressed, so that nothing in it can be found: unpack it to .tar")
        kept = store() / "shards" / f"{sha256(f'{self.address} {self.version}'.encode()).hexdigest()[:32]}.json"
        known = _parsed(self._beside()) or _parsed(_content(kept))
        if known is None:
            known = found(self.path(), self.address)
            if not known.error:
                with suppress(OSError), replacing(kept) as beside:
                    beside.write_text(known.text(), encoding="utf-8")
        return known

    def _beside(self) -> bytes | None:
        """The index that the writer has left, if it is of this very shard."""
        if is_remote(self.address):
            said = fetched(self.address + BESIDE)
            return said if isinstance(said, bytes) else None
        content = _content(Path(self.address + BESIDE))
        index = _parsed(content)
        return content if index and index.bytes == os.stat(self.address).st_size else None


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A picture's file within a shard: a `Held`."""

    archive: Archive
    file: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """``shard.tar/file.jpg``."""
        return f"{self.archive.address}/{self.file}"

    def read(self) -> bytes:
        """Its bytes. Raises ``PictureError`` where the shard has none of it, ``OSError`` where it is out of reach."""
        for _ in range(3):  # a copy may be deleted to make room for others just now
            with suppress(FileNotFoundError), self.archive.path().open("rb", buffering=0) as file:
                file.seek(self.offset)
                content = file.read(self.size)
                if len(content) < self.size:
                    raise PictureError(f"{self.name} is not whole: the shard has become shorter")
                return content
        raise PictureError(f"{self.name} cannot be read: the shard is gone")


@dataclass(frozen=True, eq=False, slots=True)
class Missing:
    """In the place of pictures that cannot be had: a `Held` whose reading says why."""

    name: str
    why: str

    def read(self) -> bytes:
        """Raises ``PictureError``."""
        raise PictureError(self.why)


def found(path: Path, address: str) -> Index:
    """What is in the shard at ``path``, read once from end to end; where it is cut, what lies before.

    Members whose names differ only behind the first point of their last part belong together, as WebDataset has it.
    """
    pictures: dict[str, Sample] = {}
    labels: dict[str, tuple[int, Raw]] = {}
    error = ""
    whole = path.stat().st_size
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=Header) as members:
            while (member := members.next()) is not None:
                members.members = []  # type: ignore[attr-defined]  # or they would pile up
                if member.offset_data + member.size > whole:
                    raise tarfile.ReadError("unexpected end of data")
                _note(member, file, pictures, labels)
    except (tarfile.TarError, EOFError) as broken:
        error = str(broken_off(address, len(pictures), broken))
    samples = [sample._replace(label=labels[key][1] if key in labels else None) for key, sample in pictures.items()]
    return Index(whole, samples, error)


def _note(
    member: tarfile.TarInfo, file: IO[bytes], pictures: dict[str, Sample], labels: dict[str, tuple[int, Raw]]
) -> None:
    """Puts ``member`` down, if it is a picture or a label."""
    name = basename(member.name)
    stem, _, ending = name.partition(".")
    key, ending = member.name[: len(member.name) - len(name)] + stem, ending.lower()
    if is_picture(member) and member.size <= BYTES_MOST:
        if key not in pictures or ("." in pictures[key].name[len(key) + 1 :] and "." not in ending):
            pictures[key] = Sample(member.name, member.offset_data, member.size, None)
    elif member.isreg() and ending in _LABELS and member.size <= _TEXT_MOST:
        rank = _LABELS.index(ending)
        if key not in labels or rank < labels[key][0]:
            file.seek(member.offset_data)
            label = _label(file.read(member.size), ending)
            if label is not None:
                labels[key] = rank, label


def _label(content: bytes, ending: str) -> Raw:
    text = content.decode("utf-8", "replace").strip()
    if ending == "json":
        try:
            said = json.loads(text)
        except ValueError:
            return None
        if isinstance(said, dict):
            said = next((said[key] for key in _KEYS if key in said), None)
        return said if isinstance(said, (int, float, str, list)) else None
    with suppress(ValueError):
        return int(text)
    return text or None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _parsed(content: bytes | None) -> Index | None:
    """An index as it was written; None for whatever is none, or of another format."""
    if content is None:
        return None
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(content)
        if said["format"] == _FORMAT:
            return Index(int(said["bytes"]), [Sample(*sample) for sample in said["samples"]], str(said["error"]))
    return None
