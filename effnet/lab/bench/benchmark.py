"""``effnet bench``: networks × engines × precisions × batch sizes × threads, against timm and torchvision."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np

from effnet import timing
from effnet.arch import count, serde
from effnet.draw import benchmark_plots, plotting
from effnet.lab.bench import backends
from effnet.lab.compare.comparison_table import write_csv, write_drawing, write_json
from effnet.net import EfficientNet
from effnet.runtime import autotune, base, foreign_onnx, torch
from effnet.weights import save

CALLS_PER_ROUND = 3
CALLS_FOR_PEAK = 2  # in a process of its own
LOGITS_TOLERANCE = 1e-3  # of float32 logits: engines differ by rounding, about 1e-5 of the largest

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class BenchmarkRow(serde.Record):
    """One network in one engine; times are of one call with ``batch_size`` images.

    ``spread``: interquartile range over median. ``peak_fraction``: ``macs_per_second`` over the machine's peak in
    matrix products of this precision on this many threads. ``slowdown``: the time over that of the fastest in its cell,
    with its 95 % interval. ``difference``: the largest from torch's float32 logits, relative to the largest of them;
    None if it is not the same network. ``peak_bytes``: peak memory of a process that only does this.
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
    spread: float
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
class BenchmarkResult(serde.Record):
    """All rows, the machine, its peaks for each number of threads, versions, and why backends were skipped."""

    RECORDS = MappingProxyType({"machine": timing.Machine, "peaks": timing.MachinePeaks, "rows": BenchmarkRow})

    machine: timing.Machine
    peaks: tuple[timing.MachinePeaks, ...]
    rows: tuple[BenchmarkRow, ...]
    versions: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()


def run_benchmark(
    networks: Sequence[EfficientNet | foreign_onnx.OnnxFile],
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
    """Time ``networks`` on this machine; all backends of a network, batch size and number of threads take turns.

    Defaults: all engines but "compiled", which takes a minute to start (with it, peers are compiled too); one thread
    per core; each network's own size; installed peers. An ONNX file of another program runs as it stands, in the
    engines that can, and its MACs are not known (0). ``runs`` are rounds of three calls; no round starts after
    ``seconds``. With ``memory``, each backend also runs in a process of its own, to measure its peak. Raises
    ``ValueError`` if nothing can be measured, and ``ImportError`` if an engine or peer is not installed.
    """
    installed = tuple(kind for kind in base.installed_engines() if kind != "compiled")
    kinds = tuple(engines) if engines is not None else installed
    compared = tuple(peers) if peers is not None else tuple(filter(find_spec, backends.PEERS))
    counts = tuple(threads) if threads is not None else (timing.describe_machine().cores,)
    for kind in kinds:
        serde.check_choice("engine", kind, base.ENGINE_KINDS)
    for precision in precisions:
        serde.check_choice("precision", precision, base.PRECISIONS)
    for peer in compared:
        serde.check_choice("peer", peer, backends.PEERS)
    for number in counts:
        check_threads(number)
    for batch_size in batch_sizes:
        serde.check_int("batch_size", batch_size, 1)
    rows: list[BenchmarkRow] = []
    skipped: list[str] = []
    cells = list(product(networks, batch_sizes, counts))
    for done, (model, batch_size, number) in enumerate(cells):
        if isinstance(model, foreign_onnx.OnnxFile):
            progress(f"{model.path.name}, batch size {batch_size}", done, len(cells))
            rows += _measure_file(model, kinds, batch_size, number, size, runs, seconds)
            continue
        progress(f"{model.arch.name}, batch size {batch_size}", done, len(cells))
        height_width = model.preprocess.size if size is None else serde.check_size(size)
        with torch.torch_threads(number):
            images = backends.random_images(batch_size, height_width, model.channels)
            opened = list(_open_backends(model, kinds, precisions, compared, images, number, skipped))
            rows += _measure_backends(model, opened, images, number, runs, seconds, memory)
            del opened
    if not rows:
        raise ValueError("nothing could be measured: " + "; ".join(skipped or ["no network or no engine is given"]))
    versions = timing.installed_versions((*timing.RUNTIME_PACKAGES, *compared))
    return BenchmarkResult(
        timing.describe_machine(),
        tuple(timing.measure_peaks(number) for number in counts),
        tuple(rows),
        tuple(versions.items()),
        tuple(skipped),
    )


def check_threads(threads: int) -> None:
    """Raise ``ValueError`` for less than one thread; warn about more than one per core."""
    serde.check_int("threads", threads, 1)
    cores = timing.describe_machine().cores
    if threads > cores:
        log.warning("%d threads on %d core%s wait for each other", threads, cores, "s" if cores != 1 else "")


def _open_backends(
    model: EfficientNet,
    kinds: Sequence[str],
    precisions: Sequence[str],
    peers: Sequence[str],
    images: backends.ImageBatch,
    threads: int,
    skipped: list[str],
) -> Iterator[backends.Backend]:
    """Yield the backends that work here; reasons for the others are appended to ``skipped``."""
    variants = ("channels-last", "contiguous", *(("compiled",) if "compiled" in kinds else ()))
    for precision in precisions:
        for kind in kinds:
            try:
                yield backends.engine_backend(model, kind, precision, images, threads)
            except ValueError as error:  # a precision that this engine or this processor does not support
                reason = f"{kind} in {precision}: {error}"
                if reason not in skipped:
                    log.warning("skipped: %s", reason)
                    skipped.append(reason)
        for peer in peers:
            yield from backends.peer_backends(model, peer, precision, images, variants)


def _measure_file(
    file: foreign_onnx.OnnxFile,
    kinds: Sequence[str],
    batch_size: int,
    threads: int,
    size: int | tuple[int, int] | None,
    runs: int,
    seconds: float,
) -> Iterator[BenchmarkRow]:
    """Yield a row for each engine that runs ``file`` as it stands."""
    engines = [autotune.engine(file, kind, threads=threads) for kind in kinds if kind in foreign_onnx.KINDS]
    if not engines:
        return
    preprocess = engines[0].metadata.preprocess
    height_width = preprocess.size if size is None else serde.check_size(size)
    images = backends.random_images(batch_size, height_width, len(preprocess.mean))
    opened = [backends.Backend(each.kind, each.precision, partial(each.run, images), False) for each in engines]
    yield from _time_backends(file.path.name, 0, opened, {}, images, threads, runs, seconds, None)


def _measure_backends(
    model: EfficientNet,
    opened: Sequence[backends.Backend],
    images: backends.ImageBatch,
    threads: int,
    runs: int,
    seconds: float,
    memory: bool,
) -> Iterator[BenchmarkRow]:
    if not opened:
        return
    batch_size, height, width, channels = images.shape
    network = model.arch.name
    macs = count(model.arch, (height, width), model.classes, channels).macs * batch_size
    expected = backends.reference_logits(model, images)
    differences: dict[str, float | None] = {}
    for backend in opened:
        difference = autotune.max_relative_difference(backend.logits(), expected) if backend.same_network else None
        differences[backend.name] = difference
        if difference is not None and backend.precision == "float32" and not difference < LOGITS_TOLERANCE:
            log.warning("%s: %s differs from torch by %.1g of the largest logit", network, backend.name, difference)
    saved = model if memory else None
    yield from _time_backends(network, macs, opened, differences, images, threads, runs, seconds, saved)


def _time_backends(
    network: str,
    macs: int,
    opened: Sequence[backends.Backend],
    differences: Mapping[str, float | None],
    images: backends.ImageBatch,
    threads: int,
    runs: int,
    seconds: float,
    saved: EfficientNet | None,
) -> Iterator[BenchmarkRow]:
    """Yield a row for each of ``opened``, timed in turns; with the peak memory of those that run ``saved``."""
    batch_size, height, width, _ = images.shape
    peaks = timing.measure_peaks(threads)
    calls = {backend.name: backend.run for backend in opened}
    times = timing.time_interleaved(calls, runs, 2, CALLS_PER_ROUND, timing.THREAD_POOL_PAUSE, seconds)
    fastest = min(times.values(), key=lambda each: each.seconds)
    for backend in opened:
        time, peak = times[backend.name], peaks.macs(backend.precision)
        slowdown = timing.time_ratio(time, fastest)
        peak_bytes = None
        if saved:
            with TemporaryDirectory() as folder:
                path = save(saved, Path(folder) / "model.safetensors")
                peak_bytes = measure_peak_memory(path, backend.engine, backend.precision, images.shape, threads)
        yield BenchmarkRow(
            *(network, backend.engine, backend.precision, batch_size, threads, (height, width)),
            *(time.seconds, time.p10, time.p99, time.spread, time.runs, batch_size / time.seconds),
            *(macs / time.seconds, macs / time.seconds / peak if peak and macs else None),
            *(slowdown.value, slowdown.low, slowdown.high),
            difference=differences.get(backend.name),
            peak_bytes=peak_bytes,
        )


def write_benchmark(result: BenchmarkResult, folder: Path) -> list[Path]:
    """Write ``bench.json``, ``bench.csv``, ``bench.svg`` and ``bench.png``; return the paths."""
    return [
        write_json(folder / "bench.json", result.to_dict()),
        write_records(result.rows, BenchmarkRow, folder / "bench.csv"),
        *write_drawing(folder / "bench", _plot_benchmark(result)),
    ]


def _plot_benchmark(result: BenchmarkResult) -> plotting.RenderedPlot:
    panels = []
    cells = groupby(result.rows, lambda row: (row.network, row.batch_size, row.threads))
    for (network, batch_size, threads), group in cells:
        rows = list(group)
        is_mixed = len({row.precision for row in rows}) > 1
        bars = [
            benchmark_plots.LatencyBar(
                f"{row.engine}, {row.precision}" if is_mixed else row.engine,
                *(row.seconds * 1e3, row.p10 * 1e3, row.p99 * 1e3),
                ours=row.engine in base.ENGINE_KINDS,
            )
            for row in rows
        ]
        words = [network, f"batch size {batch_size}", f"{threads} thread{'s' if threads != 1 else ''}"]
        panels.append((", ".join(words if is_mixed else [*words, rows[0].precision]), bars))
    return benchmark_plots.plot_latency(panels, "milliseconds of each backend")


def write_records(records: Sequence[serde.Record], kind: type[serde.Record], path: Path) -> Path:
    """Write ``records`` as CSV with a column for each field of ``kind``; sizes as "224x224"."""
    rows = [record.to_dict() for record in records]
    for row in rows:
        if "size" in row:
            row["size"] = "x".join(map(str, row["size"]))
    return write_csv(path, [field.name for field in fields(kind)], [row.values() for row in rows])


# --- Peak memory of one backend, in a process that does nothing else ------------------------------------------------


def measure_peak_memory(path: Path, engine: str, precision: str, shape: tuple[int, ...], threads: int) -> int:
    """Return the peak bytes of a process that opens the model at ``path`` and runs it on images of ``shape``.

    What an engine caches to be faster the next time, an earlier process has left in the folder of ``path``.
    """
    arguments = (str(path), engine, precision, shape, threads)
    if engine in base.ENGINE_KINDS:
        timing.run_in_subprocess(_run_engine, *arguments)
        return timing.run_in_subprocess(_run_engine, *arguments).peak_bytes
    return timing.run_in_subprocess(_run_peer, *arguments).peak_bytes


def _run_engine(path: str, kind: str, precision: str, shape: tuple[int, ...], threads: int) -> None:
    os.environ["EFFNET_HOME"] = str(Path(path).parent)
    batch_size, height, width, _ = shape
    opened = autotune.engine(path, kind, batch_size, (height, width), precision, threads)
    for _ in range(CALLS_FOR_PEAK):
        opened.run(np.zeros(shape, np.uint8))


def _run_peer(path: str, name: str, precision: str, shape: tuple[int, ...], threads: int) -> None:
    import torch

    from effnet.weights import load

    torch.set_num_threads(threads)
    peer, variant = name.split()
    for backend in backends.peer_backends(load(path), peer, precision, np.zeros(shape, np.uint8), (variant,)):
        for _ in range(CALLS_FOR_PEAK):
            backend.run()
