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
from effnet.bench.contestant import Contestant, Logits, difference, pictures, reference
from effnet.bench.foreign import foreign
from effnet.bench.network import random_network
from effnet.bench.ours import ours
from effnet.bench.run import AGREE, CONSECUTIVE, torch_threads
from effnet.clock import PAUSE, Timing, contest, machine, peaks, pinned, ratio, versions
from effnet.clock.cores import usable
from effnet.clock.memory import available
from effnet.compare import quoted as paper
from effnet.compare.cost import cost
from effnet.compare.rivals import RIVALS, Rival
from effnet.compare.table import Column, Row, Table
from effnet.compare.value import Printed, Value, quoted
from effnet.engines.engine import installed

LOG = logging.getLogger("effnet")
COPIES = 7  # of a network's weights in memory, at the end: torch's folded one, two of either engine; a file's pages
FLOAT_BYTES = 4
COLUMNS = (
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
class _Ran:
    """One network through one engine."""

    title: str
    engine: str
    macs: int
    size: int
    off_by: float
    timing: Timing

    def values(self, peak: float) -> dict[str, Value]:
        return {
            "size": Value(self.size),
            "macs": Value(self.macs),
            "engine": Value(measured=self.engine),
            "p10": Value(measured=self.timing.p10),
            "p99": Value(measured=self.timing.p99),
            "of_peak": Value(measured=self.macs / self.timing.seconds / peak),
            "off_by": Value(measured=float(f"{self.off_by:.1g}")),
        }


def table4(
    pairs: Sequence[paper.Pair] = paper.TABLE4,
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
    here = machine()  # before this process is kept on one core
    rows: list[Row] = []
    core = usable()[0] if core is None else core
    with pinned([core]), torch_threads(1):
        peak = peaks(1).float32
        for pair in pairs:
            why = _hindered(RIVALS[pair.rival])
            if why:
                LOG.warning("%s is only quoted: %s", pair.rival_title, why)
                rows += _quoted(pair, why)
                continue
            hear = partial(progress, f"{pair.rival_title} and {pair.ours_title}")
            rows += _rows(pair, _measured(pair, runs, seconds, hear), peak)
    return Table(
        "table4",
        "Table 4: batch 1 on one core, each network on its best engine",
        f"{paper.V5}, Table 4: one core of an Intel Xeon E5-2690, means of 20 runs, framework not stated; the "
        "accuracies are those of version 1",
        COLUMNS,
        tuple(rows),
        (
            f"Measured on {here.in_words()}; one thread on core {core}, which multiplies at {peak / 1e9:.0f} GMAC/s at "
            "most; " + ", ".join(f"{name} {version}" for name, version in versions().items()) + ".",
            "Medians, in turns. Of a pair the first two lines are each network on its best engine; below them are all "
            "engines.",
            "Only the ratios compare with the paper's: the seconds are another machine's.",
            "Off by: the largest difference from torch's own float32 logits, over the largest of them.",
        ),
        {"machine": here.to_dict(), "versions": dict(versions()), "peak": peak, "core": core},
    )


def _hindered(rival: Rival) -> str:
    """Why ``rival`` cannot be measured here; "" where it can."""
    if rival.origin == "quoted":
        return f"not built: {rival.why}"
    with torch.device("meta"):
        needed = COPIES * FLOAT_BYTES * sum(parameter.numel() for parameter in rival.build().parameters())
    there = available()
    if there and needed > there:
        return f"it needs some {needed / 1e9:.0f} GB of memory, and {there / 1e9:.0f} GB are free"
    return ""


def _measured(
    pair: paper.Pair, runs: int, seconds: float, progress: Callable[[int, int], None]
) -> tuple[list[_Ran], list[_Ran]]:
    """The rival, and ours, through every engine."""
    rival, arch = RIVALS[pair.rival], ARCHS[pair.ours]
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            macs = cost(rival.build(), rival.size).macs
        theirs, right = foreign(rival.build(), rival.size, Path(folder))
        network = random_network(arch)
        seen = pictures(1, network.preprocess.size)
        kinds = [kind for kind in installed() if kind != "compiled"]
        own = [ours(network, kind, "float32", seen, 1) for kind in kinds]
        expected = reference(network, seen)
        sides = (
            (pair.rival_title, rival.size, macs, theirs, right),
            (pair.ours_title, arch.resolution, count(arch).macs, own, expected),
        )
        takers = {(title, one.engine): one for title, _, _, each, _ in sides for one in each}
        apart = {(title, one.engine): _off(title, one, truth) for title, _, _, each, truth in sides for one in each}
        calls = {", ".join(key): one.run for key, one in takers.items()}
        timings = contest(calls, runs, 2, CONSECUTIVE, PAUSE, seconds, progress)
    first, second = (
        [
            _Ran(title, one.engine, work, size, apart[title, one.engine], timings[f"{title}, {one.engine}"])
            for one in each
        ]
        for title, size, work, each, _ in sides
    )
    return first, second


def _off(title: str, one: Contestant, right: Logits) -> float:
    far = difference(one.logits(), right)
    if not far < AGREE:
        LOG.warning("%s through %s answers otherwise than torch, by %.1g of the largest logit", title, one.engine, far)
    return far


def _rows(pair: paper.Pair, ran: tuple[list[_Ran], list[_Ran]], peak: float) -> list[Row]:
    """Both networks on their best engines, and below them all engines."""
    best = [min(side, key=lambda one: one.timing.seconds) for side in ran]
    found = ratio(best[0].timing, best[1].timing)
    ratios: tuple[dict[str, Value], ...] = (
        {},
        {
            "speedup": Value(measured=found.value, quoted=Printed(pair.speedup)),
            "speedup_low": Value(measured=found.low),
            "speedup_high": Value(measured=found.high),
        },
    )
    figures = ((pair.rival_top1, pair.rival_seconds), (pair.ours_top1, pair.ours_seconds))
    rows = [
        Row(
            one.title,
            one.values(peak)
            | {"top1": quoted(top1), "seconds": Value(measured=one.timing.seconds, quoted=Printed(printed))}
            | more,
        )
        for one, (top1, printed), more in zip(best, figures, ratios, strict=True)
    ]
    for side in ran:
        for one in side:
            values = one.values(peak) | {"seconds": Value(measured=one.timing.seconds)}
            rows.append(Row(f"{one.title}, {one.engine}", values))
    return rows


def _quoted(pair: paper.Pair, why: str) -> list[Row]:
    """Both networks as the paper has them."""
    return [
        Row(
            pair.rival_title,
            {
                "top1": quoted(pair.rival_top1),
                "seconds": Value(quoted=Printed(pair.rival_seconds), note=f"only quoted: {why.rstrip('.')}"),
            },
        ),
        Row(
            pair.ours_title,
            {
                "top1": quoted(pair.ours_top1),
                "seconds": quoted(pair.ours_seconds),
                "speedup": quoted(pair.speedup),
            },
        ),
    ]
