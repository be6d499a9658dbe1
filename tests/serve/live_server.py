"""A real server on a free port, in a thread of this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from effnet.serve.server import make_server
from tests.serve.conftest import Running

PATIENCE = 30.0


class Live:
    """A server that runs, and may be stopped as a signal stops it."""

    def __init__(self, running: Running, port: int = 0) -> None:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        self.port: int = bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        ready = Event()
        self._server = make_server(running.app, running.desk.limits.timeout_seconds, ready.set)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [bound]}, daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)

    def stop(self) -> None:
        """As SIGTERM does; returns when it has ended."""
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def live(running: Running, port: int = 0) -> Iterator[Live]:
    made = Live(running, port)
    try:
        yield made
    finally:
        made.stop()
