"""Tar archives of pictures, as WebDataset keeps them: read as a stream, to the last member that is whole."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from os.path import basename, splitext
from typing import IO, Any

from PIL import Image

from effnet.data.gather import BYTES_MOST, Named
from effnet.data.pixels import PictureError
from effnet.prediction.remote import Steady, is_remote
from effnet.weights.fetch.download import Patience
from effnet.weights.fetch.reasons import reason

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BUFFER = 2**20
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class BrokenOff(PictureError):
    """A shard could not be read to its end; what follows the members before it is not known."""


def is_shard(name: str) -> bool:
    """Whether ``name`` ends as a tar archive's does."""
    return name.lower().partition("?")[0].endswith(SUFFIXES)


def spelled_out(source: str) -> list[str]:
    """``shard-{008..011}.tar``, as WebDataset writes many shards, as their names; any other text as itself."""
    found = _BRACES.search(source)
    if not found or not is_shard(source):
        return [source]
    first, last = int(found[1]), int(found[2])
    names = (f"{source[: found.start()]}{n:0{len(found[1])}}{source[found.end() :]}" for n in range(first, last + 1))
    return [whole for name in names for whole in spelled_out(name)]


def pictures(shard: str, start: int = 0, patience: Patience | None = None) -> Iterator[Named]:
    """(``shard.tar/member.jpg``, its bytes) of every member whose ending is a picture's, from number ``start`` on.

    A shard that is cut, damaged or out of reach ends with (its name, `BrokenOff`); one without any picture is an error
    as well. Compressed or not, it is read once, forwards, and never held.
    """
    number = 0
    try:
        with closing(_opened(shard, patience)) as file, _archive(file) as members:
            while (member := members.next()) is not None:
                members.members = []  # type: ignore[attr-defined]  # or they would pile up
                if not _is_picture(member):
                    continue
                number += 1
                if number > start:
                    yield f"{shard}/{member.name}", _content(members, member, shard)
    except Exception as error:  # tarfile and the decompressors stumble in many ways
        if isinstance(error, MemoryError):
            raise
        yield shard, BrokenOff(_sentence(shard, number, error))
        return
    if not number:
        yield shard, PictureError(f"{shard} has no pictures in it")


class _Header(tarfile.TarInfo):
    """tarfile takes a header that is cut or damaged for the archive's end; here only the end mark is one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut there")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError("it is damaged there, or no tar archive") from error
            raise


def _opened(shard: str, patience: Patience | None) -> IO[bytes]:
    if is_remote(shard):
        return io.BufferedReader(Steady(shard, patience), _BUFFER)
    return open(shard, "rb")


def _archive(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|*", bufsize=_BUFFER, tarinfo=_Header)


def _is_picture(member: tarfile.TarInfo) -> bool:
    """In a WebDataset the ending says what a member is; those that PIL knows are pictures."""
    name = basename(member.name)
    return member.isreg() and not name.startswith(".") and splitext(name)[1].lower() in _endings()


@cache
def _endings() -> frozenset[str]:
    return frozenset(Image.registered_extensions()) - {".mpg", ".mpeg", ".pdf", ".hdf", ".h5"}


def _content(members: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> bytes | PictureError:
    if member.size > BYTES_MOST:
        return PictureError(f"{shard}/{member.name} is larger than {BYTES_MOST // 2**20} MiB: no picture is that large")
    content = members.extractfile(member)
    assert content is not None, member.name
    return content.read()


def _sentence(shard: str, read: int, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{shard} does not exist"
    if isinstance(error, OSError) and error.errno is None:  # a sentence already
        return f"{error}, after {read} pictures" if read else str(error)
    cut = isinstance(error, EOFError) or "unexpected end" in str(error)
    why = (
        "it is cut there"
        if cut
        else reason(error)
        if isinstance(error, (tarfile.TarError, OSError))
        else "it is damaged"
    )
    return f"{shard} breaks off after {read} pictures: {why}"
