from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import effnet
from effnet.data.image_io import read_image

pytest.importorskip("fastapi", reason="serving needs fastapi")
import httpx

from effnet.serve.app import create_app
from effnet.serve.metrics import Metrics
from effnet.serve.models import ServedModel
from effnet.serve.request_queue import RequestQueue
from effnet.serve.server import ServerLimits
from tests.squares import squares, trained_on_squares

Client = httpx.AsyncClient
Serving = Callable[..., "Running"]


class Running:
    """An application with its parts."""

    def __init__(self, models: dict[str, ServedModel], limits: ServerLimits) -> None:
        self.metrics = Metrics()
        self.queue = RequestQueue(models, limits)
        self.app = create_app(self.queue, self.metrics)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield client


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that classifies six kinds of squares."""
    path: Path = effnet.save(trained_on_squares(), tmp_path_factory.mktemp("squares") / "model.safetensors")
    return path


@contextmanager
def serve_model(weights: Path, limits: ServerLimits = ServerLimits(), batch: int = 4) -> Iterator[Running]:  # noqa: B008 – frozen
    running = Running({"squares": ServedModel("squares", weights, "eager", batch, limits.batch_wait_seconds)}, limits)
    try:
        yield running
    finally:
        running.queue.close()


@pytest.fixture(scope="session")
def running(weights: Path) -> Iterator[Running]:
    with serve_model(weights) as made:
        yield made


def encode_image(array: NDArray[np.uint8], format: str = "PNG") -> bytes:
    out = BytesIO()
    Image.fromarray(array).save(out, format)
    return out.getvalue()


@pytest.fixture(scope="session")
def photos() -> list[tuple[bytes, str]]:
    """PNG files and their labels."""
    made = squares(24, seed=7)
    return [
        (encode_image(np.asarray(read_image(item.image))), made.labels.names[int(item.label)]) for item in made.items
    ]
