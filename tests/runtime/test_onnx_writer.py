"""ONNX files: agreement in onnxruntime, validity, metadata."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effnet.exporting.verify import open_onnx_runner
from effnet.metadata import Numerics
from effnet.runtime.io_spec import IOSpec, read_metadata
from effnet.runtime.onnx_writer import OPSET, build_onnx_model, write_onnx
from tests.exporting.networks import MIXED, NETWORKS, agreement, network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("name", "numerics"), NETWORKS)
def test_agrees_at_any_size(name: str, numerics: Numerics, tmp_path: Path) -> None:
    model = network(name, numerics, (48, 61))
    io_spec = IOSpec(embedding=True)
    write_onnx(tmp_path / "m.onnx", model, io_spec)
    assert agreement(open_onnx_runner(tmp_path / "m.onnx"), model, io_spec, (48, 61), (37, 32)).difference < 1e-5


@pytest.mark.parametrize("input", ["pixels", "floats", "normalized"])
@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("numerics", [Numerics(), MIXED])
def test_inputs_and_outputs(input: str, output: str, numerics: Numerics, tmp_path: Path) -> None:
    model = network(numerics=numerics)
    io_spec = IOSpec(input, output, size=(37, 50))
    write_onnx(tmp_path / "m.onnx", model, io_spec)
    result = agreement(open_onnx_runner(tmp_path / "m.onnx"), model, io_spec, (37, 50))
    assert result.difference < 1e-5
    assert (result.images, result.same_predictions) == (6, 6)


def test_graph() -> None:
    graph = build_onnx_model(network("b0", classes=3), IOSpec(size=(224, 224)))
    onnx.checker.check_model(graph, full_check=True)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem", "stage2.0.depthwise", "stage2.1.add", "stage7.0.squeeze_excite.reduce.mean", "logits"} <= {*names}
    tensors = [*graph.graph.input, *graph.graph.output]
    shapes = {
        tensor.name: [axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
        for tensor in tensors
    }
    assert shapes == {"pixels": ["batch", 224, 224, 3], "probabilities": ["batch", 3]}
    attributes = [attribute.name for node in graph.graph.node for attribute in node.attribute]
    assert "auto_pad" not in attributes


def test_metadata() -> None:
    model, io_spec = network(), IOSpec(size=(40, 41))
    graph = build_onnx_model(model, io_spec)
    assert read_metadata({entry.key: entry.value for entry in graph.metadata_props}, "m.onnx") == (
        model.metadata,
        io_spec,
    )
    assert "nano; images 32×32, crop 0.875, bicubic" in graph.doc_string


def test_network_above_2_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.runtime.onnx_writer.MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match="nano exceeds the 2 GiB"):
        build_onnx_model(network(), IOSpec())


@pytest.mark.parametrize(
    ("package", "call"), [("onnx", build_onnx_model), ("onnxruntime", lambda *_: open_onnx_runner(Path("m.onnx")))]
)
def test_not_installed(package: str, call: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"requires {package}: pip install"):
        call(network(), IOSpec())  # type: ignore[operator]
