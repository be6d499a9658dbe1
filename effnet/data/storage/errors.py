"""Why reading, writing or downloading failed, in words, and whether to try again."""

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server."""

    timeout: float = 20.0  # seconds without a byte, after which an attempt ends
    attempts: int = 5  # in a row without progress, after which the download ends
    backoff: float = 1.0  # seconds between two attempts, doubled each time


class HTTPStatusError(OSError):
    """A web server answered with an error status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{_HTTP_STATUS_MESSAGES.get(status, 'the server failed')} (status {status})")
        self.status = status


_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH)
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large for this disk",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied for the folder",
    errno.EPERM: "permission denied for the folder",
}
_HTTP_STATUS_MESSAGES = {
    401: "the server requires a login",
    403: "the server denies access",
    404: "the server has no such file",
    410: "the server no longer has the file",
    429: "the server received too many requests",
}
_RETRYABLE_STATUS = (408, 416, 425, 429)  # and 5xx
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
_UNREACHABLE_MESSAGES = {
    ssl.SSLCertVerificationError: "the server's certificate cannot be verified",
    socket.gaierror: "host not found; there may be no network",
    ConnectionRefusedError: "the server refuses connections",
}


def describe_error(error: BaseException) -> str:
    """Return the root cause of ``error`` as a phrase without a full stop."""
    for cause in _iter_causes(error):
        if (status := _http_status(cause)) is not None:
            return str(HTTPStatusError(status))
        for kind, message in _UNREACHABLE_MESSAGES.items():
            if isinstance(cause, kind):
                return message
        if isinstance(cause, TimeoutError):
            return "the server stopped responding"
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            return _DISK_ERRORS[cause.errno]
        if isinstance(cause, OSError) and cause.errno in _NO_ROUTE:
            return "no route to the host; there may be no network"
    if isinstance(error, (ConnectionError, HTTPException)):
        return "the connection broke off"
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__


def is_unreachable(error: BaseException) -> bool:
    """Return whether no server was reached at all, so that asking again soon is useless."""
    return any(
        isinstance(cause, tuple(_UNREACHABLE_MESSAGES)) or getattr(cause, "errno", None) in _NO_ROUTE
        for cause in _iter_causes(error)
    )


def is_permanent(error: BaseException) -> bool:
    """Return whether another attempt cannot help: the server refuses, or the disk does."""
    status = _http_status(error)
    if status is not None:
        return status < 500 and status not in _RETRYABLE_STATUS
    return isinstance(error, _PERMANENT_ERRORS) or any(
        isinstance(cause, OSError) and cause.errno in _DISK_ERRORS for cause in _iter_causes(error)
    )


def _http_status(error: BaseException) -> int | None:
    """Return the status code in an error of ours, of aiohttp (``status``) or of the hub's client (``response``)."""
    for status in (getattr(error, "status", None), getattr(getattr(error, "response", None), "status_code", None)):
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that it was raised from, nearest first."""
    visited: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in visited:
        visited.add(id(following))
        yield following
        inner = getattr(following, "reason", None)  # urllib's URLError keeps its cause there
        following = inner if isinstance(inner, BaseException) else following.__cause__ or following.__context__
