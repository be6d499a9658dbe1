"""What was measured: a row for each contestant, and where it was measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from effnet.arch import count
from effnet.arch.serde import Record, check_choice, check_int, check_size
from effnet.data.storage.atomic_write import atomic_write
from effnet.draw.benchmark_plots import LatencyBar, plot_latency
from effnet.draw.figure import RenderedPlot
from effnet.lab.bench import backends as other
from effnet.lab.bench.backends import (
    Backend,
    ImageBatch,
    engine_backend,
    max_relative_difference,
    random_images,
    reference_logits,
)
from effnet.lab.bench.peak_memory import measure_peak_memory
from effnet.lab.compare.table import write_csv, write_drawing
from effnet.net import EfficientNet
from effnet.runtime.base import ENGINE_KINDS, PRECISIONS, installed_engines
from effnet.runtime.torch import torch_threads
from effnet.timing import (
    RUNTIME_PACKAGES,
    THREAD_POOL_PAUSE,
    Machine,
    MachinePeaks,
    TimeRatio,
    Timing,
    describe_machine,
    installed_versions,
    measure_peaks,
    time_interleaved,
    time_ratio,
)
from effnet.weights import save


@dataclass(frozen=True)
class BenchmarkRow(Record):
    """One network through one engine. ``seconds``, ``p10`` and ``p99`` are of one call with ``batch`` pictures.

    ``share`` is ``macs_per_second`` over what the machine reaches in matrix products of this precision and so many
    threads; None where that limit was not measured. ``times`` is how many times as long as the fastest of its cell it
    took, ``times_low`` … ``times_high`` the interval that holds it with 95 %. ``difference`` is the largest one from
    torch's own float32 logits, over the largest of them; None where the network is not the same one. ``bytes`` is the
    peak of memory of a process that does this alone; None where it was not measured.
    """

    network: str
    engine: str
    precision: str
    batch_size: int
    threads: int
    size: tuple[int, int]  # height, width
    seconds: float
    p10: float
    p99: float
    spread: float  # the middle half of the calls over their median
    runs: int
    images_per_second: float
    macs_per_second: float
    peak_fraction: float | None
    slowdown: float
    slowdown_low: float
    slowdown_high: float
    difference: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class BenchmarkCell:
    """What the contestants of one contest have in common."""

    network: str
    macs: int  # of one picture
    batch_size: int
    threads: int
    size: tuple[int, int]
    peaks: MachinePeaks

    def make_row(
        self,
        engine: str,
        precision: str,
        timing: Timing,
        slowdown: TimeRatio,
        difference: float | None,
        peak_bytes: int | None,
    ) -> BenchmarkRow:
        """The row of one of them."""
        speed = self.macs * self.batch_size / timing.seconds
        limit = self.peaks.macs(precision)
        return BenchmarkRow(
            *(self.network, engine, precision, self.batch_size, self.threads, self.size),
            *(timing.seconds, timing.p10, timing.p99, timing.spread),
            runs=timing.runs,
            images_per_second=self.batch_size / timing.seconds,
            macs_per_second=speed,
            peak_fraction=speed / limit if limit else None,
            slowdown=slowdown.value,
            slowdown_low=slowdown.low,
            slowdown_high=slowdown.high,
            difference=difference,
            peak_bytes=peak_bytes,
        )


@dataclass(frozen=True)
class BenchmarkResult(Record):
    """All rows, the machine, its limits for every number of threads, and the versions of what ran."""

    RECORDS = MappingProxyType({"machine": Machine, "peaks": MachinePeaks, "rows": BenchmarkRow})

    machine: Machine
    peaks: tuple[MachinePeaks, ...]
    rows: tuple[BenchmarkRow, ...]
    versions: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = field(default=())  # a sentence for each contestant that could not take part


# Networks × engines × precisions × batches × threads, against peers: a contest for each cell.


LOG = logging.getLogger("effnet")


CALLS_PER_ROUND = 3


LOGITS_TOLERANCE = 1e-3  # of float32 logits: engines differ by rounding, some 1e-5 of the largest


def run_benchmark(
    networks: Sequence[EfficientNet],
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] = ("float32",),
    batch_sizes: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    size: int | tuple[int, int] | None = None,
    peers: Sequence[str] | None = None,
    runs: int = 20,
    seconds: float = 30,
    memory: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> BenchmarkResult:
    """How fast ``networks`` run here. All contestants of a network, a batch and a number of threads take turns.

    ``engines``: every one that is installed but "compiled", which takes a minute to begin; with it come the peers
    compiled too. ``against``: "timm" and "torchvision", where they are installed. ``threads``: as many as there are
    cores. ``size``: (height, width), the network's own if None. ``runs`` rounds of three calls each, but no further
    round of a contest after ``seconds``. ``memory`` runs each contestant once more in a process of its own.
    Raises ``ValueError`` for an unknown engine or precision, no threads, or where nothing could take part;
    ``ImportError`` for an engine or a peer that is asked for and not installed.
    """
    kinds = tuple(engines) if engines is not None else tuple(kind for kind in installed_engines() if kind != "compiled")
    rivals = tuple(peers) if peers is not None else other.installed_peers()
    for what, given, allowed in (("engine", kinds, ENGINE_KINDS), ("precision", precisions, PRECISIONS)):
        for one in given:
            check_choice(what, one, allowed)
    for one in rivals:
        check_choice("against", one, other.PEERS)
    counts = tuple(threads) if threads is not None else (describe_machine().cores,)
    for number in counts:
        check_threads(number)
    for batch in batch_sizes:
        check_int("batch", batch, 1)
    rows: list[BenchmarkRow] = []
    left_out: list[str] = []
    cells = list(product(networks, batch_sizes, counts))
    for done, (model, batch, number) in enumerate(cells):
        progress(f"{model.arch.name}, batch {batch}", done, len(cells))
        with torch_threads(number):
            seen = random_images(batch, check_size(size or model.preprocess.size), model.channels)
            takers = list(_open_backends(model, kinds, precisions, rivals, seen, number, left_out))
            rows += _measure_backends(model, takers, seen, number, runs, seconds, memory)
            del takers
    if not rows:
        raise ValueError("nothing could be measured: " + "; ".join(left_out or ["there is no network or no engine"]))
    return BenchmarkResult(
        *(describe_machine(), tuple(measure_peaks(number) for number in counts), tuple(rows)),
        *(tuple(installed_versions((*RUNTIME_PACKAGES, *rivals)).items()), tuple(left_out)),
    )


def check_threads(threads: int) -> None:
    """Raises ``ValueError`` for no threads; says where there are more than cores."""
    check_int("threads", threads, 1)
    if threads > describe_machine().cores:
        cores = describe_machine().cores
        LOG.warning("%d threads on %d core%s wait for each other", threads, cores, "s" if cores != 1 else "")


def _open_backends(
    model: EfficientNet,
    kinds: Sequence[str],
    precisions: Sequence[str],
    peers: Sequence[str],
    images: ImageBatch,
    threads: int,
    skipped: list[str],
) -> Iterator[Backend]:
    """Those that can take part; why the others cannot goes to ``left_out``."""
    for precision in precisions:
        for kind in kinds:
            try:
                yield engine_backend(model, kind, precision, images, threads)
            except ValueError as error:  # a precision that this engine or this processor has not
                why = f"{kind} in {precision}: {error}"
                if why not in skipped:
                    LOG.warning("left out: %s", why)
                    skipped.append(why)
        for rival in peers:
            ways = ("channels-last", "contiguous", *(("compiled",) if "compiled" in kinds else ()))
            yield from other.peer_backends(model, rival, precision, images, ways)


def _measure_backends(
    model: EfficientNet,
    backends: Sequence[Backend],
    images: ImageBatch,
    threads: int,
    runs: int,
    seconds: float,
    memory: bool,
) -> Iterator[BenchmarkRow]:
    if not backends:
        return
    batch, high, wide, channels = images.shape
    right = reference_logits(model, images)
    macs = count(model.arch, (high, wide), model.classes, channels).macs
    cell = BenchmarkCell(model.arch.name, macs, batch, threads, (high, wide), measure_peaks(threads))
    apart = {one.name: max_relative_difference(one.logits(), right) if one.same_network else None for one in backends}
    for name, far in apart.items():
        if far is not None and name.endswith("float32") and not far < LOGITS_TOLERANCE:
            LOG.warning("%s: %s answers otherwise than torch, by %.1g of the largest logit", cell.network, name, far)
    timings = time_interleaved(
        {one.name: one.run for one in backends}, runs, 2, CALLS_PER_ROUND, THREAD_POOL_PAUSE, seconds
    )
    fastest = min(timings.values(), key=lambda timing: timing.seconds)
    for one in backends:
        timing = timings[one.name]
        held = None
        if memory:
            with TemporaryDirectory() as folder:
                path = save(model, Path(folder) / "model.safetensors")
                held = measure_peak_memory(path, one.engine, one.precision, (batch, high, wide, channels), threads)
        yield cell.make_row(one.engine, one.precision, timing, time_ratio(timing, fastest), apart[one.name], held)


# What was measured, as files: JSON with everything, CSV with a line a row, and plots.


def write_benchmark(result: BenchmarkResult, folder: Path) -> list[Path]:
    """``bench.json``, ``bench.csv``, ``bench.svg`` and ``bench.png`` in ``folder``; their paths.

    Raises ``OSError`` with one sentence where they cannot be written.
    """
    return [
        write_record(result, folder / "bench.json"),
        write_records(result.rows, BenchmarkRow, folder / "bench.csv"),
        *write_drawing(folder / "bench", _plot_benchmark(result)),
    ]


def _plot_benchmark(result: BenchmarkResult) -> RenderedPlot:
    panels = []
    for (network, batch, threads), group in groupby(
        result.rows, lambda row: (row.network, row.batch_size, row.threads)
    ):
        rows = list(group)
        mixed = len({row.precision for row in rows}) > 1
        bars = [
            LatencyBar(
                f"{row.engine}, {row.precision}" if mixed else row.engine,
                *(row.seconds * 1e3, row.p10 * 1e3, row.p99 * 1e3),
                ours=row.engine in ENGINE_KINDS,
            )
            for row in rows
        ]
        told = [f"batch {batch}", f"{threads} thread{'s' if threads != 1 else ''}"]
        panels.append((", ".join([network, *told, *([] if mixed else [rows[0].precision])]), bars))
    return plot_latency(panels, "milliseconds of each contestant")


def write_record(record: Record, path: Path) -> Path:
    """Write ``record`` as JSON."""
    with atomic_write(path) as beside:
        beside.write_text(record.to_json(indent=2) + "\n", encoding="utf-8")
    return path


def write_records(rows: Sequence[Record], kind: type[Record], path: Path) -> Path:
    """Write ``rows`` as a CSV with a column for each field of ``kind``; sizes as "224x224"."""
    names = [field.name for field in fields(kind)]

    def line(row: Record) -> list[object]:
        values = row.to_dict()
        values |= {"size": "x".join(map(str, values["size"]))} if "size" in values else {}
        return ["" if values[name] is None else values[name] for name in names]

    return write_csv(path, names, map(line, rows))
