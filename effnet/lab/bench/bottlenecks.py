"""A part of a network's time beside its part of the work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from effnet.arch import Count, count
from effnet.arch.serde import Record, check_choice, check_int, check_size
from effnet.draw.benchmark_plots import RooflinePoint, plot_roofline, plot_time_shares
from effnet.lab.bench.backends import random_images
from effnet.lab.bench.benchmark import check_threads, write_record, write_records
from effnet.lab.bench.profilers import BETWEEN, INPUT, PROFILE_RUNS, Profile, Profiler, StepCost, StepKey, step_costs
from effnet.lab.compare.table import write_drawing
from effnet.net import EfficientNet
from effnet.runtime.autotune import engine as chosen
from effnet.runtime.base import ENGINE_KINDS, installed_engines
from effnet.runtime.torch import torch_threads
from effnet.timing import Machine, MachinePeaks, describe_machine, measure_peaks


@dataclass(frozen=True)
class StepTime(Record):
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
    time_fraction: float
    macs: int
    macs_fraction: float
    bytes: int
    roofline_seconds: float

    @property
    def intensity(self) -> float:
        """MACs a byte; 0 where nothing is moved."""
        return self.macs / self.bytes if self.bytes else 0.0

    @property
    def speed(self) -> float:
        """MACs a second; 0 for no time."""
        return self.macs / self.seconds if self.seconds else 0.0


def sum_step_times(name: str, parts: Sequence[StepTime]) -> StepTime:
    """All ``parts`` as one; its group and stage are theirs where they agree."""
    groups, stages = ({getattr(part, what) for part in parts} for what in ("group", "stage"))
    return StepTime(
        name,
        groups.pop() if len(groups) == 1 else "",
        stages.pop() if len(stages) == 1 else "",
        sum(part.steps for part in parts),
        sum(part.seconds for part in parts),
        sum(part.time_fraction for part in parts),
        sum(part.macs for part in parts),
        sum(part.macs_fraction for part in parts),
        sum(part.bytes for part in parts),
        sum(part.roofline_seconds for part in parts),
    )


# The largest reasons for which a network takes longer than its MACs promise, in words.


MAX_REASONS = 3


MIN_LOST_FRACTION = 0.01  # of the whole time: less lost is no reason


SHORT_STEP_SECONDS = 50e-6  # seconds: below this, starting a step costs about as much as the step


SLOW_FACTOR = 1.5  # times the least that the machine's limits allow


GROUP_NAMES = {
    "stem": "the stem",
    "depthwise": "depthwise convolutions",
    "fused": "fused convolutions",
    "pointwise": "1×1 convolutions",
    "squeeze-excite": "squeeze-excite",
    "activation": "activations ({activation})",
    "residual": "residual additions",
    "classifier": "pooling and classifier",
    "input": "preparing the input",
    "padding": "copies for lopsided 'same' padding, which exported files do without",
    "layout": "reordering maps in memory",
}


GROUP_NOTES = {"depthwise": "since one channel after the other makes no matrix product"}


def explain_slowness(
    groups: Sequence[StepTime], activation: str, precision: str, limits: MachinePeaks, batch_size: int
) -> tuple[str, ...]:
    """A sentence for each of the largest three: what takes the most time beyond its MACs at the machine's peak."""
    peak = limits.macs(precision) or limits.float32
    lost = sorted(groups, key=lambda group: group.macs / peak - group.seconds)
    steps = sum(group.steps for group in groups)
    least = MIN_LOST_FRACTION * sum(group.seconds for group in groups)
    found = [group for group in lost if group.seconds - group.macs / peak >= least]
    return tuple(_explain_group(group, activation, peak, batch_size, steps) for group in found[:MAX_REASONS])


def _explain_group(group: StepTime, activation: str, peak: float, batch: int, steps: int) -> str:
    if group.group == BETWEEN:
        each = group.seconds / max(steps - group.steps, 1)
        few = f"a batch of {batch} leaves too little work in each" if batch < 8 else "more than computing explains"
        return f"between the steps: {_format_percent(group.time_fraction)} of the time, {_format_seconds(each)} for each of {steps}: {few}"
    exponential = group.group == "activation" and activation == "silu"
    name = GROUP_NAMES[group.group].format(activation={"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6"}[activation])
    if not group.macs:
        why = f"{_explain_memory(group)}{', an exponential for each value' if exponential else ''}"
        return f"{name}: {_format_percent(group.time_fraction)} of the time and no MACs; {why}"
    return f"{name}: {_format_percent(group.time_fraction)} of the time for {_format_percent(group.macs_fraction)} of the MACs; {_explain_compute(group, peak)}"


def _explain_memory(group: StepTime) -> str:
    """Why steps without MACs take time."""
    if not group.bytes:
        return f"{group.steps} step{_plural(group.steps)}"
    moved = f"{group.bytes / 1e6:.3g} MB are read and written in {group.steps} step{_plural(group.steps)}"
    far = group.seconds / group.roofline_seconds
    return f"{moved}, " + (
        f"{far:.1f}× as long as moving them takes" if far > SLOW_FACTOR else "as fast as the machine can"
    )


def _explain_compute(group: StepTime, peak: float) -> str:
    """What holds up steps that compute."""
    each, far, reached = (
        group.seconds / group.steps,
        group.seconds / group.roofline_seconds,
        group.macs / peak / group.seconds,
    )
    told = [f"{group.intensity:.2g} MACs a byte"]
    if (
        group.roofline_seconds > SLOW_FACTOR * group.macs / peak
    ):  # the longest part of what they must do is to move numbers
        pace = f"{far:.1f}× as long as moving the numbers takes" if far > SLOW_FACTOR else "bound by memory"
        told.append(pace)
    else:
        told.append(f"at {_format_percent(reached)} of the peak of multiplication")
    if far > SLOW_FACTOR and each < SHORT_STEP_SECONDS:
        told.append(f"{group.steps} short steps of {_format_seconds(each)}")
    if far > SLOW_FACTOR and group.group in GROUP_NOTES:
        told.append(GROUP_NOTES[group.group])
    return ", ".join(told)


def _format_percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _format_seconds(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def _plural(count: int) -> str:
    return "" if count == 1 else "s"


# Where a network's time goes: its steps beside their MACs, their bytes and the machine's limits.


LOG = logging.getLogger("effnet")


PROFILED_ENGINES = ("eager", "onnxruntime", "openvino")


BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class BottleneckReport(Record):
    """Where the time of one call with ``batch`` pictures goes.

    ``seconds`` is the median of a whole call without profiling, and what the parts sum up to: what the steps leave of
    it is the part "between" them. ``accounted`` is the steps' sum over it; where profiling cost more than it left, the
    steps are scaled down to the whole.
    ``stages``, ``groups`` (kinds of step) and ``steps`` each sum up to the whole; MACs are of all pictures, and those
    of `effnet.count`. ``reasons`` are the largest three for which it takes longer than its MACs promise.
    """

    RECORDS = MappingProxyType(
        {"machine": Machine, "peaks": MachinePeaks, "stages": StepTime, "groups": StepTime, "steps": StepTime}
    )

    network: str
    engine: str
    precision: str
    batch_size: int
    threads: int
    size: tuple[int, int]
    seconds: float
    profiled_fraction: float
    macs: int
    machine: Machine
    peaks: MachinePeaks
    stages: tuple[StepTime, ...]
    groups: tuple[StepTime, ...]
    steps: tuple[StepTime, ...]
    reasons: tuple[str, ...]


def find_bottlenecks(
    model: EfficientNet,
    engine: str = "auto",
    precision: str = "float32",
    batch_size: int = 1,
    threads: int | None = None,
    size: int | tuple[int, int] | None = None,
    runs: int = PROFILE_RUNS,
    seconds: float = 30,
) -> BottleneckReport:
    """Where the time of ``model`` goes in ``engine``; "auto" means the one that predicting would take.

    ``size`` is (height, width), the model's own if None. "litert" and "compiled" do not say what their steps take:
    asked for, they are refused; where predicting would take one of them, another engine stands in, and the log says so.
    Raises ``ValueError`` for no threads, an engine or a precision of which it cannot be said.
    """
    check_choice("engine", engine, ("auto", *ENGINE_KINDS))
    check_int("batch", batch_size, 1)
    number = describe_machine().cores if threads is None else threads
    check_threads(number)
    high_wide = check_size(size or model.preprocess.size)
    if engine == "auto":
        engine = _prediction_engine(model, batch_size, high_wide, precision, number)
    if engine not in PROFILED_ENGINES:
        raise ValueError(f"{engine} does not say how long its steps take: ask for one of {', '.join(PROFILED_ENGINES)}")
    counted = count(model.arch, high_wide, model.classes, model.channels)
    with torch_threads(number), TemporaryDirectory() as folder:
        profile = _open_profiler(model, counted, engine, precision, batch_size, number, Path(folder)).measure(
            runs, seconds
        )
    return summarize_profile(counted, profile, batch_size, model.channels, measure_peaks(number))


def _prediction_engine(model: EfficientNet, batch: int, size: tuple[int, int], precision: str, threads: int) -> str:
    """The kind of engine that predicting would take, or another that says what its steps take."""
    kind = chosen(model, "auto", batch, size, precision, threads).kind
    if kind in PROFILED_ENGINES:
        return kind
    other = next(each for each in ("openvino", "onnxruntime", "eager") if each in installed_engines())
    LOG.warning("predicting would take %s, which does not say how long its steps take: this is of %s", kind, other)
    return other


def _open_profiler(
    model: EfficientNet, counted: Count, engine: str, precision: str, batch: int, threads: int, folder: Path
) -> Profiler:
    seen = random_images(batch, counted.size, model.channels)
    if engine == "eager":
        from effnet.lab.bench.profilers import profile_eager

        return profile_eager(model, precision, seen, threads)
    from effnet.lab.bench.profilers import profile_onnxruntime, profile_openvino
    from effnet.runtime.io_spec import IOSpec
    from effnet.runtime.onnx import write_onnx

    path = folder / "network.onnx"
    write_onnx(path, model, IOSpec("floats", "logits", embedding=True))
    how: Callable[..., Profiler] = profile_onnxruntime if engine == "onnxruntime" else profile_openvino
    return how(path, counted, precision, seen, threads)


def summarize_profile(
    counted: Count, profile: Profile, batch_size: int, channels: int, limits: MachinePeaks
) -> BottleneckReport:
    """What a profile means beside what was counted. Raises ``ValueError`` where it lacks an operation."""
    known = step_costs(counted, channels)
    lacking = [key.operation for key, cost in known.items() if cost.macs and key not in profile.steps]
    if lacking:
        raise ValueError(f"{profile.engine} does not tell of {len(lacking)} operations, {lacking[0]} the first of them")
    taken = sum(profile.steps.values())
    scale = min(1.0, profile.seconds / taken)
    peak = limits.macs(profile.precision) or limits.float32
    steps = []
    for key, seconds in profile.steps.items():
        cost = known.get(key) or _inserted_step_cost(key, known)
        macs, moved = (
            cost.macs * batch_size,
            (cost.values * batch_size + cost.weights) * BYTES_PER_VALUE[profile.precision],
        )
        least = max(macs / peak, moved / limits.bandwidth(moved))
        name = key.operation if key.part in ("convolution", "input") else f"{key.operation} {key.part}"
        share = (seconds * scale, seconds * scale / profile.seconds, macs, macs / (counted.macs * batch_size))
        steps.append(StepTime(name, cost.group, cost.stage, 1, *share, moved, least))
    left = max(profile.seconds - taken * scale, 0.0)
    rest = StepTime(BETWEEN, BETWEEN, BETWEEN, 0, left, left / profile.seconds, 0, 0.0, 0, 0.0)
    groups = sorted(_sum_by(lambda step: step.group, [*steps, rest]), key=lambda group: -group.seconds)
    return BottleneckReport(
        *(counted.arch.name, profile.engine, profile.precision, batch_size, profile.threads, counted.size),
        *(profile.seconds, taken / profile.seconds, counted.macs * batch_size, describe_machine(), limits),
        stages=_sum_by(lambda step: step.stage, [*steps, rest]),
        groups=tuple(groups),
        steps=tuple(steps),
        reasons=explain_slowness(groups, counted.arch.activation, profile.precision, limits, batch_size),
    )


def _sum_by(what: Callable[[StepTime], str], steps: Sequence[StepTime]) -> tuple[StepTime, ...]:
    """The steps summed up by what they have in common, in their order."""
    names = dict.fromkeys(map(what, steps))
    return tuple(sum_step_times(name, [step for step in steps if what(step) == name]) for name in names)


def _inserted_step_cost(key: StepKey, known: Mapping[StepKey, StepCost]) -> StepCost:
    """A step that a runtime put in beside another: it moves numbers, and nobody knows how many."""
    stage = next((cost.stage for other, cost in known.items() if other.operation == key.operation), INPUT)
    return StepCost("layout", stage)


def write_bottlenecks(why: BottleneckReport, folder: Path) -> list[Path]:
    """``why.json``, ``steps.csv``, and as SVG and PNG ``stages``, ``groups`` and ``roofline``; their paths.

    Raises ``OSError`` with one sentence where they cannot be written.
    """
    what = f"{why.network} through {why.engine}"
    bars = {"stages": why.stages, "groups": why.groups}
    plots = {
        name: plot_time_shares(
            [(part.name, part.time_fraction, part.macs_fraction) for part in parts],
            f"{what}: time and MACs of its {name}",
        )
        for name, parts in bars.items()
    }
    limits = why.peaks
    points = [
        RooflinePoint(step.group, step.intensity, step.speed / 1e9, step.time_fraction)
        for step in why.steps
        if step.macs
    ]
    plots["roofline"] = plot_roofline(
        points,
        (limits.macs(why.precision) or limits.float32) / 1e9,
        (("within the caches", limits.cache / 1e9), ("beyond them", limits.memory / 1e9)),
        f"{what}: its operations under the machine's limits",
    )
    return [
        write_record(why, folder / "why.json"),
        write_records(why.steps, StepTime, folder / "steps.csv"),
        *(path for name, plot in plots.items() for path in write_drawing(folder / name, plot)),
    ]
