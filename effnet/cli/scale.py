"""``effnet scale``: a network made larger or smaller, by φ or within limits."""

from __future__ import annotations

from dataclasses import asdict
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import Json, quantity

if TYPE_CHECKING:
    from effnet.arch import Arch, Rounding

_COEFFICIENTS = (1.2, 1.1, 1.15)


def scale(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="What to scale: a name, a file of weights, an arch as JSON.")
    ] = "b0",
    phi: Annotated[float | None, typer.Option(help="The dial: any number; 0 is the network itself.")] = None,
    alpha: Annotated[float, typer.Option(help="Depth grows by alpha^phi.")] = _COEFFICIENTS[0],
    beta: Annotated[float, typer.Option(help="Width grows by beta^phi.")] = _COEFFICIENTS[1],
    gamma: Annotated[float, typer.Option(help="Resolution grows by gamma^phi.")] = _COEFFICIENTS[2],
    macs: Annotated[
        float | None, typer.Option(parser=quantity, metavar="AMOUNT", help="At most these MACs: 1G, 5e8.")
    ] = None,
    params: Annotated[
        float | None, typer.Option(parser=quantity, metavar="AMOUNT", help="At most these parameters: 8M.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(parser=quantity, metavar="AMOUNT", help="At most this peak memory: 50MB.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the network as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Scale a network, or fit it to limits.

    By --phi; or to the largest within --macs, --params and --memory. Rounding is reported: what was asked, what is
    built.
    """
    asked = {"macs": macs, "params": params, "bytes": memory}
    limits = {name: limit for name, limit in asked.items() if limit is not None}
    if phi is None and not limits:
        raise typer.BadParameter("say how far: --phi, or limits with --macs, --params, --memory", param_hint="--phi")
    if limits and (phi is not None or (alpha, beta, gamma) != _COEFFICIENTS):
        raise typer.BadParameter(
            "limits find phi themselves, with the published alpha, beta, gamma: give either", param_hint="--phi"
        )
    from effnet.arch import count, fit, rounding
    from effnet.cli.networks import opened
    from effnet.cli.printing import note, show_json

    base = opened(network).arch
    if phi is None:
        # a number of twentieths, which the arch itself no longer says
        phi = round(log(fit(base, macs, params, memory).depth / base.depth) / log(alpha), 2)
    report = rounding(base, phi, alpha, beta, gamma)
    built, nearest = count(report.arch), _nearest(report.arch)
    if out:
        _write(report.arch, out)
        note(f"{report.arch.name} is written to {out}")
    if as_json:
        cost = {name: getattr(built, name) for name in ("size", "params", "macs", "activations", "bytes")}
        show_json({"arch": report.arch.to_dict(), "phi": phi, **cost, "limits": limits, "nearest": nearest.name}
                  | {name: asdict(getattr(report, name)) for name in ("asked", "built")}
                  | {"stages": [asdict(stage) for stage in report.stages]})  # fmt: skip
    else:
        _print(report, nearest)


def _print(report: Rounding, nearest: Arch) -> None:
    from effnet.cli.printing import short, show, table

    whole = table("", "asked", "built", "difference", left=("",))
    for name, digits in (("width", 3), ("depth", 3), ("resolution", 1), ("macs", 0)):
        asked, built = getattr(report.asked, name), getattr(report.built, name)
        written = [short(value) if name == "macs" else f"{value:.{digits}f}" for value in (asked, built)]
        whole.add_row("MACs" if name == "macs" else name, *written, f"{built / asked - 1:+.1%}")
    stages = table("stage", "channels asked", "built", "layers asked", "built", left=("stage",))
    for number, row in enumerate(report.stages, start=1):
        channels = (f"{row.channels_asked:.1f}", str(row.channels))
        stages.add_row(f"stage{number}", *channels, f"{row.layers_asked:.2f}", str(row.layers))
    show(_line(report.arch), whole, stages, f"nearest released network: {_line(nearest)}")


def _line(arch: Arch) -> str:
    from effnet.arch import count
    from effnet.cli.printing import short

    cost = count(arch)
    return (
        f"{arch.name}: {short(cost.params)} params, {short(cost.macs)} MACs, "
        f"peak memory {short(cost.bytes, 'B')}, {arch.resolution} px"
    )


def _nearest(arch: Arch) -> Arch:
    """The released network of the same rows, or of any if there is none, whose MACs are nearest."""
    from effnet.arch import ARCHS, count

    kin = [known for known in ARCHS.values() if known.stages == arch.stages] or list(ARCHS.values())
    macs = count(arch).macs
    return min(kin, key=lambda known: abs(log(count(known).macs / macs)))


def _write(arch: Arch, path: Path) -> None:
    from effnet.weights.atomic import replacing

    with replacing(path) as beside:
        beside.write_text(arch.to_json(indent=2) + "\n", encoding="utf-8")
