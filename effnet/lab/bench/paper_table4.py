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
from effnet.lab.compare import baselines, comparison_table
from effnet.lab.compare import paper_figures as paper
from effnet.runtime import autotune, base, latency
from effnet.runtime.torch import torch_threads
from effnet.timing.machine import usable_cores
from effnet.timing.memory import available_memory

WEIGHT_COPIES = 7  # in memory at the end: torch's folded network, two in either engine, and the file's cached pages
TABLE4_COLUMNS = (
    comparison_table.Column("top1", "top-1", "%"),
    comparison_table.Column("size", "size (px)", kinds=("computed",)),
    comparison_table.Column("macs", "MACs", "G", ("computed",)),
    comparison_table.Column("engine", "engine", kinds=("measured",)),
    comparison_table.Column("seconds", "time", "ms", ("measured", "quoted")),
    comparison_table.Column("p10", "p10", "ms", ("measured",)),
    comparison_table.Column("p99", "p99", "ms", ("measured",)),
    comparison_table.Column("peak_fraction", "share of the core's peak", "%", ("measured",)),
    comparison_table.Column("difference", "difference", kinds=("measured",)),
    comparison_table.Column("speedup", "speed-up", "×", ("measured", "quoted")),
    comparison_table.Column("speedup_low", "speed-up, 95 % from", "×", ("measured",)),
    comparison_table.Column("speedup_high", "speed-up, 95 % to", "×", ("measured",)),
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

    def values(self, peak: float) -> dict[str, comparison_table.TableValue]:
        return {
            "size": comparison_table.TableValue(self.size),
            "macs": comparison_table.TableValue(self.macs),
            "engine": comparison_table.TableValue(measured=self.engine),
            "p10": comparison_table.TableValue(measured=self.timing.p10),
            "p99": comparison_table.TableValue(measured=self.timing.p99),
            "peak_fraction": comparison_table.TableValue(measured=self.macs / self.timing.seconds / peak),
            "difference": comparison_table.TableValue(measured=float(f"{self.difference:.1g}")),
        }


def table4(
    pairs: Sequence[paper.Table4Pair] = paper.TABLE4,
    runs: int = 20,
    core: int | None = None,
    seconds: float = float("inf"),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> comparison_table.Table:
    """Time each of ``pairs``, interleaved in one process, on one thread that is pinned to one core.

    Every network runs in every installed engine but "compiled", with random weights, and must agree with torch's
    logits. The speed-up is the ratio of medians of each side's best engine, with a 95 % bootstrap interval over rounds.
    A pair that does not fit in memory is only quoted, with the reason. No round of three calls starts after
    ``seconds``. Raises ``ImportError`` without timm, and ``ValueError`` if this process may not use ``core`` (default:
    the first it may).
    """
    machine = timing.describe_machine()  # before this process is pinned to one core
    rows: list[comparison_table.TableRow] = []
    core = usable_cores()[0] if core is None else core
    with timing.pin_to_cores([core]), torch_threads(1):
        peak = timing.measure_peaks(1).float32
        for pair in pairs:
            reason = _why_not_measured(baselines.BASELINES[pair.baseline])
            if reason:
                log.warning("%s is only quoted: %s", pair.baseline_title, reason)
                rows += _quoted_rows(pair, reason)
                continue
            report = partial(progress, f"{pair.baseline_title} and {pair.ours_title}")
            rows += _pair_rows(pair, _measure_pair(pair, runs, seconds, report), peak)
    versions = timing.installed_versions()
    return comparison_table.Table(
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


def _why_not_measured(baseline: baselines.Baseline) -> str:
    """Return why ``baseline`` cannot be measured here; "" if it can."""
    with torch.device("meta"):
        needed = 4 * WEIGHT_COPIES * sum(parameter.numel() for parameter in baseline.build().parameters())
    available = available_memory()
    if available and needed > available:
        return f"it needs about {needed / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are free"
    return ""


def _measure_pair(
    pair: paper.Table4Pair, runs: int, seconds: float, progress: Callable[[int, int], None]
) -> tuple[list[_EngineRun], list[_EngineRun]]:
    """Time the baseline, and ours, in every engine."""
    baseline, arch = baselines.BASELINES[pair.baseline], ARCHS[pair.ours]
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            macs = baselines.count_module(baseline.build(), baseline.size).macs
        theirs, their_logits = backends.module_backends(baseline.build(), baseline.size, Path(folder))
        network = latency.random_network(arch)
        images = backends.random_images(1, network.preprocess.size)
        kinds = [kind for kind in base.installed_engines() if kind != "compiled"]
        ours = [backends.engine_backend(network, kind, "float32", images, 1) for kind in kinds]
        our_logits = backends.reference_logits(network, images)
        sides = (
            (pair.baseline_title, baseline.size, macs, theirs, their_logits),
            (pair.ours_title, arch.resolution, count(arch).macs, ours, our_logits),
        )
        calls = {f"{title}, {one.engine}": one.run for title, _, _, opened, _ in sides for one in opened}
        differences = [
            [_check_difference(title, backend, logits) for backend in opened] for title, _, _, opened, logits in sides
        ]
        times = timing.time_interleaved(
            calls, runs, 2, benchmark.CALLS_PER_ROUND, timing.THREAD_POOL_PAUSE, seconds, progress
        )
    first, second = (
        [
            _EngineRun(title, backend.engine, work, size, difference, times[f"{title}, {backend.engine}"])
            for backend, difference in zip(opened, each, strict=True)
        ]
        for (title, size, work, opened, _), each in zip(sides, differences, strict=True)
    )
    return first, second


def _check_difference(title: str, backend: backends.Backend, expected: backends.Logits) -> float:
    difference = autotune.max_relative_difference(backend.logits(), expected)
    if not difference < benchmark.LOGITS_TOLERANCE:
        log.warning("%s in %s differs from torch by %.1g of the largest logit", title, backend.engine, difference)
    return difference


def _pair_rows(
    pair: paper.Table4Pair, sides: tuple[list[_EngineRun], list[_EngineRun]], peak: float
) -> list[comparison_table.TableRow]:
    """Return both networks in their best engines, followed by all engines."""
    theirs, ours = (min(side, key=lambda run: run.timing.seconds) for side in sides)
    ratio = timing.time_ratio(theirs.timing, ours.timing)
    speedup = {
        "speedup": comparison_table.TableValue(
            measured=ratio.value, quoted=comparison_table.PrintedFigure(pair.speedup)
        ),
        "speedup_low": comparison_table.TableValue(measured=ratio.low),
        "speedup_high": comparison_table.TableValue(measured=ratio.high),
    }

    def best_row(
        run: _EngineRun, top1: str, seconds: str, extra: dict[str, comparison_table.TableValue]
    ) -> comparison_table.TableRow:
        time = comparison_table.TableValue(measured=run.timing.seconds, quoted=comparison_table.PrintedFigure(seconds))
        return comparison_table.TableRow(
            run.title, run.values(peak) | {"top1": comparison_table.quoted_value(top1), "seconds": time} | extra
        )

    rows = [
        best_row(theirs, pair.baseline_top1, pair.baseline_seconds, {}),
        best_row(ours, pair.ours_top1, pair.ours_seconds, speedup),
    ]
    for run in (*sides[0], *sides[1]):
        values = run.values(peak) | {"seconds": comparison_table.TableValue(measured=run.timing.seconds)}
        rows.append(comparison_table.TableRow(f"{run.title}, {run.engine}", values))
    return rows


def _quoted_rows(pair: paper.Table4Pair, reason: str) -> list[comparison_table.TableRow]:
    """Return both networks as the paper has them."""
    seconds = comparison_table.TableValue(
        quoted=comparison_table.PrintedFigure(pair.baseline_seconds), note=f"only quoted: {reason.rstrip('.')}"
    )
    ours = {"top1": pair.ours_top1, "seconds": pair.ours_seconds, "speedup": pair.speedup}
    return [
        comparison_table.TableRow(
            pair.baseline_title, {"top1": comparison_table.quoted_value(pair.baseline_top1), "seconds": seconds}
        ),
        comparison_table.TableRow(
            pair.ours_title, {key: comparison_table.quoted_value(text) for key, text in ours.items()}
        ),
    ]
