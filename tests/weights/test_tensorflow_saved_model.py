"""SavedModel folders: small graphs, encoded here, since TensorFlow takes long to import; `tests/parity/zoo` uses it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.arch import Layer, Operation, layers, operations
from effnet.net import EfficientNet
from effnet.weights import load
from effnet.weights.formats import tensorflow, tensorflow_saved_model
from effnet.weights.formats.tensorflow import encode_field
from tests.exporting.networks import network

FLOAT = 1


def text(field: int, value: str) -> bytes:
    return encode_field(field, value.encode())


def shape_proto(shape: tuple[int, ...]) -> bytes:
    return b"".join(encode_field(2, encode_field(1, side)) for side in shape)


def node(name: str, kind: str, *inputs: str, **attributes: bytes) -> bytes:
    entries = (encode_field(5, text(1, key) + encode_field(2, value)) for key, value in attributes.items())
    return text(1, name) + text(2, kind) + b"".join(text(3, each) for each in inputs) + b"".join(entries)


def constant(name: str, values: np.ndarray) -> bytes:
    kind = FLOAT if values.dtype == np.float32 else 3
    tensor = encode_field(1, kind) + encode_field(2, shape_proto(values.shape)) + encode_field(4, values.tobytes())
    return node(name, "Const", value=encode_field(8, tensor))


def integers(*values: int) -> bytes:
    return encode_field(1, b"".join(encode_field(3, value) for value in values))


class Graph:
    """The graph of a network, in TensorFlow's operators; its convolutions' kernels are variables."""

    def __init__(self, model: EfficientNet, decomposed: bool) -> None:
        self.state = {name: value.numpy() for name, value in model.state_dict().items()}
        self.model, self.decomposed = model, decomposed
        self.nodes: list[bytes] = [node("serving_default_images", "Placeholder")]
        self.variables: dict[str, torch.Tensor] = {}

    def build(self) -> list[bytes]:
        x = "serving_default_images"
        for layer in layers(self.model.arch, self.model.classes):
            if layer.kind != "classifier":
                x = self.layer(layer, x)
        pooled = self.mean(x, "pooled")
        self.nodes.append(constant("kernel", self.state["classifier.weight"].T.copy()))
        self.nodes.append(constant("bias", self.state["classifier.bias"]))
        self.nodes.append(node("product", "MatMul", pooled, "kernel"))
        self.nodes.append(node("logits", "BiasAdd", "product", "bias"))
        self.nodes.append(node("answer", "Softmax", "logits"))
        return self.nodes

    def mean(self, x: str, name: str) -> str:
        self.nodes += [constant(f"{name}/axes", np.array([1, 2], np.int32)), node(name, "Mean", x, f"{name}/axes")]
        return name

    def layer(self, layer: Layer, x: str) -> str:
        start = whole = x
        for each in operations(layer):
            if each.name.endswith("reduce"):
                whole, x = x, self.mean(x, f"{each.name}/mean")
            x = self.convolution(each, x)
            if each.activation == "sigmoid":
                self.nodes.append(node(f"{each.name}/gated", "Mul", whole, x))
                x = f"{each.name}/gated"
        if layer.residual:
            self.nodes.append(node(f"{layer.name}/add", "AddV2", x, start))
            x = f"{layer.name}/add"
        return x

    def convolution(self, each: Operation, x: str) -> str:
        name, depthwise = each.name, each.groups > 1
        weight = self.state[f"{name}.conv.weight" if each.norm else f"{name}.weight"]
        kernel = weight.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        self.variables[f"{name}/kernel"] = torch.from_numpy(kernel.copy())
        handle = f"{tensorflow.variable_scope(self.model.arch.name)}/{name}/kernel"
        stride = each.stride
        window = {"strides": integers(1, stride, stride, 1), "padding": encode_field(2, b"SAME")}
        kind = "DepthwiseConv2dNative" if depthwise else "Conv2D"
        self.nodes += [node(handle, "VarHandleOp"), node(f"{name}/read", "ReadVariableOp", handle)]
        self.nodes.append(node(f"{name}/conv", kind, x, f"{name}/read", **window))
        y = f"{name}/conv"
        if each.norm:
            y = self.norm(name, y)
        else:
            self.nodes.append(constant(f"{name}/b", self.state[f"{name}.bias"]))
            self.nodes.append(node(f"{name}/biased", "BiasAdd", y, f"{name}/b"))
            y = f"{name}/biased"
        activation = each.activation and ("sigmoid" if each.activation == "sigmoid" else "silu")
        if activation:
            self.nodes.append(node(f"{name}/sigmoid", "Sigmoid", y))
            self.nodes.append(node(f"{name}/silu", "Mul", y, f"{name}/sigmoid"))
            return f"{name}/silu" if activation == "silu" else f"{name}/sigmoid"
        return y

    def norm(self, name: str, y: str) -> str:
        parts = [f"{name}/{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        for part in parts:
            self.nodes.append(constant(part, self.state[f"{name}.norm.{part.rpartition('/')[2]}"]))
        eps = self.model.numerics.bn_eps
        if not self.decomposed:
            bits = encode_field(4, int.from_bytes(struct.pack("<f", eps), "little"), fixed=True)
            self.nodes.append(node(f"{name}/bn", "FusedBatchNormV3", y, *parts, epsilon=bits))
            return f"{name}/bn"
        gamma, beta, mean, variance = parts
        self.nodes += [
            constant(f"{name}/eps", np.array(eps, np.float32)),
            node(f"{name}/added", "AddV2", variance, f"{name}/eps"),
            node(f"{name}/root", "Rsqrt", f"{name}/added"),
            node(f"{name}/factor", "Mul", f"{name}/root", gamma),
            node(f"{name}/scaled", "Mul", y, f"{name}/factor"),
            node(f"{name}/moved", "Mul", mean, f"{name}/factor"),
            node(f"{name}/shift", "Sub", beta, f"{name}/moved"),
            node(f"{name}/bn", "AddV2", f"{name}/scaled", f"{name}/shift"),
        ]
        return f"{name}/bn"


def tensor_info(name: str, shape: tuple[int, ...] = ()) -> bytes:
    return text(1, name) + encode_field(2, FLOAT) + encode_field(3, shape_proto(shape))


def write(folder: Path, model: EfficientNet, decomposed: bool = False) -> Path:
    graph = Graph(model, decomposed)
    nodes = b"".join(encode_field(1, each) for each in reversed(graph.build()))  # in any order
    image = text(1, "images") + encode_field(2, tensor_info("serving_default_images:0", (1, 40, 48, 3)))
    answer = text(1, "answer") + encode_field(2, tensor_info("answer:0"))
    signature = encode_field(1, image) + encode_field(2, answer)
    signatures = encode_field(5, text(1, "serving_default") + encode_field(2, signature))
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(encode_field(2, encode_field(2, nodes) + signatures))
    tensorflow.write_tensorflow(folder / "variables" / "variables.index", ".index", graph.variables, model)
    return folder


def logits(model: EfficientNet) -> torch.Tensor:
    x = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(x)


@pytest.mark.parametrize("decomposed", [False, True])
def test_graph(decomposed: bool, tmp_path: Path) -> None:
    model = network()
    opened = load(write(tmp_path / "model", model, decomposed))
    assert (opened.arch.name, opened.classes, opened.preprocess.size) == ("nano", 5, (40, 48))
    assert opened.numerics == model.numerics
    assert logits(opened) == pytest.approx(logits(model), rel=1e-5, abs=1e-5)
    for name, value in model.state_dict().items():  # batch norm is kept, to the bit
        assert name.endswith("num_batches_tracked") or (opened.state_dict()[name] == value).all(), name


def damages(content: bytes) -> Iterator[bytes]:
    yield b""
    yield b"\xff" * 8
    for end in range(0, len(content), len(content) // 23):
        yield content[:end]


def test_damaged(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", network())
    content = (folder / "saved_model.pb").read_bytes()
    for damaged in damages(content):
        (folder / "saved_model.pb").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model: "):
            load(folder)


def test_variables_are_missing(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", network())
    (folder / "variables" / "variables.index").unlink()
    with pytest.raises((ValueError, FileNotFoundError)):
        load(folder)


def test_order_of_nodes_in_circles() -> None:
    nodes = [tensorflow_saved_model._Node(a, "Add", (b,), {}) for a, b in (("a", "b"), ("b", "a"))]
    with pytest.raises(ValueError, match="in circles"):
        list(tensorflow_saved_model._sorted_by_inputs(nodes))
