"""A picture's way through the server: accepted if there is room, decoded, computed, answered; or dropped on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from effnet.clock import Stopwatch
from effnet.clock.machine import cores
from effnet.data.pixels import Fitted
from effnet.serve.batching import Computed
from effnet.serve.body import AROUND, picture_in
from effnet.serve.limits import Limits
from effnet.serve.picture import Facts, looked_at
from effnet.serve.refusal import GONE, RETRY, Refusal
from effnet.serve.served import Served

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """A picture with its answer."""

    facts: Facts
    picture: Fitted
    computed: Computed
    decoding: float  # seconds
    watch: Stopwatch  # since its last byte came


class Desk:
    """Takes pictures in for all models together. To be used from one event loop."""

    def __init__(self, models: Mapping[str, Served], limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.accepted = 0  # pictures that have come and are not answered yet
        self._bytes = 0  # of these, and of those that are still coming
        self._decoders = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")

    def model(self, name: str | None) -> Served:
        """The model of that name, the first for None. Raises `Refusal` where there is none."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refusal(404, f"no model is called {name[:80]!r}: there are {', '.join(self.models)}")
        return self.models[name]

    async def served(self, request: Request, work: Callable[[bytes], Coroutine[Any, Any, T]]) -> T:
        """``work`` on the picture in the request, unless its client goes away or its time runs out.

        While it is coming it takes bytes, but no place in the queue: slow clients keep nobody waiting.
        Raises `Refusal` for either, for a full queue, and for what is no picture.
        """
        self._refuse_when_full()  # a client need not send what would be refused then
        with self._holding() as arrived:
            content = await picture_in(request, self.limits, arrived)
            self._refuse_when_full()
            self.accepted += 1
            try:
                return await self._unless_gone(request, work(content))
            finally:
                self.accepted -= 1

    async def answered(self, content: bytes, model: Served) -> Answered:
        """The picture's answer."""
        watch, loop = Stopwatch(), asyncio.get_running_loop()
        facts, picture = await loop.run_in_executor(self._decoders, self._decoded, content, model)
        decoding = watch.seconds
        computed = await asyncio.wrap_future(model.submit(picture))
        return Answered(facts, picture, computed, decoding, watch)

    async def explained(self, work: Callable[[], T]) -> T:
        """``work``, which needs the network itself, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._explainer, work)

    def close(self) -> None:
        """Answers all that waits, and ends."""
        for pool in (self._decoders, self._explainer):
            pool.shutdown()
        for model in self.models.values():
            model.close()

    def _refuse_when_full(self) -> None:
        if self.accepted >= self.limits.queue:
            raise Refusal(503, f"all {self.limits.queue} places in the queue are taken: try again in a second", RETRY)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes that arrive, until the request has ended, and refuses what a full queue could not hold."""
        held, most = 0, self.limits.queue * (self.limits.bytes_most + AROUND)

        def arrived(count: int) -> None:
            nonlocal held
            if self._bytes + count > most:
                raise Refusal(503, "the server holds as many bytes as it may: try again in a second", RETRY)
            self._bytes += count
            held += count

        try:
            yield arrived
        finally:
            self._bytes -= held

    def _decoded(self, content: bytes, model: Served) -> tuple[Facts, Fitted]:
        return looked_at(content, self.limits.pixels_most), model.prepared(content)

    async def _unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
        both: tuple[Awaitable[Any], ...] = (task, gone)
        try:
            await asyncio.wait(both, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if task.done():
                return task.result()
            if gone.done():
                raise Refusal(GONE, "the client went away")
            raise Refusal(503, f"no answer within {self.limits.seconds:g} seconds: try again later", RETRY)
        finally:
            task.cancel()
            gone.cancel()


async def _gone(request: Request) -> None:
    """Ends when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
