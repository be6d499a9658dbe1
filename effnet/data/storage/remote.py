"""Remote files: ``http(s)://``, ``s3://``, ``gs://`` and every other protocol that fsspec knows."""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, Self, TypeVar

from effnet.data import folders, image_io
from effnet.data.storage.errors import HTTPStatusError, RetryPolicy, describe_error, is_permanent, is_unreachable

Out = TypeVar("Out")

DEFAULT_RETRY = RetryPolicy()
_VERSION_KEYS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
_CHUNK_BYTES = 2**20


class RemoteStoreError(OSError):
    """A remote store did not answer several attempts; it may do so later."""


def is_remote(name: str) -> bool:
    """Return whether ``name`` is a URL: ``https://…``, ``s3://…``, ``memory://…``."""
    scheme, found, _ = name.partition("://")
    return bool(found) and len(scheme) > 1 and scheme.isascii() and scheme.replace("+", "").isalnum()


def is_web(url: str) -> bool:
    """Return whether ``url`` is read over HTTP, where folders cannot be listed."""
    return url.lower().startswith(("http://", "https://"))


def list_remote_files(url: str) -> Iterator[str]:
    """Yield the URLs that ``url`` stands for, sorted: itself, the matches of a pattern, or all files below a folder.

    Holds only one folder's names at a time. Raises ``FileNotFoundError`` if there is nothing, ``ImportError`` if the
    store's package is not installed, `RemoteStoreError` if the store does not answer.
    """
    if is_web(url):
        yield url
        return
    files, path = _get_filesystem(url)
    if any(sign in path for sign in "*?["):
        matches = retry_remote(url, lambda: sorted(files.glob(path)))
        yield from (files.unstrip_protocol(name) for name in matches if folders.may_be_image(name))
    elif not url.endswith("/") and retry_remote(url, lambda: files.isfile(path)):
        yield url
    else:
        yield from _walk(files, path.rstrip("/"), url)


def content_version(url: str) -> str:
    """Return what tells two contents of a file or URL apart (size, ETag, date), or "" if that is not known."""
    with suppress(Exception):  # reading the file will say what is wrong
        if not is_remote(url):
            status = os.stat(url)
            return f"{status.st_size} {status.st_mtime_ns}"
        if is_web(url):
            with open_http(url, method="HEAD") as response:
                names = ("Content-Length", "ETag", "Last-Modified")
                return " ".join(response.headers[name] for name in names if name in response.headers)
        files, path = _get_filesystem(url)
        info = files.info(path)
        return " ".join(str(info[key]) for key in _VERSION_KEYS if key in info)
    return ""


def read_remote_file(url: str, retry: RetryPolicy | None = None) -> bytes | image_io.ImageError:
    """Return an image's bytes, or why there are none. Raises `RemoteStoreError` if a store (not the web) is down."""

    def read() -> bytes:
        parts, left = [], image_io.MAX_IMAGE_BYTES + 1
        with open_remote(url, retry=retry) as file:
            while left and (part := file.read(min(left, _CHUNK_BYTES))):  # a raw file may return fewer bytes
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    try:
        content = retry_remote(url, read, retry)
    except RemoteStoreError as error:
        if not is_web(url):
            raise
        return image_io.ImageError(str(error))
    except (OSError, ValueError) as error:
        return image_io.ImageError(str(error))
    return image_io.too_large_error(url) if len(content) > image_io.MAX_IMAGE_BYTES else content


def open_remote(url: str, offset: int = 0, retry: RetryPolicy | None = None) -> IO[bytes]:
    """Open a remote file for reading from byte ``offset`` on, without retries.

    Over HTTP it is one request; if the server ignores the range, the bytes before it are skipped.
    """
    if not is_web(url):
        files, path = _get_filesystem(url)
        file: IO[bytes] = files.open(path, "rb")
        file.seek(offset)
        return file
    headers = {"Range": f"bytes={offset}-"} if offset else None
    response = open_http(url, headers, timeout=(retry or DEFAULT_RETRY).timeout)
    skip = offset if response.status != 206 else 0
    while skip:
        skipped = len(response.read(min(skip, _CHUNK_BYTES)))
        if not skipped:
            raise ConnectionError("the file has become shorter")
        skip -= skipped
    return response  # type: ignore[return-value]


def open_http(
    url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", timeout: float | None = None
) -> "HTTPResponse":
    """Send one request and return the response, whose body has not been read yet.

    ``timeout``: seconds to wait for a connection and for each further byte. Raises ``FileNotFoundError`` for status
    404, `HTTPStatusError` for the server's other errors, ``ValueError`` for an invalid URL, and ``OSError``.
    """
    import aiohttp
    from fsspec.asyn import sync

    files, _ = _get_filesystem(url)
    seconds = timeout or DEFAULT_RETRY.timeout

    async def request() -> Any:
        session = await files.set_session()
        response = await session.request(
            method,
            files.encode_url(url),
            headers={"User-Agent": "effnet", "Accept-Encoding": "identity", **(headers or {})},
            allow_redirects=True,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds),
        )
        if response.status >= 400:
            response.close()
        return response

    with _translate_http_errors(url):
        response = sync(files.loop, request)
    if response.status == 404:
        raise FileNotFoundError(f"{url} does not exist")
    if response.status >= 400:
        raise HTTPStatusError(response.status)
    return HTTPResponse(url, response, files.loop)


class HTTPResponse:
    """An HTTP response: ``status``, ``headers``, and a body to be read once."""

    def __init__(self, url: str, response: Any, loop: Any) -> None:
        self.url, self.status, self.headers = url, int(response.status), response.headers
        self._response, self._loop, self._is_at_end = response, loop, False

    @property
    def length(self) -> int | None:
        """Bytes of the body, or None if the server does not say."""
        length = self.headers.get("Content-Length")
        return int(length) if length and length.isdigit() else None

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, b"" at the end. Raises ``ConnectionError`` if the body breaks off."""
        from fsspec.asyn import sync

        body = self._response.content

        async def receive() -> bytes:
            try:
                content: bytes = await body.read(size)
            except Exception:  # aiohttp raises this before it gives out what has arrived, which is then lost
                content = body._read_nowait(size)
                if not content:
                    raise
            return content

        if self._is_at_end:
            return b""
        with _translate_http_errors(self.url):
            received: bytes = sync(self._loop, receive)
        self._is_at_end = bool(size) and not received
        return received

    def close(self) -> None:
        """Close the connection."""
        with suppress(RuntimeError):  # the loop is gone when the interpreter exits
            self._loop.call_soon_threadsafe(self._response.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def _translate_http_errors(url: str) -> Iterator[None]:
    """Turn aiohttp's errors, some of which are no ``OSError``, into Python's own."""
    import aiohttp

    try:
        yield
    except ValueError as error:
        raise ValueError(f"not a valid URL: {error}") from error
    except aiohttp.TooManyRedirects as error:
        raise OSError("the server redirects in circles") from error
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError) as error:
        raise ConnectionError("the connection broke off") from error


class ResumingReader(io.RawIOBase):
    """A remote file read once from start to end; if the connection breaks off, it is reopened at the same place."""

    def __init__(self, url: str) -> None:
        self.url, self.position = url, 0
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as any raw file does. Raises `RemoteStoreError` if the file cannot be read on."""
        content = retry_remote(self.url, lambda: self._read_chunk(len(buffer)))
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        super().close()

    def _read_chunk(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = open_remote(self.url, self.position)
            return self._file.read(size)
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        with suppress(Exception):
            if self._file is not None:
                self._file.close()
        self._file = None


def retry_remote(url: str, call: Callable[[], Out], retry: RetryPolicy | None = None) -> Out:
    """Return ``call()``, repeated while that may help; raise `RemoteStoreError` if another day may, or ``OSError``."""
    retry = retry or DEFAULT_RETRY
    for attempt in range(retry.attempts):
        try:
            return call()
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # each store has errors of its own
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{url} does not exist") from None
            message = f"{url} cannot be read: {describe_error(error)}"
            if is_permanent(error):
                raise OSError(message) from None
            last = attempt == retry.attempts - 1
            if last or is_unreachable(error) or not isinstance(error, (OSError, RuntimeError)):
                raise RemoteStoreError(message) from None
            time.sleep(retry.backoff * 2**attempt)
    raise AssertionError("an attempt returns or raises")


def _get_filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    options = {"client_kwargs": {"trust_env": True}} if is_web(url) else {}
    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:  # "Install s3fs to access S3"
        raise ImportError(f"{url} cannot be read: {str(error).lower()}, with pip") from None
    except ValueError as error:
        raise ValueError(f"{url} is not a URL that can be read: {error}") from None
    return files, path


def _walk(files: Any, path: str, url: str) -> Iterator[str]:
    """Yield the files below a folder except hidden ones, texts and tables: its own first, then its folders'."""
    entries = retry_remote(url, lambda: files.ls(path, detail=True))
    found = sorted((entry["name"].rstrip("/"), entry["type"]) for entry in entries)
    del entries  # some stores send much about each file
    inside = [(name, kind) for name, kind in found if name != path and not os.path.basename(name).startswith(".")]
    for name, kind in inside:
        if kind == "file" and folders.may_be_image(name):
            yield files.unstrip_protocol(name)
    for name, kind in inside:
        if kind == "directory":
            yield from _walk(files, name, url)
