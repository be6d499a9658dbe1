"""``effnet bench``: how fast networks run on this machine, and why a network takes as long as it does."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options
from effnet.weights import WEIGHTS_SUFFIXES

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.lab.bench import benchmark, bottlenecks
    from effnet.net import EfficientNet
    from effnet.runtime import foreign_onnx

MAX_SLOWEST_STEPS = 8


@with_weights_options()
def bench(
    networks: Annotated[
        list[str] | None,
        Argument(metavar="NETWORK", help="Names such as b0, weights files or JSON architectures (default: b0)."),
    ] = None,
    why: Annotated[bool, Option("--why", help="Profile one network: where its time goes, and why.")] = False,
    engine: Annotated[
        str | None,
        Option(metavar="LIST", help="eager,compiled,native,onnxruntime,openvino,litert; with --why also auto."),
    ] = None,
    precision: Annotated[str, Option(metavar="LIST", help="float32,bfloat16,float16,int8.")] = "float32",
    batch_size: Annotated[
        str, Option(*options.BATCH_SIZE, metavar="LIST", help="Images per batch, such as 1,32.")
    ] = "1",
    threads: Annotated[
        str | None, Option(metavar="LIST", help="Numbers of threads, such as 1,2 (default: one per core).")
    ] = None,
    image_size: options.ImageSizeOption = None,
    against: Annotated[
        str | None, Option(metavar="LIST", help="Libraries to compare with: timm,torchvision, or none.")
    ] = None,
    runs: Annotated[int, options.number("Rounds in which all candidates take turns.")] = 20,
    seconds: Annotated[
        float,
        options.real(
            "Time limit of a comparison; the round in progress is completed.",
            max=options.MAX_SECONDS,
            positive=True,
            metavar="S",
        ),
    ] = 30,
    memory: Annotated[
        bool, Option("--memory", help="Also measure peak memory, each in its own process: slow.")
    ] = False,
    part: WeightsOptions = AS_STATED,
    out: Annotated[
        Path | None, options.output("FOLDER", "Write JSON, CSV and plots (SVG, PNG) to this folder.")
    ] = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Measure how fast networks run on this machine.

    All installed engines, timm and torchvision take turns, compared with the machine's peak. A network given by name
    has random weights. With --why: where the time of one network goes, and why.
    """
    size, names, precisions = options.parse_image_size(image_size), networks or ["b0"], options.split_list(precision)
    batch_sizes = options.parse_int_list(batch_size, "--batch-size", serde.MAX_BATCH_SIZE)
    engines = options.split_list(engine) if engine else None
    thread_counts = options.parse_int_list(threads, "--threads", serde.MAX_PROCESSES) if threads else None

    if len(names) > 1:
        part.refuse(f"applies to one network, got {len(names)}")
    if why:
        single = {"NETWORK": names, "--engine": engines, "--precision": precisions, "--batch-size": batch_sizes}
        for name, values in {**single, "--threads": thread_counts}.items():
            if values and len(values) > 1:
                raise options.UsageError(f"--why takes one value of {name}, got {len(values)}")
        from effnet.lab.bench import bottlenecks

        kind, count = engines[0] if engines else "auto", thread_counts[0] if thread_counts else None
        report = bottlenecks.find_bottlenecks(
            _load_network(names[0], part), kind, precisions[0], batch_sizes[0], count, size, max(runs, 3), seconds
        )
        printing.note_written(bottlenecks.write_bottlenecks(report, out) if out else [])
        printing.print_json(report.to_dict()) if as_json else _print_bottlenecks(report)
        return
    from effnet.lab.bench import benchmark
    from effnet.runtime import foreign_onnx

    libraries = None if against is None else () if against == "none" else options.split_list(against)
    loaded = [_open_network(name, part, engines) for name in names]
    with printing.progress_bar("measuring") as step:
        result = benchmark.run_benchmark(
            loaded,
            *(engines, precisions, batch_sizes, thread_counts, size, libraries, runs, seconds, memory),
            progress=lambda _, done, total: step(done, total),
        )
    for name, network in zip(names, loaded, strict=True) if precisions[0] != "int8" else ():
        if _is_weights_file(name) and not isinstance(network, foreign_onnx.OnnxFile):
            _autotune(
                name, network if part.chosen else name, batch_sizes, size, precisions[0], thread_counts or (None,)
            )
    printing.note_written(benchmark.write_benchmark(result, out) if out else [])
    printing.print_json(result.to_dict()) if as_json else _print_benchmark(result)


def _open_network(
    network: str, part: WeightsOptions, engines: Iterable[str] | None
) -> "EfficientNet | foreign_onnx.OnnxFile":
    """Return the network, or an ONNX file of another program as it stands, if all ``engines`` can run it so."""
    from effnet.runtime import foreign_onnx

    if set(engines or ()) <= set(foreign_onnx.KINDS):
        file = foreign_onnx.find_runnable(network)
        opened = part.open_to_run(network) if part.chosen and file else file
        if opened and not isinstance(opened, str):
            return opened
    return _load_network(network, part)


def _load_network(network: str, part: WeightsOptions) -> "EfficientNet":
    from effnet.runtime.latency import random_network

    if _is_weights_file(network):
        return part.load(network)
    part.refuse(f"applies to a file of weights, not to {network}")
    return random_network(options.resolve_network(network).arch)


def _is_weights_file(network: str) -> bool:
    path = Path(network)
    return path.suffix != ".json" and (path.suffix in WEIGHTS_SUFFIXES or path.exists())


def _autotune(
    name: str,
    network: "str | EfficientNet",
    batch_sizes: Iterable[int],
    size: tuple[int, int] | None,
    precision: str,
    threads: Iterable[int | None],
) -> None:
    from effnet.runtime.autotune import engine

    for batch_size, count in product(batch_sizes, threads):
        chosen = engine(network, "auto", batch_size, size, precision, count)
        printing.note(f"predict will use {chosen.kind} in {chosen.precision} for {name}, batch size {batch_size}")


def _print_benchmark(result: "benchmark.BenchmarkResult") -> None:
    headings = ["network", "engine", "precision", "batch", "threads", "ms", "p10", "p99", "images/s", "GMAC/s"]
    headings += ["of peak", "× fastest", "off by", *(("memory",) if any(row.peak_bytes for row in result.rows) else ())]
    table = printing.new_table(*headings, left=("network", "engine", "precision"))
    section: object = None
    for row in result.rows:
        previous, section = section, (row.network, row.batch_size, row.threads)
        if previous not in (None, section):
            table.add_section()
        is_fastest = row.slowdown == row.slowdown_low == row.slowdown_high
        memory = "–" if row.peak_bytes is None else printing.format_si(row.peak_bytes, "B")
        table.add_row(
            *(row.network, row.engine, row.precision, str(row.batch_size), str(row.threads)),
            *(f"{value * 1e3:#.3g}" for value in (row.seconds, row.p10, row.p99)),
            *(f"{value:#.3g}".rstrip(".") for value in (row.images_per_second, row.macs_per_second / 1e9)),
            "–" if row.peak_fraction is None else printing.format_percent(row.peak_fraction),
            "1" if is_fastest else f"{row.slowdown:.2f} ({row.slowdown_low:.2f}–{row.slowdown_high:.2f})",
            "–" if row.difference is None else f"{row.difference:.0e}" if row.difference else "0",
            *((memory,) if "memory" in headings else ()),
        )
    sizes = ", ".join(f"{height}×{width}" for height, width in sorted({row.size for row in result.rows}))
    printing.print_results(
        result.machine.describe(),
        *(peaks.describe() for peaks in result.peaks),
        ", ".join(f"{name} {version}" for name, version in result.versions),
        table,
        f"Images of {sizes}. Medians of interleaved runs; of two that took turns, the ratio with its 95 % interval.",
        "Ours start from pixels, the others from normalized floats. Off by: the largest difference from the float32 "
        "logits of torch, relative to the largest logit.",
    )


def _print_bottlenecks(report: "bottlenecks.BottleneckReport") -> None:
    slowest = sorted(report.steps, key=lambda step: -step.seconds)[:MAX_SLOWEST_STEPS]
    threads = f"{report.threads} thread{'s' if report.threads != 1 else ''}"
    peak = report.peaks.macs(report.precision)
    of_peak = f", {printing.format_percent(report.macs / report.seconds / peak)} of the peak" if peak else ""
    printing.print_results(
        f"{report.network} at {printing.format_size(report.size)}, batch size {report.batch_size}, {report.engine} in "
        f"{report.precision}, {threads}: {report.seconds * 1e3:.2f} ms, "
        f"{report.macs / report.seconds / 1e9:.1f} GMAC/s{of_peak}",
        report.machine.describe(),
        report.peaks.describe(),
        _step_table(report.stages, "stage"),
        _step_table(report.groups, "kind of step"),
        _step_table(slowest, "slowest step"),
        *(f"{index}. {reason}." for index, reason in enumerate(report.reasons, start=1)),
        "",
        f"The steps account for {printing.format_percent(report.profiled_fraction)} of the time. × limit: the time "
        "relative to what this machine's peak and bandwidth allow.",
    )


def _step_table(steps: "Iterable[bottlenecks.StepTime]", heading: str) -> "Table":
    headings = (heading, "steps", "ms", "of time", "MACs", "of MACs", "moves", "MACs/byte", "GMAC/s", "× limit")
    table = printing.new_table(*headings, left=(heading,))
    for step in steps:
        table.add_row(
            *(step.name, str(step.steps) if step.steps > 1 else ""),
            *(f"{step.seconds * 1e3:.2f}", printing.format_percent(step.time_fraction)),
            *((printing.format_si(step.macs), printing.format_percent(step.macs_fraction)) if step.macs else ("", "")),
            printing.format_si(step.bytes, "B") if step.bytes else "",
            *((f"{step.intensity:.2f}", f"{step.speed / 1e9:.1f}") if step.macs else ("", "")),
            f"{step.seconds / step.roofline_seconds:.1f}" if step.roofline_seconds else "",
        )
    return table
