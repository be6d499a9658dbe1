"""Writing a network as an ONNX graph by one walk over its layers, without tracing.

Its own code rather than ``torch.onnx``: nodes keep the layers' names, 'same' padding stays exact at any size, and a
network is written in 0.15 s.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch import Layer, Operation, layers, operations, serde
from effnet.data.storage import embedded_digest
from effnet.net import EfficientNet, surgery
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of

# A newer opset adds nothing that these graphs need, and onnxruntime 1.23 (2025) fuses only the older convolution: with
# opset 22 or 23 the same B0 takes almost twice as long (29 instead of 16 ms, one thread).
OPSET = 21
IR_VERSION = 10  # of the same year
MAX_FILE_BYTES = 2**31 - 2**20  # protobuf's limit


def write_onnx(path: Path, model: EfficientNet, spec: IOSpec) -> None:
    """Write ``model`` as an ONNX file for any batch size, and any image size if ``spec.size`` is None."""
    path.write_bytes(build_onnx_model(model, spec).SerializeToString())
    embedded_digest.seal(path)


def build_onnx_model(model: EfficientNet, spec: IOSpec) -> Any:
    """Return ``model`` as an ``onnx.ModelProto`` whose nodes have the layers' names."""
    helper = import_onnx().helper

    def describe_tensor(name: str, dtype: str, shape: tuple[int | str, ...]) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = _ONNXGraph(surgery.fold_batch_norm(model).float(), spec)
    graph.build()
    inputs = [describe_tensor(spec.input, *spec.input_tensor(model.channels))]
    outputs = [describe_tensor(name, "float32", ("batch", width)) for name, width in graph.outputs]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, model.arch.name, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="effnet",
        doc_string=f"{model.arch.name}; images {model.preprocess.describe()}",
    )
    helper.set_model_props(proto, spec.to_file_metadata(model.metadata) | embedded_digest.DIGEST_TEXTS)
    if proto.ByteSize() > MAX_FILE_BYTES:
        raise ValueError(f"{model.arch.name} exceeds the 2 GiB that one ONNX file can hold")
    return proto


def import_onnx() -> Any:
    """Return the package onnx. Raises ``ImportError`` with the extra that installs it."""
    return serde.import_extra("onnx", "export", "writing ONNX requires")


@dataclass(frozen=True)
class _ONNXMap:
    name: str
    size: tuple[int, int] | None  # (height, width) if the input size is fixed


@dataclass
class _ONNXGraph:
    model: EfficientNet  # folded
    spec: IOSpec
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)  # name and width
    _constant_names: set[str] = field(default_factory=set)

    def build(self) -> None:
        model, spec = self.model, self.spec
        self.weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
        x = self._add_preprocessing()
        for layer in layers(model.arch, model.classes, model.channels):
            if layer.kind != "classifier":
                x = self._add_layer(layer, x)
        pooled = self._add_node("GlobalAveragePool", "pooled", x.name)
        embedding = self._add_node("Flatten", "embedding", pooled, axis=1)
        if spec.embedding or not model.classes:
            self.outputs.append((embedding, model.head.conv.out_channels))
        if model.classes:
            weight, bias = (self._add_constant(f"classifier.{part}") for part in ("weight", "bias"))
            name = "values" if spec.output == "values" else "logits"
            out = self._add_node("Gemm", name, embedding, weight, bias, transB=1)
            if spec.output == "probabilities":
                activation = task_of(model.labels.task).activation
                attributes = {"axis": -1} if activation == "softmax" else {}
                out = self._add_node(activation.title(), spec.output, out, **attributes)
            self.outputs.insert(0, (out, model.classes))

    def _add_preprocessing(self) -> _ONNXMap:
        # The scale, 1 / (255 · std), goes into the stem. The mean cannot: the stem pads with zeros, which stand for it
        spec, preprocess = self.spec, self.model.preprocess
        if spec.input == "normalized":
            return _ONNXMap(spec.input, spec.size)
        mean, std = (np.array(values, np.float64) * 255 for values in (preprocess.mean, preprocess.std))
        stem = self.weights["stem.conv.weight"].astype(np.float64) / std[None, :, None, None]
        self.weights["stem.conv.weight"] = stem.astype(np.float32)
        x = spec.input
        if spec.input == "pixels":
            x = self._add_node("Cast", "floats", x, to=1)
        x = self._add_node("Sub", "centered", x, self._add_constant("mean", mean.astype(np.float32)))
        return _ONNXMap(self._add_node("Transpose", "channels_first", x, perm=[0, 3, 1, 2]), spec.size)

    def _add_layer(self, layer: Layer, x: _ONNXMap) -> _ONNXMap:
        start = whole = x
        for operation in operations(layer):
            if operation.name.endswith("squeeze_excite.reduce"):
                whole = x
                x = _ONNXMap(self._add_node("GlobalAveragePool", f"{operation.name}.mean", x.name), (1, 1))
            x = self._add_conv(operation, x)
            if operation.activation == "sigmoid":
                x = _ONNXMap(self._add_node("Mul", f"{operation.name}.gated", whole.name, x.name), whole.size)
        if layer.residual:
            x = _ONNXMap(self._add_node("Add", f"{layer.name}.add", x.name, start.name), x.size)
        return x

    def _add_conv(self, operation: Operation, x: _ONNXMap) -> _ONNXMap:
        parts = (".conv.weight", ".conv.bias") if operation.norm else (".weight", ".bias")
        weight, bias = (self._add_constant(operation.name + part) for part in parts)
        kernel, stride = operation.kernel, operation.stride
        size = x.size and (-(-x.size[0] // stride), -(-x.size[1] // stride))
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": operation.groups}
        attributes |= self._padding(operation, x.size)
        y = self._add_node("Conv", operation.name, x.name, weight, bias, **attributes)
        activation = self.model.arch.activation if operation.activation == "act" else operation.activation
        return _ONNXMap(self._add_activation(activation, operation.name, y), size)

    def _padding(self, operation: Operation, size: tuple[int, int] | None) -> dict[str, Any]:
        kernel, stride, numerics = operation.kernel, operation.stride, self.model.numerics
        padding = (operation.name.endswith(".fused") and numerics.fused_padding) or numerics.padding
        if padding == "symmetric" or stride == 1:  # at stride 1 both are the same
            return {"pads": [kernel // 2] * 4}
        if size is None:
            return {"auto_pad": "SAME_UPPER"}  # exact at any size
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
        return {"pads": [*(pad // 2 for pad in total), *(pad - pad // 2 for pad in total)]}

    def _add_activation(self, activation: str, name: str, x: str) -> str:
        match activation:
            case "":
                return x
            case "relu":
                return self._add_node("Relu", f"{name}.relu", x)
            case "relu6":
                bounds = {"zero": 0, "six": 6}
                low, high = (self._add_constant(key, np.array(value, np.float32)) for key, value in bounds.items())
                return self._add_node("Clip", f"{name}.relu6", x, low, high)
        gate = self._add_node("Sigmoid", f"{name}.sigmoid", x)
        return gate if activation == "sigmoid" else self._add_node("Mul", f"{name}.silu", x, gate)

    def _add_constant(self, name: str, data: np.ndarray | None = None) -> str:
        if name not in self._constant_names:
            self._constant_names.add(name)
            data = self.weights[name] if data is None else data
            self.constants.append(import_onnx().numpy_helper.from_array(data, name))
        return name

    def _add_node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(import_onnx().helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name
