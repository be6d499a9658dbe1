"""ONNX files: as onnxruntime answers to them, as onnx checks them, and what stands in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effnet.exporting.verify import open_onnx_runner
from effnet.metadata import Numerics
from effnet.runtime.io_spec import IOSpec, read_metadata
from effnet.runtime.onnx import OPSET, build_onnx_model, write_onnx
from tests.exporting.networks import MIXED, NETWORKS, agreement, network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("name", "numerics"), NETWORKS)
def test_it_answers_as_the_network_at_any_size(name: str, numerics: Numerics, tmp_path: Path) -> None:
    model = network(name, numerics, (48, 61))
    interface = IOSpec(embedding=True)
    write_onnx(tmp_path / "m.onnx", model, interface)
    assert agreement(open_onnx_runner(tmp_path / "m.onnx"), model, interface, (48, 61), (37, 32)).difference < 1e-5


@pytest.mark.parametrize("input", ["pixels", "floats", "normalized"])
@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("numerics", [Numerics(), MIXED])
def test_every_interface_at_a_fixed_size(input: str, output: str, numerics: Numerics, tmp_path: Path) -> None:
    model = network(numerics=numerics)
    interface = IOSpec(input, output, size=(37, 50))
    write_onnx(tmp_path / "m.onnx", model, interface)
    found = agreement(open_onnx_runner(tmp_path / "m.onnx"), model, interface, (37, 50))
    assert found.difference < 1e-5
    assert (found.images, found.same_predictions) == (6, 6)


def test_the_graph_is_valid_and_readable() -> None:
    graph = build_onnx_model(network("b0", classes=3), IOSpec(size=(224, 224)))
    onnx.checker.check_model(graph, full_check=True)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", OPSET)]
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem", "stage2.0.depthwise", "stage2.1.add", "stage7.0.squeeze_excite.reduce.mean", "logits"} <= {*names}
    ends = [*graph.graph.input, *graph.graph.output]
    shapes = {
        each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in ends
    }
    assert shapes == {"pixels": ["batch", 224, 224, 3], "probabilities": ["batch", 3]}
    same = [list(node.attribute) for node in graph.graph.node if node.op_type == "Conv"]
    assert not [attribute for each in same for attribute in each if attribute.name == "auto_pad"]


def test_what_it_says_of_itself() -> None:
    model, interface = network(), IOSpec(size=(40, 41))
    graph = build_onnx_model(model, interface)
    assert read_metadata({each.key: each.value for each in graph.metadata_props}, "m.onnx") == (
        model.metadata,
        interface,
    )
    assert "nano; images 32×32, crop 0.875, bicubic" in graph.doc_string


def test_what_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.runtime.onnx.MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match="nano exceeds the 2 GiB"):
        build_onnx_model(network(), IOSpec())


@pytest.mark.parametrize(
    ("package", "call"), [("onnx", build_onnx_model), ("onnxruntime", lambda *_: open_onnx_runner(Path("m.onnx")))]
)
def test_without_its_package(package: str, call: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"requires {package}: pip install"):
        call(network(), IOSpec())  # type: ignore[operator]
