"""``effnet reproduce``: tables, JSON, files, the panel, and wrong commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import effnet

from .conftest import Run


def test_table(run: Run) -> None:
    done = run("reproduce", "table1")
    assert done.status == 0
    assert "arXiv:1905.11946v5, Table 1" in done.out
    assert done.out.count("MBConv6, k5x5") == 6
    assert done.err == ""


def test_json(run: Run) -> None:
    told = json.loads(run("reproduce", "table3", "--json").out)
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["ResNet-50"]["macs"] == {"computed": 4_089_184_256, "quoted": 4.1e9}
    assert rows["ResNet-50, compound"]["macs"]["computed"] is None
    assert rows["ResNet-50, compound"]["macs"]["note"]


def test_files_and_an_overwrite_that_is_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new"
    done = run("reproduce", "table8", "--out", out)
    assert done.status == 0
    assert "table8.md, table8.csv, table8.json are written to" in done.err
    lines = list(csv.DictReader((out / "table8.csv").read_text(encoding="utf-8").splitlines()))
    assert lines[0]["top1_test_quoted"] == "0.7723"
    assert (out / "table8.md").read_text(encoding="utf-8").startswith("### Table 8")
    assert json.loads((out / "table8.json").read_text(encoding="utf-8"))["source"].startswith("arXiv:1905.11946v5")
    (out / "table8.md").write_text("mine")
    done = run("reproduce", "table8", "--out", out)
    assert done.status == 2
    assert "is already there" in done.err
    assert (out / "table8.md").read_text() == "mine"
    assert run("reproduce", "table8", "--out", out, "--force").status == 0
    assert (out / "table8.md").read_text(encoding="utf-8") != "mine"


def test_a_figure_with_its_data(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    done = run("reproduce", "fig1", "--out", tmp_path, "--json")
    assert len(json.loads(done.out)["rows"]) == 24
    assert {path.suffix for path in tmp_path.glob("fig1.*")} == {".csv", ".json", ".md", ".png", ".svg"}
    assert (tmp_path / "fig1.svg").read_text(encoding="utf-8").startswith("<svg")
    with Image.open(tmp_path / "fig1.png") as picture:
        assert picture.width > 1000


def test_figure_7_without_models_says_how_to_get_them(run: Run) -> None:
    done = run("reproduce", "fig7")
    assert "No weights of the four scaled networks were published" in done.out
    assert "compound" in done.out
    assert "No weights" in json.loads(run("reproduce", "fig7", "--json").out)["more"]
    # what it says works, and gives the network of that line
    found = json.loads(run("scale", "b0", "--phi", 1, "--alpha", 4, "--beta", 1, "--gamma", 1, "--json").out)
    rows = {row["name"]: row for row in json.loads(run("reproduce", "fig7", "--json").out)["rows"]}
    assert found["macs"] == rows["depth × 4"]["macs"]["computed"]


def test_figure_7_of_given_models(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "out", photos / "ant" / "1.jpg"
    done = run("reproduce", "fig7", picture, photos / "bee" / "3.jpg", "--models", f"{weights},{weights}", "--out", out)
    assert done.status == 0, done.err
    assert "fig7.png" in done.err
    with Image.open(out / "fig7.png") as panel:
        assert panel.width > panel.height / 2
    assert run("reproduce", "fig7", picture, "--models", weights, "--out", out).status == 2
    (photos / "broken.jpg").write_text("none")
    done = run("reproduce", "fig7", photos / "broken.jpg", "--models", weights, "--out", tmp_path / "other")
    assert done.status == 1
    assert "broken.jpg" in done.err
    assert not (tmp_path / "other" / "fig7.png").exists()


def test_table_8_measured(run: Run, photos: Path, tmp_path: Path) -> None:
    model = effnet.create(effnet.ARCHS["b0"], classes=2)
    model.labels = effnet.Labels(("ant", "bee"))
    model.preprocess = effnet.Preprocess((32, 32), crop=1.0)
    path = effnet.save(model, tmp_path / "b0.safetensors")
    told = json.loads(run("reproduce", "table8", "--models", path, "--data", photos, "--json").out)
    first, second = told["rows"][:2]
    assert first["top1_val"]["measured"] in (0, 0.25, 0.5, 0.75, 1)
    assert first["top1_val"]["quoted"] == 0.7711
    assert second["top1_val"]["measured"] is None


def test_table_8_refuses_other_networks(run: Run, weights: Path, photos: Path) -> None:
    done = run("reproduce", "table8", "--models", weights, "--data", photos)
    assert done.status == 1
    assert "and no nano" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("table9",), "'table9' is not one of"),
        (("table1", "a.jpg"), "only fig7 and scaling look at pictures"),
        (("table2", "--models", "b0"), "only fig7 and table8 take models"),
        (("table2", "--data", "photos"), "only table8 is measured on data"),
        (("table8", "--models", "b0"), "give both --models and --data"),
        (("fig7", "a.jpg"), "give both PICTURES and --models"),
        (("fig7", "a.jpg", "--models", "b0"), "say where the panel goes"),
        ((), "Missing argument"),
    ],
)
def test_a_wrong_command_is_2(run: Run, words: tuple[str, ...], sentence: str) -> None:
    done = run("reproduce", *words)
    assert done.status == 2
    assert sentence in " ".join(done.err.split())
