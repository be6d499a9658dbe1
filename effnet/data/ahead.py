"""Work done in threads, in order: all of it, or a little ahead of who asks, as pictures decoded beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from effnet.clock.machine import cores

AHEAD = 64  # at the most: fewer than the next batch would leave cores idle while a network computes
TOGETHER = 64  # that a thread takes at once of what is all there: handing one over takes as long as a small picture

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


def every(work: Callable[[In], Out], given: Sequence[In], workers: int) -> list[Out]:
    """``work`` of each of ``given``, in order, done in so many threads, each of which takes several at once."""
    several = max(1, min(TOGETHER, len(given) // (8 * workers)))
    parts = [given[start : start + several] for start in range(0, len(given), several)]
    with ThreadPoolExecutor(workers) as pool:
        return [done for part in pool.map(lambda part: [work(one) for one in part], parts) for done in part]
