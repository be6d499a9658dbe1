"""How a time or a memory peak is taken: warm-up, interleaving, medians, spread. The only timer in the program."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant over all its runs."""

    seconds: float  # the median
    fastest: float
    slowest: float
    runs: int


def contest(contestants: Mapping[str, Callable[[], object]], runs: int = 20, warm_up: int = 3) -> dict[str, Timing]:
    """Times all ``contestants`` in turn, so that what disturbs the machine disturbs them alike.

    Each is called ``warm_up`` times unmeasured, then ``runs`` rounds call every one once, in alternating order.
    """
    for call in contestants.values():
        for _ in range(warm_up):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(runs):
        order = list(contestants.items())
        for name, call in order if turn % 2 == 0 else reversed(order):
            start = perf_counter()
            call()
            seconds[name].append(perf_counter() - start)
    return {name: Timing(median(taken), min(taken), max(taken), len(taken)) for name, taken in seconds.items()}


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was made."""
        return perf_counter() - self._start


def peak_memory() -> int:
    """Bytes of memory that this process has held at its worst moment, as the system counts them."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: rusage would count what the parent held before this program was started
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
