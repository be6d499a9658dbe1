"""``effnet bench``: how fast networks run here, and why a network takes as long as it does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import JsonOption, OfflineOption, parse_image_size

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.arch.serde import Record
    from effnet.lab.bench.benchmark import BenchmarkResult
    from effnet.lab.bench.bottlenecks import BottleneckReport, StepTime
    from effnet.net import EfficientNet

MAX_SLOWEST_STEPS = 8  # steps that are named one by one


def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK", help="Names (b0), files of weights, archs as JSON; b0 if none is given."),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Of one network: where its time goes, and why.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="eager,compiled,onnxruntime,openvino,litert; with --why also auto."),
    ] = None,
    precision: Annotated[str, typer.Option(metavar="LIST", help="float32,bfloat16,float16,int8.")] = "float32",
    batch: Annotated[str, typer.Option(metavar="LIST", help="Pictures at once, as 1,32.")] = "1",
    threads: Annotated[
        str | None, typer.Option(metavar="LIST", help="As 1,2; as many as there are cores if not given.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--size", metavar="HEIGHTxWIDTH", help="Of the pictures, if not the network's own."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LIST", help="timm,torchvision, or none; those that are installed.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds in which all contestants take turns.")] = 20,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="No further round of a contest begins after so many.")
    ] = 30,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the peak of memory, each in a process of its own: slow.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write JSON, CSV and plots (SVG, PNG) into this folder.")
    ] = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Measure how fast networks run here.

    Every engine that is installed, timm and torchvision, in turns, beside the machine's limits. A network that is
    given by its name has random weights. With --why: where the time of one network goes, and why.
    """
    if not seconds > 0:
        raise typer.BadParameter("must be above 0", param_hint="--seconds")
    wanted, given, precisions, batches = (
        parse_image_size(at),
        networks or ["b0"],
        _split_list(precision),
        _parse_int_list(batch, "--batch"),
    )
    engines, counts = (
        _split_list(engine) if engine else None,
        _parse_int_list(threads, "--threads") if threads else None,
    )
    if why:
        if any(len(each) > 1 for each in (given, engines or (), precisions, batches, counts or ())):
            raise typer.BadParameter(
                "looks at one network, engine, precision, batch and number of threads", param_hint="--why"
            )
        from effnet.lab.bench.bottlenecks import find_bottlenecks as explain
        from effnet.lab.bench.bottlenecks import write_bottlenecks

        kind, number = engines[0] if engines else "auto", counts[0] if counts else None
        explained = explain(
            _load_network(given[0]), kind, precisions[0], batches[0], number, wanted, max(runs, 3), seconds
        )
        _report_written(write_bottlenecks(explained, out) if out else [])
        _print_json(explained) if as_json else _print_why(explained)
        return
    from effnet.cli.printing import progress_bar
    from effnet.lab.bench.benchmark import run_benchmark as measure
    from effnet.lab.bench.benchmark import write_benchmark

    rivals = None if against is None else () if against == "none" else _split_list(against)
    with progress_bar("measuring") as step:
        measured = measure(
            [_load_network(each) for each in given],
            *(engines, precisions, batches, counts, wanted, rivals, runs, seconds, memory),
            progress=lambda _, done, total: step(done, total),
        )
    for each in given:
        for pictures in batches:
            _choose_engine(each, pictures, wanted, precisions[0], counts)
    _report_written(write_benchmark(measured, out) if out else [])
    _print_json(measured) if as_json else _print_rows(measured)


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _parse_int_list(text: str, option: str) -> tuple[int, ...]:
    """``1,32`` as numbers. Raises ``typer.BadParameter`` for anything else."""
    try:
        found = tuple(int(word) for word in _split_list(text))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers above 0: write 1,32", param_hint=option)
    return found


def _load_network(network: str) -> EfficientNet:
    """A file's network; of a name, or an arch as JSON, one with random weights."""
    from effnet.cli.options import resolve_network
    from effnet.runtime.latency import random_network

    if _is_weights_file(network):
        from effnet.weights import load

        return load(network)
    return random_network(resolve_network(network).arch)


def _is_weights_file(network: str) -> bool:
    from effnet.cli.options import WEIGHT_SUFFIXES

    path = Path(network)
    return path.suffix != ".json" and (path.suffix in WEIGHT_SUFFIXES or path.exists())


def _choose_engine(
    network: str, batch: int, size: tuple[int, int] | None, precision: str, threads: tuple[int, ...] | None
) -> None:
    """Of a file, settles what predicting with it will take on this machine, and says it."""
    if _is_weights_file(network) and precision != "int8":
        from effnet.cli.printing import note
        from effnet.runtime.autotune import engine

        for number in threads or (None,):
            found = engine(network, "auto", batch, size, precision, number)
            note(f"predicting with {network}, batch {batch}, takes {found.kind} in {found.precision} from now on")


def _report_written(paths: list[Path]) -> None:
    from effnet.cli.printing import note

    for path in paths[:1]:
        note(f"{', '.join(each.name for each in paths)} are written to {path.parent}")


def _print_json(record: Record) -> None:
    from effnet.cli.printing import print_json

    print_json(record.to_dict())


def _print_rows(result: BenchmarkResult) -> None:
    from effnet.cli.printing import format_percent, format_si, new_table, print_results

    sizes = {row.size for row in result.rows}
    headings = ["network", "engine", "precision", "batch", "threads", "ms", "p10", "p99", "pictures/s", "GMAC/s"]
    headings += ["of peak", "× fastest", "off by", *(("memory",) if any(row.peak_bytes for row in result.rows) else ())]
    shown = new_table(*headings, left=("network", "engine", "precision"))
    cell: object = None
    for row in result.rows:
        here = (row.network, row.batch_size, row.threads)
        if cell not in (None, here):
            shown.add_section()
        cell = here
        even = row.slowdown == row.slowdown_low == row.slowdown_high
        shown.add_row(
            *(row.network, row.engine, row.precision, str(row.batch_size), str(row.threads)),
            *(f"{value * 1e3:#.3g}" for value in (row.seconds, row.p10, row.p99)),
            f"{row.images_per_second:#.3g}".rstrip("."),
            f"{row.macs_per_second / 1e9:#.3g}".rstrip("."),
            "–" if row.peak_fraction is None else format_percent(row.peak_fraction),
            "1" if even else f"{row.slowdown:.2f} ({row.slowdown_low:.2f}–{row.slowdown_high:.2f})",
            "–" if row.difference is None else f"{row.difference:.0e}" if row.difference else "0",
            *(("–" if row.peak_bytes is None else format_si(row.peak_bytes, "B"),) if "memory" in headings else ()),
        )
    print_results(
        result.machine.describe(),
        *(limits.describe() for limits in result.peaks),
        ", ".join(f"{name} {version}" for name, version in result.versions),
        shown,
        f"Pictures of {', '.join(f'{high}×{wide}' for high, wide in sorted(sizes))}. Medians, in turns; of two that "
        "took turns the ratio with its 95 % interval.",
        "Ours start from pixels, the peers from normalised numbers. Off by: the largest difference from torch's own "
        "float32 logits, over the largest of them.",
    )


def _print_why(why: BottleneckReport) -> None:
    from effnet.cli.printing import format_percent, format_si, format_size, new_table, print_results

    def breakdown_table(parts: Iterable[StepTime], heading: str) -> Table:
        shown = new_table(
            *(heading, "steps", "ms", "of time", "MACs", "of MACs", "moves", "MACs/byte", "GMAC/s", "× limit"),
            left=(heading,),
        )
        for part in parts:
            shown.add_row(
                part.name,
                str(part.steps) if part.steps > 1 else "",
                f"{part.seconds * 1e3:.2f}",
                format_percent(part.time_fraction),
                *((format_si(part.macs), format_percent(part.macs_fraction)) if part.macs else ("", "")),
                format_si(part.bytes, "B") if part.bytes else "",
                *((f"{part.intensity:.2f}", f"{part.speed / 1e9:.1f}") if part.macs else ("", "")),
                f"{part.seconds / part.roofline_seconds:.1f}" if part.roofline_seconds else "",
            )
        return shown

    slowest = sorted(why.steps, key=lambda step: -step.seconds)[:MAX_SLOWEST_STEPS]
    threads = f"{why.threads} thread{'s' if why.threads != 1 else ''}"
    peak = why.peaks.macs(why.precision)
    reached = f", {format_percent(why.macs / why.seconds / peak)} of the peak" if peak else ""
    print_results(
        f"{why.network} at {format_size(why.size)}, batch {why.batch_size}, {why.engine} in {why.precision}, {threads}: "
        f"{why.seconds * 1e3:.2f} ms, {why.macs / why.seconds / 1e9:.1f} GMAC/s{reached}",
        why.machine.describe(),
        why.peaks.describe(),
        breakdown_table(why.stages, "stage"),
        breakdown_table(why.groups, "kind of step"),
        breakdown_table(slowest, "slowest step"),
        *(f"{index}. {reason}." for index, reason in enumerate(why.reasons, start=1)),
        "",
        f"The steps account for {format_percent(why.profiled_fraction)} of the time. × limit: the time over what this machine's peak "
        "and bandwidth allow.",
    )
