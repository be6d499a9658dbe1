"""ASGI middleware: request metrics, security headers, and early responses to clients that are still sending."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
]
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 4_000_000


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
                message = {**message, "headers": [*message.get("headers", ()), *_SECURITY_HEADERS, *close]}
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
