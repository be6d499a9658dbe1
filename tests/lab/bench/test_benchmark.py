"""Benchmarks: which backends take part, the rows of results, and the files."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import effnet
from effnet.lab.bench.benchmark import BenchmarkResult, run_benchmark, write_benchmark
from effnet.lab.bench.bottlenecks import find_bottlenecks, write_bottlenecks
from effnet.runtime.latency import random_network
from effnet.timing import describe_machine


@pytest.fixture(scope="module")
def result() -> BenchmarkResult:
    model = random_network("b0")
    peers = [peer for peer in ("timm", "torchvision") if find_spec(peer)]
    return run_benchmark(
        [model], ["eager"], batch_sizes=[1, 2], threads=[1], size=(64, 48), peers=peers, runs=3, seconds=1
    )


def test_rows(result: BenchmarkResult) -> None:
    peers = [peer for peer in ("timm", "torchvision") if find_spec(peer)]
    expected = ["eager", *(f"{peer} {variant}" for peer in peers for variant in ("channels-last", "contiguous"))]
    for batch_size in (1, 2):
        rows = [row for row in result.rows if row.batch_size == batch_size]
        assert {row.engine for row in rows} == set(expected)
        macs = effnet.count("b0", (64, 48)).macs
        for row in rows:
            assert row.p10 <= row.seconds <= row.p99
            assert row.images_per_second == pytest.approx(batch_size / row.seconds)
            assert row.macs_per_second == pytest.approx(batch_size * macs / row.seconds)
            assert row.peak_fraction == pytest.approx(row.macs_per_second / result.peaks[0].float32)
            assert row.slowdown_low <= row.slowdown <= row.slowdown_high
            assert row.runs == 9
            same = not row.engine.startswith("torchvision")  # whose padding is symmetric
            assert (row.difference is not None and row.difference < 1e-3) == same
        assert min(row.slowdown for row in rows) <= 1
    assert BenchmarkResult.from_json(result.to_json()) == result


def test_files(result: BenchmarkResult, tmp_path: Path) -> None:
    paths = write_benchmark(result, tmp_path / "new")
    assert [path.name for path in paths] == ["bench.json", "bench.csv", "bench.svg", "bench.png"]
    assert BenchmarkResult.from_json(paths[0].read_text()) == result
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [row["engine"] for row in rows] == [row.engine for row in result.rows]
    assert rows[0]["size"] == "64x48"
    texts = [element.text for element in ElementTree.fromstring(paths[2].read_text()).iter() if element.text]
    assert {"eager", "b0, batch size 1, 1 thread, float32"} <= set(texts)
    assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_files_of_bottlenecks(tmp_path: Path) -> None:
    found = find_bottlenecks(random_network("nano"), "eager", threads=1, runs=3, seconds=1)
    paths = write_bottlenecks(found, tmp_path)
    assert json.loads(paths[0].read_text())["network"] == "nano"
    assert len(list(csv.DictReader(paths[1].read_text().splitlines()))) == len(found.steps)
    for name in ("stages", "groups", "roofline"):
        ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_memory_is_measured_in_a_separate_process() -> None:
    found = run_benchmark([random_network("nano")], ["eager"], threads=[1], peers=[], runs=1, memory=True)
    (row,) = found.rows
    assert row.peak_bytes is not None
    assert 5e7 < row.peak_bytes < 5e9


def test_more_threads_than_cores_give_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    many = describe_machine().cores + 1
    before = torch.get_num_threads()
    found = run_benchmark([random_network("nano")], ["eager"], threads=[many], peers=[], runs=1)
    assert found.rows[0].threads == many
    assert torch.get_num_threads() == before
    assert f"{many} threads on {many - 1} core" in caplog.text


def test_skipped_backends_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="nothing could be measured: eager in int8"):
        run_benchmark([random_network("nano")], ["eager"], ["int8"], threads=[1], peers=[], runs=1)
    assert "skipped: eager in int8" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": [0]}, "threads"),
        ({"batch_sizes": [0]}, "batch_size"),
        ({"engines": ["tensorrt"]}, "engine must be one of"),
        ({"precisions": ["float8"]}, "precision must be one of"),
        ({"peers": ["keras"]}, "peer must be one of"),
    ],
)
def test_invalid_arguments(wrong: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_benchmark([random_network("nano")], **wrong)  # type: ignore[arg-type]


def test_activations_of_random_networks_are_of_normal_size() -> None:
    model = random_network("b0")
    assert not model.training
    with torch.inference_mode():
        out = model(torch.randn(1, 3, 96, 96))
    assert 1e-3 < out.abs().max() < 1e3
    assert random_network("b0").state_dict()["head.conv.weight"].equal(model.state_dict()["head.conv.weight"])
