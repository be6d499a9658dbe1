"""The machine's limits, measured: how fast it multiplies, and how fast it moves numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

from effnet.arch.record import Record, whole
from effnet.clock.machine import machine

SIDES = (512, 1024)  # of the matrices: small enough for the caches, large enough for the kernels
CACHED = 4 * 2**20  # bytes of an array that stays in the caches, as a network's maps do
TRIES, SECONDS = 10, 0.1  # of each measurement, at least
# Instruction sets that multiply bfloat16 themselves; elsewhere it is widened first, and no faster than float32
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Peaks(Record):
    """What ``threads`` threads of this machine reach at most.

    Speeds are of matrix products, in multiply-accumulates a second; bandwidths of copying, in bytes read and written
    a second: of arrays within the caches, and of arrays far beyond them. They are torch's: a runtime whose kernels are
    better than those of torch's library can reach a little more.
    """

    threads: int
    float32: float
    bfloat16: float  # 0: not in hardware here
    cache: float
    memory: float

    def macs(self, precision: str) -> float:
        """Multiply-accumulates a second in ``precision``; 0 where its limit was not measured."""
        return {"float32": self.float32, "bfloat16": self.bfloat16}.get(precision, 0.0)

    def bandwidth(self, bytes_: float) -> float:
        """Bytes a second for work on so many bytes: the caches' where they hold them."""
        return self.cache if bytes_ <= machine().cache else self.memory

    def in_words(self) -> str:
        """One line for a person."""
        narrow = f", {self.bfloat16 / 1e9:.0f} in bfloat16" if self.bfloat16 else ""
        return (
            f"{self.float32 / 1e9:.0f} GMAC/s in float32{narrow}; {self.cache / 1e9:.0f} GB/s within the caches, "
            f"{self.memory / 1e9:.0f} GB/s beyond; {self.threads} thread{'s' if self.threads != 1 else ''}"
        )


@cache
def peaks(threads: int) -> Peaks:
    """The limits of ``threads`` threads, by torch: the best of many tries, measured once, in about a second.

    They are at least those of one thread, which nothing keeps from working alone.

    Raises ``ValueError`` for no threads.
    """
    whole("threads", threads, 1)
    import torch

    alone = peaks(1) if threads > 1 else Peaks(1, 0.0, 0.0, 0.0, 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            narrow = any(name in machine().instructions for name in BFLOAT16)
            return Peaks(
                threads,
                float32=max(alone.float32, _product(torch.float32)),
                bfloat16=max(alone.bfloat16, _product(torch.bfloat16)) if narrow else 0.0,
                cache=max(alone.cache, _copy(CACHED)),
                memory=max(alone.memory, _copy(max(4 * machine().cache, 2**27))),
            )
    finally:
        torch.set_num_threads(before)


def _product(dtype: Any) -> float:
    """Multiply-accumulates a second of square matrix products."""
    import torch

    found = 0.0
    for side in SIDES:
        one, other = (torch.rand(side, side).to(dtype) for _ in range(2))
        out = torch.empty_like(one)
        found = max(found, side**3 / _fastest(partial(torch.mm, one, other, out=out)))
    return found


def _copy(size: int) -> float:
    """Bytes read and written a second when an array is copied into another, ``size`` bytes in all."""
    import torch

    one = torch.ones(size // 8)
    other = torch.empty_like(one)
    return size / _fastest(partial(other.copy_, one))


def _fastest(call: Callable[[], object]) -> float:
    call()
    taken: list[float] = []
    while len(taken) < TRIES or sum(taken) < SECONDS:
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return min(taken)
