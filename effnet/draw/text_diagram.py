"""Networks and blocks as text for a terminal: what the diagrams show, in lines of text."""

from collections.abc import Sequence
from itertools import zip_longest

from effnet.arch import Count
from effnet.draw import block_diagram, diagram_data, network_diagram, text
from effnet.draw.diagram_data import format_settings, layer_runs, network_parts, summarize
from effnet.draw.text import describe_operation, format_costs, format_output, format_shape, format_si

_MAP_BAR_LENGTH, _COST_BAR_LENGTH = 24, 10  # letters of the bars of the largest map and cost
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def network_text(counted: Count, detail: str = "stages") -> str:
    """Return a network with a line for each of its "stages", "layers" or "operations", and maps and MACs as bars."""
    detail_lines = {"stages": _stage_lines, "layers": _layer_lines, "operations": _operation_lines}
    lines_of = detail_lines[network_diagram.check_detail(detail)]
    return "\n".join([summarize(counted), ", ".join(format_settings(counted)), "", *lines_of(counted)])


def modules_text(counted: Count) -> str:
    """Return a network by its repeated blocks: stages of sub-blocks, and the modules of each sub-block."""
    sub_blocks, repeats = diagram_data.find_repeats(counted)
    stages = []
    for index, part in enumerate(network_parts(counted)):
        sequence = " → ".join(f"{repeat.label} ({repeat.kernel})" for repeat in repeats.get(index, ()))
        stages.append([part.name, part.operator, format_output(part.kind, part.size_out, part.channels), sequence])
    blocks = [
        [block.letter, " → ".join([*block.modules, *(["+ input"] if block.residual else [])]), block.description]
        for block in sub_blocks
    ]
    modules = diagram_data.describe_modules(sub_blocks, counted.arch.activation).values()
    return "\n".join([summarize(counted), "", *_align_columns(stages), "", *_align_columns(blocks), "", *modules])


def comparison_text(first: Count, second: Count) -> str:
    """Return two networks in one table; where they differ, both facts with an arrow between them."""
    ours, theirs = ({part.name: part for part in network_parts(counted)} for counted in (first, second))
    names = sorted(dict.fromkeys([*ours, *theirs]), key=lambda n: {"stem": 0, "head": 2, "classifier": 3}.get(n, 1))
    rows = [["", *(name for name, _ in (*network_diagram.TEXT_ROWS, *network_diagram.COST_ROWS))]]
    for name in names:
        pair = (ours.get(name), theirs.get(name))
        facts = [[text_of(part) if part else "none" for part in pair] for _, text_of in network_diagram.TEXT_ROWS]
        facts += [
            [format_si(cost_of(part)) if part else "none" for part in pair] for _, cost_of in network_diagram.COST_ROWS
        ]
        rows.append([name, *(_format_change(*fact) for fact in facts)])
    settings = map(_format_change, format_settings(first), format_settings(second))
    ratios = f"params × {second.params / first.params:.3g}, MACs × {second.macs / first.macs:.3g}"
    heading = [summarize(first), f"→ {summarize(second)} ({ratios})", ", ".join(settings)]
    return "\n".join([*heading, "", *_align_columns(rows)])


def block_text(spec: block_diagram.BlockSpec) -> str:
    """Return a block from top to bottom, with shapes on its arrows, the residual at its side, and its conditions."""
    has_residual = spec.layer.residual and not spec.part
    rows: list[list[str]] = [["in"]]
    size, channels = spec.size, spec.channels[0]
    for operation, size_out in spec.operations:
        kind, rail = text.operation_kind(operation), "│" if operation.pooled else ""
        if kind != "excite":
            rows.append([f"│ {format_shape(size, channels)}"])
        activation = text.ACTIVATION_NAMES[spec.activation] if operation.activation else ""
        activation = "sigmoid" if kind == "excite" else activation
        after = ", ".join(filter(None, ("batch norm" if operation.norm else "", activation)))
        costs = format_costs(operation.params, operation.macs(*size_out)).split(", ")
        name = f"{rail}  {describe_operation(operation)}".strip()
        if kind == "reduce":
            rows.append(["├──╮ squeeze-excite", "", "", ""])
        rows.append([f"{name}{f' → {format_shape(size_out, operation.channels)}' if rail else ''}", after, *costs])
        if kind == "excite":
            rows.append(["×──╯"])
        if not operation.pooled:
            size, channels = size_out, operation.channels
    shape = [f"│ {format_shape(size, channels)}"]
    rows += [shape, *([["+"], shape] if has_residual else []), ["out"]]
    lines = _align_columns(rows, left=(0, 1))
    if has_residual:  # a line on the left from the input to the addition
        added = next(index for index, line in enumerate(lines) if line.startswith("+"))
        rails = ["  ", "╭─", *["│ "] * (added - 2), "╰►", *["  "] * (len(lines) - added - 1)]
        lines = [f"{rail}{line}" for rail, line in zip(rails, lines, strict=True)]
    conditions = [
        f"{'●' if one.holds else '○'} {one.heading}: {one.because}" for one in block_diagram.block_conditions(spec)
    ]
    return "\n".join([f"{spec.title}: {format_costs(spec.params, spec.macs)}", "", *lines, "", *conditions])


def _stage_lines(counted: Count) -> list[str]:
    parts = (diagram_data.input_part(counted), *network_parts(counted))
    side, max_macs = max(counted.size), max(part.macs for part in parts)
    rows = [["", "", "operator", "layers", "map", "channels", "params", "MACs", ""]]
    for part in parts:
        extent = 1 if part.kind == "classifier" else part.size_out[1]
        layers = f"× {part.layers}" if part.name.startswith("stage") else ""
        map_size = "" if part.kind == "classifier" else text.format_size(part.size_out)
        costs = ["", "", ""] if part.kind == "image" else _cost_cells(part.params, part.macs, max_macs)
        bar = text_bar(extent / side, _MAP_BAR_LENGTH)
        rows.append([part.name, bar, _operator_text(part), layers, map_size, str(part.channels), *costs])
    return _align_columns(rows, left=(0, 1, 2, 8))


def _layer_lines(counted: Count) -> list[str]:
    max_macs = max(row.macs for row in counted.layers)
    rows = [["", "operator", "in", "out", "", "params", "MACs", ""]]
    for part in network_parts(counted):
        for row in part.rows:
            layer = row.layer
            out = format_output(layer.kind, row.size_out, layer.channels)
            shapes = [format_shape(row.size_in, layer.inputs), out, "+ input" if layer.residual else ""]
            rows.append([row.name, _operator_text(part), *shapes, *_cost_cells(row.params, row.macs, max_macs)])
    return _align_columns(rows, left=(0, 1, 4, 7))


def _operator_text(part: diagram_data.NetworkPart) -> str:
    return part.operation + (", SE" if part.squeeze else "")


def _operation_lines(counted: Count) -> list[str]:
    max_macs = max(operation.macs(*size) for row in counted.layers for operation, size in row.operations)
    rows = [["", "out", "params", "MACs", ""]]
    for run in layer_runs(counted):
        row = run.first
        each = f", × {len(run.rows)}, each" if len(run.rows) > 1 else ""
        residual = ", + input" if row.layer.residual else ""
        heading = f"{run.name}: {run.operator}{each}{residual}"
        rows.append([heading, format_shape(row.size_in, row.layer.inputs) + " in", "", "", ""])
        for operation, size in row.operations:
            costs = _cost_cells(operation.params, operation.macs(*size), max_macs)
            rows.append([f"  {describe_operation(operation)}", format_shape(size, operation.channels), *costs])
    return _align_columns(rows, left=(0, 4))


def _cost_cells(params: int, macs: int, max_macs: int) -> list[str]:
    return [format_si(params), format_si(macs), text_bar(macs / max_macs, _COST_BAR_LENGTH)]


def _format_change(first: str, second: str) -> str:
    return first if first == second else f"{first or '–'} → {second or '–'}"


def text_bar(share: float, letters: int) -> str:
    """Return a bar for a share of 0 to 1 of that many letters, to an eighth of a letter; at least one eighth."""
    eighths = max(1, round(8 * letters * share))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _align_columns(rows: Sequence[Sequence[str]], left: Sequence[int] | None = None) -> list[str]:
    """Return rows as lines, columns two spaces apart; those in ``left`` (None: all) are left-aligned, others right."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    aligns = [str.ljust if left is None or index in left else str.rjust for index in range(len(widths))]
    return [
        "  ".join(align(cell, w) for align, cell, w in zip(aligns, row, widths, strict=False)).rstrip() for row in rows
    ]
