"""``effnet show`` and ``effnet scale``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import typer

import effnet
from effnet.cli.options import parse_count, parse_seconds
from tests.cli.conftest import Run


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


def test_show_matches_the_papers_table(run: Run) -> None:
    done = run("show", "b0", "--json")
    found = json.loads(done.out)
    # Table 1 of arXiv:1905.11946v5, whose head has the size before pooling
    rows = [(row["operator"], row["size"][0], row["channels"], row["layers"]) for row in found["stages"]]
    assert rows == [
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


def test_show_as_text(run: Run) -> None:
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


def test_show_missing_or_invalid_files(run: Run, tmp_path: Path) -> None:
    assert run("show", tmp_path / "b0.safetensors").status == 1
    assert "No such file" in run("show", tmp_path / "no.json").err
    (tmp_path / "no.json").write_text("{")
    assert "is not an architecture" in run("show", tmp_path / "no.json").err


@pytest.mark.parametrize("phi", ["-2", "0.5"])
def test_scale(run: Run, phi: str) -> None:
    found = json.loads(run("scale", "--phi", phi, "--json").out)
    report = effnet.rounding("b0", float(phi))
    assert effnet.Arch.from_dict(found["arch"]) == report.arch == effnet.scale("b0", float(phi))
    assert found["macs"] == report.actual.macs
    assert found["requested"]["macs"] == report.requested.macs
    assert [row["channels"] for row in found["stages"]] == [row.channels for row in report.stages]
    assert found["nearest"] in effnet.ARCHS
    assert "nearest released network" in run("scale", "b0", "--phi", phi).out


def test_scale_by_coefficients(run: Run) -> None:
    found = json.loads(run("scale", "lite0", "--phi", "1", "--alpha", "2", "--beta", "1", "--gamma", "1", "--json").out)
    assert effnet.Arch.from_dict(found["arch"]) == effnet.scale("lite0", 1, 2, 1, 1)
    assert found["nearest"].startswith("lite")
    assert "limits" not in found


@pytest.mark.parametrize("base", ["b0", "lite0", "v2_b0"])
def test_scale_to_limits(run: Run, base: str) -> None:
    words = ("scale", base, "--macs", "1G", "--params", "8M", "--memory", "50MB")
    found = json.loads(run(*words, "--json").out)
    assert effnet.Arch.from_dict(found["arch"]) == effnet.fit(base, macs=1e9, params=8e6, memory=50e6)
    assert found["macs"] <= 1e9
    assert found["params"] <= 8e6
    limits = found["limits"]
    assert list(limits) == ["macs", "params", "bytes"]
    assert all(limits[name]["reached"] == found[name] for name in limits)
    assert found["binding"] == max(limits, key=lambda name: limits[name]["share"])
    text = run(*words).out
    (binding,) = (line for line in text.splitlines() if line.rstrip().endswith("binding"))
    assert binding.split()[0] == {"macs": "MACs", "params": "params", "bytes": "peak"}[found["binding"]]
    assert (
        "on the compound line" if not found["line_distance"] else f"{found['line_distance']:.2%} off the compound line"
    ) in text


def test_scale_to_limits_by_other_coefficients(run: Run) -> None:
    found = json.loads(run("scale", "nano", "--macs", "100M", "--alpha", "1.4", "--beta", "1", "--json").out)
    arch = effnet.Arch.from_dict(found["arch"])
    assert arch == effnet.fit("nano", macs=1e8, alpha=1.4, beta=1)
    assert arch.width == 1


def test_scale_to_a_latency(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from effnet.runtime.latency import Latency, LatencyMeasurement
    from effnet.timing import Timing

    def measure(self: Latency, arch: effnet.Arch) -> LatencyMeasurement:
        assert (self.threads, self.batch_size) == (2, 4)
        return LatencyMeasurement(arch, "openvino", Timing(((effnet.count(arch).macs / 20e9,),)))

    monkeypatch.setattr(Latency, "_measure", measure)
    monkeypatch.setattr(sys.modules[Latency.__module__], "SECONDS_BETWEEN_MEASUREMENTS", 0.0)
    words = ("scale", "--latency", "50 ms", "--params", "20M", "--threads", "2", "--batch-size", "4")
    done = run(*words, "--json")
    found = json.loads(done.out)
    assert found["binding"] == "seconds"
    assert 0.95 * 0.05 <= found["limits"]["seconds"]["reached"] <= 0.05
    assert found["limits"]["params"]["reached"] <= 20e6
    _, last = (one for one in found["measured"] if one["network"] == found["arch"]["name"])  # measured twice
    assert last["seconds"] == found["limits"]["seconds"]["reached"]
    assert last["engine"] == "openvino"
    assert done.err.count("openvino") == len(found["measured"]) <= 6  # each is printed when it is measured
    text = run(*words).out
    assert re.search(r"^latency +50 ms +[\d.]+ ms +[\d.]+% +binding", text, re.MULTILINE)
    assert "2 threads, batch size 4" in text


def test_scale_trained_model(run: Run, weights: Path) -> None:
    found = json.loads(run("scale", weights, "--params", "1M", "--json").out)
    assert found["params"] == effnet.count(effnet.Arch.from_dict(found["arch"]), classes=3).params <= 1e6
    assert found["limits"]["params"]["share"] > 0.97


def test_scale_errors(run: Run) -> None:
    for words in (
        (),
        ("--phi", "1", "--macs", "1G"),
        ("--macs", "1G", "--threads", "2"),
        ("--macs", "much"),
        ("--memory", "5X"),
        ("--latency", "20"),
    ):
        done = run("scale", *words)
        assert done.status == 2, words
        assert "Error" in done.err
    for words, message in (
        (("--macs", "3"), "even the smallest scaled b0 (φ = -20) exceeds the limit: it has"),
        (("--macs", "1G", "--beta", "0.9"), "beta must be at least 1"),
        (("--phi", "20", "--alpha", "5"), "depth must be above 0 and at most 100"),
    ):
        done = run("scale", *words)
        assert done.status == 1, words
        assert done.err.startswith(f"effnet: {message}")
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1G", 1e9), ("0.39B", 0.39e9), ("1 b", 1e9), ("8,000,000", 8e6), ("1_000", 1e3), ("301 k", 301e3), ("1e9", 1e9)],
)
def test_parse_count(text: str, value: float) -> None:
    assert parse_count(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("20ms", 0.02), ("0.02s", 0.02), (".5 s", 0.5), ("500us", 5e-4), ("5e2µs", 5e-4), ("1MS", 1e-3)]
)
def test_parse_seconds(text: str, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["5MB", "1GiB", "1,5G", "G", "", "-8M", "8X"])
def test_invalid_count(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="amount"):
        parse_count(text)


@pytest.mark.parametrize("text", ["20", "0ms", "20 min", "ms", "", "-1s", "1,5s"])
def test_invalid_seconds(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a time"):
        parse_seconds(text)


def test_scale_reaches_the_end_of_the_line(run: Run) -> None:
    done = run("scale", "nano", "--macs", "1e20")
    assert "no limit is binding: the line ends here" in done.out
    assert "binding " not in done.out
    assert json.loads(run("scale", "nano", "--macs", "1e20", "--json").out)["binding"] is None


def test_scale_writes_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.json"
    done = run("scale", "--phi", "1", "--output", path, "--json")
    assert json.loads(done.out)["phi"] == 1
    assert str(path) in done.err
    assert effnet.Arch.from_json(path.read_text()) == effnet.scale("b0", 1)
    limited = tmp_path / "limited.json"
    run("scale", path, "--macs", "100M", "--output", limited)  # the output is a base, too
    assert json.loads(run("show", limited, "--json").out)["macs"] <= 1e8


def test_weight_suffixes_are_the_same_everywhere() -> None:
    from effnet.cli import options
    from effnet.weights import resolve

    assert options.WEIGHTS_SUFFIXES == resolve.WEIGHTS_SUFFIXES
