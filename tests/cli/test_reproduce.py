"""``effnet reproduce``: tables, JSON, files, the panel, and usage errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.arch import Arch, Stage
from tests.cli.conftest import Run


def test_table(run: Run) -> None:
    done = run("reproduce", "table1")
    assert done.status == 0
    assert "arXiv:1905.11946v5, Table 1" in done.out
    assert done.out.count("MBConv6, k5x5") == 6
    assert done.err == ""


def test_json(run: Run) -> None:
    result = json.loads(run("reproduce", "table3", "--json").out)
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["ResNet-50"]["macs"] == {"computed": 4_089_184_256, "quoted": 4.1e9}
    assert rows["ResNet-50, compound"]["macs"]["computed"] is None
    assert rows["ResNet-50, compound"]["macs"]["note"]


def test_files_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new"
    done = run("reproduce", "table8", "--output", out)
    assert done.status == 0
    assert "wrote table8.md, table8.csv, table8.json to" in done.err
    lines = list(csv.DictReader((out / "table8.csv").read_text(encoding="utf-8").splitlines()))
    assert lines[0]["top1_test_quoted"] == "0.7723"
    assert (out / "table8.md").read_text(encoding="utf-8").startswith("### Table 8")
    assert json.loads((out / "table8.json").read_text(encoding="utf-8"))["source"].startswith("arXiv:1905.11946v5")
    (out / "table8.md").write_text("mine")
    done = run("reproduce", "table8", "--output", out)
    assert done.status == 2
    assert "already exists" in done.err
    assert (out / "table8.md").read_text() == "mine"
    assert run("reproduce", "table8", "--output", out, "--force").status == 0
    assert (out / "table8.md").read_text(encoding="utf-8") != "mine"


def test_figure_1(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    done = run("reproduce", "fig1", "--output", tmp_path, "--json")
    assert len(json.loads(done.out)["rows"]) == 24
    assert {path.suffix for path in tmp_path.glob("fig1.*")} == {".csv", ".json", ".md", ".png", ".svg"}
    assert (tmp_path / "fig1.svg").read_text(encoding="utf-8").startswith("<svg")
    with Image.open(tmp_path / "fig1.png") as image:
        assert image.width > 1000


def test_figure_7_without_models(run: Run) -> None:
    done = run("reproduce", "fig7")
    assert "The weights of the four scaled networks were not published" in done.out
    assert "compound" in done.out
    assert "not published" in json.loads(run("reproduce", "fig7", "--json").out)["more"]
    # what it says works, and gives the network of that line
    found = json.loads(run("scale", "b0", "--phi", 1, "--alpha", 4, "--beta", 1, "--gamma", 1, "--json").out)
    rows = {row["name"]: row for row in json.loads(run("reproduce", "fig7", "--json").out)["rows"]}
    assert found["macs"] == rows["depth × 4"]["macs"]["computed"]


def test_figure_7_of_models(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out, photo = tmp_path / "out", photos / "ant" / "1.jpg"
    done = run(
        "reproduce", "fig7", photo, photos / "bee" / "3.jpg", "--models", f"{weights},{weights}", "--output", out
    )
    assert done.status == 0, done.err
    assert "fig7.png" in done.err
    with Image.open(out / "fig7.png") as panel:
        assert panel.width > panel.height / 2
    assert run("reproduce", "fig7", photo, "--models", weights, "--output", out).status == 2
    (photos / "broken.jpg").write_text("none")
    done = run("reproduce", "fig7", photos / "broken.jpg", "--models", weights, "--output", tmp_path / "other")
    assert done.status == 1
    assert "broken.jpg" in done.err
    assert not (tmp_path / "other" / "fig7.png").exists()


def test_table_8_measured(run: Run, photos: Path, tmp_path: Path) -> None:
    model = effnet.create(effnet.ARCHS["b0"], classes=2)
    model.labels = effnet.Labels(("ant", "bee"))
    model.preprocess = effnet.Preprocess((32, 32), crop_fraction=1.0)
    path = effnet.save(model, tmp_path / "b0.safetensors")
    result = json.loads(run("reproduce", "table8", "--models", path, "--data", photos, "--json").out)
    first, second = result["rows"][:2]
    assert first["top1_val"]["measured"] in (0, 0.25, 0.5, 0.75, 1)
    assert first["top1_val"]["quoted"] == 0.7711
    assert second["top1_val"]["measured"] is None


def test_table_8_of_other_networks(run: Run, weights: Path, photos: Path) -> None:
    done = run("reproduce", "table8", "--models", weights, "--data", photos)
    assert done.status == 1
    assert "not nano" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("table9",), "'table9' is not one of"),
        (("table1", "a.jpg"), "IMAGES apply to fig7 and scaling, not to table1"),
        (("table2", "--models", "b0"), "--models applies to fig7 and table8, not to table2"),
        (("table2", "--data", "photos"), "--data applies to table8, not to table2"),
        (("table8", "--models", "b0"), "--models requires --data"),
        (("fig7", "a.jpg"), "IMAGES require --models"),
        (("fig7", "a.jpg", "--models", "b0"), "Missing option '--output'"),
        ((), "Missing argument"),
    ],
)
def test_usage_errors(run: Run, words: tuple[str, ...], sentence: str) -> None:
    done = run("reproduce", *words)
    assert done.status == 2
    assert sentence in " ".join(done.err.split())


# ``effnet reproduce scaling``


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8-pixel images, 80 for training and 100 for testing."""
    root, noise = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, each in (("train", 40), ("test", 50)):
        for level, name in ((60, "dark"), (190, "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(each):
                image = noise.normal(level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.json"
    stages = (Stage("fused", 1, 3, 1, 8, 1), Stage("mbconv", 2, 3, 1, 12, 2))
    path.write_text(Arch("tiny", stages, resolution=6, stem=8, head=16, stem_stride=1).to_json())
    return path


def test_scaling_dry_run(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    words = ("reproduce", "scaling", data, "--base", base, "--epochs", 2, "--processes", 1, "--dry-run")
    result = json.loads(run(*words, "--json").out)
    assert result["trainings"] == 39
    assert result["images"] == {"train": 64, "test": 100, "size": 8}
    assert [one["method"] for one in result["networks"]].count("compound") == 3
    assert result["networks"][0]["arch"]["dropout"] == 0
    assert result["seconds"] > 0
    done = run(*words, "--seeds", 1, "--output", tmp_path)
    assert done.status == 0
    assert "13 trainings, 2 epochs of 64 images each: about " in done.out
    assert "tested on 100 images: differences below 13.9 points" in done.out
    assert "a single seed gives no spread" in done.out
    assert "upsampling adds no information" in done.out
    assert not list(tmp_path.iterdir())


def test_scaling_files(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    words = ("reproduce", "scaling", data, "--base", base, "--seeds", 1, "--epochs", 1, "--processes", 1)
    done = run(*words, "--output", tmp_path, "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert len(result["rows"]) == 13 + 5
    assert result["study"]["verdict"] in result["notes"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "scaling.db",
        *(f"scaling.{suffix}" for suffix in ("md", "csv", "json", "svg", "png")),
    }
    done = run(*words, "--output", tmp_path)
    assert done.status == 2
    assert "already exists" in done.err
    repeated = run(*words, "--output", tmp_path, "--json", "--force")
    assert json.loads(repeated.out)["study"] == result["study"]  # to the second: nothing was trained again
    other = run(*words[:-4], "--epochs", 2, "--output", tmp_path, "--force")
    assert other.status == 1
    assert "contains another search: epochs differs" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scaling",), "scaling takes one source of labeled images, got 0"),
        (("table1", "--seeds", "3"), "--seeds applies to scaling, not to table1"),
        (("scaling", "x", "--coefficients", "1.2,1.1"), "is not three numbers such as 1.2,1.1,1.15"),
        (("scaling", "x", "--coefficients", "1.2,.9,1.15"), "none may be below 1"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, tuple) else "",
)
def test_scaling_usage_errors(run: Run, words: tuple[str, ...], message: str) -> None:
    done = run("reproduce", *words)
    assert done.status == 2
    assert message in " ".join(done.err.split())


def test_scaling_with_too_few_images(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("dark", "light"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(20):
                (tmp_path / split / name / f"{index}.png").symlink_to(data / "train" / name / f"{index}.png")
    done = run("reproduce", "scaling", tmp_path, "--base", base)
    assert done.status == 1
    assert "40 images are too few to compare networks" in done.err
