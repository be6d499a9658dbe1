"""uvicorn's HTTP/1.1, strict where strangers are slow or wrong, and patient when the server stops."""

from __future__ import annotations

import json
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_SHUTDOWN_GRACE_SECONDS = 0.3  # seconds for a request that is on its way when the server stops


def http_protocol(header_timeout: float) -> type[HttpToolsProtocol]:
    """The protocol in which a request's head must have come after so many ``seconds``."""

    class Protocol(HttpToolsProtocol):
        """One connection."""

        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **loop: Any) -> None:
            super().__init__(config, server_state, app_state, **loop)
            self._late: TimerHandle | None = None
            self._stopping = False

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._await_head()

        def on_headers_complete(self) -> None:
            self._head_came()
            super().on_headers_complete()
            if self._stopping:
                self.cycle.keep_alive = False

        def shutdown(self) -> None:
            # A request may be on its way here, on a connection that was kept open for it
            self._stopping = True
            if self.cycle is None or self.cycle.response_complete:
                self.loop.call_later(_SHUTDOWN_GRACE_SECONDS, super().shutdown)
            else:
                super().shutdown()

        def send_400_response(self, msg: str) -> None:
            self._refuse(b"400 Bad Request", "this is no HTTP request")

        def _await_head(self) -> None:
            self._head_came()
            self._late = self.loop.call_later(header_timeout, self._too_late)

        def _head_came(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _too_late(self) -> None:
            self._refuse(b"408 Request Timeout", f"the request's head did not come within {header_timeout:g} seconds")

        def _refuse(self, status: bytes, sentence: str) -> None:
            if self.transport.is_closing():
                return
            body = json.dumps({"error": sentence}).encode()
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
            self.transport.close()

    return Protocol


# uvicorn, as this program runs it.


def make_server(app: ASGIApp, timeout_seconds: float, ready: Callable[[], None]) -> uvicorn.Server:
    """What serves ``app`` on the sockets that its ``run`` is given, until a signal ends it.

    ``seconds``: in which a request's head must have come; its body and its answer have as long each. ``ready`` is
    called when it serves.
    """
    config = uvicorn.Config(
        app,
        http=http_protocol(timeout_seconds),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(3 * timeout_seconds) + 5,  # what has not ended by then never will
    )
    return _AnnouncingServer(config, ready)


class _AnnouncingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
