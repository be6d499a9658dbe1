"""The paper's tables: computed figures against other counters and arithmetic, quoted figures against each other."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch

from effnet.arch import ARCHS, PUBLISHED_TOP1
from effnet.data.torchvision_compat import declare_operators
from effnet.lab.compare import published_numbers as paper
from effnet.lab.compare.baselines import count_module, count_scaled
from effnet.lab.compare.comparison_table import (
    Column,
    PrintedFigure,
    Table,
    TableRow,
    TableValue,
    compare_values,
    quoted_value,
    to_csv,
    to_markdown,
    write_table,
)
from effnet.lab.compare.paper_tables import table1, table2, table3, table5, table7, table8

TOLERANCES = {"params": 0.01, "macs": 0.03}


@pytest.fixture(scope="module")
def two() -> Table:
    pytest.importorskip("timm")
    return table2()


@pytest.fixture(scope="module")
def five() -> Table:
    pytest.importorskip("timm")
    return table5()


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [
        ("26M", 26e6, 1e6),
        ("0.39B", 0.39e9, 0.01e9),
        ("77.1%", 0.771, 0.001),
        ("4.9x", 4.9, 0.1),
        ("0.554s", 0.554, 0.001),
        ("112", 112, 1),
        ("7 × 7", "7 × 7", 0),
    ],
)
def test_printed_figures(text: str, value: float | str, step: float) -> None:
    found = PrintedFigure(text)
    assert found.value == value
    assert found.last_digit == pytest.approx(step)


def test_a_figure_matches_what_it_rounds_to() -> None:
    assert PrintedFigure("26M").matches(25.5e6, 0)
    assert PrintedFigure("26M").matches(26.5e6, 0)
    assert not PrintedFigure("26M").matches(25.4e6, 0.01)
    assert PrintedFigure("557M").matches(552e6, 0.01)
    assert not PrintedFigure("557M").matches(551e6, 0.01)
    assert not PrintedFigure("MBConv1, k3x3").matches("MBConv6, k3x3", 1)


def test_disagreement_is_noted_with_its_reason() -> None:
    assert (
        compare_values(42.7e6, "48M", 0.01, "another network").note == "11.0% below the quoted figure; another network"
    )
    assert compare_values(2.0, "1.0x").note == "100.0% above the quoted figure; no reason is known"
    assert compare_values(48.2e6, "48M", 0.01, "another network").note == ""
    assert compare_values(None, "48M", note="not built").note == "not built"
    assert compare_values(3.0, "-").quoted is None


def test_kinds_are_never_mixed() -> None:
    one = TableValue(computed=1.0, quoted=PrintedFigure("2x"))
    assert [one.amount(kind) for kind in ("computed", "measured", "quoted")] == [1.0, None, 2.0]
    assert quoted_value("-").quoted is None
    assert one.to_dict(("computed", "quoted")) == {"computed": 1.0, "quoted": 2.0}


def test_table_1_equals_the_papers() -> None:
    found = table1()
    for row, printed in zip(found.rows, paper.TABLE1_STAGES, strict=True):
        for key, text in zip(("operator", "resolution", "channels", "layers"), printed, strict=True):
            value = row[key]
            assert str(value.computed) == text
            assert value.quoted == PrintedFigure(text)
            assert value.note == ""
    assert sum(row["params"].computed or 0 for row in found.rows) == 5_288_548  # type: ignore[misc]
    assert sum(row["macs"].computed or 0 for row in found.rows) == 385_814_752  # type: ignore[misc]


def test_table_2_has_all_networks_in_their_groups(two: Table) -> None:
    assert [row.name for row in two.rows] == [line.title for line in paper.TABLE2]
    assert len([line for line in paper.TABLE2 if line.key not in ARCHS]) == 16
    assert {line.group for line in paper.TABLE2} == {f"b{number}" for number in range(8)}
    for row, line in zip(two.rows, paper.TABLE2, strict=True):
        if line.key in ARCHS:
            assert row["top1"].amount("quoted") == pytest.approx(PUBLISHED_TOP1[line.key][0] / 100)
            assert row["top1_v1"].amount("quoted") == PrintedFigure(paper.TABLE2_V1[line.key][0]).value
        else:
            assert row["top1_v1"] == row["top1"]


def test_every_disagreement_has_a_note_with_its_reason(two: Table, five: Table) -> None:
    for table in (two, five, table3(), table7()):
        for row, column, value in cells(table):
            if value.computed is None or value.quoted is None:
                continue
            agrees = value.quoted.matches(value.computed, TOLERANCES.get(column.key, 0.03))
            assert agrees or "the quoted figure; " in value.note, (row.name, column.key)
            assert "no reason is known" not in value.note, (row.name, column.key)


def cells(table: Table) -> Iterator[tuple[TableRow, Column, TableValue]]:
    return ((row, column, row[column.key]) for row in table.rows for column in table.columns)


def test_known_disagreements(two: Table) -> None:
    rows = {row.name: row for row in two.rows}
    assert rows["Inception-v4"]["params"].computed == pytest.approx(42.7e6, abs=0.05e6)
    assert "11.1% below the quoted figure" in rows["Inception-v4"]["params"].note
    assert rows["SENet"]["params"].computed == pytest.approx(115.1e6, abs=0.05e6)
    assert "21.2% below the quoted figure" in rows["SENet"]["params"].note
    # The printed ratio is that of the printed params, and neither is the network's
    assert "it is the ratio of the quoted figures, 146M and 19M" in rows["SENet"]["params_ratio"].note
    # 23 over 4.2 is 5.5, but 6.0 is printed
    assert "23B over 4.2B is 5.48" in rows["PNASNet"]["macs_ratio"].note
    assert rows["GPipe"]["macs"].quoted is None
    assert "87 %" in "".join(two.notes)


def test_ratios_are_to_the_efficientnet_above(two: Table) -> None:
    rows = {row.name: row for row in two.rows}
    assert rows["ResNet-50"]["params_ratio"].computed == pytest.approx(25_557_032 / 5_288_548)
    assert rows["ResNet-152"]["macs_ratio"].computed == pytest.approx(11_513_626_624 / 686_957_696, rel=0.01)
    assert all(rows[f"EfficientNet-B{number}"]["params_ratio"].computed == 1 for number in range(8))


def test_progress_of_counting() -> None:
    pytest.importorskip("timm")
    progress: list[tuple[int, int]] = []
    table5(lambda done, total: progress.append((done, total)))
    assert progress[-1][0] == progress[-1][1] == 16


@pytest.mark.parametrize(
    ("base", "theirs", "size"),
    [
        ("mobilenet_v1", "mobilenetv1_100", 224),
        ("mobilenet_v2", "mobilenetv2_100", 224),
        ("resnet50", "resnet50", 224),
        ("resnet50", "resnet50", 448),
        ("mobilenet_v1", "mobilenetv1_125", 224),
    ],
)
def test_scaled_networks_cost_as_much_as_those_of_timm(base: str, theirs: str, size: int) -> None:
    declare_operators()
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(theirs).eval()
    found = count_module(network, size)
    width = 1.25 if theirs.endswith("125") else 1.0
    assert count_scaled(base, width=width, resolution=size / 224) == (found.params, found.macs)


def test_scaled_wide_and_deep_by_hand() -> None:
    # torchvision's own width multiplier, and layers scaled by its constructor
    declare_operators()
    from torchvision.models import MobileNetV2, ResNet
    from torchvision.models.resnet import Bottleneck

    with torch.device("meta"):
        wide = MobileNetV2(width_mult=2.0).eval()
        deep = ResNet(Bottleneck, [12, 16, 24, 12]).eval()
    found = count_module(wide, 224)
    assert count_scaled("mobilenet_v2", width=2) == (found.params, found.macs)
    found = count_module(deep, 224)
    assert count_scaled("resnet50", depth=4) == (found.params, found.macs)


def test_table_3_notes_what_the_paper_leaves_open() -> None:
    rows = {row.name: row for row in table3().rows}
    assert rows["MobileNetV2, depth × 4"]["macs"].note == ""
    assert rows["ResNet-50, compound"]["macs"].computed is None
    assert "its factors are not printed" in rows["ResNet-50, compound"]["macs"].note
    assert "does not say how" in rows["ResNet-50, width × 2"]["macs"].note


def test_table_7_notes_an_impossible_cost() -> None:
    rows = {row.name: row for row in table7().rows}
    assert rows["compound"]["macs"].note == ""
    assert "at most four times B0's own 0.386 G: 1.54 G" in rows["resolution × 2"]["macs"].note


def test_table_5_counts_without_the_classifier(five: Table) -> None:
    rows = {row.name: row for row in five.rows}
    cifar = rows["CIFAR-10, best public"]
    assert cifar["params"].computed == 5_288_548 - 1000 * 1281
    assert cifar["params_with_classifier"].computed == 5_288_548 - 990 * 1281
    # ResNet-152's 60,192,808 less 2048 × 1000 + 1000
    assert rows["Oxford-IIIT Pets, best public"]["baseline_params"].computed == 58_143_808
    assert rows["Stanford Cars, best reported"]["ratio"] == TableValue()
    assert len(rows) == 18


def test_the_geometric_mean_is_recomputed(five: Table) -> None:
    rows = {row.name: row for row in five.rows}
    mean = rows["geometric mean, best public"]["ratio"]
    ratios = [row["ratio"].computed for row in five.rows[:8]]
    product = 1.0
    for ratio in ratios:
        assert isinstance(ratio, float)
        product *= ratio
    assert mean.computed == pytest.approx(product**0.125)
    assert mean.amount("quoted") == 4.7
    # of 85/4, 85/4, 41/28, 41/10, 41/28, 41/10, 58/17 and 41/17
    assert "4.37" in mean.note
    assert "58M over 17M is 3.4" in rows["Oxford-IIIT Pets, best public"]["ratio"].note


def test_the_printed_ratios_give_the_printed_means() -> None:
    # Printed means are of printed ratios; only Pets' 5.6x is not the ratio of the params beside it
    for lines, text in zip((paper.TABLE5_PUBLIC, paper.TABLE5_REPORTED), paper.TABLE5_GEOMETRIC_MEANS, strict=True):
        ratios = [PrintedFigure(line.ratio).value for line in lines if line.ratio != "-"]
        product = 1.0
        for ratio in ratios:
            assert isinstance(ratio, float)
            product *= ratio
        assert PrintedFigure(text).matches(product ** (1 / len(ratios)), 0.01)


def test_table_8_rounds_to_table_2_with_one_exception() -> None:
    rounded = {line.key: line for line in paper.TABLE2}
    others = []
    for key, (top1, _, top5, _) in paper.TABLE8.items():
        for own, short in ((top1, rounded[key].top1), (top5, rounded[key].top5)):
            if not PrintedFigure(short).matches(PrintedFigure(own).value, 0):
                others.append((key, own, short))
    assert others == [("b1", "94.47%", "94.4%")]
    assert "94.47 % here and 94.4 % there" in "".join(table8().notes)


def test_table_8_measured() -> None:
    assert "measured" not in {kind for _, kind in table8().printed_columns()}
    found = table8({"b0": (0.77, 0.93)})
    assert found.rows[0]["top1_val"].measured == 0.77
    assert found.rows[1]["top1_val"].measured is None
    with pytest.raises(ValueError, match=r"Table 8 has b0, b1, .*, not nano"):
        table8({"nano": (0.5, 0.9)})


SMALL = Table(
    "small",
    "Small | table",
    "somewhere",
    (Column("a", "A", "M", ("computed", "measured", "quoted")), Column("b", "B")),
    (
        TableRow("first", {"a": compare_values(3e6, "2M", reason="so | so"), "b": quoted_value("words, more")}),
        TableRow("second", {"a": TableValue(computed=1e6)}),
        TableRow("third", {"a": compare_values(3e6, "2M", reason="so | so")}),
    ),
    ("All of it.",),
)


def test_markdown() -> None:
    assert to_markdown(SMALL).splitlines() == [
        "### Small | table",
        "",
        "Quoted figures: somewhere.",
        "",
        "|  | A, computed | A, quoted | B, quoted |",
        "|---|--:|--:|---|",
        "| first | 3.00 M | 2M [1] | words, more |",
        "| second | 1.00 M | – | – |",
        "| third | 3.00 M | 2M [1] | – |",
        "",
        "- [1] A: 50.0% above the quoted figure; so | so.",
        "- All of it.",
    ]


def test_csv_and_json_have_plain_numbers(tmp_path: Path) -> None:
    lines = list(csv.DictReader(StringIO(to_csv(SMALL))))
    assert lines[0] == {
        "name": "first",
        "a_computed": "3000000.0",
        "a_measured": "",
        "a_quoted": "2000000.0",
        "a_note": "50.0% above the quoted figure; so | so",
        "b_quoted": "words, more",
    }
    written = write_table(SMALL, tmp_path / "new")
    assert [path.name for path in written] == ["small.md", "small.csv", "small.json"]
    content = json.loads(written[2].read_text(encoding="utf-8"))
    assert content["rows"][1] == {
        "name": "second",
        "a": {"computed": 1e6, "measured": None, "quoted": None},
        "b": {"quoted": None},
    }
    assert content["notes"] == ["All of it."]
