"""What was measured: a row for each contestant, and where it was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from effnet.arch.record import Record
from effnet.clock import Machine, Peaks, Ratio, Timing


@dataclass(frozen=True)
class Row(Record):
    """One network through one engine. ``seconds``, ``p10`` and ``p99`` are of one call with ``batch`` pictures.

    ``share`` is ``macs_per_second`` over what the machine reaches in matrix products of this precision and so many
    threads; None where that limit was not measured. ``times`` is how many times as long as the fastest of its cell it
    took, ``times_low`` … ``times_high`` the interval that holds it with 95 %. ``difference`` is the largest one from
    torch's own float32 logits, over the largest of them; None where the network is not the same one. ``bytes`` is the
    peak of memory of a process that does this alone; None where it was not measured.
    """

    network: str
    engine: str
    precision: str
    batch: int
    threads: int
    size: tuple[int, int]  # height, width
    seconds: float
    p10: float
    p99: float
    spread: float  # the middle half of the calls over their median
    runs: int
    pictures_per_second: float
    macs_per_second: float
    share: float | None
    times: float
    times_low: float
    times_high: float
    difference: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Cell:
    """What the contestants of one contest have in common."""

    network: str
    macs: int  # of one picture
    batch: int
    threads: int
    size: tuple[int, int]
    peaks: Peaks

    def row(
        self, engine: str, precision: str, timing: Timing, times: Ratio, difference: float | None, bytes_: int | None
    ) -> Row:
        """The row of one of them."""
        speed = self.macs * self.batch / timing.seconds
        limit = self.peaks.macs(precision)
        return Row(
            *(self.network, engine, precision, self.batch, self.threads, self.size),
            *(timing.seconds, timing.p10, timing.p99, timing.spread),
            runs=timing.runs,
            pictures_per_second=self.batch / timing.seconds,
            macs_per_second=speed,
            share=speed / limit if limit else None,
            times=times.value,
            times_low=times.low,
            times_high=times.high,
            difference=difference,
            bytes=bytes_,
        )


@dataclass(frozen=True)
class Result(Record):
    """All rows, the machine, its limits for every number of threads, and the versions of what ran."""

    RECORDS = MappingProxyType({"machine": Machine, "peaks": Peaks, "rows": Row})

    machine: Machine
    peaks: tuple[Peaks, ...]
    rows: tuple[Row, ...]
    versions: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = field(default=())  # a sentence for each contestant that could not take part
