"""The paper's Table 4 on this machine: batch 1, one core, each network on its best engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet.arch import ARCHS, count
from effnet.lab.bench.backends import (
    Backend,
    Logits,
    engine_backend,
    max_relative_difference,
    module_backends,
    random_images,
    reference_logits,
)
from effnet.lab.bench.benchmark import CALLS_PER_ROUND, LOGITS_TOLERANCE
from effnet.lab.compare import paper_figures as paper
from effnet.lab.compare.baselines import BASELINES, Baseline, count_module
from effnet.lab.compare.table import Column, PrintedFigure, Table, TableRow, TableValue, quoted_value
from effnet.runtime.base import installed_engines
from effnet.runtime.latency import random_network
from effnet.runtime.torch import torch_threads
from effnet.timing import (
    THREAD_POOL_PAUSE,
    Timing,
    describe_machine,
    installed_versions,
    measure_peaks,
    pin_to_cores,
    time_interleaved,
    time_ratio,
)
from effnet.timing.machine import usable_cores
from effnet.timing.memory import available_memory

LOG = logging.getLogger("effnet")
WEIGHT_COPIES = (
    7  # of a network's weights in memory, at the end: torch's folded one, two of either engine; a file's pages
)
FLOAT_BYTES = 4
TABLE4_COLUMNS = (
    Column("top1", "top-1", "%"),
    Column("size", "size (px)", kinds=("computed",)),
    Column("macs", "MACs", "G", ("computed",)),
    Column("engine", "engine", kinds=("measured",)),
    Column("seconds", "time", "ms", ("measured", "quoted")),
    Column("p10", "p10", "ms", ("measured",)),
    Column("p99", "p99", "ms", ("measured",)),
    Column("of_peak", "share of the core's peak", "%", ("measured",)),
    Column("off_by", "off by", kinds=("measured",)),
    Column("speedup", "speed-up", "×", ("measured", "quoted")),
    Column("speedup_low", "speed-up, 95 % from", "×", ("measured",)),
    Column("speedup_high", "speed-up, 95 % to", "×", ("measured",)),
)


@dataclass(frozen=True)
class _EngineRun:
    """One network through one engine."""

    title: str
    engine: str
    macs: int
    size: int
    difference: float
    timing: Timing

    def values(self, peak: float) -> dict[str, TableValue]:
        return {
            "size": TableValue(self.size),
            "macs": TableValue(self.macs),
            "engine": TableValue(measured=self.engine),
            "p10": TableValue(measured=self.timing.p10),
            "p99": TableValue(measured=self.timing.p99),
            "of_peak": TableValue(measured=self.macs / self.timing.seconds / peak),
            "off_by": TableValue(measured=float(f"{self.difference:.1g}")),
        }


def table4(
    pairs: Sequence[paper.Table4Pair] = paper.TABLE4,
    runs: int = 20,
    core: int | None = None,
    seconds: float = float("inf"),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Table:
    """Times each of ``pairs``, in turns in one process, on one thread that is kept on one core: number ``core``.

    Every network runs through every engine that is installed but compiled; with random weights, since time does not
    depend on what was learned. ``runs`` rounds of three calls of each, but no further round of a pair after
    ``seconds``. Each engine must answer as eager does. The speed-up is the ratio of the medians of the best engine on
    either side, with the bootstrap's 95 % interval over rounds. A pair for which memory does not suffice, or whose
    rival is not built, is only quoted, and says why. ``progress`` hears what is done, and of how many rounds.
    Raises ``ImportError`` where timm is missing, ``ValueError`` for a core that this process may not use.
    """
    here = describe_machine()  # before this process is kept on one core
    rows: list[TableRow] = []
    core = usable_cores()[0] if core is None else core
    with pin_to_cores([core]), torch_threads(1):
        peak = measure_peaks(1).float32
        for pair in pairs:
            why = _why_not_measured(BASELINES[pair.baseline])
            if why:
                LOG.warning("%s is only quoted: %s", pair.baseline_title, why)
                rows += _quoted_rows(pair, why)
                continue
            hear = partial(progress, f"{pair.baseline_title} and {pair.ours_title}")
            rows += _pair_rows(pair, _measure_pair(pair, runs, seconds, hear), peak)
    return Table(
        "table4",
        "Table 4: batch 1 on one core, each network on its best engine",
        f"{paper.PAPER_V5}, Table 4: one core of an Intel Xeon E5-2690, means of 20 runs, framework not stated; the "
        "accuracies are those of version 1",
        TABLE4_COLUMNS,
        tuple(rows),
        (
            f"Measured on {here.describe()}; one thread on core {core}, which multiplies at {peak / 1e9:.0f} GMAC/s at "
            "most; " + ", ".join(f"{name} {version}" for name, version in installed_versions().items()) + ".",
            "Medians, in turns. Of a pair the first two lines are each network on its best engine; below them are all "
            "engines.",
            "Only the ratios compare with the paper's: the seconds are another machine's.",
            "Off by: the largest difference from torch's own float32 logits, over the largest of them.",
        ),
        {"machine": here.to_dict(), "versions": dict(installed_versions()), "peak": peak, "core": core},
    )


def _why_not_measured(rival: Baseline) -> str:
    """Why ``rival`` cannot be measured here; "" where it can."""
    if rival.origin == "quoted":
        return f"not built: {rival.origin_note}"
    with torch.device("meta"):
        needed = WEIGHT_COPIES * FLOAT_BYTES * sum(parameter.numel() for parameter in rival.build().parameters())
    there = available_memory()
    if there and needed > there:
        return f"it needs some {needed / 1e9:.0f} GB of memory, and {there / 1e9:.0f} GB are free"
    return ""


def _measure_pair(
    pair: paper.Table4Pair, runs: int, seconds: float, progress: Callable[[int, int], None]
) -> tuple[list[_EngineRun], list[_EngineRun]]:
    """The rival, and ours, through every engine."""
    rival, arch = BASELINES[pair.baseline], ARCHS[pair.ours]
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            macs = count_module(rival.build(), rival.size).macs
        theirs, right = module_backends(rival.build(), rival.size, Path(folder))
        network = random_network(arch)
        seen = random_images(1, network.preprocess.size)
        kinds = [kind for kind in installed_engines() if kind != "compiled"]
        own = [engine_backend(network, kind, "float32", seen, 1) for kind in kinds]
        expected = reference_logits(network, seen)
        sides = (
            (pair.baseline_title, rival.size, macs, theirs, right),
            (pair.ours_title, arch.resolution, count(arch).macs, own, expected),
        )
        takers = {(title, one.engine): one for title, _, _, each, _ in sides for one in each}
        apart = {
            (title, one.engine): _check_difference(title, one, truth)
            for title, _, _, each, truth in sides
            for one in each
        }
        calls = {", ".join(key): one.run for key, one in takers.items()}
        timings = time_interleaved(calls, runs, 2, CALLS_PER_ROUND, THREAD_POOL_PAUSE, seconds, progress)
    first, second = (
        [
            _EngineRun(title, one.engine, work, size, apart[title, one.engine], timings[f"{title}, {one.engine}"])
            for one in each
        ]
        for title, size, work, each, _ in sides
    )
    return first, second


def _check_difference(title: str, one: Backend, right: Logits) -> float:
    far = max_relative_difference(one.logits(), right)
    if not far < LOGITS_TOLERANCE:
        LOG.warning("%s through %s answers otherwise than torch, by %.1g of the largest logit", title, one.engine, far)
    return far


def _pair_rows(pair: paper.Table4Pair, ran: tuple[list[_EngineRun], list[_EngineRun]], peak: float) -> list[TableRow]:
    """Both networks on their best engines, and below them all engines."""
    best = [min(side, key=lambda one: one.timing.seconds) for side in ran]
    found = time_ratio(best[0].timing, best[1].timing)
    ratios: tuple[dict[str, TableValue], ...] = (
        {},
        {
            "speedup": TableValue(measured=found.value, quoted=PrintedFigure(pair.speedup)),
            "speedup_low": TableValue(measured=found.low),
            "speedup_high": TableValue(measured=found.high),
        },
    )
    figures = ((pair.baseline_top1, pair.baseline_seconds), (pair.ours_top1, pair.ours_seconds))
    rows = [
        TableRow(
            one.title,
            one.values(peak)
            | {
                "top1": quoted_value(top1),
                "seconds": TableValue(measured=one.timing.seconds, quoted=PrintedFigure(printed)),
            }
            | more,
        )
        for one, (top1, printed), more in zip(best, figures, ratios, strict=True)
    ]
    for side in ran:
        for one in side:
            values = one.values(peak) | {"seconds": TableValue(measured=one.timing.seconds)}
            rows.append(TableRow(f"{one.title}, {one.engine}", values))
    return rows


def _quoted_rows(pair: paper.Table4Pair, why: str) -> list[TableRow]:
    """Both networks as the paper has them."""
    return [
        TableRow(
            pair.baseline_title,
            {
                "top1": quoted_value(pair.baseline_top1),
                "seconds": TableValue(
                    quoted=PrintedFigure(pair.baseline_seconds), note=f"only quoted: {why.rstrip('.')}"
                ),
            },
        ),
        TableRow(
            pair.ours_title,
            {
                "top1": quoted_value(pair.ours_top1),
                "seconds": quoted_value(pair.ours_seconds),
                "speedup": quoted_value(pair.speedup),
            },
        ),
    ]
