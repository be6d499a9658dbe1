"""Files elsewhere: ``http(s)://`` by the standard library, ``s3://``, ``gs://`` and all others through fsspec."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from urllib.request import Request, urlopen

from effnet.data.folders import COMPANIONS
from effnet.data.gather import BYTES_MOST
from effnet.data.pixels import PictureError
from effnet.data.storage.patience import Patience
from effnet.data.storage.reasons import final, reason, unreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Out = TypeVar("Out")

PATIENCE = Patience()
_NEVER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
_VERSION = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
_WEB = ("http://", "https://")


class StoreError(OSError):
    """A store could not be asked, though it was asked several times: another day it may answer."""


def is_remote(name: str) -> bool:
    """Whether ``name`` is an address: ``https://…``, ``s3://…``, ``memory://…``."""
    scheme, found, _ = name.partition("://")
    return bool(found) and len(scheme) > 1 and scheme.isascii() and scheme.replace("+", "").isalnum()


def listed(address: str) -> Iterator[str]:
    """The addresses that ``address`` means: itself, what matches it, or all that lies below it, sorted.

    A folder's names are held while it is read, and no others. Raises ``FileNotFoundError`` where there is nothing,
    ``ImportError`` for a store whose package is missing, `StoreError` for one that does not answer.
    """
    if address.lower().startswith(_WEB):
        yield address
        return
    files, path = _store(address)
    if any(sign in path for sign in "*?["):
        found = _patiently(address, lambda: sorted(files.glob(path)))
        yield from (files.unstrip_protocol(name) for name in found if not _passed_over(name))
    elif not address.endswith("/") and _patiently(address, lambda: files.isfile(path)):
        yield address
    else:
        yield from _below(files, path.rstrip("/"), address)


def version(address: str) -> str:
    """What tells one content of the file from another, as far as its server says; "" where it says nothing."""
    with suppress(Exception):  # reading it will say what is wrong
        if not address.lower().startswith(_WEB):
            files, path = _store(address)
            said = files.info(path)
            return " ".join(str(said[key]) for key in ("size", *_VERSION) if key in said)
        with urlopen(_request(address, "HEAD"), timeout=PATIENCE.stall) as answer:
            said = answer.headers
            return " ".join(filter(None, (said[key] for key in ("Content-Length", "ETag", "Last-Modified"))))
    return ""


def fetched(address: str, patience: Patience | None = None) -> bytes | PictureError:
    """The content of a picture, or why there is none. Raises `StoreError` where a store, no web server, is down."""

    def read() -> bytes:
        with _opened(address, 0) as file:
            return file.read(BYTES_MOST + 1)

    try:
        content = _patiently(address, read, patience)
    except StoreError as error:
        if not address.lower().startswith(_WEB):
            raise
        return PictureError(str(error))
    except (OSError, ValueError) as error:
        return PictureError(str(error))
    if len(content) > BYTES_MOST:
        return PictureError(f"{address} is larger than {BYTES_MOST // 2**20} MiB: no picture is expected to be")
    return content


class Steady(io.RawIOBase):
    """A file elsewhere, read once from end to end; where the connection breaks off it is opened there again."""

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self.address, self.patience, self.position = address, patience, 0
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As of any raw file. Raises `StoreError` where it cannot be read on."""
        view = memoryview(buffer)
        content = _patiently(self.address, lambda: self._piece(len(view)), self.patience)
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def close(self) -> None:
        """Lets go of the connection."""
        self._drop()
        super().close()

    def _piece(self, most: int) -> bytes:
        try:
            if self._file is None:
                self._file = _opened(self.address, self.position)
            return self._file.read(most)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        with suppress(Exception):
            if self._file is not None:
                self._file.close()
        self._file = None


class _Answer(io.RawIOBase):
    """What a web server sends, which must be as long as it said."""

    def __init__(self, address: str, start: int) -> None:
        self._answer = urlopen(_request(address, start=start), timeout=PATIENCE.stall)
        self._left = self._answer.length  # None where it is not told
        if start and self._answer.status != 206:  # it sends all of it again
            while start:
                start -= len(self.read(min(start, 2**20)) or self._broken_off())

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes. Raises ``ConnectionError`` where fewer come than were promised."""
        content: bytes = self._answer.read(size if size >= 0 else None)
        if self._left is not None:
            self._left -= len(content)
            if self._left and (size < 0 or (size and not content)):
                self._broken_off()
        return content

    def close(self) -> None:
        """Lets go of the connection."""
        self._answer.close()
        super().close()

    def _broken_off(self) -> bytes:
        raise ConnectionError("the connection broke off")


def _opened(address: str, start: int) -> IO[bytes]:
    if address.lower().startswith(_WEB):
        return _Answer(address, start)  # type: ignore[return-value]
    files, path = _store(address)
    file: IO[bytes] = files.open(path, "rb")
    file.seek(start)
    return file


def _request(address: str, method: str = "GET", start: int = 0) -> Request:
    headers = {"User-Agent": "effnet"} | ({"Range": f"bytes={start}-"} if start else {})
    return Request(quote(address, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers, method=method)


def _store(address: str) -> tuple[Any, str]:
    """The file system of ``address``, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise ImportError(
            f'{address} is read through fsspec, which is not here: pip install "effnet[remote]"'
        ) from None
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:  # "Install s3fs to access S3"
        raise ImportError(f"{address} cannot be read: {str(error).lower()}, with pip") from None
    except ValueError as error:
        raise ValueError(f"{address} is no address that can be read: {error}") from None
    return found


def _below(files: Any, path: str, address: str) -> Iterator[str]:
    """All below a folder that is not hidden, nor a text or a table: its own files first, then its folders."""
    entries = _patiently(address, lambda: files.ls(path, detail=True))
    found = sorted((entry["name"].rstrip("/"), entry["type"]) for entry in entries)
    del entries  # a store tells much of each file
    inside = [(name, kind) for name, kind in found if name != path and not os.path.basename(name).startswith(".")]
    for name, kind in inside:
        if kind == "file" and not _passed_over(name):
            yield files.unstrip_protocol(name)
    for name, kind in inside:
        if kind == "directory":
            yield from _below(files, name, address)


def _passed_over(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in COMPANIONS


def _patiently(address: str, call: Callable[[], Out], patience: Patience | None = None) -> Out:
    """``call()``, again and again while that may help; its errors become sentences, `StoreError` once it did not."""
    patience = patience or PATIENCE
    for left in reversed(range(patience.tries)):
        try:
            return call()
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # every store has its own kinds
            why = f"{address} cannot be read: {reason(error)}"
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{address} does not exist") from None
            if final(error) or isinstance(error, _NEVER):
                raise OSError(why) from None
            if not left or unreachable(error) or not isinstance(error, (OSError, HTTPException, RuntimeError)):
                raise StoreError(why) from None
            time.sleep(patience.pause * 2 ** (patience.tries - 1 - left))
    raise AssertionError("a try returns or raises")
