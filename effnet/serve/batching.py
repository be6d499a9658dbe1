"""Dynamic batching: whatever arrives while the network is busy is its next batch."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import check_float, check_int
from effnet.data.image_io import InputImage
from effnet.timing import Stopwatch

OutputRow = NDArray[np.float64]


@dataclass(frozen=True)
class BatchedOutput:
    """One image's output (classes,), how long it waited, and the seconds and size of the batch that it was in."""

    row: OutputRow
    waited: float
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class _Job:
    image: InputImage
    future: Future[BatchedOutput]
    queued: Stopwatch


class Batcher:
    """One network's queue, and the thread that works through it.

    An idle network starts at once, or ``wait`` seconds later for a fuller batch; a busy one next takes up to
    ``max_batch_size`` of the images that have arrived in the meantime. ``compute`` maps images (N, H, W, 3) of one size
    to rows (N, classes), and is never called concurrently; ``on_batch`` gets every batch's size and seconds.
    """

    def __init__(
        self,
        compute: Callable[[InputImage], OutputRow],
        max_batch_size: int,
        wait: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        check_int("max_batch_size", max_batch_size, 1)
        check_float("wait", wait, 0)
        self.max_batch_size = max_batch_size
        self._compute, self._wait, self._on_batch = compute, wait, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, image: InputImage) -> Future[BatchedOutput]:
        """Return a future of the image's output. One cancelled before its batch starts is not computed."""
        job = _Job(image, Future(), Stopwatch())
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Compute everything that is queued, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next_batch():
            if alive := [job for job in jobs if job.future.set_running_or_notify_cancel()]:
                self._compute_batch(alive)

    def _next_batch(self) -> list[_Job]:
        """Return the next batch; an empty one when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if self._wait:
                self._changed.wait_for(lambda: len(self._jobs) >= self.max_batch_size or self._closed, self._wait)
            return [self._jobs.popleft() for _ in range(min(self.max_batch_size, len(self._jobs)))]

    def _compute_batch(self, jobs: list[_Job]) -> None:
        waited, watch = [job.queued.seconds for job in jobs], Stopwatch()
        try:
            rows = self._compute(np.stack([job.image for job in jobs]))  # (N, H, W, 3) -> (N, classes)
        except BaseException as error:  # the callers must get it, and the thread must survive
            for job in jobs:
                job.future.set_exception(error)
            return
        seconds = watch.seconds
        self._on_batch(len(jobs), seconds)
        for job, row, time in zip(jobs, rows, waited, strict=True):
            job.future.set_result(BatchedOutput(row, time, seconds, len(jobs)))
