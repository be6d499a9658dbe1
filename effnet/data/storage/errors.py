"""How long to go on asking a server that does not answer, or that is busy."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from urllib.error import HTTPError


@dataclass(frozen=True)
class RetryPolicy:
    """How much waiting a server is worth.

    ``stall`` seconds without a byte end a try; ``tries`` in a row that bring nothing new end the download; between two
    there are ``pause`` seconds, doubled each time.
    """

    timeout: float = 20.0
    attempts: int = 5
    backoff: float = 1.0


# Why reading, writing or a download failed, in words.


_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.EFBIG: "the file is too large for this disk",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "the folder does not allow it",
    errno.EPERM: "the folder does not allow it",
}


_HTTP_STATUS_MESSAGES = {
    401: "the server wants a login",
    403: "the server does not allow it",
    404: "the server has no such file",
    410: "the server has no such file any more",
    429: "the server has had too many requests",
}


_RETRYABLE_STATUS = (408, 416, 425, 429)  # and 5xx: another time the answer may differ


def describe_error(error: BaseException) -> str:
    """What happened, without a full stop: of whatever lies at the bottom of ``error``."""
    for cause in _iter_causes(error):
        if isinstance(cause, HTTPError):
            return f"{_HTTP_STATUS_MESSAGES.get(cause.code, 'the server failed')} (status {cause.code})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the server's certificate cannot be verified"
        if isinstance(cause, socket.gaierror):
            return "its host cannot be found; there may be no network"
        if isinstance(cause, ConnectionRefusedError):
            return "the server refuses connections"
        if isinstance(cause, TimeoutError):
            return "the server has stalled"
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            return _DISK_ERRORS[cause.errno]
        if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "there is no way to its host; there may be no network"
    if isinstance(error, (ConnectionError, HTTPException)):
        return "the connection broke off"
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__


def is_unreachable(error: BaseException) -> bool:
    """Whether there was nobody to ask: asking again soon would only take time."""
    kinds = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
    numbers = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return any(isinstance(cause, kinds) or getattr(cause, "errno", None) in numbers for cause in _iter_causes(error))


def is_permanent(error: BaseException) -> bool:
    """Whether another try cannot help: the server means no, or the disk does."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in _RETRYABLE_STATUS
    if isinstance(error, InvalidURL):
        return True
    return any(isinstance(cause, OSError) and cause.errno in _DISK_ERRORS for cause in _iter_causes(error))


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came from, nearest first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        inner = getattr(following, "reason", None)  # urllib's URLError keeps its cause there
        following = inner if isinstance(inner, BaseException) else following.__cause__ or following.__context__
