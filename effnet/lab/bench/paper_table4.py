"""Table 4 of the paper on this machine: batch size 1, one core, each network in its best engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet import timing
from effnet.arch import ARCHS, count
from effnet.lab.bench import backends
from effnet.lab.bench.benchmark import CALLS_PER_ROUND, LOGITS_TOLERANCE
from effnet.lab.compare import paper_figures as paper
from effnet.lab.compare.baselines import BASELINES, Baseline, count_module
from effnet.lab.compare.table import Column, PrintedFigure, Table, TableRow, TableValue, quoted_value
from effnet.runtime.autotune import max_relative_difference
from effnet.runtime.base import installed_engines
from effnet.runtime.latency import random_network
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import usable_cores
from effnet.timing.memory import available_memory

WEIGHT_COPIES = 7  # in memory at the end: torch's folded network, two in either engine, and the file's cached pages
FLOAT_BYTES = 4
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
    """One network in one engine."""

    title: str
    engine: str
    macs: int
    size: int
    difference: float
    timing: timing.Timing

    def values(self, peak: float) -> dict[str, TableValue]:
        return {
            "size": TableValue(self.size),
            "macs": TableValue(self.macs),
            "engine": TableValue(measured=self.engine),
            "p10": TableValue(measured=self.timing.p10),
            "p99": TableValue(measured=self.timing.p99),
            "peak_fraction": TableValue(measured=self.macs / self.timing.seconds / peak),
            "difference": TableValue(measured=float(f"{self.difference:.1g}")),
        }


def table4(
    pairs: Sequence[paper.Table4Pair] = paper.TABLE4,
    runs: int = 20,
    core: int | None = None,
    seconds: float = float("inf"),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Table:
    """Time each of ``pairs``, interleaved in one process, on one thread that is pinned to one core.

    Every network runs in every installed engine but "compiled", with random weights, since time does not depend on
    training, and must agree with torch's logits. The speed-up is the ratio of medians of each side's best engine, with
    a 95 % bootstrap interval over rounds. A pair that does not fit in memory, or whose baseline cannot be built, is
    only quoted, with the reason.

    Args:
        runs: rounds of three calls each; no round of a pair starts after ``seconds``.
        core: number of the core; default: the first that this process may use.

    Raises:
        ImportError: timm is not installed.
        ValueError: this process may not use ``core``.
    """
    machine = timing.describe_machine()  # before this process is pinned to one core
    rows: list[TableRow] = []
    core = usable_cores()[0] if core is None else core
    with timing.pin_to_cores([core]), torch_threads(1):
        peak = timing.measure_peaks(1).float32
        for pair in pairs:
            reason = _why_not_measured(BASELINES[pair.baseline])
            if reason:
                log.warning("%s is only quoted: %s", pair.baseline_title, reason)
                rows += _quoted_rows(pair, reason)
                continue
            report = partial(progress, f"{pair.baseline_title} and {pair.ours_title}")
            rows += _pair_rows(pair, _measure_pair(pair, runs, seconds, report), peak)
    versions = timing.installed_versions()
    return Table(
        "table4",
        "Table 4: batch size 1 on one core, each network in its best engine",
        f"{paper.PAPER_V5}, Table 4: one core of an Intel Xeon E5-2690, means of 20 runs, framework not stated; the "
        "accuracies are those of version 1",
        TABLE4_COLUMNS,
        tuple(rows),
        (
            f"Measured on {machine.describe()}; one thread on core {core}, whose peak is {peak / 1e9:.0f} GMAC/s; "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + ".",
            "Interleaved medians. The first two rows of a pair are each network in its best engine, followed by all "
            "engines.",
            "Only ratios compare with the paper's: its seconds are another machine's.",
            "Difference: the largest from torch's float32 logits, relative to the largest of them.",
        ),
        {"machine": machine.to_dict(), "versions": dict(versions), "peak": peak, "core": core},
    )


def _why_not_measured(baseline: Baseline) -> str:
    """Return why ``baseline`` cannot be measured here; "" if it can."""
    if baseline.origin == "quoted":
        return f"not built: {baseline.origin_note}"
    with torch.device("meta"):
        needed = WEIGHT_COPIES * FLOAT_BYTES * sum(parameter.numel() for parameter in baseline.build().parameters())
    available = available_memory()
    if available and needed > available:
        return f"it needs about {needed / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are free"
    return ""


def _measure_pair(
    pair: paper.Table4Pair, runs: int, seconds: float, progress: Callable[[int, int], None]
) -> tuple[list[_EngineRun], list[_EngineRun]]:
    """Time the baseline, and ours, in every engine."""
    baseline, arch = BASELINES[pair.baseline], ARCHS[pair.ours]
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            macs = count_module(baseline.build(), baseline.size).macs
        theirs, their_logits = backends.module_backends(baseline.build(), baseline.size, Path(folder))
        network = random_network(arch)
        images = backends.random_images(1, network.preprocess.size)
        kinds = [kind for kind in installed_engines() if kind != "compiled"]
        ours = [backends.engine_backend(network, kind, "float32", images, 1) for kind in kinds]
        our_logits = backends.reference_logits(network, images)
        sides = (
            (pair.baseline_title, baseline.size, macs, theirs, their_logits),
            (pair.ours_title, arch.resolution, count(arch).macs, ours, our_logits),
        )
        names = [(title, backend) for title, _, _, opened, _ in sides for backend in opened]
        calls = {f"{title}, {backend.engine}": backend.run for title, backend in names}
        differences = [
            [_check_difference(title, backend, logits) for backend in opened] for title, _, _, opened, logits in sides
        ]
        times = timing.time_interleaved(calls, runs, 2, CALLS_PER_ROUND, timing.THREAD_POOL_PAUSE, seconds, progress)
    first, second = (
        [
            _EngineRun(title, backend.engine, work, size, difference, times[f"{title}, {backend.engine}"])
            for backend, difference in zip(opened, each, strict=True)
        ]
        for (title, size, work, opened, _), each in zip(sides, differences, strict=True)
    )
    return first, second


def _check_difference(title: str, backend: backends.Backend, expected: backends.Logits) -> float:
    difference = max_relative_difference(backend.logits(), expected)
    if not difference < LOGITS_TOLERANCE:
        log.warning("%s in %s differs from torch by %.1g of the largest logit", title, backend.engine, difference)
    return difference


def _pair_rows(pair: paper.Table4Pair, sides: tuple[list[_EngineRun], list[_EngineRun]], peak: float) -> list[TableRow]:
    """Return both networks in their best engines, followed by all engines."""
    theirs, ours = (min(side, key=lambda run: run.timing.seconds) for side in sides)
    ratio = timing.time_ratio(theirs.timing, ours.timing)
    speedup = {
        "speedup": TableValue(measured=ratio.value, quoted=PrintedFigure(pair.speedup)),
        "speedup_low": TableValue(measured=ratio.low),
        "speedup_high": TableValue(measured=ratio.high),
    }

    def best_row(run: _EngineRun, top1: str, seconds: str, extra: dict[str, TableValue]) -> TableRow:
        time = TableValue(measured=run.timing.seconds, quoted=PrintedFigure(seconds))
        return TableRow(run.title, run.values(peak) | {"top1": quoted_value(top1), "seconds": time} | extra)

    rows = [
        best_row(theirs, pair.baseline_top1, pair.baseline_seconds, {}),
        best_row(ours, pair.ours_top1, pair.ours_seconds, speedup),
    ]
    for run in (*sides[0], *sides[1]):
        values = run.values(peak) | {"seconds": TableValue(measured=run.timing.seconds)}
        rows.append(TableRow(f"{run.title}, {run.engine}", values))
    return rows


def _quoted_rows(pair: paper.Table4Pair, reason: str) -> list[TableRow]:
    """Return both networks as the paper has them."""
    seconds = TableValue(quoted=PrintedFigure(pair.baseline_seconds), note=f"only quoted: {reason.rstrip('.')}")
    ours = {"top1": pair.ours_top1, "seconds": pair.ours_seconds, "speedup": pair.speedup}
    return [
        TableRow(pair.baseline_title, {"top1": quoted_value(pair.baseline_top1), "seconds": seconds}),
        TableRow(pair.ours_title, {key: quoted_value(text) for key, text in ours.items()}),
    ]
