"""A picture's way through the server: accepted if there is room, decoded, computed, answered; or dropped on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from effnet.data.image_io import InputImage
from effnet.serve.batching import BatchedOutput
from effnet.serve.errors import RETRY_AFTER, STATUS_CLIENT_CLOSED, RequestError
from effnet.serve.limits import ServerLimits
from effnet.serve.models import ServedModel
from effnet.serve.upload import FORM_OVERHEAD_BYTES, ImageHeader, read_image_bytes, read_image_header
from effnet.timing import Stopwatch
from effnet.timing.machine import count_cores

T = TypeVar("T")


@dataclass(frozen=True)
class ImageOutput:
    """A picture with its answer."""

    header: ImageHeader
    image: InputImage
    output: BatchedOutput
    decoding: float  # seconds
    watch: Stopwatch  # since its last byte came


class RequestQueue:
    """Takes pictures in for all models together. To be used from one event loop."""

    def __init__(self, models: Mapping[str, ServedModel], limits: ServerLimits) -> None:
        self.models, self.limits = models, limits
        self.accepted = 0  # pictures that have come and are not answered yet
        self._bytes = 0  # of these, and of those that are still coming
        self._decoders = ThreadPoolExecutor(count_cores(), thread_name_prefix="decode")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")

    def model(self, name: str | None) -> ServedModel:
        """The model of that name, the first for None. Raises `Refusal` where there is none."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise RequestError(404, f"no model is called {name[:80]!r}: there are {', '.join(self.models)}")
        return self.models[name]

    async def process(self, request: Request, work: Callable[[bytes], Coroutine[Any, Any, T]]) -> T:
        """``work`` on the picture in the request, unless its client goes away or its time runs out.

        While it is coming it takes bytes, but no place in the queue: slow clients keep nobody waiting.
        Raises `Refusal` for either, for a full queue, and for what is no picture.
        """
        self._refuse_when_full()  # a client need not send what would be refused then
        with self._count_bytes() as arrived:
            content = await read_image_bytes(request, self.limits, arrived)
            self._refuse_when_full()
            self.accepted += 1
            try:
                return await self._run_unless_disconnected(request, work(content))
            finally:
                self.accepted -= 1

    async def predict(self, content: bytes, model: ServedModel) -> ImageOutput:
        """The picture's answer."""
        watch, loop = Stopwatch(), asyncio.get_running_loop()
        facts, picture = await loop.run_in_executor(self._decoders, self._decode, content, model)
        decoding = watch.seconds
        computed = await asyncio.wrap_future(model.submit(picture))
        return ImageOutput(facts, picture, computed, decoding, watch)

    async def run_explanation(self, work: Callable[[], T]) -> T:
        """``work``, which needs the network itself, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._explainer, work)

    def close(self) -> None:
        """Answers all that waits, and ends."""
        for pool in (self._decoders, self._explainer):
            pool.shutdown()
        for model in self.models.values():
            model.close()

    def _refuse_when_full(self) -> None:
        if self.accepted >= self.limits.queue_size:
            raise RequestError(
                503, f"all {self.limits.queue_size} places in the queue are taken: try again in a second", RETRY_AFTER
            )

    @contextmanager
    def _count_bytes(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes that arrive, until the request has ended, and refuses what a full queue could not hold."""
        held, most = 0, self.limits.queue_size * (self.limits.max_bytes + FORM_OVERHEAD_BYTES)

        def arrived(count: int) -> None:
            nonlocal held
            if self._bytes + count > most:
                raise RequestError(503, "the server holds as many bytes as it may: try again in a second", RETRY_AFTER)
            self._bytes += count
            held += count

        try:
            yield arrived
        finally:
            self._bytes -= held

    def _decode(self, content: bytes, model: ServedModel) -> tuple[ImageHeader, InputImage]:
        return read_image_header(content, self.limits.max_pixels), model.preprocess(content)

    async def _run_unless_disconnected(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        task, gone = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(request))
        both: tuple[Awaitable[Any], ...] = (task, gone)
        try:
            await asyncio.wait(both, timeout=self.limits.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if task.done():
                return task.result()
            if gone.done():
                raise RequestError(STATUS_CLIENT_CLOSED, "the client went away")
            raise RequestError(
                503, f"no answer within {self.limits.timeout_seconds:g} seconds: try again later", RETRY_AFTER
            )
        finally:
            task.cancel()
            gone.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    """Ends when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
