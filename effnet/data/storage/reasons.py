"""Why reading, writing or a download failed, in words."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException, InvalidURL
from urllib.error import HTTPError

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.EFBIG: "the file is too large for this disk",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "the folder does not allow it",
    errno.EPERM: "the folder does not allow it",
}
_STATUS = {
    401: "the server wants a login",
    403: "the server does not allow it",
    404: "the server has no such file",
    410: "the server has no such file any more",
    429: "the server has had too many requests",
}
_LATER = (408, 416, 425, 429)  # and 5xx: another time the answer may differ


def reason(error: BaseException) -> str:
    """What happened, without a full stop: of whatever lies at the bottom of ``error``."""
    for cause in _causes(error):
        if isinstance(cause, HTTPError):
            return f"{_STATUS.get(cause.code, 'the server failed')} (status {cause.code})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the server's certificate cannot be verified"
        if isinstance(cause, socket.gaierror):
            return "its host cannot be found; there may be no network"
        if isinstance(cause, ConnectionRefusedError):
            return "the server refuses connections"
        if isinstance(cause, TimeoutError):
            return "the server has stalled"
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return _DISK[cause.errno]
        if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "there is no way to its host; there may be no network"
    if isinstance(error, (ConnectionError, HTTPException)):
        return "the connection broke off"
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__


def unreachable(error: BaseException) -> bool:
    """Whether there was nobody to ask: asking again soon would only take time."""
    kinds = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
    numbers = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return any(isinstance(cause, kinds) or getattr(cause, "errno", None) in numbers for cause in _causes(error))


def final(error: BaseException) -> bool:
    """Whether another try cannot help: the server means no, or the disk does."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in _LATER
    if isinstance(error, InvalidURL):
        return True
    return any(isinstance(cause, OSError) and cause.errno in _DISK for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came from, nearest first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        inner = getattr(following, "reason", None)  # urllib's URLError keeps its cause there
        following = inner if isinstance(inner, BaseException) else following.__cause__ or following.__context__
