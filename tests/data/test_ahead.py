from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from effnet.data.ahead import AHEAD, TOGETHER, ahead, every


def test_in_order_whoever_is_done_first() -> None:
    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(30)
        elif number == 1:
            first_may_end.set()
        return number * number

    assert list(ahead(work, range(50), workers=2)) == [number * number for number in range(50)]


def test_only_a_little_ahead() -> None:
    taken = 0

    def given() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = ahead(abs, given(), workers=3)
    for asked in range(1, 100):
        next(results)
        assert taken <= asked + AHEAD + 1
    results.close()  # type: ignore[attr-defined] – a generator, though nothing promises it


def test_an_error_comes_in_its_place() -> None:
    def work(number: int) -> int:
        return 12 // (3 - number)

    results = ahead(work, range(10), workers=2)
    assert [next(results) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_works_beside_who_asks() -> None:
    """The second is begun before the first is taken away."""
    begun = [threading.Event() for _ in range(2)]

    def work(number: int) -> int:
        begun[number].set()
        return number

    for number in ahead(work, range(2), workers=1):
        assert begun[1].wait(30)
        assert number in (0, 1)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 20 * TOGETHER + 1])
def test_all_of_it_in_order(count: int) -> None:
    assert every(abs, range(-count, 0), workers=2) == list(range(count, 0, -1))


def test_all_of_it_stops_at_an_error() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        return 1 // (number - 3)

    with pytest.raises(ZeroDivisionError):
        every(work, range(100 * TOGETHER), workers=1)
    assert len(begun) < 100 * TOGETHER


def test_decoding_needs_no_torch() -> None:
    code = "import sys, effnet.data.ahead, effnet.data.pixels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
