"""``effnet scale``: a network scaled by φ, or fitted to limits."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.arch import Count, RoundingReport, fitting
    from effnet.runtime.latency import Latency

_COEFFICIENTS = (1.2, 1.1, 1.15)
_JSON_NAMES = {"memory": "bytes", "costs[0]": "seconds"}  # of limits; others have the same
_LIMIT_NAMES = {"macs": "MACs", "params": "params", "memory": "peak memory", "costs[0]": "latency"}


@with_weights_options()
def scale(
    network: options.NetworkArgument = "b0",
    phi: Annotated[
        float | None, options.real("Compound coefficient; 0 is the network itself.", min=-20, max=20)
    ] = None,
    alpha: Annotated[float, options.real("Depth grows by alpha^phi.", min=0.1, max=10)] = _COEFFICIENTS[0],
    beta: Annotated[float, options.real("Width grows by beta^phi.", min=0.1, max=10)] = _COEFFICIENTS[1],
    gamma: Annotated[float, options.real("Resolution grows by gamma^phi.", min=0.1, max=10)] = _COEFFICIENTS[2],
    macs: Annotated[
        float | None, Option(parser=options.parse_count, metavar="AMOUNT", help="Limit of MACs: 1G, 5e8.")
    ] = None,
    params: Annotated[
        float | None, Option(parser=options.parse_count, metavar="AMOUNT", help="Limit of parameters: 8M.")
    ] = None,
    memory: Annotated[
        float | None,
        Option(
            parser=options.parse_quantity,
            metavar="AMOUNT",
            help="Limit of peak activation memory for one image: 50MB. Weights need 4 bytes each in addition.",
        ),
    ] = None,
    latency: Annotated[
        float | None,
        Option(parser=options.parse_seconds, metavar="TIME", help="Limit of latency, measured here: 20ms."),
    ] = None,
    threads: Annotated[
        int | None, options.number("Threads for --latency (default: one per core).", max=serde.MAX_PROCESSES)
    ] = None,
    batch_size: Annotated[
        int, options.number("Images per batch for --latency.", *options.BATCH_SIZE, max=serde.MAX_BATCH_SIZE)
    ] = 1,
    part: WeightsOptions = AS_STATED,
    out: Annotated[Path | None, options.output("FILE", "Write the network as JSON.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Scale a network by --phi, or fit it to limits.

    With --macs, --params, --memory or --latency: the largest network within all limits. Shows what rounding does.
    """
    limits = {"--macs": macs, "--params": params, "--memory": memory, "--latency": latency}
    limited = [name for name, limit in limits.items() if limit is not None]
    if phi is None and not limited:
        raise options.UsageError(
            "Missing option '--phi': pass it, or limits with --macs, --params, --memory or --latency"
        )
    if phi is not None and limited:
        raise options.UsageError(f"--phi cannot be combined with {limited[0]}")
    if latency is None and (threads is not None or batch_size != 1):
        raise options.UsageError(f"{'--threads' if threads is not None else '--batch-size'} requires --latency")
    from effnet.arch import count, fitting, rounding

    base = options.resolve_network(network, part)
    coefficients, outputs, fit, timer = (alpha, beta, gamma), (base.classes, base.channels), None, None
    if phi is None:
        if latency is not None:
            from effnet.runtime.latency import Latency

            timer = Latency(
                threads, batch_size, *outputs, lambda each: printing.note(f"{each.arch.name}: {each.describe()}")
            )
        measured = [(timer, latency)] if timer and latency else ()
        fit = fitting.fit_detailed(base.arch, macs, params, memory, measured, *coefficients, *outputs)
        report = fit.rounding
    else:
        report = rounding(base.arch, phi, *coefficients, classes=base.classes, channels=base.channels)
    counted, nearest = count(report.arch, None, *outputs), count(fitting.nearest_released(report.arch))
    if out:
        from effnet.data.storage.atomic_write import write_text

        write_text(out, report.arch.to_json(indent=2) + "\n")
        printing.note(f"wrote {report.arch.name} to {out}")
    if as_json:
        costs = {name: getattr(counted, name) for name in ("size", "params", "macs", "activations", "bytes")}
        rounded = {name: value for name, value in asdict(report).items() if name in ("requested", "actual", "stages")}
        scaled = {"arch": report.arch.to_dict(), "phi": report.phi} | costs | {"nearest": nearest.arch.name} | rounded
        printing.print_json(scaled | (_limits_to_dict(fit, timer) if fit else {}))
    else:
        _print_scaled(report, counted, nearest, fit, timer)


def _limits_to_dict(fit: "fitting.FitResult", timer: "Latency | None") -> dict[str, Any]:
    names = {limit.name: _JSON_NAMES.get(limit.name, limit.name) for limit in fit.limits}
    parts = ("allowed", "reached", "share")
    limits = {names[limit.name]: {part: getattr(limit, part) for part in parts} for limit in fit.limits}
    binding = None if fit.reached_line_end else names[fit.binding.name]
    result: dict[str, Any] = {"limits": limits, "binding": binding, "line_distance": fit.line_distance}
    if timer:
        result["measured"] = [
            {"network": each.arch.name, "engine": each.engine}
            | {name: getattr(each.timing, name) for name in ("seconds", "p10", "p90")}
            | {"calls": each.timing.runs}
            for each in timer.measurements
        ]
    return result


def _print_scaled(
    report: "RoundingReport",
    counted: "Count",
    nearest: "Count",
    fit: "fitting.FitResult | None",
    timer: "Latency | None",
) -> None:
    limits = printing.new_table("limit", "allowed", "reached", "used", "", left=("limit", ""))
    for limit in fit.limits if fit else ():
        binding = "binding" if fit and limit == fit.binding and not fit.reached_line_end else ""
        values = (_format_limit(limit.name, limit.allowed), _format_limit(limit.name, limit.reached))
        limits.add_row(_LIMIT_NAMES[limit.name], *values, printing.format_percent(limit.share), binding)
    totals = printing.new_table("", "requested", "actual", "difference", left=("",))
    for name, digits in (("width", 3), ("depth", 3), ("resolution", 1), ("macs", 0)):
        requested, actual = getattr(report.requested, name), getattr(report.actual, name)
        texts = [
            printing.format_si(value) if name == "macs" else f"{value:.{digits}f}" for value in (requested, actual)
        ]
        totals.add_row("MACs" if name == "macs" else name, *texts, f"{actual / requested - 1:+.1%}")
    stages = printing.new_table("stage", "channels requested", "actual", "layers requested", "actual", left=("stage",))
    for number, row in enumerate(report.stages, start=1):
        channels = (f"{row.channels_requested:.1f}", str(row.channels))
        stages.add_row(f"stage{number}", *channels, f"{row.layers_requested:.2f}", str(row.layers))
    notes = [_describe_position(report, fit), f"nearest released network: {_summary_line(nearest)}"]
    if timer:
        measured = next(each for each in timer.measurements if each.arch == report.arch)
        threads = "one thread per core" if timer.threads is None else f"{timer.threads} threads"
        notes.insert(0, f"latency {measured.describe()}; {threads}, batch size {timer.batch_size}")
    printing.print_results(_summary_line(counted), *([limits] if fit else []), totals, stages, *notes)


def _describe_position(report: "RoundingReport", fit: "fitting.FitResult | None") -> str:
    if fit is None or not fit.line_distance:
        position = f"on the compound line, at φ = {report.phi:g}"
    else:
        position = f"{fit.line_distance:.2%} off the compound line, which is nearest at φ = {report.phi:g}"
    return f"{position}; no limit is binding: the line ends here" if fit and fit.reached_line_end else position


def _format_limit(name: str, value: float) -> str:
    if name == "costs[0]":
        return f"{value * 1e3:.3g} ms"
    return printing.format_si(value, "B" if name == "memory" else "")


def _summary_line(counted: "Count") -> str:
    return (
        f"{counted.arch.name}: {printing.format_si(counted.params)} params, {printing.format_si(counted.macs)} MACs, "
        f"peak memory {printing.format_si(counted.bytes, 'B')}, {counted.arch.resolution} px"
    )
