"""What every answer has in common: counted, safe to show in a browser, and read by a client that is still sending."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from effnet.serve.metrics import Metrics
from effnet.timing import Stopwatch

# The page's scripts, styles and requests are its own; diagrams carry their style with them, and pictures are made here
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 4_000_000


class ResponseMiddleware:
    """ASGI middleware around the whole application.

    Where a body is refused before it has been read, the answer goes out at once, what is still coming is read for a
    moment and thrown away, and then the connection is closed: closed at once, it would be reset, and a client that is
    still sending would never see the answer (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watch, status, coming = Stopwatch(), 500, _has_body(scope)

        async def receiving() -> Message:
            nonlocal coming
            message = await receive()
            coming = coming and bool(message.get("more_body"))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if coming else []
                message = {**message, "headers": [*message.get("headers", ()), *_SECURITY_HEADERS, *closing]}
            elif coming and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard_body(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.count_request(path, status, watch.seconds)


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
