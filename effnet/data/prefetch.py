"""Work done in threads, in order: all of it, or a little ahead of who asks, as pictures decoded beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from effnet.timing.machine import count_cores

MAX_PREFETCH = 64  # at the most: fewer than the next batch would leave cores idle while a network computes
MAX_CHUNK_SIZE = (
    64  # that a thread takes at once of what is all there: handing one over takes as long as a small picture
)

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch_map(function: Callable[[In], Out], items: Iterable[In], num_workers: int | None = None) -> Iterator[Out]:
    """``work`` of each of ``given``, in order, done in threads a little ahead of who asks: memory stays bounded."""
    num_workers = num_workers or count_cores()
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for one in items:
                pending.append(pool.submit(function, one))
                if len(pending) > MAX_PREFETCH:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def parallel_map(function: Callable[[In], Out], items: Sequence[In], num_workers: int) -> list[Out]:
    """``work`` of each of ``given``, in order, done in so many threads, each of which takes several at once."""
    several = max(1, min(MAX_CHUNK_SIZE, len(items) // (8 * num_workers)))
    parts = [items[start : start + several] for start in range(0, len(items), several)]
    with ThreadPoolExecutor(num_workers) as pool:
        return [done for part in pool.map(lambda part: [function(one) for one in part], parts) for done in part]
