"""What a network is worth to a search: its accuracy, and what it costs beside a target."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch import Arch, count
from effnet.arch.record import choice, number
from effnet.search.latency import Latency

COSTS = ("macs", "params", "latency")
UNITS = {"macs": "MACs", "params": "params", "latency": "s"}
EXPONENT = -0.07  # twice the cost is worth it for about 5 % more accuracy (arXiv:1807.11626, section 3)
TOO_DEAR = 1.5  # times the target: not even trained, for then accuracy would have to be 3 % more


def reward(accuracy: float, cost: float, target: float, exponent: float = EXPONENT) -> float:
    """ACC × (cost / target)^w, equation 2 of arXiv:1807.11626, with one w on either side of the target.

    ``accuracy`` is a fraction; ``cost`` and ``target`` are of one unit. Raises ``ValueError`` unless both are above 0.
    """
    number("cost", cost, 0, float("inf"), above=True)
    number("target", target, 0, float("inf"), above=True)
    return float(accuracy * (cost / target) ** exponent)


def amount(cost: float, kind: str) -> str:
    """A cost with its unit: ``4.02 M MACs``, ``301 k params``, ``1.25 ms``."""
    if kind == "latency":
        return f"{cost * 1e3:.3g} ms"
    for size, letter in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if cost >= size:
            return f"{cost / size:.3g} {letter}{UNITS[kind]}"
    return f"{cost:.0f} {UNITS[kind]}"


@dataclass(frozen=True)
class Cost:
    """What is held against a network's accuracy: MACs or params of one picture, or seconds measured here.

    Networks answer with ``classes``; latency is of one picture on so many ``threads``: one, since the processes of a
    search, each on one, measure beside each other. Raises ``ValueError`` for another ``kind``.
    """

    kind: str
    classes: int
    threads: int = 1

    def __post_init__(self) -> None:
        choice("cost", self.kind, COSTS)

    def __call__(self, arch: Arch) -> float:
        """The cost of ``arch``."""
        if self.kind == "latency":
            return Latency(self.threads, classes=self.classes)(arch)
        return float(getattr(count(arch, classes=self.classes), self.kind))
