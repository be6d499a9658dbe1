"""``effnet show``: one network as its paper's table."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, NetworkArgument, parse_image_size

if TYPE_CHECKING:
    from effnet.arch import Count, LayerCount
    from effnet.cli.options import ResolvedNetwork


def show(
    network: NetworkArgument,
    at: Annotated[
        str | None,
        typer.Option("--size", metavar="HEIGHTxWIDTH", help="Of the picture, if not the network's own."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row a layer in place of one a stage.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a network as its paper's table.

    Table 1 of the paper, with what each stage costs.
    """
    wanted = parse_image_size(at)
    from effnet.arch import count
    from effnet.cli.options import resolve_network
    from effnet.cli.printing import format_si, format_size, new_table, print_json, print_results

    found = resolve_network(network)
    counted = count(found.arch, wanted, found.classes, found.channels)
    rows = _layer_rows(counted) if layers else _stage_rows(counted)
    total = {"params": counted.params, "macs": counted.macs, "activations": counted.activations}
    total |= {"bytes": counted.bytes, "receptive_field": counted.receptive_field}
    if as_json:
        what = "layers" if layers else "stages"
        labels = {"labels": found.labels.to_dict()} if found.labels else {}
        print_json({"arch": found.arch.to_dict(), "size": counted.size, **labels, **total, what: rows})
        return
    first, repeats = ("layer", ()) if layers else ("stage", ("layers",))
    shown = new_table(
        *(first, "operator", "size in", "channels", *repeats, "params", "MACs", "memory", "sees (px)"),
        left=(first, "operator"),
    )
    for row in rows:
        shown.add_row(
            row["name"],
            row["operator"],
            format_size(row["size"]),
            str(row["channels"]),
            *(str(row[name]) for name in repeats),
            format_si(row["params"]),
            format_si(row["macs"]),
            format_si(row["bytes"], "B"),
            str(row["receptive_field"]),
        )
    print_results(
        f"{found.arch.name} at {format_size(counted.size)}{_describe_outputs(found)}",
        shown,
        f"{format_si(counted.params)} params, {format_si(counted.macs)} MACs, {format_si(counted.activations)} activations; "
        f"peak memory {format_si(counted.bytes, 'B')}; receptive field {counted.receptive_field} px",
        "For one picture; memory is of float32 maps alive at once, without the weights.",
    )


def _describe_outputs(found: ResolvedNetwork) -> str:
    """What a network that was read from a file answers with: ", 3 labels, any of them"."""
    if found.labels is None:
        return ""
    return f", {found.labels.describe(found.classes)}" if found.classes else ", no classifier"


def _stage_rows(counted: Count) -> list[dict[str, Any]]:
    """One row a stage; the classifier belongs to the head's, as in the papers."""
    from effnet.lab.compare.paper_tables import operator_name

    rows = []
    for stage, members in groupby(counted.layers, lambda row: row.layer.stage):
        group = list(members)
        kind = group[0].layer.kind
        name = f"stage{stage}" if kind in ("mbconv", "fused") else kind
        body = [row for row in group if row.layer.kind != "classifier"]
        rows.append({
            **_row(name, operator_name(counted.arch, group[0].layer), group),
            "channels": body[-1].layer.channels,
            "layers": len(body),
        })  # fmt: skip
    return rows


def _layer_rows(counted: Count) -> list[dict[str, Any]]:
    from effnet.lab.compare.paper_tables import operator_name

    return [
        _row(row.name, operator_name(counted.arch, row.layer, without_classifier=True), [row]) for row in counted.layers
    ]


def _row(name: str, operator: str, group: list[LayerCount]) -> dict[str, Any]:
    return {
        "name": name,
        "operator": operator,
        "size": group[0].size_in,
        "channels": group[-1].layer.channels,
        "stride": group[0].layer.stride,
        "params": sum(row.params for row in group),
        "macs": sum(row.macs for row in group),
        "activations": sum(row.activations for row in group),
        "bytes": max(row.bytes for row in group),
        "receptive_field": group[-1].receptive_field,
    }
