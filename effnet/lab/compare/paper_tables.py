"""Table 1: EfficientNet-B0, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from types import MappingProxyType

from effnet.arch import ARCHS, Arch, Layer, LayerCount, count
from effnet.draw.benchmark_plots import AccuracyPoint, plot_accuracy
from effnet.draw.figure import RenderedPlot
from effnet.lab.compare import paper_figures as paper
from effnet.lab.compare.counting import BASE_RESOLUTION, count_baseline, count_scaled
from effnet.lab.compare.table import (
    Column,
    FigureKind,
    PrintedFigure,
    Table,
    TableRow,
    TableValue,
    compare_values,
    quoted_value,
)

TABLE1_COLUMNS = (
    Column("operator", "operator", kinds=("computed", "quoted")),
    Column("resolution", "resolution", kinds=("computed", "quoted")),
    Column("channels", "channels", kinds=("computed", "quoted")),
    Column("layers", "layers", kinds=("computed", "quoted")),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "M", ("computed",)),
)


def table1() -> Table:
    """B0's stages as the walk over its layers gives them, beside the paper's; and what each costs."""
    arch = ARCHS["b0"]
    stages = [list(group) for _, group in groupby(count(arch).layers, lambda row: row.layer.stage)]
    return Table(
        "table1",
        "Table 1: EfficientNet-B0, stage by stage",
        f"{paper.PAPER_V5}, Table 1",
        TABLE1_COLUMNS,
        tuple(
            _table1_row(arch, f"stage {number}", rows, printed)
            for number, (rows, printed) in enumerate(zip(stages, paper.TABLE1_STAGES, strict=True), start=1)
        ),
        (
            "The resolution is that of the map that enters the stage; a stage's stride is seen in the next line.",
            "The paper counts the stem as stage 1 and the head as stage 9; elsewhere here they are called by name.",
        ),
    )


def _table1_row(arch: Arch, name: str, rows: list[LayerCount], printed: tuple[str, str, str, str]) -> TableRow:
    body = [row for row in rows if row.layer.kind != "classifier"]
    high, wide = body[0].size_in
    what, resolution, channels, layers = printed
    return TableRow(
        name,
        {
            "operator": compare_values(operator_name(arch, body[0].layer), what),
            "resolution": compare_values(f"{high} × {wide}", resolution),
            "channels": compare_values(body[-1].layer.channels, channels),
            "layers": compare_values(len(body), layers),
            "params": TableValue(sum(row.params for row in rows)),
            "macs": TableValue(sum(row.macs for row in rows)),
        },
    )


def operator_name(arch: Arch, layer: Layer, without_classifier: bool = False) -> str:
    """What a layer does, in the papers' words; a head ``alone`` is without the pooling and the classifier behind it."""
    square = f"{layer.kernel}x{layer.kernel}"
    match layer.kind:
        case "stem":
            return f"Conv{square}"
        case "head":
            return f"Conv{square}" if without_classifier else f"Conv{square} & Pooling & FC"
        case "classifier":
            return "Pooling & FC"
        case kind:
            block = {"mbconv": "MBConv", "fused": "Fused-MBConv"}[kind]
            return f"{block}{arch.stages[layer.stage - 1].expand}, k{square}"


# Table 2: the family and its sixteen rivals on ImageNet, with what each costs, and the ratios.


TABLE2_COLUMNS = (
    Column("top1", "top-1 (v5)", "%"),
    Column("top1_v1", "top-1 (v1)", "%"),
    Column("top5", "top-5 (v5)", "%"),
    Column("top5_v1", "top-5 (v1)", "%"),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed", "quoted")),
    Column("params_ratio", "params ratio", "×", ("computed", "quoted")),
    Column("macs", "MACs", "G", ("computed", "quoted")),
    Column("macs_ratio", "MACs ratio", "×", ("computed", "quoted")),
)


TABLE2_PARAMS_TOLERANCE, TABLE2_MACS_TOLERANCE = 0.01, 0.03  # of what is quoted


TABLE2_RATIO_TOLERANCE = 0.03  # a ratio in print is of two figures that were rounded to two digits


# Why ours cost something else than what is quoted; rivals say it themselves
TABLE2_MACS_NOTES = {
    "b4": "no reason is published; torchvision counts 4.394 G too",
    "b5": "no reason is published; torchvision counts 10.266 G too",
}


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs; None where it is only quoted, and then ``why``. The notes: why quoted costs differ."""

    params: int | None = None
    macs: int | None = None
    size: int | None = None
    params_note: str = ""
    macs_note: str = ""
    reason: str = ""


def table2(progress: Callable[[int, int], None] = lambda done, total: None) -> Table:
    """Every network of the paper's Table 2: quoted accuracies, computed params and MACs beside the quoted ones.

    Accuracies are in two versions of the paper; rivals' are the same in both. Networks are built on the meta device,
    which takes no memory. ``progress`` hears how many of them are counted, and of how many.
    Raises ``ImportError`` where timm is missing, which keeps most of the rivals.
    """
    counted: dict[str, NetworkCost] = {}
    for done, line in enumerate(paper.TABLE2):
        progress(done, len(paper.TABLE2))
        counted[line.key] = _count_efficientnet(line.key) if line.key in ARCHS else _count_baseline(line.key)
    printed = {line.key: line for line in paper.TABLE2}
    return Table(
        "table2",
        "Table 2: the family and its rivals on ImageNet",
        f"{paper.PAPER_V5}, Table 2; accuracies of May 2019: {paper.PAPER_V1}, Table 2",
        TABLE2_COLUMNS,
        tuple(_table2_row(line, printed[line.group], counted) for line in paper.TABLE2),
        (
            "Ratios are to the EfficientNet above; in print they are of figures that were rounded before.",
            "MACs are of one picture at the size in the table: multiply-accumulates of convolutions and linear maps, "
            "which the paper calls FLOPs.",
            "Versions 1 (May 2019) and 5 (September 2020) of the paper have the same networks with other accuracies; "
            "version 5 chose its checkpoints on 25,000 training pictures held out for that.",
            "None of them is 87 %: that figure, found in an article, is in no version of the paper.",
        ),
    )


def _count_efficientnet(key: str) -> NetworkCost:
    found = count(ARCHS[key])
    return NetworkCost(found.params, found.macs, ARCHS[key].resolution, macs_note=TABLE2_MACS_NOTES.get(key, ""))


def _count_baseline(key: str) -> NetworkCost:
    found = count_baseline(key)
    if isinstance(found, str):
        return NetworkCost(reason=found)
    return NetworkCost(found.params, found.macs, found.size, found.params_note, found.macs_note)


def _table2_row(line: paper.Table2Row, first: paper.Table2Row, counted: dict[str, NetworkCost]) -> TableRow:
    own, to = counted[line.key], counted[line.group]
    top1_v1, top5_v1 = paper.TABLE2_V1.get(line.key, (line.top1, line.top5))
    ratios = {
        name: _table2_ratio(getattr(own, name), getattr(to, name), line, first, name) for name in ("params", "macs")
    }
    return TableRow(
        line.title,
        {
            "top1": quoted_value(line.top1),
            "top1_v1": quoted_value(top1_v1),
            "top5": quoted_value(line.top5),
            "top5_v1": quoted_value(top5_v1),
            "size": TableValue(own.size),
            "params": compare_values(own.params, line.params, TABLE2_PARAMS_TOLERANCE, own.params_note, own.reason),
            "params_ratio": ratios["params"],
            "macs": compare_values(own.macs, line.macs, TABLE2_MACS_TOLERANCE, own.macs_note, own.reason),
            "macs_ratio": ratios["macs"],
        },
    )


def _table2_ratio(
    own: int | None, to: int | None, line: paper.Table2Row, first: paper.Table2Row, name: str
) -> TableValue:
    """How many times ours, computed and as printed; where these differ, whether the printed figures give the ratio."""
    printed: str = getattr(line, f"{name}_ratio")
    ours, theirs = (PrintedFigure(getattr(each, name)) for each in (first, line))
    why = ""
    if not isinstance(ours.value, str) and not isinstance(theirs.value, str):
        of_printed = theirs.value / ours.value
        if PrintedFigure(printed).matches(of_printed, 0.02):
            why = f"it is the ratio of what is quoted, {theirs.text} and {ours.text}"
        else:
            why = f"it is not the ratio of what is quoted either: {theirs.text} over {ours.text} is {of_printed:.2f}"
    return compare_values(own / to if own and to else None, printed, TABLE2_RATIO_TOLERANCE, why)


# Table 3: MobileNets and ResNet-50 scaled up; and Table 7, where it is B0 that is scaled.


TABLE3_COLUMNS = (
    Column("depth", "depth", "×"),
    Column("width", "width", "×"),
    Column("resolution", "resolution", "×"),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "G", ("computed", "quoted")),
    Column("top1", "top-1", "%"),
)


TABLE3_MACS_TOLERANCE = 0.03


TABLE3_COMPOUND = (
    1.4,
    1.2,
    1.3,
)  # depth, width and resolution that Tables 3 and 7 print for a compound scaling of about four


ROUNDING_UNKNOWN = "the paper does not say how the layers, the channels and the side were rounded"


def table3() -> Table:
    """Params and MACs of the three networks scaled by the paper's factors and the official code's rounding."""
    return Table(
        "table3",
        "Table 3: MobileNetV1, MobileNetV2 and ResNet-50 scaled up",
        f"{paper.PAPER_V5}, Table 3",
        TABLE3_COLUMNS,
        tuple(_table3_row(line) for line in paper.TABLE3),
        (
            "Scaled as EfficientNet is: layers × depth rounded up, channels × width to the nearest multiple of 8, "
            f"{BASE_RESOLUTION} px × resolution. {ROUNDING_UNKNOWN[0].upper()}{ROUNDING_UNKNOWN[1:]} for these networks.",
        ),
    )


def table7() -> Table:
    """The five networks of Figure 7: B0, scaled in one dimension or in all."""
    rows = []
    for line in paper.TABLE7:
        arch = scale_b0(line.depth, line.width, line.resolution)
        counted = count(arch)
        why = ""
        if line.resolution == 2:
            base = count(ARCHS["b0"]).macs / 1e9
            why = f"four times the pixels are at most four times B0's own {base:.3f} G: {4 * base:.2f} G"
        why = why or f"no reason is published; {ROUNDING_UNKNOWN}"
        rows.append(_scaled_row(line, counted.params, counted.macs, arch.resolution, why))
    return Table(
        "fig7",
        "Figure 7 and Table 7: EfficientNet-B0 scaled up in one dimension, or in all",
        f"{paper.PAPER_V5}, Table 7",
        TABLE3_COLUMNS,
        tuple(rows),
        ("Table 7 gives B0 77.3 %, Table 2 of the same version 77.1 %, Table 7 of version 1 76.3 %.",),
    )


def scale_b0(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> Arch:
    """B0 with its layers, channels and side multiplied."""
    return replace(
        ARCHS["b0"], name="b0_scaled", depth=depth, width=width, resolution=round(ARCHS["b0"].resolution * resolution)
    )


def _table3_row(line: paper.ScaledRow) -> TableRow:
    if not line.factors_printed:
        params, macs = count_scaled(line.base, *TABLE3_COMPOUND)
        factors = ", ".join(f"{name} {factor:g}" for name, factor in zip("dwr", TABLE3_COMPOUND, strict=True))
        note = f"its factors are not printed; with MobileNetV1's, {factors}, it would be {macs / 1e9:.2f} G"
        return TableRow(
            line.title, {"macs": compare_values(None, line.macs, note=note), "top1": quoted_value(line.top1)}
        )
    params, macs = count_scaled(line.base, line.depth, line.width, line.resolution)
    return _scaled_row(line, params, macs, round(BASE_RESOLUTION * line.resolution), ROUNDING_UNKNOWN)


def _scaled_row(line: paper.ScaledRow, params: int, macs: int, size: int, why: str) -> TableRow:
    factors = {"depth": line.depth, "width": line.width, "resolution": line.resolution}
    return TableRow(
        line.title,
        {name: quoted_value(f"{factor:g}x") for name, factor in factors.items() if factor != 1}
        | {
            "size": TableValue(size),
            "params": TableValue(params),
            "macs": compare_values(macs, line.macs, TABLE3_MACS_TOLERANCE, why),
            "top1": quoted_value(line.top1),
        },
    )


# Table 5: transfer learning on eight data sets, with how many params ours and its rivals have.


TABLE5_COLUMNS = (
    Column("classes", "classes"),
    Column("rival", "rival"),
    Column("rival_top1", "rival's accuracy", "%"),
    Column("rival_params", "rival's params", "M", ("computed", "quoted")),
    Column("model", "ours"),
    Column("top1", "our accuracy", "%"),
    Column("params", "our params", "M", ("computed", "quoted")),
    Column("params_with_classifier", "with classifier", "M", ("computed",)),
    Column("ratio", "ratio", "×", ("computed", "quoted")),
)


TABLE5_PARAMS_TOLERANCE, TABLE5_RATIO_TOLERANCE = (
    0.01,
    0.03,
)  # of what is quoted; a ratio in print is of two rounded figures


# Why a rival's params are others than those quoted
TABLE5_NOTES = {"gpipe": "556 M is about the whole network, 557.28 M with its classifier; all others here are without"}


def table5(progress: Callable[[int, int], None] = lambda done, total: None) -> Table:
    """Both halves of Table 5, a row a data set, and the geometric means of the ratios anew.

    The paper counts params without the classifier; ours stand there with the classifier of that many classes too.
    ``progress`` hears how many rows are done, and of how many. Raises ``ImportError`` where timm is missing.
    """
    rows: list[TableRow] = []
    halves = (("public", paper.TABLE5_PUBLIC), ("reported", paper.TABLE5_REPORTED))
    done, total = 0, sum(len(lines) for _, lines in halves)
    for (half, lines), mean in zip(halves, paper.TABLE5_GEOMETRIC_MEANS, strict=True):
        start = len(rows)
        for line in lines:
            rows.append(_table5_row(line, f"{line.dataset}, best {half}"))
            done += 1
            progress(done, total)
        rows.append(_mean_row(f"geometric mean, best {half}", rows[start:], lines, mean))
    return Table(
        "table5",
        "Table 5: transfer learning",
        f"{paper.PAPER_V5}, Table 5; classes: Table 6; there, rivals of the first half are from arXiv:1805.08974",
        TABLE5_COLUMNS,
        tuple(rows),
        (
            "Best public: against networks that anybody could have; best reported: against the best figures in print.",
            "Params are of the network without its classifier, as in the paper, which does not say so; a classifier of "
            "so many classes adds as many times one more than the head's channels.",
            "DAT is a way of training, and no network.",
        ),
    )


def _params_without_classifier(key: str) -> int | None:
    """Params of a rival without its classifier; None where it is not built."""
    found = count_baseline(key) if key else ""
    return None if isinstance(found, str) else found.params - found.classifier_params


def _table5_row(line: paper.Table5Row, name: str) -> TableRow:
    classes = paper.TABLE6_DATASETS[line.dataset][2]
    own, theirs = count(line.ours, classes=0).params, _params_without_classifier(line.baseline)
    return TableRow(
        name,
        {
            "classes": quoted_value(str(classes)),
            "rival": quoted_value(line.baseline_title),
            "rival_top1": quoted_value(line.baseline_top1),
            "rival_params": compare_values(
                theirs, line.baseline_params, TABLE5_PARAMS_TOLERANCE, TABLE5_NOTES.get(line.baseline, "")
            ),
            "model": quoted_value(f"EfficientNet-{line.ours.upper()}"),
            "top1": quoted_value(line.top1),
            "params": compare_values(own, line.params, TABLE5_PARAMS_TOLERANCE, "cut off in print, not rounded"),
            "params_with_classifier": TableValue(count(line.ours, classes=classes).params),
            "ratio": compare_values(
                theirs / own if theirs else None, line.ratio, TABLE5_RATIO_TOLERANCE, _explain_ratio(line)
            ),
        },
    )


def _printed_ratio(line: paper.Table5Row) -> float | None:
    """The rival's params over ours, as both are printed."""
    theirs, own = PrintedFigure(line.baseline_params).value, PrintedFigure(line.params).value
    return None if isinstance(theirs, str) or isinstance(own, str) else theirs / own


def _explain_ratio(line: paper.Table5Row) -> str:
    """Whether the printed ratio is that of the printed params."""
    found, printed = _printed_ratio(line), f"{line.baseline_params} over {line.params}"
    if found is None:
        return ""
    if PrintedFigure(line.ratio).matches(found, 0.02):
        return f"it is the ratio of what is quoted, {printed}"
    return f"it is not the ratio of what is quoted either: {printed} is {found:.1f}"


def _mean_row(name: str, rows: Sequence[TableRow], lines: Sequence[paper.Table5Row], printed: str) -> TableRow:
    ratios = [row["ratio"].computed for row in rows]
    there = [ratio for ratio in ratios if isinstance(ratio, float)]
    quotients = [found for found in map(_printed_ratio, lines) if found is not None]
    why = f"the ratios of the params that are quoted have a mean of {_geometric_mean(quotients):.2f}"
    computed = _geometric_mean(there) if len(there) == len(quotients) else None
    return TableRow(name, {"ratio": compare_values(computed, printed, TABLE5_PARAMS_TOLERANCE, why)})


def _geometric_mean(values: Sequence[float]) -> float:
    return prod(values) ** (1 / len(values))


# Table 8: top-1 and top-5 on ImageNet's validation pictures, and on its test pictures, whose classes are secret.


NO_MEASUREMENTS: Mapping[str, tuple[float, float]] = MappingProxyType({})


def table8(measured: Mapping[str, tuple[float, float]] = NO_MEASUREMENTS) -> Table:
    """The quoted accuracies, and beside them ours where they were ``measured``: key of ARCHS → (top-1, top-5).

    Raises ``ValueError`` for a network that is not in the table.
    """
    for key in measured:
        if key not in paper.TABLE8:
            raise ValueError(f"Table 8 has {', '.join(paper.TABLE8)}, and no {key}")
    kinds: tuple[FigureKind, ...] = ("measured", "quoted")
    columns = (
        *(Column("top1_val", "top-1, validation", "%", kinds), Column("top1_test", "top-1, test", "%")),
        *(Column("top5_val", "top-5, validation", "%", kinds), Column("top5_test", "top-5, test", "%")),
    )
    rows = []
    for key, (top1, top1_test, top5, top5_test) in paper.TABLE8.items():
        first, five = measured.get(key, (None, None))
        values = {
            "top1_val": TableValue(measured=first, quoted=PrintedFigure(top1)),
            "top1_test": quoted_value(top1_test),
            "top5_val": TableValue(measured=five, quoted=PrintedFigure(top5)),
            "top5_test": quoted_value(top5_test),
        }
        rows.append(TableRow(f"EfficientNet-{key.upper()}", values))
    return Table(
        "table8",
        "Table 8: validation and test accuracy on ImageNet",
        f"{paper.PAPER_V5}, Table 8",
        columns,
        tuple(rows),
        (
            "The paper's authors sent their answers to the 100,000 test pictures to image-net.org: nobody can measure "
            "these columns at home.",
            "All validation figures round to those of Table 2 but one: B1's top-5, 94.47 % here and 94.4 % there.",
        ),
    )


# Figure 1 and its twin, Figure 5: accuracy against params and against MACs, from Table 2.


FIGURE1_PANELS = (
    ("params", "millions of params, computed", 1e6),
    ("macs", "billions of MACs for one picture, computed", 1e9),
)


FIGURE1_COLUMNS = ("top1", "size", "params", "macs")


def figure1(table: Table) -> tuple[Table, RenderedPlot]:
    """The figure, and what it shows: accuracies as v5 quotes them, costs as computed from the networks of `table2`.

    A network whose cost is only quoted is drawn hollow; one for which it is not even quoted is left out of that panel.
    """
    data = replace(
        table,
        name="fig1",
        title="Figures 1 and 5: accuracy against params and MACs",
        source=f"{paper.PAPER_V5}, Table 2",
        columns=tuple(column for column in table.columns if column.key in FIGURE1_COLUMNS),
        notes=("Accuracies are quoted, costs computed; a network whose cost is only quoted is drawn hollow.",),
    )
    panels = [
        (
            label,
            unit,
            [
                one
                for row, line in zip(table.rows, paper.TABLE2, strict=True)
                if (one := _figure1_point(row, line, key))
            ],
        )
        for key, label, unit in FIGURE1_PANELS
    ]
    return data, plot_accuracy(panels, data.title)


def _figure1_point(row: TableRow, line: paper.Table2Row, key: str) -> AccuracyPoint | None:
    top1 = row["top1"].amount("quoted")
    counted, quoted = row[key].computed, row[key].amount("quoted")
    cost = quoted if counted is None else counted
    if not isinstance(top1, float) or cost is None or isinstance(cost, str):
        return None
    ours = line.key in ARCHS
    return AccuracyPoint(line.key.upper() if ours else line.title, cost, top1, ours, counted is not None)
