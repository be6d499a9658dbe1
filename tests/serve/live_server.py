"""A real server on a free port, in a thread of this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from effnet.serve.server import make_server
from tests.serve.conftest import Running

TIMEOUT = 30.0


class LiveServer:
    """A running server that can be stopped as a signal stops it."""

    def __init__(self, running: Running, port: int = 0) -> None:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.listen()
        self.port: int = bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._server = make_server(running.app, running.queue.limits.timeout_seconds)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [bound]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop as SIGTERM does; return when it has ended."""
        self._server.should_exit = True
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


@contextmanager
def live_server(running: Running, port: int = 0) -> Iterator[LiveServer]:
    server = LiveServer(running, port)
    try:
        yield server
    finally:
        server.stop()
