"""Table 4 of the paper on this machine: batch size 1, one core, each network in its best engine."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet import timing
from effnet.arch import ARCHS, count
from effnet.lab.bench import backends, benchmark
from effnet.lab.compare import baselines, published_numbers
from effnet.lab.compare.comparison_table import Column, Table, TableRow, TableValue, compare_values, quoted_value
from effnet.runtime import autotune, base, latency
from effnet.runtime.torch import torch_threads

WEIGHT_COPIES = 7  # in memory at the end: torch's folded network, two in either engine, and the file's cached pages
TABLE4_COLUMNS = (
    Column("top1", "top-1", "%"),
    Column("size", "size (px)", kinds=("computed",)),
    Column("macs", "MACs", "G", ("computed",)),
    Column("engine", "engine", kinds=("measured",)),
    Column("seconds", "time", "ms", ("measured", "quoted")),
    Column("p10", "p10", "ms", ("measured",)),
    Column("p99", "p99", "ms", ("measured",)),
    Column("peak_fraction", "share of the core's peak", "%", ("measured",)),
    Column("difference", "difference", kinds=("measured",)),
    Column("speedup", "speed-up", "×", ("measured", "quoted")),
    Column("speedup_low", "speed-up, 95 % from", "×", ("measured",)),
    Column("speedup_high", "speed-up, 95 % to", "×", ("measured",)),
)

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class _EngineRun:
    """One network in one engine, with the largest difference from torch's logits."""

    title: str
    size: int
    macs: int
    backend: backends.Backend
    difference: float

    @property
    def name(self) -> str:
        return f"{self.title}, {self.backend.engine}"

    def row(self, name: str, time: timing.Timing, peak: float, **others: TableValue) -> TableRow:
        measured: dict[str, float | str] = {
            "engine": self.backend.engine,
            "seconds": time.seconds,
            "p10": time.p10,
            "p99": time.p99,
            "peak_fraction": self.macs / time.seconds / peak,
            "difference": float(f"{self.difference:.1g}"),
        }
        values = {key: TableValue(measured=amount) for key, amount in measured.items()}
        return TableRow(name, {"size": TableValue(self.size), "macs": TableValue(self.macs), **values, **others})


def table4(
    pairs: Sequence[published_numbers.Table4Pair] = published_numbers.TABLE4,
    runs: int = 20,
    core: int | None = None,
    seconds: float = float("inf"),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Table:
    """Time each of ``pairs``, interleaved in one process, on one thread that is pinned to one core.

    Every network runs in every installed engine but "compiled", with random weights, and must agree with torch's
    logits. The speed-up is the ratio of medians of each side's best engine, with a 95 % bootstrap interval over rounds.
    A pair that does not fit in memory is only quoted. No round of three calls starts after ``seconds``. Raises
    ``ImportError`` without timm, and ``ValueError`` if this process may not use ``core`` (default: the first it may).
    """
    machine = timing.describe_machine()  # before this process is pinned to one core
    rows: list[TableRow] = []
    core = timing.machine.usable_cores()[0] if core is None else core
    with timing.pin_to_cores([core]), torch_threads(1):
        peak = timing.measure_peaks(1).float32
        for pair in pairs:
            reason = _why_not_measured(baselines.BASELINES[pair.baseline])
            if reason:
                log.warning("%s is only quoted: %s", pair.baseline_title, reason)
                rows += _quoted_rows(pair, reason)
            else:
                rows += _measure_pair(pair, peak, runs, seconds, progress)
    versions = timing.installed_versions()
    return Table(
        "table4",
        "Table 4: batch size 1 on one core, each network in its best engine",
        f"{published_numbers.PAPER_V5}, Table 4: one core of an Intel Xeon E5-2690, means of 20 runs, framework not "
        "stated; the accuracies are those of version 1",
        TABLE4_COLUMNS,
        tuple(rows),
        (
            f"Measured on {machine.describe()}; one thread on core {core}, whose peak is {peak / 1e9:.0f} GMAC/s; "
            f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
            "Interleaved medians. The first two rows of a pair are each network in its best engine, followed by all "
            "engines.",
            "Only ratios compare with the paper's: its seconds are another machine's.",
            "Difference: the largest from torch's float32 logits, relative to the largest of them.",
        ),
        {"machine": machine.to_dict(), "versions": dict(versions), "peak": peak, "core": core},
    )


def _why_not_measured(baseline: baselines.Baseline) -> str:
    """Return why ``baseline`` cannot be measured here; "" if it can."""
    with torch.device("meta"):
        needed = 4 * WEIGHT_COPIES * sum(parameter.numel() for parameter in baseline.build().parameters())
    available = timing.memory.available_memory()
    if available and needed > available:
        return f"it needs about {needed / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are free"
    return ""


def _measure_pair(
    pair: published_numbers.Table4Pair,
    peak: float,
    runs: int,
    seconds: float,
    progress: Callable[[str, int, int], None],
) -> list[TableRow]:
    """Return both networks in their best engines, followed by all engines."""
    baseline, arch = baselines.BASELINES[pair.baseline], ARCHS[pair.ours]
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            macs = baselines.count_module(baseline.build(), baseline.size).macs
        opened, logits = backends.module_backends(baseline.build(), baseline.size, Path(folder))
        theirs = [_check_run(pair.baseline_title, baseline.size, macs, backend, logits) for backend in opened]
        network = latency.random_network(arch)
        images = backends.random_images(1, network.preprocess.size)
        kinds = [kind for kind in base.installed_engines() if kind != "compiled"]
        opened = [backends.engine_backend(network, kind, "float32", images, 1) for kind in kinds]
        logits, macs = backends.reference_logits(network, images), count(arch).macs
        ours = [_check_run(pair.ours_title, arch.resolution, macs, backend, logits) for backend in opened]
        times = timing.time_interleaved(
            {run.name: run.backend.run for run in (*theirs, *ours)},
            *(runs, 2, benchmark.CALLS_PER_ROUND, timing.THREAD_POOL_PAUSE, seconds),
            partial(progress, f"{pair.baseline_title} and {pair.ours_title}"),
        )
    best = [min(side, key=lambda run: times[run.name].seconds) for side in (theirs, ours)]
    ratio = timing.time_ratio(times[best[0].name], times[best[1].name])
    speedup = {
        "speedup": quoted_value(pair.speedup, ratio.value),
        "speedup_low": TableValue(measured=ratio.low),
        "speedup_high": TableValue(measured=ratio.high),
    }
    quoted = (pair.baseline_top1, pair.baseline_seconds), (pair.ours_top1, pair.ours_seconds)
    rows = []
    for run, (top1, printed), others in zip(best, quoted, ({}, speedup), strict=True):
        time = times[run.name]
        values = {"top1": quoted_value(top1), "seconds": quoted_value(printed, time.seconds)}
        rows.append(run.row(run.title, time, peak, **values, **others))
    return rows + [run.row(run.name, times[run.name], peak) for run in (*theirs, *ours)]


def _check_run(title: str, size: int, macs: int, backend: backends.Backend, expected: backends.Logits) -> _EngineRun:
    difference = autotune.max_relative_difference(backend.logits(), expected)
    if not difference < benchmark.LOGITS_TOLERANCE:
        log.warning("%s in %s differs from torch by %.1g of the largest logit", title, backend.engine, difference)
    return _EngineRun(title, size, macs, backend, difference)


def _quoted_rows(pair: published_numbers.Table4Pair, reason: str) -> list[TableRow]:
    """Return both networks as the paper has them."""
    seconds = compare_values(None, pair.baseline_seconds, note=f"only quoted: {reason.rstrip('.')}")
    ours = {"top1": pair.ours_top1, "seconds": pair.ours_seconds, "speedup": pair.speedup}
    return [
        TableRow(pair.baseline_title, {"top1": quoted_value(pair.baseline_top1), "seconds": seconds}),
        TableRow(pair.ours_title, {key: quoted_value(text) for key, text in ours.items()}),
    ]
