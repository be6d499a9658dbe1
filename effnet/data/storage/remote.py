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

from effnet.data.folders import NON_IMAGE_SUFFIXES
from effnet.data.image_io import MAX_IMAGE_BYTES, ImageError
from effnet.data.storage.errors import RetryPolicy, describe_error, is_permanent, is_unreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Out = TypeVar("Out")

DEFAULT_RETRY = RetryPolicy()
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
_VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
_WEB_SCHEMES = ("http://", "https://")


class RemoteStoreError(OSError):
    """A store could not be asked, though it was asked several times: another day it may answer."""


def is_remote(name: str) -> bool:
    """Whether ``name`` is an address: ``https://…``, ``s3://…``, ``memory://…``."""
    scheme, found, _ = name.partition("://")
    return bool(found) and len(scheme) > 1 and scheme.isascii() and scheme.replace("+", "").isalnum()


def list_remote_files(address: str) -> Iterator[str]:
    """The addresses that ``address`` means: itself, what matches it, or all that lies below it, sorted.

    A folder's names are held while it is read, and no others. Raises ``FileNotFoundError`` where there is nothing,
    ``ImportError`` for a store whose package is missing, `StoreError` for one that does not answer.
    """
    if address.lower().startswith(_WEB_SCHEMES):
        yield address
        return
    files, path = _get_filesystem(address)
    if any(sign in path for sign in "*?["):
        found = _with_retries(address, lambda: sorted(files.glob(path)))
        yield from (files.unstrip_protocol(name) for name in found if not _is_not_image(name))
    elif not address.endswith("/") and _with_retries(address, lambda: files.isfile(path)):
        yield address
    else:
        yield from _walk(files, path.rstrip("/"), address)


def remote_version(address: str) -> str:
    """What tells one content of the file from another, as far as its server says; "" where it says nothing."""
    with suppress(Exception):  # reading it will say what is wrong
        if not address.lower().startswith(_WEB_SCHEMES):
            files, path = _get_filesystem(address)
            said = files.info(path)
            return " ".join(str(said[key]) for key in ("size", *_VERSION_KEYS) if key in said)
        with urlopen(_request(address, "HEAD"), timeout=DEFAULT_RETRY.timeout) as answer:
            said = answer.headers
            return " ".join(filter(None, (said[key] for key in ("Content-Length", "ETag", "Last-Modified"))))
    return ""


def read_remote_image(address: str, retry: RetryPolicy | None = None) -> bytes | ImageError:
    """The content of a picture, or why there is none. Raises `StoreError` where a store, no web server, is down."""

    def read() -> bytes:
        with _open_remote(address, 0) as file:
            return file.read(MAX_IMAGE_BYTES + 1)

    try:
        content = _with_retries(address, read, retry)
    except RemoteStoreError as error:
        if not address.lower().startswith(_WEB_SCHEMES):
            raise
        return ImageError(str(error))
    except (OSError, ValueError) as error:
        return ImageError(str(error))
    if len(content) > MAX_IMAGE_BYTES:
        return ImageError(f"{address} is larger than {MAX_IMAGE_BYTES // 2**20} MiB: no picture is expected to be")
    return content


class ResumingReader(io.RawIOBase):
    """A file elsewhere, read once from end to end; where the connection breaks off it is opened there again."""

    def __init__(self, address: str, retry: RetryPolicy | None = None) -> None:
        self.address, self.retry, self.position = address, retry, 0
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As of any raw file. Raises `StoreError` where it cannot be read on."""
        view = memoryview(buffer)
        content = _with_retries(self.address, lambda: self._read_chunk(len(view)), self.retry)
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def close(self) -> None:
        """Lets go of the connection."""
        self._disconnect()
        super().close()

    def _read_chunk(self, most: int) -> bytes:
        try:
            if self._file is None:
                self._file = _open_remote(self.address, self.position)
            return self._file.read(most)
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        with suppress(Exception):
            if self._file is not None:
                self._file.close()
        self._file = None


class _HttpResponse(io.RawIOBase):
    """What a web server sends, which must be as long as it said."""

    def __init__(self, address: str, start: int) -> None:
        self._response = urlopen(_request(address, start=start), timeout=DEFAULT_RETRY.timeout)
        self._remaining = self._response.length  # None where it is not told
        if start and self._response.status != 206:  # it sends all of it again
            while start:
                start -= len(self.read(min(start, 2**20)) or self._raise_disconnected())

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes. Raises ``ConnectionError`` where fewer come than were promised."""
        content: bytes = self._response.read(size if size >= 0 else None)
        if self._remaining is not None:
            self._remaining -= len(content)
            if self._remaining and (size < 0 or (size and not content)):
                self._raise_disconnected()
        return content

    def close(self) -> None:
        """Lets go of the connection."""
        self._response.close()
        super().close()

    def _raise_disconnected(self) -> bytes:
        raise ConnectionError("the connection broke off")


def _open_remote(address: str, start: int) -> IO[bytes]:
    if address.lower().startswith(_WEB_SCHEMES):
        return _HttpResponse(address, start)  # type: ignore[return-value]
    files, path = _get_filesystem(address)
    file: IO[bytes] = files.open(path, "rb")
    file.seek(start)
    return file


def _request(address: str, method: str = "GET", start: int = 0) -> Request:
    headers = {"User-Agent": "effnet"} | ({"Range": f"bytes={start}-"} if start else {})
    return Request(quote(address, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers, method=method)


def _get_filesystem(address: str) -> tuple[Any, str]:
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


def _walk(files: Any, path: str, address: str) -> Iterator[str]:
    """All below a folder that is not hidden, nor a text or a table: its own files first, then its folders."""
    entries = _with_retries(address, lambda: files.ls(path, detail=True))
    found = sorted((entry["name"].rstrip("/"), entry["type"]) for entry in entries)
    del entries  # a store tells much of each file
    inside = [(name, kind) for name, kind in found if name != path and not os.path.basename(name).startswith(".")]
    for name, kind in inside:
        if kind == "file" and not _is_not_image(name):
            yield files.unstrip_protocol(name)
    for name, kind in inside:
        if kind == "directory":
            yield from _walk(files, name, address)


def _is_not_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in NON_IMAGE_SUFFIXES


def _with_retries(address: str, call: Callable[[], Out], retry: RetryPolicy | None = None) -> Out:
    """``call()``, again and again while that may help; its errors become sentences, `StoreError` once it did not."""
    retry = retry or DEFAULT_RETRY
    for left in reversed(range(retry.attempts)):
        try:
            return call()
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # every store has its own kinds
            why = f"{address} cannot be read: {describe_error(error)}"
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{address} does not exist") from None
            if is_permanent(error) or isinstance(error, _PERMANENT_ERRORS):
                raise OSError(why) from None
            if not left or is_unreachable(error) or not isinstance(error, (OSError, HTTPException, RuntimeError)):
                raise RemoteStoreError(why) from None
            time.sleep(retry.backoff * 2 ** (retry.attempts - 1 - left))
    raise AssertionError("a try returns or raises")
