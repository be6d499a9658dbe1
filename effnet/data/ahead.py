"""Work done in threads a little ahead of who asks for it, in order: the next pictures decoded beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from effnet.clock.machine import cores

AHEAD = 64  # at the most: fewer than the next batch would leave cores idle while a network computes

In = TypeVar("In")
Out = TypeVar("Out")


def ahead(work: Callable[[In], Out], given: Iterable[In], workers: int | None = None) -> Iterator[Out]:
    """``work`` of each of ``given``, in order, done in threads a little ahead of who asks: memory stays bounded."""
    workers = workers or cores()
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for one in given:
                pending.append(pool.submit(work, one))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
