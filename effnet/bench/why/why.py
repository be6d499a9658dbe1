"""Where a network's time goes: its steps beside their MACs, their bytes and the machine's limits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from effnet.arch import Count, count
from effnet.arch.record import Record, choice, whole
from effnet.bench.contestant import pictures
from effnet.bench.run import enough, torch_threads
from effnet.bench.why.cost import BETWEEN, INPUT, Cost, Key, costs
from effnet.bench.why.profile import RUNS, Profile, Profiled
from effnet.bench.why.reasons import reasons
from effnet.bench.why.share import Share, summed
from effnet.clock import Machine, Peaks, machine, peaks
from effnet.engines.engine import KINDS, installed
from effnet.exporting.choose import engine as chosen
from effnet.net import EfficientNet

LOG = logging.getLogger("effnet")
PROFILED = ("eager", "onnxruntime", "openvino")
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Why(Record):
    """Where the time of one call with ``batch`` pictures goes.

    ``seconds`` is the median of a whole call without profiling, and what the parts sum up to: what the steps leave of
    it is the part "between" them. ``accounted`` is the steps' sum over it; where profiling cost more than it left, the
    steps are scaled down to the whole.
    ``stages``, ``groups`` (kinds of step) and ``steps`` each sum up to the whole; MACs are of all pictures, and those
    of `effnet.count`. ``reasons`` are the largest three for which it takes longer than its MACs promise.
    """

    RECORDS = MappingProxyType({"machine": Machine, "peaks": Peaks, "stages": Share, "groups": Share, "steps": Share})

    network: str
    engine: str
    precision: str
    batch: int
    threads: int
    size: tuple[int, int]
    seconds: float
    accounted: float
    macs: int
    machine: Machine
    peaks: Peaks
    stages: tuple[Share, ...]
    groups: tuple[Share, ...]
    steps: tuple[Share, ...]
    reasons: tuple[str, ...]


def why(
    model: EfficientNet,
    engine: str = "auto",
    precision: str = "float32",
    batch: int = 1,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    runs: int = RUNS,
    seconds: float = 30,
) -> Why:
    """Where the time of ``model`` goes in ``engine``; "auto" means the one that predicting would take.

    ``size`` is (height, width), the model's own if None. "litert" and "compiled" do not say what their steps take:
    asked for, they are refused; where predicting would take one of them, another engine stands in, and the log says so.
    Raises ``ValueError`` for no threads, an engine or a precision of which it cannot be said.
    """
    choice("engine", engine, ("auto", *KINDS))
    whole("batch", batch, 1)
    number = machine().cores if threads is None else threads
    enough(number)
    high_wide = size or model.preprocess.size
    if engine == "auto":
        engine = _for_prediction(model, batch, high_wide, precision, number)
    if engine not in PROFILED:
        raise ValueError(f"{engine} does not say how long its steps take: ask for one of {', '.join(PROFILED)}")
    counted = count(model.arch, high_wide, model.classes, model.channels)
    with torch_threads(number), TemporaryDirectory() as folder:
        profile = _opened(model, counted, engine, precision, batch, number, Path(folder)).profile(runs, seconds)
    return explained(counted, profile, batch, model.channels, peaks(number))


def _for_prediction(model: EfficientNet, batch: int, size: tuple[int, int], precision: str, threads: int) -> str:
    """The kind of engine that predicting would take, or another that says what its steps take."""
    kind = chosen(model, "auto", batch, size, precision, threads).kind
    if kind in PROFILED:
        return kind
    other = next(each for each in ("openvino", "onnxruntime", "eager") if each in installed())
    LOG.warning("predicting would take %s, which does not say how long its steps take: this is of %s", kind, other)
    return other


def _opened(
    model: EfficientNet, counted: Count, engine: str, precision: str, batch: int, threads: int, folder: Path
) -> Profiled:
    seen = pictures(batch, counted.size, model.channels)
    if engine == "eager":
        from effnet.bench.why.eager import eager

        return eager(model, precision, seen, threads)
    from effnet.bench.why.onnxruntime import onnxruntime
    from effnet.bench.why.openvino import openvino
    from effnet.engines.interface import Interface
    from effnet.exporting.onnx import write

    path = folder / "network.onnx"
    write(path, model, Interface("floats", "logits", embedding=True))
    how: Callable[..., Profiled] = onnxruntime if engine == "onnxruntime" else openvino
    return how(path, counted, precision, seen, threads)


def explained(counted: Count, profile: Profile, batch: int, channels: int, limits: Peaks) -> Why:
    """What a profile means beside what was counted. Raises ``ValueError`` where it lacks an operation."""
    known = costs(counted, channels)
    lacking = [key.operation for key, cost in known.items() if cost.macs and key not in profile.steps]
    if lacking:
        raise ValueError(f"{profile.engine} does not tell of {len(lacking)} operations, {lacking[0]} the first of them")
    taken = sum(profile.steps.values())
    scale = min(1.0, profile.seconds / taken)
    peak = limits.macs(profile.precision) or limits.float32
    steps = []
    for key, seconds in profile.steps.items():
        cost = known.get(key) or _unforeseen(key, known)
        macs, moved = cost.macs * batch, (cost.values * batch + cost.weights) * BYTES[profile.precision]
        least = max(macs / peak, moved / limits.bandwidth(moved))
        name = key.operation if key.part in ("convolution", "input") else f"{key.operation} {key.part}"
        share = (seconds * scale, seconds * scale / profile.seconds, macs, macs / (counted.macs * batch))
        steps.append(Share(name, cost.group, cost.stage, 1, *share, moved, least))
    left = max(profile.seconds - taken * scale, 0.0)
    rest = Share(BETWEEN, BETWEEN, BETWEEN, 0, left, left / profile.seconds, 0, 0.0, 0, 0.0)
    groups = sorted(_by(lambda step: step.group, [*steps, rest]), key=lambda group: -group.seconds)
    return Why(
        *(counted.arch.name, profile.engine, profile.precision, batch, profile.threads, counted.size),
        *(profile.seconds, taken / profile.seconds, counted.macs * batch, machine(), limits),
        stages=_by(lambda step: step.stage, [*steps, rest]),
        groups=tuple(groups),
        steps=tuple(steps),
        reasons=reasons(groups, counted.arch.activation, profile.precision, limits, batch),
    )


def _by(what: Callable[[Share], str], steps: Sequence[Share]) -> tuple[Share, ...]:
    """The steps summed up by what they have in common, in their order."""
    names = dict.fromkeys(map(what, steps))
    return tuple(summed(name, [step for step in steps if what(step) == name]) for name in names)


def _unforeseen(key: Key, known: Mapping[Key, Cost]) -> Cost:
    """A step that a runtime put in beside another: it moves numbers, and nobody knows how many."""
    stage = next((cost.stage for other, cost in known.items() if other.operation == key.operation), INPUT)
    return Cost("layout", stage)
