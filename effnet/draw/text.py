"""A network or a block drawn with letters, for a terminal: what the diagrams show, in lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.arch import Arch, Count, count
from effnet.arch.count import Size
from effnet.draw.diagram.columns import SHARES, TEXTS
from effnet.draw.diagram.conditions import conditions
from effnet.draw.diagram.facts import Part, parts, picture, runs
from effnet.draw.diagram.header import settings, summary
from effnet.draw.diagram.repeats import Repeat, module_words, repeats, used_modules
from effnet.draw.diagram.subject import Subject
from effnet.draw.diagram.words import ACTIVATIONS, operation_kind, operation_words, shape, short
from effnet.draw.network import known_detail

_MAP, _COST = 24, 10  # letters that the largest map, and the largest cost, take
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def text(
    arch: str | Arch,
    size: Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
) -> str:
    """The network with a line a stage, a layer or an operation, with maps and MACs as bars to scale.

    Raises ``ValueError`` for a detail that there is none of, and for a size below one pixel.
    """
    drawing = {"stages": _stages, "layers": _layers, "operations": _operations}[known_detail(detail)]
    counted = count(arch, size, classes, channels)
    drawn = drawing(counted)
    return "\n".join([summary(counted), ", ".join(settings(counted)), "", *drawn])


def modules(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> str:
    """The network by what repeats in it: stages of sub-blocks, and what each sub-block is made of."""
    counted = count(arch, size, classes, channels)
    found, made = repeats(counted)
    stages = [
        [part.name, part.operator, _leaves(part), " → ".join(map(_repeat, made.get(index, ())))]
        for index, part in enumerate(parts(counted))
    ]
    blocks = [
        [block.letter, " → ".join([*block.modules, *(["+ input"] if block.residual else [])]), block.words]
        for block in found
    ]
    inside = [module_words(module, counted.arch.activation) for module in used_modules(found)]
    lines = [summary(counted), "", *_aligned(stages), "", *_aligned(blocks), "", *inside]
    return "\n".join(lines)


def against(first: Count, second: Count) -> str:
    """Two networks in one table: where they differ, the first's fact, an arrow and the second's."""
    ours, theirs = ({part.name: part for part in parts(counted)} for counted in (first, second))
    names = sorted(dict.fromkeys([*ours, *theirs]), key=lambda n: {"stem": 0, "head": 2, "classifier": 3}.get(n, 1))
    rows = [["", *(name for name, _ in (*TEXTS, *SHARES))]]
    for name in names:
        pair = (ours.get(name), theirs.get(name))
        facts = [_both(*(tell(part) if part else "none" for part in pair)) for _, tell in TEXTS]
        costs = [_both(*(short(tell(part)) if part else "none" for part in pair)) for _, tell in SHARES]
        rows.append([name, *facts, *costs])
    words = [_both(*pair) for pair in zip(settings(first), settings(second), strict=True)]
    ratios = f"params × {second.params / first.params:.3g}, MACs × {second.macs / first.macs:.3g}"
    return "\n".join([summary(first), f"→ {summary(second)} ({ratios})", ", ".join(words), "", *_aligned(rows)])


def block(subject: Subject) -> str:
    """A block from the top down, shapes on its arrows, the residual at its side, and its conditions in words."""
    residual = subject.layer.residual and not subject.part
    rows: list[list[str]] = [["in"]]
    size, channels = subject.size, subject.channels[0]
    for operation, after in subject.opened:
        what, rail = operation_kind(operation), "│" if operation.pooled else ""
        if what != "excite":
            rows.append([f"│ {shape(size, channels)}"])
        acts = "sigmoid" if what == "excite" else ACTIVATIONS[subject.activation] if operation.activation else ""
        follows = ", ".join(filter(None, ("batch norm" if operation.norm else "", acts)))
        costs = (f"{short(operation.params)} params", f"{short(operation.macs(*after))} MACs")
        name = f"{rail}  {operation_words(operation)}".strip()
        if what == "reduce":
            rows.append(["├──╮ squeeze-excite", "", "", ""])
        rows.append([f"{name}{f' → {shape(after, operation.channels)}' if rail else ''}", follows, *costs])
        if what == "excite":
            rows.append(["×──╯"])
        if not operation.pooled:
            size, channels = after, operation.channels
    rows += [[f"│ {shape(size, channels)}"], *([["+"], [f"│ {shape(size, channels)}"]] if residual else []), ["out"]]
    lines = _aligned(rows, left=(0, 1))
    if residual:
        lines = _railed(lines)
    words = [f"{'●' if each.holds else '○'} {each.heading}: {each.because}" for each in conditions(subject)]
    total = f"{short(subject.params)} params, {short(subject.macs)} MACs"
    return "\n".join([f"{subject.title}: {total}", "", *lines, "", *words])


def _railed(lines: list[str]) -> list[str]:
    """A line down the left side, from what enters to where it is added."""
    added = next(index for index, line in enumerate(lines) if line.startswith("+"))
    before = {1: "╭─", added: "╰►"}
    return [f"{before.get(index, '│ ' if 1 < index < added else '  ')}{line}" for index, line in enumerate(lines)]


def _stages(counted: Count) -> list[str]:
    found = (picture(counted), *parts(counted))
    side, most = max(counted.size), max(part.macs for part in found)
    rows = [["", "", "operator", "layers", "map", "channels", "params", "MACs", ""]]
    for part in found:
        extent = 1 if part.kind == "classifier" else part.size_out[1]
        operator = ", ".join(filter(None, (f"{part.operator} {part.kernel}".strip(), "SE" if part.squeeze else "")))
        layers = f"× {part.layers}" if part.name.startswith("stage") else ""
        map_ = "" if part.kind == "classifier" else f"{part.size_out[0]}×{part.size_out[1]}"
        costs = ["", "", ""] if part.kind == "picture" else _costs(part.params, part.macs, most)
        rows.append([part.name, bar(extent / side, _MAP), operator, layers, map_, str(part.channels), *costs])
    return _aligned(rows, left=(0, 1, 2, 8))


def _layers(counted: Count) -> list[str]:
    most = max(row.macs for row in counted.layers)
    rows = [["", "operator", "in", "out", "", "params", "MACs", ""]]
    for run in runs(counted):
        for row in run.rows:
            layer = row.layer
            made = ", ".join(filter(None, (f"{run.operator} {run.kernel}".strip(), "SE" if layer.squeezed else "")))
            out = str(layer.channels) if layer.kind == "classifier" else shape(row.size_out, layer.channels)
            added = "+ input" if layer.residual else ""
            maps = [shape(row.size_in, layer.inputs), out, added]
            rows.append([row.name, made, *maps, *_costs(row.params, row.macs, most)])
    return _aligned(rows, left=(0, 1, 4, 7))


def _operations(counted: Count) -> list[str]:
    most = max(operation.macs(*size) for row in counted.layers for operation, size in row.operations)
    rows = [["", "out", "params", "MACs", ""]]
    for run in runs(counted):
        row = run.first
        many = f", × {len(run.rows)}, each" if len(run.rows) > 1 else ""
        added = ", + input" if row.layer.residual else ""
        rows.append(
            [f"{run.name}: {run.operator}{many}{added}", shape(row.size_in, row.layer.inputs) + " in", "", "", ""]
        )
        for operation, size in row.operations:
            out = shape(size, operation.channels)
            rows.append(
                [f"  {operation_words(operation)}", out, *_costs(operation.params, operation.macs(*size), most)]
            )
    return _aligned(rows, left=(0, 4))


def _costs(params: int, macs: int, most: int) -> list[str]:
    return [short(params), short(macs), bar(macs / most, _COST)]


def _leaves(part: Part) -> str:
    return str(part.channels) if part.kind == "classifier" else shape(part.size_out, part.channels)


def _repeat(repeat: Repeat) -> str:
    layer = repeat.rows[0].layer
    stride = ", stride 2" if layer.stride > 1 else ""
    many = f" × {len(repeat.rows)}" if len(repeat.rows) > 1 else ""
    return f"{repeat.sub_block.letter}{many} ({layer.kernel}×{layer.kernel}{stride})"


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first or '–'} → {second or '–'}"


def bar(share: float, letters: int) -> str:
    """A bar of blocks for a share of 0 to 1 of so many letters, to an eighth of a letter; never nothing."""
    eighths = max(1, round(8 * letters * share))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int] | None = None) -> list[str]:
    """Rows as lines, columns two spaces apart; those in ``left`` (None: all) lean to the left, others to the right."""
    columns = max(map(len, rows))
    wide = [max((len(row[c]) for row in rows if c < len(row)), default=0) for c in range(columns)]
    return [
        "  ".join(
            cell.ljust(wide[c]) if left is None or c in left else cell.rjust(wide[c]) for c, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
