"""Admission of requests: an image is accepted if there is room, decoded, predicted and answered, or dropped."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from effnet.data.image_io import InputImage
from effnet.serve import batching, server, upload
from effnet.serve.errors import STATUS_CLIENT_CLOSED, RequestError
from effnet.serve.models import ServedModel
from effnet.timing import Stopwatch, machine

T = TypeVar("T")


@dataclass(frozen=True)
class ImageOutput:
    """An image with the network's output."""

    header: upload.ImageInfo
    image: InputImage
    output: batching.BatchedOutput
    decoding: float  # seconds
    watch: Stopwatch  # since its last byte arrived


class RequestQueue:
    """The queue of all models together. Use it from one event loop."""

    def __init__(self, models: Mapping[str, ServedModel], limits: server.ServerLimits) -> None:
        self.models, self.limits = models, limits
        self.accepted = 0  # images that have arrived and are not answered yet
        self._bytes = 0  # of these, and of those still arriving
        self._decoders = ThreadPoolExecutor(machine.count_cores(), thread_name_prefix="decode")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")

    def model(self, name: str | None) -> ServedModel:
        """Return the model of that name, the first one for None. Raises `RequestError` if there is none."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise RequestError(404, f"no model is named {name[:80]!r}: there are {', '.join(self.models)}")
        return self.models[name]

    async def process(self, request: Request, work: Callable[[bytes], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` on the image in the request, until the client disconnects or the time runs out.

        An image that is still arriving counts by its bytes and takes no place in the queue: slow clients block nobody.
        """
        self._refuse_when_full()  # before the client sends what would be refused then
        with self._count_bytes() as on_bytes:
            content = await upload.read_image_bytes(request, self.limits, on_bytes, self._decoders)
            self._refuse_when_full()
            self.accepted += 1
            try:
                return await self._run_unless_disconnected(request, work(content))
            finally:
                self.accepted -= 1

    async def predict(self, content: bytes, model: ServedModel) -> ImageOutput:
        """Decode an image and run the model on it."""
        watch, loop = Stopwatch(), asyncio.get_running_loop()
        header, image = await loop.run_in_executor(self._decoders, self._decode, content, model)
        decoding = watch.seconds
        output = await asyncio.wrap_future(model.submit(image))
        return ImageOutput(header, image, output, decoding, watch)

    async def run_explanation(self, work: Callable[[], T]) -> T:
        """Run ``work``, which needs the network itself, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._explainer, work)

    def close(self) -> None:
        """Answer everything that is queued, then stop."""
        for pool in (self._decoders, self._explainer):
            pool.shutdown()
        for model in self.models.values():
            model.close()

    def _refuse_when_full(self) -> None:
        if self.accepted >= self.limits.queue_size:
            raise RequestError(503, f"the queue of {self.limits.queue_size} is full: retry in a second")

    @contextmanager
    def _count_bytes(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of a request until it ends, and refuse what a full queue could not hold."""
        held, max_bytes = 0, self.limits.queue_size * (self.limits.max_bytes + upload.FORM_OVERHEAD_BYTES)

        def on_bytes(count: int) -> None:
            nonlocal held
            if self._bytes + count > max_bytes:
                raise RequestError(503, "the server's upload memory is full: retry in a second")
            self._bytes += count
            held += count

        try:
            yield on_bytes
        finally:
            self._bytes -= held

    def _decode(self, content: bytes, model: ServedModel) -> tuple[upload.ImageInfo, InputImage]:
        model.check_files()  # here, since it may have to read them
        return upload.read_image_header(content, self.limits.max_pixels), model.preprocess(content)

    async def _run_unless_disconnected(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        task, gone = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(request))
        both: tuple[Awaitable[Any], ...] = (task, gone)
        seconds = self.limits.timeout_seconds
        try:
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if task.done():
                return task.result()
            if gone.done():
                raise RequestError(STATUS_CLIENT_CLOSED, "the client closed the connection")
            raise RequestError(503, f"no prediction within {seconds:g} seconds: retry later")
        finally:
            task.cancel()
            gone.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
