"""Running the server: limits, the socket, uvicorn with a request timeout, and graceful shutdown.

The web framework is imported when a server starts, so that a missing package is one sentence.
"""

import ipaddress
import json
import logging
import re
import signal
import socket
import sys
import threading
from asyncio import BufferedProtocol, TimerHandle, Transport
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet.arch.serde import check_float, check_int

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from effnet.net import EfficientNet
    from effnet.runtime.foreign_onnx import OnnxFile
    from effnet.serve.models import ServedModel

MAX_HEAD_BYTES = 65_536  # of a request's line and headers, of its trailers, and of a chunk's extensions
MAX_CONNECTIONS, _BACKLOG = 1000, 128
_READ_BYTES = 16_384  # parsed at once, before other connections have their turn
_SHUTDOWN_GRACE_SECONDS = 0.3  # for a request that is on its way when the server stops
URL_TOO_LONG = f"the request's URL is longer than {MAX_HEAD_BYTES // 1024} KiB: shorten it"
HEADERS_TOO_LARGE = f"the request's headers are larger than {MAX_HEAD_BYTES // 1024} KiB: send fewer"
_PROTOCOL_ERRORS = {  # of what cannot be parsed: status line, message
    400: ("400 Bad Request", "malformed HTTP request"),
    414: ("414 URI Too Long", URL_TOO_LONG),
    431: ("431 Request Header Fields Too Large", HEADERS_TOO_LARGE),
    501: ("501 Not Implemented", "of the transfer encodings only chunked is supported: send the image as it is"),
}
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServerLimits:
    """Limits of a server, for all its models together.

    ``queue_size`` counts images that have arrived and are not answered yet; with those still arriving, they hold no
    more bytes than this many of the largest. Raises ``ValueError`` for values out of range.
    """

    queue_size: int = 64
    max_bytes: int = 32_000_000  # of an image file
    max_pixels: int = 100_000_000  # by its header; 300 MB as RGB: any phone's photo, and no decompression bomb
    timeout_seconds: float = 30.0  # for an image to arrive, and again for it to be answered
    batch_wait_seconds: float = 0.0  # of an idle network, for a fuller batch

    def __post_init__(self) -> None:
        check_int("queue_size", self.queue_size, 1)
        check_int("max_bytes", self.max_bytes, 1)
        check_int("max_pixels", self.max_pixels, 1)
        check_float("timeout_seconds", self.timeout_seconds, 0, exclusive=True)
        check_float("batch_wait_seconds", self.batch_wait_seconds, 0, 10)


def serve(
    sources: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: str = "auto",
    batch_size: int | None = None,
    limits: ServerLimits | None = None,
    ready: Callable[[str], None] = lambda line: None,
    labels: Sequence[str] | None = None,
    open_source: Callable[[str], "str | EfficientNet | OnnxFile"] = lambda source: source,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serve models until SIGTERM or Ctrl+C, and answer every accepted request before returning.

    Args:
        sources: Models, as `effnet.serve.models.name_models` takes them.
        host: Address to listen on.
        port: 0 for any free one.
        engine: As of `effnet.Predictor`.
        batch_size: Largest batch; None for the one with the highest throughput.
        limits: What the server accepts.
        ready: Called with one line for a person once the server answers.
        labels: Names of the outputs, instead of the models' own.
        open_source: Called with the source of each model; returns the network, or the source to open it as stated.
        allow_hosts: Names by which clients reach the server, ``*.example.com`` for all below it, ``*`` for any. On a
            loopback address its own names are allowed and no others; on any other address all, unless some are given.

    Raises:
        ImportError: If a package is missing.
        ValueError: If the port is not available, and what `effnet.serve.models.ServedModel` raises.
    """
    try:
        import uvicorn  # noqa: F401

        from effnet.serve.app import create_app
        from effnet.serve.metrics import Metrics
        from effnet.serve.models import ServedModel, name_models
        from effnet.serve.request_queue import RequestQueue
    except ImportError as error:
        raise ImportError(f'serving requires {error.name}: pip install "effnet[serve]"') from None
    limits, named = limits or ServerLimits(), name_models(sources)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # or it logs every malformed form
    with closing(_bind_socket(host, port)) as listening:  # before the models are loaded, which takes a while
        hosts = _allowed_hosts(host, listening.getsockname()[0], allow_hosts)
        metrics, models = Metrics(), {}
        for name, source in named.items():
            observer = metrics.batch_observer(name)
            how = (engine, batch_size, limits.batch_wait_seconds, observer, labels, open_source)
            models[name] = ServedModel(name, source, *how)
        with closing(RequestQueue(models, limits)) as queue:
            server = make_server(create_app(queue, metrics, hosts), limits.timeout_seconds)
            with _stop_on_sigterm(server):
                listening.listen()  # from here on connections wait for uvicorn
                ready(_startup_message(models, host, listening.getsockname()[1]))
                server.run(sockets=[listening])


def make_server(app: "ASGIApp", timeout_seconds: float) -> "uvicorn.Server":
    """Return a uvicorn server whose requests have that long for their headers, body and response each."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=_http_protocol(timeout_seconds),
        loop="asyncio",  # uvloop reads 32 times from one connection before it turns to the next
        h11_max_incomplete_event_size=MAX_HEAD_BYTES - _READ_BYTES,  # one more read may complete it
        backlog=_BACKLOG,  # as many are accepted at once, before any is refused
        ws="none",
        lifespan="off",
        log_level="error",  # its warnings are about requests, and strangers could fill the log with them
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on what a client says about itself
        timeout_graceful_shutdown=round(3 * timeout_seconds) + 5,  # what has not ended by then never will
    )
    return uvicorn.Server(config)


def _http_protocol(head_timeout: float) -> type[Any]:
    """Return uvicorn's HTTP protocol with what it lacks: a time limit for headers, and JSON for malformed requests.

    Without the limit, clients that send nothing, or a byte now and then, hold their connections forever. The parser is
    h11, since it bounds what it keeps: headers, trailers, chunk extensions and pipelined requests.
    """
    import h11
    from uvicorn.protocols.http.flow_control import CLOSE_HEADER
    from uvicorn.protocols.http.h11_impl import H11Protocol

    max_connections = _max_connections()

    class Protocol(H11Protocol, BufferedProtocol):
        """One connection."""

        _timer: TimerHandle | None = None
        _stopping = False

        def get_buffer(self, sizehint: int) -> bytearray:
            self._buffer = bytearray(_READ_BYTES)
            return self._buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data_received(bytes(self._buffer[:nbytes]))

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start_timer()
            if len(self.connections) > max_connections:
                self._close_with("503 Service Unavailable", "the server has too many connections: retry in a second")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.conn.their_state is not h11.MUST_CLOSE:  # what follows a connection's last request is no error
                super().data_received(data)

        def handle_events(self) -> None:
            super().handle_events()
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._timer is None and self.conn.trailing_data[0]:  # the beginning of the next request
                self._start_timer()
            if self._stopping:
                self._announce_close()

        def shutdown(self) -> None:
            # The next request may already be on its way on a connection that was kept open
            self._stopping = True
            self._announce_close()
            self.loop.call_later(_SHUTDOWN_GRACE_SECONDS, self._shut_down_now)

        def send_400_response(self, msg: str) -> None:
            status = getattr(sys.exception(), "error_status_hint", 400)  # called where h11's error is handled
            if status == 431 and self._between_requests() and b"\n" not in self.conn.trailing_data[0]:
                status = 414
            self._close_with(*_PROTOCOL_ERRORS.get(status, _PROTOCOL_ERRORS[400]))

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _announce_close(self) -> None:
            """Close after the response, and say so in it: h11's protocol would close without a word."""
            if self.cycle is not None and not self.cycle.response_started:
                self.cycle.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]

        def _shut_down_now(self) -> None:
            if not self.transport.is_closing():
                super().shutdown()

        def _start_timer(self) -> None:
            message = f"the request's headers did not arrive within {head_timeout:g} seconds"
            self._timer = self.loop.call_later(head_timeout, self._close_with, "408 Request Timeout", message)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close_with(self, status: str, message: str) -> None:
            """Close the connection after a response, unless the one to an earlier part of the request has begun."""
            if self.transport.is_closing():
                return
            if self._between_requests() or not self.cycle.response_started:
                body = json.dumps({"error": message})
                head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
                self.transport.write(f"HTTP/1.1 {status}\r\n{head}\r\n{body}".encode())
            if self.cycle is not None:
                self.cycle.disconnected = True
            self.transport.close()

    return Protocol


def _max_connections() -> int:
    """Return `MAX_CONNECTIONS`, or fewer where the process may not open twice as many files.

    Without a file left, no connection could be accepted, and asyncio would log thousands of errors per second.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files < 0 else min(MAX_CONNECTIONS, files // 2)


def _bind_socket(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"cannot resolve {host} ({error.strerror}): give an address of this machine") from None
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(f"cannot bind {host}:{port} ({error.strerror}): choose another --port") from None
    return bound


def _allowed_hosts(host: str, address: str, allow_hosts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names by which a server bound to ``host``, which is ``address``, may be called, or None for any."""
    for each in allow_hosts:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+|\[[0-9A-Fa-f:.]+\]", each):
            raise ValueError(f"--allow-host {each}: give a name such as example.com or *.example.com, without a port")
    is_loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if "*" in allow_hosts or not (is_loopback or allow_hosts):
        return None
    bound = {f"[{each}]" if ":" in each else each for each in (host, address)}
    return (*_LOOPBACK_HOSTS, *sorted(bound), *allow_hosts)


def _startup_message(models: "Mapping[str, ServedModel]", host: str, port: int) -> str:
    predictors = {name: model.predictor for name, model in models.items()}
    described = [f"{name} ({p.engine.kind}, batches of up to {p.batch_size})" for name, p in predictors.items()]
    shown_host = f"[{host}]" if ":" in host else host
    return f"serving {', '.join(described)} at http://{shown_host}:{port}; stop with Ctrl+C"


@contextmanager
def _stop_on_sigterm(server: "uvicorn.Server") -> Iterator[None]:
    """Stop ``server`` on a SIGTERM before its own handler is there, or raised again after it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
