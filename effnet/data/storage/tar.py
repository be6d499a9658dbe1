"""What is said of tar archives of pictures (WebDataset's shards) wherever they are read: names, members, breaks."""

from __future__ import annotations

import re
import tarfile
from functools import cache
from os.path import basename, splitext
from typing import Any

from PIL import Image

from effnet.data.pixels import PictureError
from effnet.data.storage.reasons import reason

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
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


class Header(tarfile.TarInfo):
    """tarfile takes a header that is cut or damaged for the archive's end; here only the end mark is one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """As of any header. Raises ``ReadError`` where it is not whole."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut there")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError("it is damaged there, or no tar archive") from error
            raise


def is_picture(member: tarfile.TarInfo) -> bool:
    """In a WebDataset the ending says what a member is; those that PIL knows are pictures."""
    name = basename(member.name)
    return member.isreg() and not name.startswith(".") and splitext(name)[1].lower() in _endings()


@cache
def _endings() -> frozenset[str]:
    return frozenset(Image.registered_extensions()) - {".mpg", ".mpeg", ".pdf", ".hdf", ".h5"}


def broken_off(shard: str, read: int, error: Exception) -> BrokenOff:
    """The error of a shard of which ``read`` pictures could be read before ``error``."""
    return BrokenOff(_sentence(shard, read, error))


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
