"""A part of a network's time beside its part of the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effnet.arch.record import Record


@dataclass(frozen=True)
class Share(Record):
    """A step, or all steps of a stage or of a kind. MACs and bytes are of the whole batch.

    ``time`` and ``work`` are its shares of the network's seconds and MACs. ``bytes`` are of the maps and weights that
    it must read and write. ``least`` are the seconds that the machine's limits leave it (its roofline): the longer of
    its MACs at the peak of multiplication and its bytes at the bandwidth of where they fit; of several steps, the sum.
    """

    name: str
    group: str
    stage: str
    steps: int
    seconds: float
    time: float
    macs: int
    work: float
    bytes: int
    least: float

    @property
    def intensity(self) -> float:
        """MACs a byte; 0 where nothing is moved."""
        return self.macs / self.bytes if self.bytes else 0.0

    @property
    def speed(self) -> float:
        """MACs a second; 0 for no time."""
        return self.macs / self.seconds if self.seconds else 0.0


def summed(name: str, parts: Sequence[Share]) -> Share:
    """All ``parts`` as one; its group and stage are theirs where they agree."""
    groups, stages = ({getattr(part, what) for part in parts} for what in ("group", "stage"))
    return Share(
        name,
        groups.pop() if len(groups) == 1 else "",
        stages.pop() if len(stages) == 1 else "",
        sum(part.steps for part in parts),
        sum(part.seconds for part in parts),
        sum(part.time for part in parts),
        sum(part.macs for part in parts),
        sum(part.work for part in parts),
        sum(part.bytes for part in parts),
        sum(part.least for part in parts),
    )
