"""Tables 1, 2, 3, 5, 7 and 8 of the EfficientNet paper (arXiv:1905.11946) and its Figure 1, reproduced.

Table 4 measures time: see `effnet.lab.bench.paper_table4`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import geometric_mean
from types import MappingProxyType

from effnet.arch import ARCHS, Arch, Count, Layer, LayerCount, count
from effnet.draw import benchmark_plots, plotting
from effnet.lab.compare import baselines, published_numbers
from effnet.lab.compare.comparison_table import Column, Table, TableRow, TableValue, compare_values, quoted_value

TABLE1_COLUMNS = (
    *(Column(name, name, "", ("computed", "quoted")) for name in ("operator", "resolution", "channels", "layers")),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "M", ("computed",)),
)


def table1() -> Table:
    """Return Table 1: B0's stages as counted beside the paper's, and the cost of each."""
    arch = ARCHS["b0"]
    stages = [list(group) for _, group in groupby(count(arch).layers, lambda row: row.layer.stage)]
    return Table(
        "table1",
        "Table 1: EfficientNet-B0, stage by stage",
        f"{published_numbers.PAPER_V5}, Table 1",
        TABLE1_COLUMNS,
        tuple(
            _table1_row(arch, f"stage {number}", rows, printed)
            for number, (rows, printed) in enumerate(zip(stages, published_numbers.TABLE1_STAGES, strict=True), start=1)
        ),
        (
            "Resolutions are of the stage's input; its stride shows in the next row.",
            "The paper counts the stem as stage 1 and the head as stage 9; elsewhere here they have names.",
        ),
    )


def _table1_row(arch: Arch, name: str, rows: list[LayerCount], printed: tuple[str, str, str, str]) -> TableRow:
    body = [row for row in rows if row.layer.kind != "classifier"]
    height, width = body[0].size_in
    operator, resolution, channels, layers = printed
    return TableRow(
        name,
        {
            "operator": compare_values(operator_name(arch, body[0].layer), operator),
            "resolution": compare_values(f"{height} × {width}", resolution),
            "channels": compare_values(body[-1].layer.channels, channels),
            "layers": compare_values(len(body), layers),
            "params": TableValue(sum(row.params for row in rows)),
            "macs": TableValue(sum(row.macs for row in rows)),
        },
    )


def operator_name(arch: Arch, layer: Layer, without_classifier: bool = False) -> str:
    """Return a layer's operator as the papers name it; a head includes pooling and classifier by default."""
    kernel = f"{layer.kernel}x{layer.kernel}"
    match layer.kind:
        case "stem":
            return f"Conv{kernel}"
        case "head":
            return f"Conv{kernel}" if without_classifier else f"Conv{kernel} & Pooling & FC"
        case "classifier":
            return "Pooling & FC"
        case kind:
            block = {"mbconv": "MBConv", "fused": "Fused-MBConv"}[kind]
            stage = arch.stages[layer.stage - 1]
            return f"{block}{'' if stage.expanded else stage.expand}, k{kernel}"


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
TABLE2_PARAMS_TOLERANCE, TABLE2_MACS_TOLERANCE = 0.01, 0.03  # relative to the quoted figure
RATIO_TOLERANCE = 0.03  # printed ratios are of two figures rounded to two digits
PRINTED_RATIO_TOLERANCE = 0.02

TABLE2_MACS_NOTES = {
    **baselines.MACS_NOTES,
    "b4": "no reason is published; torchvision counts 4.394 G too",
    "b5": "no reason is published; torchvision counts 10.266 G too",
}


def table2(progress: Callable[[int, int], None] = lambda done, total: None) -> Table:
    """Return Table 2: quoted accuracies, computed and quoted costs. Raises ``ImportError`` without timm."""
    costs: dict[str, Count | baselines.ModelCost] = {}
    for done, row in enumerate(published_numbers.TABLE2):
        progress(done, len(published_numbers.TABLE2))
        costs[row.key] = count(ARCHS[row.key]) if row.key in ARCHS else baselines.count_baseline(row.key)[0]
    first = {row.key: row for row in published_numbers.TABLE2}
    return Table(
        "table2",
        "Table 2: the family and its baselines on ImageNet",
        f"{published_numbers.PAPER_V5}, Table 2; accuracies of May 2019: {published_numbers.PAPER_V1}, Table 2",
        TABLE2_COLUMNS,
        tuple(_table2_row(row, first[row.group], costs) for row in published_numbers.TABLE2),
        (
            "Ratios are to the EfficientNet above; printed ones are of rounded figures.",
            "MACs are for one image at the size in the table: multiply-accumulates of convolutions and linear maps, "
            "which the paper calls FLOPs.",
            "Versions 1 (May 2019) and 5 (September 2020) of the paper have the same networks with different "
            "accuracies; version 5 selected its checkpoints on 25,000 training images held out for that.",
            "None of them is 87 %: that figure, found in an article, is in no version of the paper.",
        ),
    )


def _table2_row(
    row: published_numbers.Table2Row,
    first: published_numbers.Table2Row,
    costs: Mapping[str, Count | baselines.ModelCost],
) -> TableRow:
    own, base = costs[row.key], costs[row.group]
    top1_v1, top5_v1 = published_numbers.TABLE2_V1.get(row.key, (row.top1, row.top5))
    params_note, macs_note = baselines.PARAMS_NOTES.get(row.key, ""), TABLE2_MACS_NOTES.get(row.key, "")
    size = ARCHS[row.key].resolution if row.key in ARCHS else baselines.BASELINES[row.key].size
    return TableRow(
        row.title,
        {
            "top1": quoted_value(row.top1),
            "top1_v1": quoted_value(top1_v1),
            "top5": quoted_value(row.top5),
            "top5_v1": quoted_value(top5_v1),
            "size": TableValue(size),
            "params": compare_values(own.params, row.params, TABLE2_PARAMS_TOLERANCE, params_note),
            "params_ratio": _compare_ratio(own.params / base.params, row.params_ratio, row.params, first.params),
            "macs": compare_values(own.macs, row.macs, TABLE2_MACS_TOLERANCE, macs_note),
            "macs_ratio": _compare_ratio(own.macs / base.macs, row.macs_ratio, row.macs, first.macs),
        },
    )


def _compare_ratio(computed: float | None, printed: str, printed_own: str, printed_base: str) -> TableValue:
    """Compare a computed ratio with the printed one, and say whether the printed figures give that ratio."""
    quotient, ratio, reason = _printed_ratio(printed_own, printed_base), quoted_value(printed).quoted, ""
    if quotient is not None and ratio and ratio.matches(quotient, PRINTED_RATIO_TOLERANCE):
        reason = f"it is the ratio of the quoted figures, {printed_own} and {printed_base}"
    elif quotient is not None:
        reason = f"nor is it the ratio of the quoted figures: {printed_own} over {printed_base} is {quotient:.2f}"
    return compare_values(computed, printed, RATIO_TOLERANCE, reason)


def _printed_ratio(printed_own: str, printed_base: str) -> float | None:
    """Return the ratio of two printed figures; None if either is not printed."""
    own, base = (quoted_value(text).amount("quoted") for text in (printed_own, printed_base))
    return own / base if isinstance(own, float) and isinstance(base, float) else None


TABLE3_COLUMNS = (
    *(Column(name, name, "×") for name in ("depth", "width", "resolution")),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "G", ("computed", "quoted")),
    Column("top1", "top-1", "%"),
)
TABLE3_MACS_TOLERANCE = 0.03
TABLE3_COMPOUND = (1.4, 1.2, 1.3)  # depth, width and resolution that Tables 3 and 7 print for about four times the MACs
ROUNDING_UNKNOWN = "the paper does not say how layers, channels and resolution were rounded"


def table3() -> Table:
    """Return Table 3: MobileNets and ResNet-50 scaled by the paper's factors and the official code's rounding."""
    return Table(
        "table3",
        "Table 3: MobileNetV1, MobileNetV2 and ResNet-50 scaled up",
        f"{published_numbers.PAPER_V5}, Table 3",
        TABLE3_COLUMNS,
        tuple(map(_scaled_row, published_numbers.TABLE3)),
        (
            "Scaled like EfficientNet: layers × depth rounded up, channels × width to the nearest multiple of 8, "
            f"{baselines.BASE_RESOLUTION} px × resolution. {ROUNDING_UNKNOWN[0].upper()}{ROUNDING_UNKNOWN[1:]} for "
            "these networks.",
        ),
    )


def table7() -> Table:
    """Return Table 7, the five networks of Figure 7: B0 scaled in one dimension, or in all."""
    unknown = f"no reason is published; {ROUNDING_UNKNOWN}"
    base = count(ARCHS["b0"]).macs / 1e9
    resolution = f"four times the pixels are at most four times B0's own {base:.3f} G: {4 * base:.2f} G"
    rows = [_scaled_row(row, resolution if row.resolution == 2 else unknown) for row in published_numbers.TABLE7]
    return Table(
        "fig7",
        "Figure 7 and Table 7: EfficientNet-B0 scaled up in one dimension, or in all",
        f"{published_numbers.PAPER_V5}, Table 7",
        TABLE3_COLUMNS,
        tuple(rows),
        ("Table 7 gives B0 77.3 %, Table 2 of the same version 77.1 %, Table 7 of version 1 76.3 %.",),
    )


def _scaled_row(row: published_numbers.ScaledRow, reason: str = ROUNDING_UNKNOWN) -> TableRow:
    """Return a row of Table 3 or 7; ``reason``: why its MACs differ from the paper's."""
    if not row.factors_printed:
        _, macs = baselines.count_scaled(row.base, *TABLE3_COMPOUND)
        used = ", ".join(f"{name} {factor:g}" for name, factor in zip("dwr", TABLE3_COMPOUND, strict=True))
        note = f"its factors are not printed; with those of MobileNetV1, {used}, it would be {macs / 1e9:.2f} G"
        return TableRow(row.title, {"macs": compare_values(None, row.macs, note=note), "top1": quoted_value(row.top1)})
    params, macs = baselines.count_scaled(row.base, row.depth, row.width, row.resolution)
    factors = {"depth": row.depth, "width": row.width, "resolution": row.resolution}
    return TableRow(
        row.title,
        {name: quoted_value(f"{factor:g}x") for name, factor in factors.items() if factor != 1}
        | {
            "size": TableValue(round(baselines.BASE_RESOLUTION * row.resolution)),
            "params": TableValue(params),
            "macs": compare_values(macs, row.macs, TABLE3_MACS_TOLERANCE, reason),
            "top1": quoted_value(row.top1),
        },
    )


TABLE5_COLUMNS = (
    Column("classes", "classes"),
    Column("baseline", "baseline"),
    Column("baseline_top1", "baseline's accuracy", "%"),
    Column("baseline_params", "baseline's params", "M", ("computed", "quoted")),
    Column("model", "ours"),
    Column("top1", "our accuracy", "%"),
    Column("params", "our params", "M", ("computed", "quoted")),
    Column("params_with_classifier", "with classifier", "M", ("computed",)),
    Column("ratio", "ratio", "×", ("computed", "quoted")),
)
TABLE5_PARAMS_TOLERANCE = 0.01
# Why a baseline's params differ from the quoted ones
TABLE5_NOTES = {"gpipe": "556 M is about the whole network, 557.28 M with its classifier; all others here are without"}


def table5(progress: Callable[[int, int], None] = lambda done, total: None) -> Table:
    """Return Table 5, with the recomputed geometric means of the ratios. Raises ``ImportError`` without timm.

    The paper counts params without the classifier; ours are also shown with the classifier of that many classes.
    """
    rows: list[TableRow] = []
    halves = (("public", published_numbers.TABLE5_PUBLIC), ("reported", published_numbers.TABLE5_REPORTED))
    done, total = 0, sum(len(printed) for _, printed in halves)
    for (half, printed), mean in zip(halves, published_numbers.TABLE5_GEOMETRIC_MEANS, strict=True):
        start = len(rows)
        for row in printed:
            rows.append(_table5_row(row, f"{row.dataset}, best {half}"))
            done += 1
            progress(done, total)
        rows.append(_mean_row(f"geometric mean, best {half}", rows[start:], printed, mean))
    return Table(
        "table5",
        "Table 5: transfer learning",
        f"{published_numbers.PAPER_V5}, Table 5; classes: Table 6; there, baselines of the first half are from "
        "arXiv:1805.08974",
        TABLE5_COLUMNS,
        tuple(rows),
        (
            "Best public: against networks available to everyone; best reported: against the best figures in print.",
            "Params are without the classifier, as in the paper, which does not say so; a classifier adds, per class, "
            "one more than the head's channels.",
            "DAT is a training method, not a network.",
        ),
    )


def _table5_row(row: published_numbers.Table5Row, name: str) -> TableRow:
    classes = published_numbers.TABLE6_DATASETS[row.dataset][2]
    own, theirs = count(row.ours, classes=0).params, None
    if row.baseline:
        cost, classifier_params = baselines.count_baseline(row.baseline)
        theirs = cost.params - classifier_params
    ratio = theirs / own if theirs else None
    note = TABLE5_NOTES.get(row.baseline, "")
    return TableRow(
        name,
        {
            "classes": quoted_value(str(classes)),
            "baseline": quoted_value(row.baseline_title),
            "baseline_top1": quoted_value(row.baseline_top1),
            "baseline_params": compare_values(theirs, row.baseline_params, TABLE5_PARAMS_TOLERANCE, note),
            "model": quoted_value(f"EfficientNet-{row.ours.upper()}"),
            "top1": quoted_value(row.top1),
            "params": compare_values(own, row.params, TABLE5_PARAMS_TOLERANCE, "truncated in print, not rounded"),
            "params_with_classifier": TableValue(count(row.ours, classes=classes).params),
            "ratio": _compare_ratio(ratio, row.ratio, row.baseline_params, row.params),
        },
    )


def _mean_row(
    name: str, rows: Sequence[TableRow], printed: Sequence[published_numbers.Table5Row], mean: str
) -> TableRow:
    ratios = [ratio for row in rows if isinstance(ratio := row["ratio"].computed, float)]
    printed_ratios = [ratio for row in printed if (ratio := _printed_ratio(row.baseline_params, row.params))]
    reason = f"the ratios of the quoted params have a mean of {geometric_mean(printed_ratios):.2f}"
    computed = geometric_mean(ratios) if len(ratios) == len(printed_ratios) else None
    return TableRow(name, {"ratio": compare_values(computed, mean, TABLE5_PARAMS_TOLERANCE, reason)})


def table8(measured: Mapping[str, tuple[float, float]] = MappingProxyType({})) -> Table:
    """Return Table 8 beside ``measured`` top-1 and top-5, by key of ARCHS; ``ValueError`` for another key."""
    for key in measured:
        if key not in published_numbers.TABLE8:
            raise ValueError(f"Table 8 has {', '.join(published_numbers.TABLE8)}, not {key}")
    columns = (
        Column("top1_val", "top-1, validation", "%", ("measured", "quoted")),
        Column("top1_test", "top-1, test", "%"),
        Column("top5_val", "top-5, validation", "%", ("measured", "quoted")),
        Column("top5_test", "top-5, test", "%"),
    )
    rows = []
    for key, (top1, top1_test, top5, top5_test) in published_numbers.TABLE8.items():
        own_top1, own_top5 = measured.get(key, (None, None))
        values = {
            "top1_val": quoted_value(top1, own_top1),
            "top1_test": quoted_value(top1_test),
            "top5_val": quoted_value(top5, own_top5),
            "top5_test": quoted_value(top5_test),
        }
        rows.append(TableRow(f"EfficientNet-{key.upper()}", values))
    return Table(
        "table8",
        "Table 8: validation and test accuracy on ImageNet",
        f"{published_numbers.PAPER_V5}, Table 8",
        columns,
        tuple(rows),
        (
            "The paper's authors submitted predictions for the 100,000 test images to image-net.org; the labels are "
            "not public.",
            "All validation figures round to those of Table 2 but one: B1's top-5, 94.47 % here and 94.4 % there.",
        ),
    )


FIGURE1_PANELS = (("params", "million params, computed", 1e6), ("macs", "billion MACs per image, computed", 1e9))
FIGURE1_COLUMNS = ("top1", "size", "params", "macs")


def figure1(table: Table) -> tuple[Table, plotting.RenderedPlot]:
    """Return Figures 1 and 5 from `table2`: the data and the plot; accuracies are quoted from v5, costs computed."""
    data = replace(
        table,
        name="fig1",
        title="Figures 1 and 5: accuracy against params and MACs",
        source=f"{published_numbers.PAPER_V5}, Table 2",
        columns=tuple(column for column in table.columns if column.key in FIGURE1_COLUMNS),
        notes=("Accuracies are quoted, costs computed.",),
    )
    panels = []
    for key, label, unit in FIGURE1_PANELS:
        points: list[benchmark_plots.AccuracyPoint] = []
        for row, printed in zip(table.rows, published_numbers.TABLE2, strict=True):
            top1, cost, ours = row["top1"].amount("quoted"), row[key].computed, printed.key in ARCHS
            assert isinstance(top1, float)
            assert isinstance(cost, int)
            name = printed.key.upper() if ours else printed.title
            points.append(benchmark_plots.AccuracyPoint(name, cost, top1, ours))
        panels.append((label, unit, points))
    return data, benchmark_plots.plot_accuracy(panels, data.title)
