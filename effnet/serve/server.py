"""Running the server: limits, the socket, uvicorn with a request timeout, and graceful shutdown.

The web framework is imported when a server starts, so that a missing package is one sentence.
"""

import json
import logging
import signal
import socket
import threading
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet.arch.serde import check_float, check_int

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from effnet.net import EfficientNet
    from effnet.serve.models import ServedModel

_SHUTDOWN_GRACE_SECONDS = 0.3  # for a request that is on its way when the server stops


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
    open_source: Callable[[str], "str | EfficientNet"] = lambda source: source,
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
        metrics, models = Metrics(), {}
        for name, source in named.items():
            observer = metrics.batch_observer(name)
            how = (engine, batch_size, limits.batch_wait_seconds, observer, labels)
            models[name] = ServedModel(name, open_source(source), *how)
        with closing(RequestQueue(models, limits)) as queue:
            server = make_server(create_app(queue, metrics), limits.timeout_seconds)
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
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(3 * timeout_seconds) + 5,  # what has not ended by then never will
    )
    return uvicorn.Server(config)


def _http_protocol(header_timeout: float) -> type[Any]:
    """Return uvicorn's HTTP protocol with what it lacks: a time limit for headers, and JSON for malformed requests.

    Without the limit, clients that send nothing, or a byte now and then, hold their connections forever.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Protocol(HttpToolsProtocol):
        """One connection."""

        _timer: TimerHandle | None = None
        _stopping = False

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._start_timer()

        def on_headers_complete(self) -> None:
            self._stop_timer()
            super().on_headers_complete()
            if self._stopping:
                self.cycle.keep_alive = False

        def shutdown(self) -> None:
            # The next request may already be on its way on a connection that was kept open
            self._stopping = True
            if self.cycle is None or self.cycle.response_complete:
                self.loop.call_later(_SHUTDOWN_GRACE_SECONDS, super().shutdown)
            else:
                super().shutdown()

        def send_400_response(self, msg: str) -> None:
            self._close_with(b"400 Bad Request", "malformed HTTP request")

        def _start_timer(self) -> None:
            self._stop_timer()
            message = f"the request's headers did not arrive within {header_timeout:g} seconds"
            self._timer = self.loop.call_later(header_timeout, self._close_with, b"408 Request Timeout", message)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()

        def _close_with(self, status: bytes, message: str) -> None:
            if self.transport.is_closing():
                return
            body = json.dumps({"error": message}).encode()
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
            self.transport.close()

    return Protocol


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
