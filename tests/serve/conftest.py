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
from effnet.serve.limits import ServerLimits
from effnet.serve.metrics import Metrics
from effnet.serve.models import ServedModel
from effnet.serve.request_queue import RequestQueue
from tests.squares import knowing, squares

Client = httpx.AsyncClient
Serving = Callable[..., "Running"]


class Running:
    """An application with what it is made of."""

    def __init__(self, models: dict[str, ServedModel], limits: ServerLimits) -> None:
        self.metrics = Metrics()
        self.desk = RequestQueue(models, limits)
        self.app = create_app(self.desk, self.metrics)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield client


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells six kinds of squares apart."""
    path: Path = effnet.save(knowing(), tmp_path_factory.mktemp("squares") / "model.safetensors")
    return path


@contextmanager
def served(weights: Path, limits: ServerLimits = ServerLimits(), batch: int = 4) -> Iterator[Running]:  # noqa: B008 – frozen
    running = Running({"squares": ServedModel("squares", weights, "eager", batch, limits.batch_wait_seconds)}, limits)
    try:
        yield running
    finally:
        running.desk.close()


@pytest.fixture(scope="session")
def running(weights: Path) -> Iterator[Running]:
    with served(weights) as made:
        yield made


def as_bytes(array: NDArray[np.uint8], format: str = "PNG") -> bytes:
    out = BytesIO()
    Image.fromarray(array).save(out, format)
    return out.getvalue()


@pytest.fixture(scope="session")
def photos() -> list[tuple[bytes, str]]:
    """Pictures, as PNG files, and what each of them shows."""
    made = squares(24, seed=7)
    return [(as_bytes(np.asarray(read_image(item.image))), made.labels.names[int(item.label)]) for item in made.items]
