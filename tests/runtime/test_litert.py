"""TFLite files: agreement in LiteRT, XNNPACK delegation, metadata."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from effnet.exporting.verify import open_litert_runner
from effnet.metadata import Numerics
from effnet.runtime.io_spec import IOSpec, read_metadata
from effnet.runtime.litert import write_litert
from effnet.weights import load
from effnet.weights.formats import tflite_schema
from effnet.weights.formats.tflite_schema import decode_tflite
from tests.exporting.networks import NETWORKS, agreement, network

litert = pytest.importorskip("ai_edge_litert.interpreter")
INPUTS = ("pixels", "floats", "normalized")


@pytest.mark.parametrize(("name", "numerics"), NETWORKS)
def test_agrees_at_any_size(name: str, numerics: Numerics, tmp_path: Path) -> None:
    model, io_spec = network(name, numerics, (48, 61)), IOSpec(embedding=True)
    write_litert(tmp_path / "m.tflite", model, io_spec)
    assert agreement(open_litert_runner(tmp_path / "m.tflite"), model, io_spec, (48, 61), (37, 32)).difference < 1e-5


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_inputs_and_outputs(input: str, output: str, tmp_path: Path) -> None:
    model, io_spec = network(), IOSpec(input, output, size=(37, 50))
    write_litert(tmp_path / "m.tflite", model, io_spec)
    assert agreement(open_litert_runner(tmp_path / "m.tflite"), model, io_spec, (37, 50)).difference < 1e-5
    (given,) = litert.Interpreter(str(tmp_path / "m.tflite")).get_input_details()
    assert given["name"] == input
    assert given["shape"].tolist() == ([1, 3, 37, 50] if input == "normalized" else [1, 37, 50, 3])


@pytest.mark.parametrize("half_precision", [False, True])
def test_xnnpack_runs_all_but_the_cast(half_precision: bool, tmp_path: Path) -> None:
    write_litert(tmp_path / "m.tflite", network("b0", size=(64, 64)), IOSpec(), half_precision)
    interpreter = litert.Interpreter(str(tmp_path / "m.tflite"))
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    (delegated,) = (each for each in details if each["op_name"] == "DELEGATE")
    outputs = {name: [*each["outputs"]] for each in details if (name := each["op_name"]) in ("CAST", "SOFTMAX")}
    assert {*outputs["CAST"]} <= {*delegated["inputs"]}
    assert [*delegated["outputs"]] == outputs["SOFTMAX"]


@pytest.mark.parametrize("input", INPUTS)
@torch.no_grad()
def test_loads_as_a_network(input: str, tmp_path: Path) -> None:
    model = network()
    write_litert(tmp_path / "m.tflite", model, IOSpec(input))
    loaded, x = load(tmp_path / "m.tflite"), torch.randn(2, 3, 41, 32)
    assert loaded.metadata == model.metadata
    assert torch.allclose(loaded(x), model(x), rtol=0, atol=1e-5 * float(model(x).abs().max()))


def test_metadata(tmp_path: Path) -> None:
    model, io_spec, path = network(), IOSpec(), tmp_path / "m.tflite"
    write_litert(path, model, io_spec)
    with zipfile.ZipFile(path) as archive:
        assert read_metadata({name: archive.read(name).decode() for name in archive.namelist()}, path) == (
            model.metadata,
            io_spec,
        )
        assert archive.read("labels.txt").decode().splitlines() == list(model.labels.names)
    content = path.read_bytes()
    texts = decode_tflite(content).metadata
    assert json.loads(texts["effnet.interface"])["input"] == "pixels"
    facts = tflite_schema.read_metadata(texts["TFLITE_METADATA"], content)
    assert facts.labels == model.labels.names
    assert facts.mean_std is not None


def test_half_precision(tmp_path: Path) -> None:
    model, io_spec, path = network("b0", size=(64, 64)), IOSpec(), tmp_path / "m.tflite"
    sizes = []
    for half_precision in (False, True):
        write_litert(path, model, io_spec, half_precision)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]
    assert 1e-6 < agreement(open_litert_runner(path), model, io_spec, (64, 64)).difference < 3e-3


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match="requires ai-edge-litert: pip install"):
        open_litert_runner(Path("m.tflite"))
