from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from effnet.data.prefetch import MAX_CHUNK_SIZE, MAX_PREFETCH, parallel_map, prefetch_map


def test_results_keep_their_order() -> None:
    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(30)
        elif number == 1:
            first_may_end.set()
        return number * number

    assert list(prefetch_map(work, range(50), num_workers=2)) == [number * number for number in range(50)]


def test_prefetch_is_bounded() -> None:
    taken = 0

    def count_up() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = prefetch_map(abs, count_up(), num_workers=3)
    for yielded in range(1, 100):
        next(results)
        assert taken <= yielded + MAX_PREFETCH + 1
    results.close()  # type: ignore[attr-defined] – a generator, though nothing promises it


def test_an_error_is_raised_in_its_place() -> None:
    def work(number: int) -> int:
        return 12 // (3 - number)

    results = prefetch_map(work, range(10), num_workers=2)
    assert [next(results) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_works_while_a_result_is_used() -> None:
    """The second is started before the first is taken away."""
    started = [threading.Event() for _ in range(2)]

    def work(number: int) -> int:
        started[number].set()
        return number

    for number in prefetch_map(work, range(2), num_workers=1):
        assert started[1].wait(30)
        assert number in (0, 1)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 20 * MAX_CHUNK_SIZE + 1])
def test_parallel_map_keeps_the_order(count: int) -> None:
    assert parallel_map(abs, range(-count, 0), num_workers=2) == list(range(count, 0, -1))


def test_parallel_map_stops_at_an_error() -> None:
    started = []

    def work(number: int) -> int:
        started.append(number)
        return 1 // (number - 3)

    with pytest.raises(ZeroDivisionError):
        parallel_map(work, range(100 * MAX_CHUNK_SIZE), num_workers=1)
    assert len(started) < 100 * MAX_CHUNK_SIZE


def test_decoding_needs_no_torch() -> None:
    code = "import sys, effnet.data.prefetch, effnet.data.image_io; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
