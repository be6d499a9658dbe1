"""ONNX files as weights: this package's own, and small graphs that exporters make of a network's parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.exporting.export import export
from effnet.metadata import Labels, Numerics
from effnet.net import EfficientNet
from effnet.runtime.io_spec import IOSpec, is_exported
from effnet.weights import load
from effnet.weights.formats import graph_facts, graph_walk
from tests.exporting.networks import network

onnx = pytest.importorskip("onnx")


def write(path: Path, model: EfficientNet, spec: IOSpec) -> Path:
    return export(model, path, None, spec.input, spec.output, spec.size, spec.embedding).path


def without_metadata(path: Path) -> Path:
    """Rewrite a file as another exporter's."""
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def logits(model: EfficientNet) -> torch.Tensor:
    x = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(x)


@pytest.mark.parametrize("spec", [IOSpec("pixels"), IOSpec("normalized", "logits", size=(33, 47), embedding=True)])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_exported_by_this_package(padding: str, spec: IOSpec, tmp_path: Path) -> None:
    model = network(numerics=Numerics(padding))
    model.labels = Labels(("a", "b", "c"))
    path = write(tmp_path / "m.onnx", model, spec)
    assert is_exported(path)
    opened = load(path)
    assert replace(opened.preprocess, size=model.preprocess.size) == model.preprocess
    assert (opened.labels, opened.numerics) == (model.labels, model.numerics)
    assert logits(opened) == pytest.approx(logits(model), rel=1e-4, abs=1e-4)


def test_exported_by_another(tmp_path: Path) -> None:
    model = network(numerics=Numerics("symmetric"))
    path = without_metadata(write(tmp_path / "m.onnx", model, IOSpec("normalized", size=(32, 32))))
    assert not is_exported(path)
    opened = load(path)
    assert (opened.arch.name, opened.numerics.padding) == ("nano", "symmetric")
    assert opened.preprocess.size == (32, 32)
    assert logits(opened) == pytest.approx(logits(model), rel=1e-4, abs=1e-4)


def test_preprocessing_in_the_graph(tmp_path: Path) -> None:
    model = network()
    model.preprocess = replace(model.preprocess, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    opened = load(without_metadata(write(tmp_path / "m.onnx", model, IOSpec("pixels"))))
    assert opened.preprocess.mean == pytest.approx((0.5, 0.4, 0.3), abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a"])
def test_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx: (not an ONNX file|it has no input)"):
        load(tmp_path / "m.onnx")


def test_another_network(tmp_path: Path) -> None:
    model = network()
    proto = onnx.load(without_metadata(write(tmp_path / "m.onnx", model, IOSpec("normalized"))))
    stem = next(node for node in proto.graph.node if node.op_type == "Conv")
    next(each for each in stem.attribute if each.name == "strides").ints[:] = [2, 2]
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(
        ValueError, match=r"no EfficientNet known here; the nearest is .* fit, then comes a 3×3"
    ) as error:
        load(tmp_path / "m.onnx")
    assert len(str(error.value).splitlines()) == 1


# The walk ------------------------------------------------------------------------------------------------------------


def walked(*nodes: graph_walk.Node, **constants: list[float]) -> graph_walk.OperatorWalk:
    kernel = np.ones((2, 3, 3, 3), np.float32)
    weights = {name: np.array(values, np.float32) for name, values in constants.items()}
    start = graph_walk.Value((8, 8), image=graph_facts.InputTransform())
    walk = graph_walk.OperatorWalk({"kernel": kernel, **weights}, {"x": start})
    for node in nodes:
        walk.step(node)
    return walk


CONV = graph_walk.Node("Conv", ("x", "kernel"), "y", {"pads": (1, 1, 1, 1), "strides": (2, 2)})


def test_arithmetic_is_folded() -> None:
    walk = walked(
        CONV,
        graph_walk.Node("Mul", ("y", "by"), "z"),
        graph_walk.Node("Add", ("more", "z"), "w"),
        by=[2, 3],
        more=[1, -1],
    )
    (found,) = walk.convolutions
    assert found.weight[:, 0, 0, 0].tolist() == [2, 3]
    assert found.bias is not None
    assert found.bias.tolist() == [1, -1]
    assert (found.padding, found.stride, found.activation) == ("symmetric", 2, "")


def test_batch_norm_is_kept_and_takes_the_bias() -> None:
    parts = {"gamma": [1, 2], "beta": [3, 4], "mean": [5, 6], "variance": [7, 8], "bias": [1, 1]}
    conv = replace(CONV, inputs=(*CONV.inputs, "bias"))
    norm = graph_walk.Node("BatchNormalization", ("y", "gamma", "beta", "mean", "variance"), "z", {"epsilon": 1e-3})
    (found,) = walked(conv, norm, **parts).convolutions
    assert found.eps == 1e-3
    assert [part.tolist() for part in found.norm] == [[1, 2], [3, 4], [4, 5], [7, 8]]


@pytest.mark.parametrize(
    ("nodes", "activation"),
    [
        ([("Sigmoid", ("y",), "s"), ("Mul", ("s", "y"), "z")], "silu"),
        ([("Swish", ("y",), "z")], "silu"),
        ([("Relu", ("y",), "z")], "relu"),
        ([("Relu", ("y",), "r"), ("Min", ("r", "six"), "z")], "relu6"),
        ([("Clip", ("y", "zero", "six"), "z")], "relu6"),
        ([("HardSwish", ("y",), "z")], "hardswish"),
        ([("Relu", ("y",), "r"), ("Tanh", ("r",), "z")], "relu_tanh"),
    ],
)
def test_activations(nodes: list[tuple[str, tuple[str, ...], str]], activation: str) -> None:
    walk = walked(CONV, *(graph_walk.Node(*node) for node in nodes), six=[6], zero=[0])
    assert walk.convolutions[0].activation == activation


@pytest.mark.parametrize(
    ("attributes", "padding"),
    [({"auto_pad": b"SAME_UPPER"}, "same"), ({"pads": (0, 0, 1, 1)}, "same"), ({"pads": (1, 1, 1, 1)}, "symmetric")],
)
def test_padding(attributes: dict[str, object], padding: str) -> None:
    (found,) = walked(replace(CONV, attributes={"strides": (2, 2), **attributes})).convolutions
    assert found.padding == padding


def test_convolutions_of_an_optimizer() -> None:
    attributes = {**CONV.attributes, "activation": b"Clip", "activation_params": (0.0, 6.0)}
    assert walked(replace(CONV, kind="FusedConv", attributes=attributes)).convolutions[0].activation == "relu6"
    gelu = graph_walk.Node("QuickGelu", ("y",), "z", {"alpha": 1.0})  # which is SiLU
    assert walked(CONV, gelu).convolutions[0].activation == "silu"


def test_padding_by_an_operator() -> None:
    pad = graph_walk.Node("Pad", ("x",), "p", {"pads": (0, 0, 0, 0, 0, 0, 1, 1)})
    conv = replace(CONV, inputs=("p", "kernel"), attributes={"strides": (2, 2)})
    assert walked(pad, conv).convolutions[0].padding == "same"
    computed = graph_walk.Node("Pad", ("x", "unknown"), "p")
    assert walked(computed, conv).convolutions[0].padding == "same"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attributes": {"strides": (3, 3)}}, "stride or dilation"),
        ({"attributes": {"strides": (2, 2), "pads": (2, 2, 2, 2)}}, "padded by"),
        ({"attributes": {"auto_pad": b"SAME_LOWER"}}, "SAME_LOWER"),
        ({"inputs": ("x", "unknown")}, "are computed"),
        ({"kind": "ConvInteger"}, "computes in integers .* run it as it stands"),
        ({"attributes": {"group": 3}}, "in 3 groups"),
    ],
)
def test_what_no_efficientnet_does(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        walked(replace(CONV, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_scale_for_all_of_a_bias(shape: tuple[int, ...]) -> None:
    # as onnxruntime's quantize_static writes it: one of a list, whose axis would be 1
    stored, scale, zero = np.array([1, -2, 4], np.int32), np.full(shape, 0.5, np.float32), np.zeros(shape, np.int32)
    assert graph_walk._dequantized([stored, scale, zero], 1).tolist() == [0.5, -1, 2]
    assert graph_walk._dequantized([stored, scale], 1).tolist() == [0.5, -1, 2]


def test_a_scale_for_each_channel() -> None:
    stored, scale, zero = np.ones((2, 3), np.int8), np.array([1, 2, 3], np.float32), np.zeros(3, np.int8)
    assert graph_walk._dequantized([stored, scale, zero], 1).tolist() == [[1, 2, 3]] * 2
