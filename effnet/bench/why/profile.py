"""What an engine's profile says: seconds of every step it took, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TypeVar

from effnet.arch import Count
from effnet.bench.why.cost import INPUT, Key
from effnet.clock import PAUSE, contest

Pass = Mapping[Key, float]
RUNS, WARM_UP = 30, 3
T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """``seconds`` is a whole call without any profiling, ``steps`` are of calls with it.

    Both are means over the faster half of the calls: medians of steps would not add up to a call.
    """

    engine: str
    precision: str
    threads: int
    seconds: float
    steps: dict[Key, float]


@dataclass(frozen=True)
class Profiled:
    """An engine opened twice: ``run`` as it is used, ``profiled`` with its profiling on.

    ``passes``, asked once at the end, gives the steps of every call of ``profiled``, in order.
    """

    engine: str
    precision: str
    threads: int
    run: Callable[[], object]
    profiled: Callable[[], object]
    passes: Callable[[], list[Pass]]

    def profile(self, runs: int = RUNS, seconds: float = 30) -> Profile:
        """Both take turns, so that what disturbs the machine disturbs them alike."""
        takers = {"bare": self.run, "profiled": self.profiled}
        timing = contest(takers, runs, WARM_UP, 1, PAUSE, seconds)["bare"]
        bare = _faster_half([call for one in timing.rounds for call in one], float)
        passes = _faster_half(self.passes()[WARM_UP:], lambda one: sum(one.values()))
        keys = dict.fromkeys(key for one in passes for key in one)
        steps = {key: mean(one.get(key, 0.0) for one in passes) for key in keys}
        taken = {key: took for key, took in steps.items() if took > 0}
        return Profile(self.engine, self.precision, self.threads, mean(bare), taken)


def _faster_half(calls: Sequence[T], seconds: Callable[[T], float]) -> list[T]:
    return sorted(calls, key=seconds)[: max(1, len(calls) // 2)]


class Nodes:
    """From the names of an exported graph's nodes, and what runtimes make of them, to steps.

    Our ONNX calls every node as its operation, and runtimes add to that: ``stem_nchwc``, ``stem/WithoutBiases``,
    ``stage1.0.depthwise.silu/QuickGeluFusion/``. What they insert between nodes belongs to the node before it.
    """

    def __init__(self, counted: Count) -> None:
        self._known: dict[str, Key] = {
            name: Key(INPUT, "input") for name in ("floats", "centred", "channels_first", "pixels")
        }
        for row in counted.layers:
            for operation, _ in row.operations:
                at = operation.name
                if row.layer.kind == "classifier":
                    self._known |= {"pooled": Key(at, "pool"), "embedding": Key(at, "pool")}
                    at = "logits"
                self._known[at] = Key(operation.name, "convolution")
                self._known[f"{at}.mean"] = Key(operation.name, "mean")
                self._known[f"{at}.gated"] = Key(operation.name, "gate")
                for activation in ("relu", "relu6", "silu", "sigmoid"):
                    self._known[f"{at}.{activation}"] = Key(operation.name, "activation")
            self._known[f"{row.name}.add"] = Key(row.name, "residual")
        self._by_length = sorted(self._known, key=len, reverse=True)

    def steps(self, nodes: Sequence[tuple[str, str, float]]) -> Pass:
        """(name, "convolution" or "layout" where its kind says so, else "", seconds) of every node, in order."""
        found: dict[Key, float] = {}
        last = Key(INPUT, "input")
        for name, kind, seconds in nodes:
            key = self._key(name)
            if key is None or (kind == "layout" and key.part != "input"):
                key = last if last.part == "input" else Key(last.operation, "layout")
            else:  # a convolution that took its activation in is called as that
                last = key = Key(key.operation, "convolution") if kind == "convolution" else key
            found[key] = found.get(key, 0.0) + seconds
        return found

    def _key(self, name: str) -> Key | None:
        """The step whose name begins ``name``; None where none does."""
        for known in self._by_length:
            after = name[len(known) : len(known) + 1]
            if name.startswith(known) and not (after.isalnum() or after == "."):
                return self._known[known]
        return None
