"""``effnet show``: one network as the table in its paper."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.arch import Count, LayerCount


@with_weights_options()
def show(
    network: options.NetworkArgument,
    image_size: options.ImageSizeOption = None,
    layers: Annotated[bool, Option("--layers", help="One row per layer instead of one per stage.")] = False,
    part: WeightsOptions = AS_STATED,
    as_json: options.JsonOption = False,
) -> None:
    """Show a network as the table in its paper.

    Table 1 of the paper, with the cost of each stage.
    """
    size = options.parse_image_size(image_size)
    from effnet.arch import count

    resolved = options.resolve_network(network, part)
    counted = count(resolved.arch, size, resolved.classes, resolved.channels)
    rows = _network_rows(counted, layers)
    if as_json:
        totals = {"params": counted.params, "macs": counted.macs, "activations": counted.activations}
        totals |= {"bytes": counted.bytes, "receptive_field": counted.receptive_field}
        labels = {"labels": resolved.labels.to_dict()} if resolved.labels else {}
        key = "layers" if layers else "stages"
        printing.print_json({"arch": resolved.arch.to_dict(), "size": counted.size, **labels, **totals, key: rows})
        return
    first, repeats = ("layer", ()) if layers else ("stage", ("layers",))
    headings = (first, "operator", "size in", "channels", *repeats, "params", "MACs", "memory", "field (px)")
    table = printing.new_table(*headings, left=(first, "operator"))
    for row in rows:
        table.add_row(
            *(row["name"], row["operator"], printing.format_size(row["size"]), str(row["channels"])),
            *(str(row[name]) for name in repeats),
            *(printing.format_si(row["params"]), printing.format_si(row["macs"])),
            *(printing.format_si(row["bytes"], "B"), str(row["receptive_field"])),
        )
    outputs = ""
    if resolved.labels is not None:
        outputs = f", {resolved.labels.describe(resolved.classes)}" if resolved.classes else ", no classifier"
    printing.print_results(
        f"{resolved.arch.name} at {printing.format_size(counted.size)}{outputs}",
        table,
        f"{printing.format_si(counted.params)} params, {printing.format_si(counted.macs)} MACs, "
        f"{printing.format_si(counted.activations)} activations; peak memory {printing.format_si(counted.bytes, 'B')}; "
        f"receptive field {counted.receptive_field} px",
        "For one image; memory is of float32 activations alive at once, without the weights.",
    )


def _network_rows(counted: "Count", layers: bool) -> list[dict[str, Any]]:
    """Return a row per layer, or per stage, where the classifier belongs to the head's as in the papers."""
    from effnet.lab.compare.paper_tables import operator_name

    if layers:
        names = (operator_name(counted.arch, each.layer, without_classifier=True) for each in counted.layers)
        return [_row(each.name, name, [each]) for each, name in zip(counted.layers, names, strict=True)]
    rows = []
    for stage, members in groupby(counted.layers, lambda row: row.layer.stage):
        group = list(members)
        kind = group[0].layer.kind
        name = f"stage{stage}" if kind in ("mbconv", "fused") else kind
        body = [row for row in group if row.layer.kind != "classifier"]
        row = _row(name, operator_name(counted.arch, group[0].layer), group)
        rows.append(row | {"channels": body[-1].layer.channels, "layers": len(body)})
    return rows


def _row(name: str, operator: str, group: "list[LayerCount]") -> dict[str, Any]:
    first, last = group[0], group[-1]
    shape = {"size": first.size_in, "channels": last.layer.channels, "stride": first.layer.stride}
    sums = {cost: sum(getattr(row, cost) for row in group) for cost in ("params", "macs", "activations")}
    peak = {"bytes": max(row.bytes for row in group), "receptive_field": last.receptive_field}
    return {"name": name, "operator": operator} | shape | sums | peak
