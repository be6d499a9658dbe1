"""ASGI middleware: whom the server answers, metrics, security headers, and responses to clients still sending."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from effnet.serve import errors, server
from effnet.serve.metrics import Metrics
from effnet.timing import Stopwatch

# The page's scripts, styles and requests are its own; diagrams carry their style, and images are created in the browser
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 4_000_000
_HOST_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[^][:@/\s]+?)\.?(:\d{1,5})?")  # name or address, and port


class RequestFilter:
    """ASGI middleware that refuses requests by their head: one that is too large, or that names another host.

    ``allowed_hosts``: names and addresses, ``*.example.com`` for all below it, None for any. A page of a stranger whose
    name is pointed at this server (DNS rebinding) could otherwise read what it answers, in the browser of someone who
    reaches it. Proxies' headers, such as X-Forwarded-Host, do not count.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] | None) -> None:
        self.app = app
        self.allowed_hosts = None if allowed_hosts is None else tuple(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI defines it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await errors.error_response(*refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        url_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        if url_bytes > server.MAX_HEAD_BYTES:  # within what the parser has read at once
            return 414, server.URL_TOO_LONG
        if url_bytes + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > server.MAX_HEAD_BYTES:
            return 431, server.HEADERS_TOO_LARGE
        if self.allowed_hosts is None:
            return None
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) == 1 and self._is_allowed(given[0].lower()):
            return None
        shown = f"to the host {given[0][:80]!r}" if given else "without a Host header"
        remedy = "use the address that it was started with, or start it with --allow-host NAME"
        return 400, f"this server does not answer {shown}: {remedy}"

    def _is_allowed(self, host_header: str) -> bool:
        match, allowed = _HOST_HEADER.fullmatch(host_header), self.allowed_hosts or ()
        if match is None:
            return False
        host = match[1]
        return host in allowed or any(each[:1] == "*" and host.endswith(each[1:]) for each in allowed)


class ResponseMiddleware:
    """ASGI middleware around the whole application.

    Where a body is refused before it has been read, the response is sent at once, what still arrives is read for a
    moment and discarded, and then the connection is closed: closed at once, it would be reset, and a client that is
    still sending would never see the response (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI defines it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watch, status, more_body = Stopwatch(), 500, _has_body(scope)

        async def receive_body() -> Message:
            nonlocal more_body
            message = await receive()
            more_body = more_body and bool(message.get("more_body"))
            return message

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                close = [(b"connection", b"close")] if more_body else []
                headers = map(_make_redirect_relative, message.get("headers", ()))
                message = {**message, "headers": [*headers, *_SECURITY_HEADERS, *close]}
            elif more_body and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard_body(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self.app(scope, receive_body, send_response)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.count_request(path, status, watch.seconds)


def _make_redirect_relative(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the header, without the host if it is a redirect: that one was named by the client, or by its proxy."""
    if header[0] != b"location":
        return header
    url = urlsplit(header[1])
    path = b"/" + url.path.lstrip(b"/")  # two slashes would begin with a host
    return b"location", path + (b"?" + url.query if url.query else b"")


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _discard_body(receive: Receive) -> None:
    left = _LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body"):
                    return
                left -= len(message["body"])
