"""``effnet bench --why``: where a network's time goes, beside its MACs, its bytes and the machine's limits."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from effnet.arch import Count, count, serde
from effnet.draw import benchmark_plots, text
from effnet.lab.bench import backends, benchmark, profilers
from effnet.lab.compare.comparison_table import write_drawing, write_json
from effnet.net import EfficientNet
from effnet.runtime import autotune, base, torch
from effnet.timing import Machine, MachinePeaks, describe_machine, measure_peaks

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2}
MIN_LOST_FRACTION = 0.01  # of the whole time: smaller losses are no reason
SHORT_STEP_SECONDS = 50e-6  # below, starting a step costs about as much as the step
SLOW_FACTOR = 1.5  # times what the machine's limits allow
GROUP_NAMES = {
    "stem": "the stem",
    "depthwise": "depthwise convolutions",
    "fused": "fused convolutions",
    "pointwise": "1×1 convolutions",
    "squeeze-excite": "squeeze-excite",
    "activation": "activations ({activation})",
    "residual": "residual additions",
    "classifier": "pooling and classifier",
    "input": "input preprocessing",
    "padding": "copies for asymmetric 'same' padding, which exported files avoid",
    "layout": "reordering feature maps in memory",
}
SUMMED = ("steps", "seconds", "time_fraction", "macs", "macs_fraction", "bytes", "roofline_seconds")

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class StepTime(serde.Record):
    """The time of a step, or of all steps of a stage or a kind; MACs and bytes are of the whole batch.

    ``bytes``: feature maps and weights to read and write. ``roofline_seconds``: the longer of its MACs at peak and its
    bytes at the bandwidth of where they fit; of several steps, the sum.
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
        """MACs per byte; 0 if nothing is moved."""
        return self.macs / self.bytes if self.bytes else 0.0

    @property
    def speed(self) -> float:
        """MACs per second; 0 if it takes no time."""
        return self.macs / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class BottleneckReport(serde.Record):
    """Where the time of one call with ``batch_size`` images goes.

    ``seconds``: of a call without profiling, which ``stages``, ``groups`` (kinds of step) and ``steps`` each sum up to;
    what profiled steps leave of it is "between" them. ``profiled_fraction``: the profiled steps over the whole; above
    1, steps are scaled down. ``reasons``: the three largest reasons why it takes longer than its MACs suggest.
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
    runs: int = profilers.PROFILE_RUNS,
    seconds: float = 30,
) -> BottleneckReport:
    """Profile ``model`` and explain where its time goes.

    "auto" is the engine that prediction would use, or, with a warning, another one if that has no profiler. Raises
    ``ValueError`` for an engine or precision that cannot be profiled.
    """
    serde.check_choice("engine", engine, ("auto", *base.ENGINE_KINDS))
    serde.check_int("batch_size", batch_size, 1)
    number = describe_machine().cores if threads is None else threads
    benchmark.check_threads(number)
    height_width = model.preprocess.size if size is None else serde.check_size(size)
    if engine == "auto":
        engine = _prediction_engine(model, batch_size, height_width, precision, number)
    if engine not in profilers.PRECISIONS:
        raise ValueError(f"{engine} cannot be profiled: choose one of {', '.join(profilers.PRECISIONS)}")
    if precision not in (precisions := profilers.PRECISIONS[engine]):
        raise ValueError(f"{engine} is profiled in {' or '.join(precisions)}, not in {precision}")
    counted = count(model.arch, height_width, model.classes, model.channels)
    with torch.torch_threads(number), TemporaryDirectory() as folder:
        profiler = _open_profiler(model, counted, engine, precision, batch_size, number, Path(folder))
        profile = profiler.measure(runs, seconds)
    return summarize_profile(counted, profile, engine, precision, batch_size, model.channels, measure_peaks(number))


def _prediction_engine(
    model: EfficientNet, batch_size: int, size: tuple[int, int], precision: str, threads: int
) -> str:
    kind = autotune.engine(model, "auto", batch_size, size, precision, threads).kind
    if kind in profilers.PRECISIONS:
        return kind
    other = next(each for each in reversed(profilers.PRECISIONS) if each in base.installed_engines())
    log.warning("prediction would use %s, which cannot be profiled; profiling %s instead", kind, other)
    return other


def _open_profiler(
    model: EfficientNet, counted: Count, engine: str, precision: str, batch_size: int, threads: int, folder: Path
) -> profilers.Profiler:
    images = backends.random_images(batch_size, counted.size, model.channels)
    if engine == "eager":
        return profilers.profile_eager(model, precision, images)
    from effnet.runtime import io_spec, onnx_writer

    path = folder / "network.onnx"
    onnx_writer.write_onnx(path, model, io_spec.IOSpec("floats", "logits", embedding=True))
    if engine == "onnxruntime":
        return profilers.profile_onnxruntime(path, counted, images, threads)
    return profilers.profile_openvino(path, counted, precision, images, threads)


def summarize_profile(
    counted: Count,
    profile: profilers.Profile,
    engine: str,
    precision: str,
    batch_size: int,
    channels: int,
    limits: MachinePeaks,
) -> BottleneckReport:
    """Put a profile beside what was counted. Raises ``ValueError`` if it lacks an operation."""
    costs = profilers.step_costs(counted, channels)
    missing = [key.operation for key, cost in costs.items() if cost.macs and key not in profile.steps]
    if missing:
        raise ValueError(f"the profile of {engine} lacks {len(missing)} operations, the first is {missing[0]}")
    total, macs = sum(profile.steps.values()), counted.macs * batch_size
    scale = min(1.0, profile.seconds / total)
    peak = limits.macs(precision) or limits.float32
    steps = []
    for key, profiled in profile.steps.items():
        cost, seconds = costs.get(key), profiled * scale
        if cost is None:  # a runtime inserted it beside another step: it moves an unknown amount of data
            stages = (cost.stage for other, cost in costs.items() if other.operation == key.operation)
            cost = profilers.StepCost("layout", next(stages, profilers.INPUT))
        name = key.operation if key.part in ("convolution", "input") else f"{key.operation} {key.part}"
        work, moved = cost.macs * batch_size, (cost.values * batch_size + cost.weights) * BYTES_PER_VALUE[precision]
        fastest = max(work / peak, moved / limits.bandwidth(moved))
        figures = seconds, seconds / profile.seconds, work, work / macs, moved, fastest
        steps.append(StepTime(name, cost.group, cost.stage, 1, *figures))
    rest, name = max(profile.seconds - total * scale, 0.0), profilers.BETWEEN
    between = StepTime(name, name, name, 0, rest, rest / profile.seconds, 0, 0.0, 0, 0.0)
    groups = sorted(_sum_by("group", [*steps, between]), key=lambda group: -group.seconds)
    return BottleneckReport(
        *(counted.arch.name, engine, precision, batch_size, limits.threads, counted.size),
        *(profile.seconds, total / profile.seconds, macs, describe_machine(), limits),
        stages=_sum_by("stage", [*steps, between]),
        groups=tuple(groups),
        steps=tuple(steps),
        reasons=explain_slowness(groups, counted.arch.activation, peak, batch_size),
    )


def _sum_by(attribute: str, steps: Sequence[StepTime]) -> tuple[StepTime, ...]:
    """Sum steps with the same group or stage, in their order; the other of the two is kept if they share it."""
    names = dict.fromkeys(getattr(step, attribute) for step in steps)
    sums = []
    for name in names:
        same = [step for step in steps if getattr(step, attribute) == name]
        groups, stages = {step.group for step in same}, {step.stage for step in same}
        group, stage = (each.pop() if len(each) == 1 else "" for each in (groups, stages))
        sums.append(StepTime(name, group, stage, *(sum(getattr(step, field) for step in same) for field in SUMMED)))
    return tuple(sums)


def explain_slowness(groups: Sequence[StepTime], activation: str, peak: float, batch_size: int) -> tuple[str, ...]:
    """Return a sentence for each of the three groups that lose most time against their MACs at the machine's peak."""
    steps, smallest = sum(group.steps for group in groups), MIN_LOST_FRACTION * sum(group.seconds for group in groups)
    slow = (group for group in groups if group.seconds - group.macs / peak >= smallest)
    slowest = sorted(slow, key=lambda group: group.macs / peak - group.seconds)[:3]
    return tuple(_explain_group(group, activation, peak, batch_size, steps) for group in slowest)


def _explain_group(group: StepTime, activation: str, peak: float, batch_size: int, steps: int) -> str:
    time = f"{_format_percent(group.time_fraction)} of the time"
    if group.group == profilers.BETWEEN:
        each = _format_seconds(group.seconds / max(steps - group.steps, 1))
        why = "leaves too little work in each" if batch_size < 8 else "does not explain it"
        return f"between the steps: {time}, {each} for each of {steps}: a batch size of {batch_size} {why}"
    name = GROUP_NAMES[group.group].format(activation=text.ACTIVATION_NAMES[activation])
    if group.macs:
        macs = f"{_format_percent(group.macs_fraction)} of the MACs"
        return f"{name}: {time} for {macs}; {_explain_compute(group, peak)}"
    exponential = ", an exponential per value" if group.group == "activation" and activation == "silu" else ""
    return f"{name}: {time} and no MACs; {_explain_memory(group)}{exponential}"


def _explain_memory(group: StepTime) -> str:
    """Explain why steps without MACs take time."""
    steps = f"{group.steps} step{'' if group.steps == 1 else 's'}"
    if not group.bytes:
        return steps
    slowdown = group.seconds / group.roofline_seconds
    speed = f"{slowdown:.1f}× the time of moving them" if slowdown > SLOW_FACTOR else "as fast as the machine can"
    return f"{group.bytes / 1e6:.3g} MB are read and written in {steps}, {speed}"


def _explain_compute(group: StepTime, peak: float) -> str:
    """Explain what holds up steps with MACs."""
    per_step, slowdown = group.seconds / group.steps, group.seconds / group.roofline_seconds
    parts = [f"{group.intensity:.2g} MACs per byte"]
    if group.roofline_seconds > SLOW_FACTOR * group.macs / peak:  # moving data is the larger part of the work
        parts.append(f"{slowdown:.1f}× the time of moving the data" if slowdown > SLOW_FACTOR else "memory-bound")
    else:
        parts.append(f"at {_format_percent(group.macs / peak / group.seconds)} of peak multiplication")
    if slowdown > SLOW_FACTOR and per_step < SHORT_STEP_SECONDS:
        parts.append(f"{group.steps} short steps of {_format_seconds(per_step)}")
    if slowdown > SLOW_FACTOR and group.group == "depthwise":
        parts.append("since separate channels make no matrix product")
    return ", ".join(parts)


def _format_percent(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.1 else f"{fraction:.1%}"


def _format_seconds(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def write_bottlenecks(report: BottleneckReport, folder: Path) -> list[Path]:
    """Write ``why.json``, ``steps.csv``, and ``stages``, ``groups`` and ``roofline`` as SVG and PNG."""
    subject = f"{report.network} in {report.engine}"
    drawings = {}
    for name, parts in (("stages", report.stages), ("groups", report.groups)):
        fractions = [(part.name, part.time_fraction, part.macs_fraction) for part in parts]
        drawings[name] = benchmark_plots.plot_time_shares(fractions, f"{subject}: time and MACs by {name}")
    peaks = report.peaks
    drawings["roofline"] = benchmark_plots.plot_roofline(
        [
            benchmark_plots.RooflinePoint(step.group, step.intensity, step.speed / 1e9, step.time_fraction)
            for step in report.steps
            if step.macs
        ],
        (peaks.macs(report.precision) or peaks.float32) / 1e9,
        (("in cache", peaks.cache / 1e9), ("in memory", peaks.memory / 1e9)),
        f"{subject}: its operations under the machine's limits",
    )
    return [
        write_json(folder / "why.json", report.to_dict()),
        benchmark.write_records(report.steps, StepTime, folder / "steps.csv"),
        *(path for name, drawing in drawings.items() for path in write_drawing(folder / name, drawing)),
    ]
