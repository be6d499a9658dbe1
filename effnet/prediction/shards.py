"""Tar archives of pictures, as WebDataset keeps them: read as a stream, to the last member that is whole."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import IO

from effnet.data.gather import BYTES_MOST, Named
from effnet.data.pixels import PictureError
from effnet.data.storage.patience import Patience
from effnet.data.storage.remote import Steady, is_remote
from effnet.data.storage.tar import BrokenOff as BrokenOff
from effnet.data.storage.tar import Header, broken_off, is_picture
from effnet.data.storage.tar import is_shard as is_shard
from effnet.data.storage.tar import spelled_out as spelled_out

_BUFFER = 2**20


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
                if not is_picture(member):
                    continue
                number += 1
                if number > start:
                    yield f"{shard}/{member.name}", _content(members, member, shard)
    except Exception as error:  # tarfile and the decompressors stumble in many ways
        if isinstance(error, MemoryError):
            raise
        yield shard, broken_off(shard, number, error)
        return
    if not number:
        yield shard, PictureError(f"{shard} has no pictures in it")


def _opened(shard: str, patience: Patience | None) -> IO[bytes]:
    if is_remote(shard):
        return io.BufferedReader(Steady(shard, patience), _BUFFER)
    return open(shard, "rb")


def _archive(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|*", bufsize=_BUFFER, tarinfo=Header)


def _content(members: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> bytes | PictureError:
    if member.size > BYTES_MOST:
        return PictureError(f"{shard}/{member.name} is larger than {BYTES_MOST // 2**20} MiB: no picture is that large")
    content = members.extractfile(member)
    assert content is not None, member.name
    return content.read()
