"""A server from its start to its end: the port taken, the models opened, every accepted request answered."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from effnet.serve.limits import ServerLimits

if TYPE_CHECKING:
    from effnet.serve.models import ServedModel


def serve(
    sources: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: str = "auto",
    batch_size: int | None = None,
    limits: ServerLimits | None = None,
    ready: Callable[[str], None] = lambda line: None,
) -> None:
    """Serves models until SIGTERM or Ctrl+C, and answers what it has accepted before it returns.

    ``sources``: as `effnet.serve.models.named` takes them. ``port`` 0 takes any that is free. ``ready`` is told one
    line for a person when the server answers. Raises ``ImportError`` where a package is missing, ``ValueError`` for a
    port that cannot be had, and what `effnet.serve.models.Served` raises.
    """
    try:
        from effnet.serve.app import create_app
        from effnet.serve.metrics import Metrics
        from effnet.serve.models import ServedModel, name_models
        from effnet.serve.request_queue import RequestQueue
        from effnet.serve.server import make_server
    except ImportError as error:
        raise ImportError(f'serving needs {error.name}, which is not here: pip install "effnet[serve]"') from None
    limits, places = limits or ServerLimits(), name_models(sources)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would tell of every stranger's broken form
    with closing(_bind_socket(host, port)) as listening:
        metrics, models = Metrics(), {}
        for name, source in places.items():
            models[name] = ServedModel(
                name, source, engine, batch_size, limits.batch_wait_seconds, metrics.batch_observer(name)
            )
        with closing(RequestQueue(models, limits)) as desk, _ignore_second_sigterm():
            line = _startup_message(models, host, listening.getsockname()[1])
            make_server(create_app(desk, metrics), limits.timeout_seconds, lambda: ready(line)).run(sockets=[listening])


def _bind_socket(host: str, port: int) -> socket.socket:
    """A socket on that port, taken before the models are opened, which takes a while."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"{host} is no address of this machine: {error.strerror}") from None
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(f"port {port} of {host} cannot be had ({error.strerror}): give another --port") from None
    return bound


def _startup_message(models: Mapping[str, ServedModel], host: str, port: int) -> str:
    """Which models, where, and how: "serving b0 (openvino, up to 8 at once) at http://127.0.0.1:8000"."""
    told = [
        f"{name} ({one.predictor.engine.kind}, up to {one.predictor.batch_size} at once)"
        for name, one in models.items()
    ]
    shown = f"[{host}]" if ":" in host else host
    return f"serving {', '.join(told)} at http://{shown}:{port}; stop with Ctrl+C"


@contextmanager
def _ignore_second_sigterm() -> Iterator[None]:
    """Within it SIGTERM, which uvicorn raises once more when it has stopped, does not end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
