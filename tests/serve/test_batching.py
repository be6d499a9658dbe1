from __future__ import annotations

from concurrent.futures import Future, wait
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from effnet.data.image_io import InputImage
from effnet.serve.batching import BatchedOutput, Batcher

TIMEOUT = 20.0


class Network:
    """Outputs an image's first value and its double, and can be blocked while it computes."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.free = Event(), Event()
        self.free.set()

    def __call__(self, images: InputImage) -> NDArray[np.float64]:
        self.batches.append(len(images))
        self.started.set()
        assert self.free.wait(TIMEOUT)
        first = images[:, 0, 0, 0].astype(np.float64)
        if (first == 99).any():
            raise ValueError("no 99")
        return np.stack([first, 2 * first], 1)


def image(value: int) -> InputImage:
    return np.full((2, 2, 3), value, np.uint8)


def start_busy(network: Network, batcher: Batcher) -> Future[BatchedOutput]:
    """Submit an image that keeps the network busy until ``network.free`` is set."""
    network.free.clear()
    first = batcher.submit(image(0))
    assert network.started.wait(TIMEOUT)
    return first


def test_arrivals_during_a_batch_are_the_next_batch() -> None:
    network = Network()
    sizes: list[int] = []
    batcher = Batcher(network, max_batch_size=4, on_batch=lambda size, seconds: sizes.append(size))
    first = start_busy(network, batcher)
    others = [batcher.submit(image(value)) for value in range(1, 11)]
    network.free.set()
    assert first.result(TIMEOUT).row.tolist() == [0, 0]
    assert [one.result(TIMEOUT).row.tolist() for one in others] == [[value, 2 * value] for value in range(1, 11)]
    assert network.batches == [1, 4, 4, 2]
    assert others[0].result().batch_size == 4
    assert others[0].result().waited > 0
    batcher.close()
    assert sizes == network.batches


def test_idle_network_starts_at_once_unless_sizes_to_wait() -> None:
    network = Network()
    batcher = Batcher(network, max_batch_size=8)
    for value in range(3):
        batcher.submit(image(value)).result(TIMEOUT)
    assert network.batches == [1, 1, 1]
    batcher.close()
    patient = Network()
    batcher = Batcher(patient, max_batch_size=3, wait=TIMEOUT)  # full before that, it does not wait for the end of it
    wait([batcher.submit(image(value)) for value in range(3)], TIMEOUT / 2)
    assert patient.batches == [3]
    batcher.close()


def test_cancelled_is_not_computed() -> None:
    network = Network()
    batcher = Batcher(network, max_batch_size=4)
    first = start_busy(network, batcher)
    kept, dropped = batcher.submit(image(1)), batcher.submit(image(2))
    assert dropped.cancel()
    network.free.set()
    assert kept.result(TIMEOUT).row.tolist() == [1, 2]
    batcher.close()
    assert network.batches == [1, 1]
    assert first.done()


def test_error_reaches_only_its_batch() -> None:
    network = Network()
    batcher = Batcher(network, max_batch_size=2)
    start_busy(network, batcher)
    bad = [batcher.submit(image(99)), batcher.submit(image(5))]
    good = batcher.submit(image(6))
    network.free.set()
    for one in bad:
        with pytest.raises(ValueError, match="no 99"):
            one.result(TIMEOUT)
    assert good.result(TIMEOUT).row.tolist() == [6, 12]
    batcher.close()


def test_close_finishes_the_queue_and_refuses_more() -> None:
    network = Network()
    batcher = Batcher(network, max_batch_size=2)
    start_busy(network, batcher)
    waiting = [batcher.submit(image(value)) for value in range(5)]
    network.free.set()
    batcher.close()
    assert all(one.done() for one in waiting)
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(image(1))


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="max_batch_size must be"):
        Batcher(Network(), max_batch_size=0)
    with pytest.raises(ValueError, match="wait must be"):
        Batcher(Network(), max_batch_size=1, wait=-1)
