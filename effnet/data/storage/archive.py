"""Archives that someone else packed: the one reader of zip files, and what is checked of tar archives.

A header may state any size, offset, name and method, and a few bytes may inflate to gigabytes. Here nothing is read or
allocated beyond what the archive itself can hold; whatever else is wrong with it is one `DamagedArchiveError`, and no
member is ever unpacked to a path that the archive names.

Sources: PKWARE ``APPNOTE.TXT``; D. Fifield, A better zip bomb (2019); Python ``zipfile`` and ``tarfile``.
"""

import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

MAX_MEMBERS = 100_000  # a network has a thousand tensors; each member takes half a kilobyte while the archive is open
MAX_DIRECTORY_BYTES = 2**23  # of a zip, which `zipfile` reads at once: 100 bytes for each of 80,000 members
# Weights shrink by a tenth, text to a tenth of its size. What is small may inflate by more.
MAX_RATIO, FREE_BYTES = 8, 2**26
MAX_HEADER_BYTES = 2**20  # of a tar archive's extended headers, which `tarfile` reads into memory
CHUNK_BYTES = 2**22
ZIP_MAGIC, EMPTY_ZIP_MAGIC = b"PK\x03\x04", b"PK\x05\x06"
_STREAM_BUFFER_BYTES = 2**20
_EXTENDED_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_ENCRYPTED = 1  # bit of a member's flags
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
# What `zipfile`, `tarfile` and the decompressors raise for damaged bytes, besides ``OSError`` without a number
_DAMAGE_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(RuntimeError, NotImplementedError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError),
    *(AssertionError, AttributeError),
)


_TarMode = Literal["r:", "r:*", "r|*"]


class DamagedArchiveError(ValueError):
    """An archive, or one of its members, that cannot or must not be read. The message begins with its path."""


@contextmanager
def name_damage(path: object) -> Iterator[None]:
    """Turn every error that damaged bytes cause in the block into a `DamagedArchiveError` about ``path``.

    Errors of the disk, which have a number, remain what they are. EINVAL is none: a member before the file's start.
    """
    try:
        yield
    except DamagedArchiveError:
        raise
    except (OSError, *_DAMAGE_ERRORS) as error:
        if isinstance(error, OSError) and (error.errno or 22) != 22:
            raise
        reason = "it ends early" if isinstance(error, EOFError) else " ".join(str(error).split())
        raise DamagedArchiveError(f"{path}: a damaged archive ({reason or type(error).__name__})") from None


class ZipReader:
    """The members of an open zip file. What is read of them all is limited to a multiple of the file's size.

    Args:
        archive: opened by `open_zip`.
        path: what messages call it.
        size: of the whole file in bytes.
    """

    def __init__(self, archive: zipfile.ZipFile, path: object, size: int) -> None:
        self.path, self.size = path, size
        self._archive, self._left = archive, MAX_RATIO * size + FREE_BYTES
        self._counts = Counter(info.filename for info in archive.infolist())

    @property
    def names(self) -> list[str]:
        """Names of the members, in the archive's order."""
        return list(self._counts)

    def __contains__(self, name: str) -> bool:
        return name in self._counts

    def member_size(self, name: str) -> int:
        """Return how many bytes a member states to have."""
        return self._find(name).file_size

    def stored_size(self, name: str) -> int:
        """Return how many bytes a member states to take in the archive."""
        return self._find(name).compress_size

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return a member's content. Raises `DamagedArchiveError` also for one of more than ``limit`` bytes."""
        if limit is not None and (size := self.member_size(name)) > limit:
            raise DamagedArchiveError(f"{self.path}: its {name} has {size:,} bytes, where at most {limit:,} can be")
        content = io.BytesIO()
        content.writelines(self.iter_chunks(name))
        return content.getvalue()

    def iter_chunks(self, name: str) -> Iterator[bytes]:
        """Yield a member's content, checked at its end. Raises `DamagedArchiveError` if it is damaged or missing."""
        info = self._find(name)
        if info.flag_bits & _ENCRYPTED:
            raise DamagedArchiveError(f"{self.path}: its {name} is encrypted: pack it again without a password")
        if info.compress_type not in _METHODS:
            raise DamagedArchiveError(
                f"{self.path}: its {name} is compressed by an unknown method ({info.compress_type}): pack it again "
                "without compression"
            )
        is_stored = info.compress_type == zipfile.ZIP_STORED
        held = info.compress_size if is_stored else MAX_RATIO * info.compress_size + FREE_BYTES
        self._left -= info.file_size  # `zipfile` never returns more than a member states to have
        if info.file_size > held or info.compress_size > self.size or self._left < 0:
            raise DamagedArchiveError(
                f"{self.path}: its {name} would inflate to {info.file_size:,} bytes, far more than the archive's "
                f"{self.size:,} can hold"
            )
        left = info.file_size
        with name_damage(self.path), self._archive.open(info) as member:
            while left:
                chunk = member.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk
            member.read(1)  # of an empty member too, the checksum is compared at the end only

    def _find(self, name: str) -> zipfile.ZipInfo:
        """Return what the directory says of a member: one that is there twice would be another one to other readers."""
        if name not in self._counts:
            raise DamagedArchiveError(f"{self.path}: it has no {name}")
        if self._counts[name] > 1:
            raise DamagedArchiveError(f"{self.path}: a damaged archive (it has {self._counts[name]} members {name})")
        return self._archive.getinfo(name)


def is_zip(path: Path) -> bool:
    """Return whether the file begins as a zip file does, whole or damaged."""
    with path.open("rb") as file:
        return file.read(len(ZIP_MAGIC)) in (ZIP_MAGIC, EMPTY_ZIP_MAGIC)


class _LimitedReads(io.BufferedReader):
    """A file of ``total`` bytes that refuses to be read at once beyond any directory that an archive of ours has."""

    def __init__(self, raw: Any, total: int) -> None:
        super().__init__(raw)
        self._total = total

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(self._total - self.tell(), 0)
        if size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is far too large")
        return super().read(size)


@contextmanager
def open_zip(source: Path | bytes, path: object = None) -> Iterator[ZipReader]:
    """Open a zip file, or bytes that end in one; ``path`` is what messages call it.

    Raises `DamagedArchiveError` for anything else, within the block too, and ``OSError`` if it cannot be read.

    Example:
        >>> with open_zip(Path("model.keras")) as archive:
        ...     config = archive.read("config.json", limit=2**24)
    """
    path = path or source
    raw: Any = io.FileIO(source) if isinstance(source, Path) else io.BytesIO(source)
    size = os.fstat(raw.fileno()).st_size if isinstance(source, Path) else len(source)
    with _LimitedReads(raw, size) as file:
        with name_damage(path):
            archive = zipfile.ZipFile(file)
            if len(archive.filelist) > MAX_MEMBERS:
                raise zipfile.BadZipFile(f"{len(archive.filelist):,} members")
        with archive:
            yield ZipReader(archive, path, size)


# Tar archives --------------------------------------------------------------------------------------------------------


class StrictTarInfo(tarfile.TarInfo):
    """A header that is cut, damaged, or begins a huge one is an error; tarfile would take it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """Parse a header. Raises ``ReadError`` unless it is complete or the end mark."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is truncated")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError("it is damaged, or not a tar archive") from error
            raise
        if header.size < 0 or (header.type in _EXTENDED_HEADERS and header.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"it is damaged: a header of {header.size:,} bytes")
        return header


class TarReader:
    """The regular files in an open tar archive, limited as those of a `ZipReader`."""

    def __init__(self, tar: tarfile.TarFile, path: Path, members: dict[str, tarfile.TarInfo]) -> None:
        self.path, self.members = path, members
        self._tar, self._left = tar, MAX_RATIO * path.stat().st_size + FREE_BYTES

    def iter_chunks(self, name: str) -> Iterator[bytes]:
        """Yield a member's content. Raises `DamagedArchiveError` if it is cut off, or far larger than the archive."""
        left = self.members[name].size
        self._left -= left
        if self._left < 0:
            raise DamagedArchiveError(f"{self.path}: its {name} would inflate to {left:,} bytes")
        with name_damage(self.path):
            member = self._tar.extractfile(self.members[name])
            while left and member is not None:
                chunk = member.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk


@contextmanager
def open_tar(path: Path) -> Iterator[TarReader]:
    """Open a tar archive, perhaps compressed. Raises `DamagedArchiveError` if it is something else, and ``OSError``."""
    limit = MAX_RATIO * path.stat().st_size + FREE_BYTES
    members: dict[str, tarfile.TarInfo] = {}
    with path.open("rb") as file, ExitStack() as stack:
        with name_damage(path):
            tar = stack.enter_context(_open_tar(file, "r:*"))
            for number, member in enumerate(_iter_members(tar)):
                limit -= member.size
                if number == MAX_MEMBERS or limit < 0:
                    raise tarfile.ReadError("it would inflate to far more than its size")
                if member.isreg():
                    members[member.name.removeprefix("./")] = member
        yield TarReader(tar, path, members)


def iter_tar_members(file: IO[bytes], mode: _TarMode) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield each member with its archive, in order.

    ``mode``: "r:" for a seekable file that is not compressed, "r|*" for a stream that may be. Raises ``TarError`` or
    ``EOFError`` if the archive is damaged, and ``OSError`` as the file does.
    """
    try:
        with _open_tar(file, mode) as tar:
            for member in _iter_members(tar):
                yield tar, member
    except (tarfile.TarError, EOFError):
        raise
    except _DAMAGE_ERRORS as error:
        raise tarfile.ReadError(f"it is damaged ({' '.join(str(error).split())})") from None


def _open_tar(file: IO[bytes], mode: _TarMode) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode=mode, bufsize=_STREAM_BUFFER_BYTES, tarinfo=StrictTarInfo)


def _iter_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    last = -1
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or they would pile up
        if member.size < 0 or member.offset_data <= last:  # an extended header may state any size
            raise tarfile.ReadError("it is damaged: a member lies before the one before it")
        last = member.offset_data
        yield member
