"""A network or a block drawn with letters, for a terminal: what the diagrams show, in lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.arch import Arch, Count, count
from effnet.arch.counting import Size
from effnet.draw.block_diagram import BlockSpec, block_conditions
from effnet.draw.formatting import ACTIVATION_NAMES, describe_operation, format_shape, format_si, operation_kind
from effnet.draw.network_diagram import COST_ROWS, TEXT_ROWS, check_detail
from effnet.draw.network_summary import (
    BlockRepeat,
    NetworkPart,
    describe_module,
    find_repeats,
    format_settings,
    input_part,
    layer_runs,
    network_parts,
    summarize,
    used_modules,
)

_MAP_BAR_LENGTH, _COST_BAR_LENGTH = 24, 10  # letters that the largest map, and the largest cost, take
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def network_text(
    arch: str | Arch,
    size: Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
) -> str:
    """The network with a line a stage, a layer or an operation, with maps and MACs as bars to scale.

    Raises ``ValueError`` for a detail that there is none of, and for a size below one pixel.
    """
    drawing = {"stages": _stage_lines, "layers": _layer_lines, "operations": _operation_lines}[check_detail(detail)]
    counted = count(arch, size, classes, channels)
    drawn = drawing(counted)
    return "\n".join([summarize(counted), ", ".join(format_settings(counted)), "", *drawn])


def modules_text(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> str:
    """The network by what repeats in it: stages of sub-blocks, and what each sub-block is made of."""
    counted = count(arch, size, classes, channels)
    found, made = find_repeats(counted)
    stages = [
        [part.name, part.operator, _output_text(part), " → ".join(map(_describe_repeat, made.get(index, ())))]
        for index, part in enumerate(network_parts(counted))
    ]
    blocks = [
        [block.letter, " → ".join([*block.modules, *(["+ input"] if block.residual else [])]), block.description]
        for block in found
    ]
    inside = [describe_module(module, counted.arch.activation) for module in used_modules(found)]
    lines = [summarize(counted), "", *_align_columns(stages), "", *_align_columns(blocks), "", *inside]
    return "\n".join(lines)


def comparison_text(first: Count, second: Count) -> str:
    """Two networks in one table: where they differ, the first's fact, an arrow and the second's."""
    ours, theirs = ({part.name: part for part in network_parts(counted)} for counted in (first, second))
    names = sorted(dict.fromkeys([*ours, *theirs]), key=lambda n: {"stem": 0, "head": 2, "classifier": 3}.get(n, 1))
    rows = [["", *(name for name, _ in (*TEXT_ROWS, *COST_ROWS))]]
    for name in names:
        pair = (ours.get(name), theirs.get(name))
        facts = [_format_change(*(tell(part) if part else "none" for part in pair)) for _, tell in TEXT_ROWS]
        costs = [_format_change(*(format_si(tell(part)) if part else "none" for part in pair)) for _, tell in COST_ROWS]
        rows.append([name, *facts, *costs])
    words = [_format_change(*pair) for pair in zip(format_settings(first), format_settings(second), strict=True)]
    ratios = f"params × {second.params / first.params:.3g}, MACs × {second.macs / first.macs:.3g}"
    return "\n".join(
        [summarize(first), f"→ {summarize(second)} ({ratios})", ", ".join(words), "", *_align_columns(rows)]
    )


def block_text(subject: BlockSpec) -> str:
    """A block from the top down, shapes on its arrows, the residual at its side, and its conditions in words."""
    residual = subject.layer.residual and not subject.part
    rows: list[list[str]] = [["in"]]
    size, channels = subject.size, subject.channels[0]
    for operation, after in subject.operations:
        what, rail = operation_kind(operation), "│" if operation.pooled else ""
        if what != "excite":
            rows.append([f"│ {format_shape(size, channels)}"])
        acts = "sigmoid" if what == "excite" else ACTIVATION_NAMES[subject.activation] if operation.activation else ""
        follows = ", ".join(filter(None, ("batch norm" if operation.norm else "", acts)))
        costs = (f"{format_si(operation.params)} params", f"{format_si(operation.macs(*after))} MACs")
        name = f"{rail}  {describe_operation(operation)}".strip()
        if what == "reduce":
            rows.append(["├──╮ squeeze-excite", "", "", ""])
        rows.append([f"{name}{f' → {format_shape(after, operation.channels)}' if rail else ''}", follows, *costs])
        if what == "excite":
            rows.append(["×──╯"])
        if not operation.pooled:
            size, channels = after, operation.channels
    rows += [
        [f"│ {format_shape(size, channels)}"],
        *([["+"], [f"│ {format_shape(size, channels)}"]] if residual else []),
        ["out"],
    ]
    lines = _align_columns(rows, left=(0, 1))
    if residual:
        lines = _add_residual_rail(lines)
    words = [f"{'●' if each.holds else '○'} {each.heading}: {each.because}" for each in block_conditions(subject)]
    total = f"{format_si(subject.params)} params, {format_si(subject.macs)} MACs"
    return "\n".join([f"{subject.title}: {total}", "", *lines, "", *words])


def _add_residual_rail(lines: list[str]) -> list[str]:
    """A line down the left side, from what enters to where it is added."""
    added = next(index for index, line in enumerate(lines) if line.startswith("+"))
    before = {1: "╭─", added: "╰►"}
    return [f"{before.get(index, '│ ' if 1 < index < added else '  ')}{line}" for index, line in enumerate(lines)]


def _stage_lines(counted: Count) -> list[str]:
    found = (input_part(counted), *network_parts(counted))
    side, most = max(counted.size), max(part.macs for part in found)
    rows = [["", "", "operator", "layers", "map", "channels", "params", "MACs", ""]]
    for part in found:
        extent = 1 if part.kind == "classifier" else part.size_out[1]
        operator = ", ".join(filter(None, (f"{part.operator} {part.kernel}".strip(), "SE" if part.squeeze else "")))
        layers = f"× {part.layers}" if part.name.startswith("stage") else ""
        map_ = "" if part.kind == "classifier" else f"{part.size_out[0]}×{part.size_out[1]}"
        costs = ["", "", ""] if part.kind == "picture" else _cost_cells(part.params, part.macs, most)
        rows.append(
            [part.name, text_bar(extent / side, _MAP_BAR_LENGTH), operator, layers, map_, str(part.channels), *costs]
        )
    return _align_columns(rows, left=(0, 1, 2, 8))


def _layer_lines(counted: Count) -> list[str]:
    most = max(row.macs for row in counted.layers)
    rows = [["", "operator", "in", "out", "", "params", "MACs", ""]]
    for run in layer_runs(counted):
        for row in run.rows:
            layer = row.layer
            made = ", ".join(filter(None, (f"{run.operator} {run.kernel}".strip(), "SE" if layer.squeezed else "")))
            out = str(layer.channels) if layer.kind == "classifier" else format_shape(row.size_out, layer.channels)
            added = "+ input" if layer.residual else ""
            maps = [format_shape(row.size_in, layer.inputs), out, added]
            rows.append([row.name, made, *maps, *_cost_cells(row.params, row.macs, most)])
    return _align_columns(rows, left=(0, 1, 4, 7))


def _operation_lines(counted: Count) -> list[str]:
    most = max(operation.macs(*size) for row in counted.layers for operation, size in row.operations)
    rows = [["", "out", "params", "MACs", ""]]
    for run in layer_runs(counted):
        row = run.first
        many = f", × {len(run.rows)}, each" if len(run.rows) > 1 else ""
        added = ", + input" if row.layer.residual else ""
        rows.append(
            [
                f"{run.name}: {run.operator}{many}{added}",
                format_shape(row.size_in, row.layer.inputs) + " in",
                "",
                "",
                "",
            ]
        )
        for operation, size in row.operations:
            out = format_shape(size, operation.channels)
            rows.append(
                [f"  {describe_operation(operation)}", out, *_cost_cells(operation.params, operation.macs(*size), most)]
            )
    return _align_columns(rows, left=(0, 4))


def _cost_cells(params: int, macs: int, most: int) -> list[str]:
    return [format_si(params), format_si(macs), text_bar(macs / most, _COST_BAR_LENGTH)]


def _output_text(part: NetworkPart) -> str:
    return str(part.channels) if part.kind == "classifier" else format_shape(part.size_out, part.channels)


def _describe_repeat(repeat: BlockRepeat) -> str:
    layer = repeat.rows[0].layer
    stride = ", stride 2" if layer.stride > 1 else ""
    many = f" × {len(repeat.rows)}" if len(repeat.rows) > 1 else ""
    return f"{repeat.sub_block.letter}{many} ({layer.kernel}×{layer.kernel}{stride})"


def _format_change(first: str, second: str) -> str:
    return first if first == second else f"{first or '–'} → {second or '–'}"


def text_bar(share: float, letters: int) -> str:
    """A bar of blocks for a share of 0 to 1 of so many letters, to an eighth of a letter; never nothing."""
    eighths = max(1, round(8 * letters * share))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _align_columns(rows: Sequence[Sequence[str]], left: Sequence[int] | None = None) -> list[str]:
    """Rows as lines, columns two spaces apart; those in ``left`` (None: all) lean to the left, others to the right."""
    columns = max(map(len, rows))
    wide = [max((len(row[c]) for row in rows if c < len(row)), default=0) for c in range(columns)]
    return [
        "  ".join(
            cell.ljust(wide[c]) if left is None or c in left else cell.rjust(wide[c]) for c, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
