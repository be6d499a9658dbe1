"""Ordered thread-pool maps: with bounded prefetch for streams, in chunks for lists."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from effnet.timing.machine import count_cores

MAX_PREFETCH = 64  # with fewer items than the next batch, cores would be idle while a network computes
MAX_CHUNK_SIZE = 64  # items that a thread takes at once: handing one over costs as much as decoding a small image

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch_map(function: Callable[[In], Out], items: Iterable[In], num_workers: int | None = None) -> Iterator[Out]:
    """Yield ``function`` of each item, in order, computed in threads up to `MAX_PREFETCH` items ahead.

    Closing the iterator cancels what has not begun.
    """
    num_workers = num_workers or count_cores()
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > MAX_PREFETCH:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def parallel_map(function: Callable[[In], Out], items: Sequence[In], num_workers: int) -> list[Out]:
    """Return ``function`` of each item, in order, computed in threads that take several items at a time."""
    size = max(1, min(MAX_CHUNK_SIZE, len(items) // (8 * num_workers)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(num_workers) as pool:
        return [result for part in pool.map(lambda chunk: list(map(function, chunk)), chunks) for result in part]
