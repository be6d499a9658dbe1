"""``effnet scale``: a network made larger or smaller, by φ or within limits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, parse_count, parse_quantity, parse_seconds

if TYPE_CHECKING:
    from effnet.arch import Arch, Count, RoundingReport
    from effnet.arch.fitting import FitResult
    from effnet.cli.options import ResolvedNetwork
    from effnet.runtime.latency import Latency

_COEFFICIENTS = (1.2, 1.1, 1.15)
_LIMIT_NAMES = {"macs": "MACs", "params": "params", "memory": "peak memory", "costs[0]": "latency"}


def scale(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="What to scale: a name, a file of weights, an arch as JSON.")
    ] = "b0",
    phi: Annotated[float | None, typer.Option(help="The dial: any number; 0 is the network itself.")] = None,
    alpha: Annotated[float, typer.Option(help="Depth grows by alpha^phi; 1: it stays.")] = _COEFFICIENTS[0],
    beta: Annotated[float, typer.Option(help="Width grows by beta^phi; 1: it stays.")] = _COEFFICIENTS[1],
    gamma: Annotated[float, typer.Option(help="Resolution grows by gamma^phi; 1: it stays.")] = _COEFFICIENTS[2],
    macs: Annotated[
        float | None, typer.Option(parser=parse_count, metavar="AMOUNT", help="At most these MACs: 1G, 5e8.")
    ] = None,
    params: Annotated[
        float | None, typer.Option(parser=parse_count, metavar="AMOUNT", help="At most these parameters: 8M.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            parser=parse_quantity,
            metavar="AMOUNT",
            help="At most this peak memory: 50MB. Of a picture's maps; weights, 4 bytes each, come on top.",
        ),
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(parser=parse_seconds, metavar="TIME", help="At most this long for a call, measured here: 20ms."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of --latency: by default one a core.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures at once of --latency.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the network as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Scale a network, or fit it to limits.

    By --phi; or to the largest within --macs, --params, --memory and --latency. Rounding is reported: what was asked,
    what is built.
    """
    limits = {"macs": macs, "params": params, "memory": memory}
    limited = latency is not None or any(limit is not None for limit in limits.values())
    if phi is None and not limited:
        raise typer.BadParameter(
            "say how far: --phi, or limits with --macs, --params, --memory, --latency", param_hint="--phi"
        )
    if phi is not None and limited:
        raise typer.BadParameter("limits find phi themselves: give either", param_hint="--phi")
    if latency is None and (threads is not None or batch != 1):
        raise typer.BadParameter("they are for measuring: give --latency too", param_hint="--threads, --batch")
    from effnet.arch import count, rounding
    from effnet.arch.fitting import fit_detailed, nearest_released
    from effnet.cli.options import resolve_network
    from effnet.cli.printing import note, print_json

    base = resolve_network(network)
    coefficients, of = (alpha, beta, gamma), (base.classes, base.channels)
    fit, timer = None, None
    if phi is None:
        timer = None if latency is None else _latency_cost(threads, batch, base)
        fit = fit_detailed(
            base.arch, macs, params, memory, [(timer, latency)] if timer and latency else (), *coefficients, *of
        )
        report = fit.rounding
    else:
        report = rounding(base.arch, phi, *coefficients, classes=base.classes, channels=base.channels)
    built, close = count(report.arch, None, *of), nearest_released(report.arch)
    if out:
        _write_arch(report.arch, out)
        note(f"{report.arch.name} is written to {out}")
    if as_json:
        print_json(_scaled_to_dict(report, built, close) | (_limits_to_dict(fit, timer) if fit else {}))
    else:
        _print(report, built, close, fit, timer)


def _latency_cost(threads: int | None, batch: int, base: ResolvedNetwork) -> Latency:
    """Measures, and says of each network what came out."""
    from effnet.cli.printing import note
    from effnet.runtime.latency import Latency

    return Latency(
        threads, batch, base.classes, base.channels, lambda found: note(f"{found.arch.name}: {found.describe()}")
    )


def _scaled_to_dict(report: RoundingReport, built: Count, close: Arch) -> dict[str, Any]:
    cost = {name: getattr(built, name) for name in ("size", "params", "macs", "activations", "bytes")}
    sides = {name: asdict(getattr(report, name)) for name in ("requested", "actual")}
    stages = {"stages": [asdict(stage) for stage in report.stages]}
    return {"arch": report.arch.to_dict(), "phi": report.phi, **cost, "nearest": close.name, **sides, **stages}


def _limits_to_dict(fit: FitResult, timer: Latency | None) -> dict[str, Any]:
    def limit_name(name: str) -> str:
        return "seconds" if name == "costs[0]" else name

    found: dict[str, Any] = {
        "limits": {
            limit_name(limit.name): {"allowed": limit.allowed, "reached": limit.reached, "share": limit.share}
            for limit in fit.limits
        },
        "binding": None if fit.reached_line_end else limit_name(fit.binding.name),
        "line_distance": fit.line_distance,
    }
    if timer:
        found["measured"] = [
            {
                "network": one.arch.name,
                "engine": one.engine,
                "seconds": one.timing.seconds,
                "p10": one.timing.p10,
                "p90": one.timing.p90,
                "calls": one.timing.runs,
            }
            for one in timer.measurements
        ]
    return found


def _print(report: RoundingReport, built: Count, close: Arch, fit: FitResult | None, timer: Latency | None) -> None:
    from effnet.arch import count
    from effnet.cli.printing import format_percent, format_si, new_table, print_results

    above = []
    if fit:
        limits = new_table("limit", "allowed", "reached", "used", "", left=("limit", ""))
        for limit in fit.limits:
            binds = "binds" if limit == fit.binding and not fit.reached_line_end else ""
            values = (_format_limit(limit.name, limit.allowed), _format_limit(limit.name, limit.reached))
            limits.add_row(_LIMIT_NAMES[limit.name], *values, format_percent(limit.share), binds)
        above.append(limits)
    whole = new_table("", "requested", "actual", "difference", left=("",))
    for name, digits in (("width", 3), ("depth", 3), ("resolution", 1), ("macs", 0)):
        asked, got = getattr(report.requested, name), getattr(report.actual, name)
        written = [format_si(value) if name == "macs" else f"{value:.{digits}f}" for value in (asked, got)]
        whole.add_row("MACs" if name == "macs" else name, *written, f"{got / asked - 1:+.1%}")
    stages = new_table("stage", "channels requested", "actual", "layers requested", "actual", left=("stage",))
    for number, row in enumerate(report.stages, start=1):
        channels = (f"{row.channels_requested:.1f}", str(row.channels))
        stages.add_row(f"stage{number}", *channels, f"{row.layers_requested:.2f}", str(row.layers))
    notes = [_describe_position(report, fit), f"nearest released network: {_summary_line(count(close))}"]
    if timer:
        measured = next(one for one in timer.measurements if one.arch == report.arch)
        threads = "a thread each core" if timer.threads is None else f"threads: {timer.threads}"
        notes.insert(0, f"latency {measured.describe()}; {threads}, pictures at once: {timer.batch_size}")
    print_results(_summary_line(built), *above, whole, stages, *notes)


def _describe_position(report: RoundingReport, fit: FitResult | None) -> str:
    """Describe where the network lies relative to the compound line."""
    if fit is None or not fit.line_distance:
        place = f"on the compound line, at φ = {report.phi:g}"
    else:
        place = f"{fit.line_distance:.2%} off the compound line, nearest at φ = {report.phi:g}"
    return f"{place}; no limit is binding: the line ends here" if fit and fit.reached_line_end else place


def _format_limit(name: str, value: float) -> str:
    from effnet.cli.printing import format_si

    if name == "costs[0]":
        return f"{value * 1e3:.3g} ms"
    return format_si(value, "B" if name == "memory" else "")


def _summary_line(built: Count) -> str:
    from effnet.cli.printing import format_si

    return (
        f"{built.arch.name}: {format_si(built.params)} params, {format_si(built.macs)} MACs, "
        f"peak memory {format_si(built.bytes, 'B')}, {built.arch.resolution} px"
    )


def _write_arch(arch: Arch, path: Path) -> None:
    from effnet.data.storage.atomic_write import atomic_write

    with atomic_write(path) as beside:
        beside.write_text(arch.to_json(indent=2) + "\n", encoding="utf-8")
