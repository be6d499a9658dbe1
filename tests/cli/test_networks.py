"""models, show, scale: what needs no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import effnet

from .conftest import Run


def test_models(run: Run) -> None:
    done = run("models")
    assert done.status == 0
    assert done.err == ""
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    assert rows["b0"] == ["b0", "5.29", "0.39", "224", "silu", "77.1", "1"]
    assert set(effnet.ARCHS) <= set(rows)
    assert "AutoAugment" in done.out


def test_models_json(run: Run) -> None:
    found = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert list(found) == list(effnet.ARCHS)
    assert found["b7"]["params"] == effnet.count("b7").params
    assert found["lite0"]["top1"] == 0.751
    assert found["nano"]["top1"] is None


def test_models_by_name(run: Run) -> None:
    assert [row["name"] for row in json.loads(run("models", "lite", "--json").out)] == [f"lite{n}" for n in range(5)]
    assert [row["name"] for row in json.loads(run("models", "EfficientNet-B3", "--json").out)] == ["b3"]
    assert "did you mean" in run("models", "lite9").err


def test_show_is_the_papers_table(run: Run) -> None:
    done = run("show", "b0", "--json")
    found = json.loads(done.out)
    # Table 1 of arXiv:1905.11946v5, whose head has the picture's size before pooling
    told = [(row["operator"], row["size"][0], row["channels"], row["layers"]) for row in found["stages"]]
    assert told == [
        ("Conv3x3", 224, 32, 1),
        ("MBConv1, k3x3", 112, 16, 1),
        ("MBConv6, k3x3", 112, 24, 2),
        ("MBConv6, k5x5", 56, 40, 2),
        ("MBConv6, k3x3", 28, 80, 3),
        ("MBConv6, k5x5", 14, 112, 3),
        ("MBConv6, k5x5", 14, 192, 4),
        ("MBConv6, k3x3", 7, 320, 1),
        ("Conv1x1 & Pooling & FC", 7, 1280, 1),
    ]
    assert sum(row["params"] for row in found["stages"]) == found["params"] == 5_288_548
    assert sum(row["macs"] for row in found["stages"]) == found["macs"]
    assert effnet.Arch.from_dict(found["arch"]) == effnet.ARCHS["b0"]


def test_show_in_words(run: Run) -> None:
    done = run("show", "edge_s", "--size", "197x251")
    assert done.status == 0
    assert "edge_s at 197×251" in done.out
    assert "Fused-MBConv4, k3x3" in done.out
    assert "receptive field" in done.out


def test_show_layers(run: Run) -> None:
    found = json.loads(run("show", "b0", "--layers", "--json").out)
    assert [row["name"] for row in found["layers"]] == [layer.name for layer in effnet.layers(effnet.ARCHS["b0"])]
    assert found["layers"][-1]["operator"] == "Pooling & FC"
    assert "stage6.3" in run("show", "b0", "--layers").out


def test_show_files(run: Run, weights: Path, tmp_path: Path) -> None:
    found = json.loads(run("show", weights, "--json").out)
    assert found["arch"]["name"] == "nano"
    assert found["params"] == effnet.count("nano", classes=3).params
    assert json.loads(run("show", weights.parent, "--json").out) == found
    arch = tmp_path / "own.json"
    arch.write_text(effnet.scale("b0", 0.5).to_json())
    assert "b0_phi0.5 at" in run("show", arch).out


def test_show_what_is_not_there(run: Run, tmp_path: Path) -> None:
    assert run("show", tmp_path / "b0.safetensors").status == 1
    assert "No such file" in run("show", tmp_path / "no.json").err
    (tmp_path / "no.json").write_text("{")
    assert "holds no arch" in run("show", tmp_path / "no.json").err


@pytest.mark.parametrize("phi", ["-2", "0.5"])
def test_scale(run: Run, phi: str) -> None:
    found = json.loads(run("scale", "--phi", phi, "--json").out)
    report = effnet.rounding("b0", float(phi))
    assert effnet.Arch.from_dict(found["arch"]) == report.arch == effnet.scale("b0", float(phi))
    assert found["macs"] == report.built.macs
    assert found["asked"]["macs"] == report.asked.macs
    assert [row["channels"] for row in found["stages"]] == [row.channels for row in report.stages]
    assert found["nearest"] in effnet.ARCHS
    assert "nearest released network" in run("scale", "b0", "--phi", phi).out


def test_scale_by_coefficients(run: Run) -> None:
    found = json.loads(run("scale", "lite0", "--phi", "1", "--alpha", "2", "--beta", "1", "--gamma", "1", "--json").out)
    assert effnet.Arch.from_dict(found["arch"]) == effnet.scale("lite0", 1, 2, 1, 1)
    assert found["nearest"].startswith("lite")


@pytest.mark.parametrize("base", ["b0", "lite0", "v2_b0"])
def test_scale_to_limits(run: Run, base: str) -> None:
    found = json.loads(run("scale", base, "--macs", "1G", "--params", "8M", "--memory", "50MB", "--json").out)
    assert effnet.Arch.from_dict(found["arch"]) == effnet.fit(base, macs=1e9, params=8e6, bytes=50e6)
    assert found["macs"] <= 1e9
    assert found["params"] <= 8e6


def test_scale_says_how_far(run: Run) -> None:
    assert run("scale").status == 2
    assert run("scale", "--phi", "1", "--macs", "1G").status == 2
    assert run("scale", "--macs", "1G", "--alpha", "1.3").status == 2
    assert run("scale", "--macs", "much").status == 2
    done = run("scale", "--macs", "3")
    assert done.status == 1
    assert "no network on b0's line is that small" in done.err


def test_scale_writes_the_network(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.json"
    done = run("scale", "--phi", "1", "--out", path, "--json")
    assert json.loads(done.out)["phi"] == 1
    assert str(path) in done.err
    assert effnet.Arch.from_json(path.read_text()) == effnet.scale("b0", 1)


def test_files_of_weights_are_known_by_the_same_suffixes_everywhere() -> None:
    from effnet.cli import networks
    from effnet.weights import find

    assert networks.SUFFIXES == find.SUFFIXES
