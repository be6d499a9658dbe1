"""From a network to an ONNX graph: one walk over its layers, no tracing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Layer, Operation, layers, operations
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of

# Not the newest that runtimes read: it would say nothing more of these graphs, and onnxruntime 1.23, of 2025, fuses
# only the older convolution. Of opset 22 or 23 the same B0 takes it nearly twice the time (29 ms for 16, one thread).
OPSET = 21


IR_VERSION = 10  # of the same year


MAX_FILE_BYTES = 2**31 - 2**20  # of a file without others beside it: protobuf's limit


NodeAttributes = dict[str, Any]


def write_onnx(path: Path, model: EfficientNet, io_spec: IOSpec) -> None:
    """``model`` as an ONNX graph with any number of pictures; with ``interface.size`` None, of any size too.

    Raises as `made` does.
    """
    path.write_bytes(build_onnx_model(model, io_spec).SerializeToString())


def build_onnx_model(model: EfficientNet, io_spec: IOSpec) -> Any:
    """The ``onnx.ModelProto`` of ``model``; nodes are named as the layers are.

    'Same' padding is written as numbers where the size is fixed, and as ``SAME_UPPER``, which is exact at any size,
    where it is not. The contract and the interface lie in its metadata.
    Raises ``ImportError`` without onnx, ``ValueError`` for a network above 2 GiB.
    """
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX graphs are written by onnx, which is not here: pip install onnx") from None
    graph = _GraphBuilder(fold_batch_norm(model).float(), io_spec)
    graph.build()
    inputs = [_value_info(io_spec.input, *io_spec.input_tensor(model.channels))]
    outputs = [_value_info(name, "float32", ("pictures", width)) for name, width in graph.outputs]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, model.arch.name, inputs, outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="effnet",
        doc_string=f"{model.arch.name}; pictures {model.preprocess.describe()}",
    )
    onnx.helper.set_model_props(proto, io_spec.to_file_metadata(model.metadata))
    if proto.ByteSize() > MAX_FILE_BYTES:
        raise ValueError(f"{model.arch.name} needs more than the 2 GiB that one ONNX file can hold")
    return proto


def _value_info(name: str, dtype: str, shape: tuple[int | str, ...]) -> Any:
    from onnx import TensorProto, helper

    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    return helper.make_tensor_value_info(name, types[dtype], shape)


@dataclass(frozen=True)
class _FeatureMap:
    """A map in the graph: its name and, where the size is fixed, (height, width)."""

    name: str
    size: tuple[int, int] | None


@dataclass
class _GraphBuilder:
    """Nodes and constants as they are laid out, one layer after the other."""

    model: EfficientNet  # folded
    io_spec: IOSpec
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)  # name and width

    def build(self) -> None:
        """The whole network."""
        model, wanted = self.model, self.io_spec
        self.weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
        x = self._add_preprocessing()
        for layer in layers(model.arch, model.classes, model.channels):
            if layer.kind != "classifier":
                x = self._add_layer(layer, x)
        pooled = self._add_node("GlobalAveragePool", "pooled", x.name)
        embedding = self._add_node("Flatten", "embedding", pooled, axis=1)
        if wanted.embedding or not model.classes:
            self.outputs.append((embedding, model.head.conv.out_channels))
        if model.classes:
            weight, bias = (self._add_constant(f"classifier.{part}") for part in ("weight", "bias"))
            asked = wanted.output
            out = self._add_node("Gemm", "values" if asked == "values" else "logits", embedding, weight, bias, transB=1)
            if asked == "probabilities":
                activation = task_of(model.labels.task).activation
                out = self._add_node(
                    activation.title(), asked, out, **({"axis": -1} if activation == "softmax" else {})
                )
            self.outputs.insert(0, (out, model.classes))

    def _add_preprocessing(self) -> _FeatureMap:
        """Pictures of 0 … 255 less their mean, channels first; what remains, 1 / (255 · std), goes into the stem.

        The mean cannot: the stem pads with zeros what the mean has been taken from.
        """
        wanted, seen = self.io_spec, self.model.preprocess
        if wanted.input == "normalised":
            return _FeatureMap(wanted.input, wanted.size)
        mean, std = (np.array(values, np.float64) * 255 for values in (seen.mean, seen.std))
        stem = self.weights["stem.conv.weight"].astype(np.float64) / std[None, :, None, None]
        self.weights["stem.conv.weight"] = stem.astype(np.float32)
        x = wanted.input
        if wanted.input == "pixels":
            x = self._add_node("Cast", "floats", x, to=1)
        x = self._add_node("Sub", "centred", x, self._add_constant("mean", mean.astype(np.float32)))
        return _FeatureMap(self._add_node("Transpose", "channels_first", x, perm=[0, 3, 1, 2]), wanted.size)

    def _add_layer(self, layer: Layer, x: _FeatureMap) -> _FeatureMap:
        """The operations of one layer, and its residual."""
        start = whole = x
        for operation in operations(layer):
            if operation.name.endswith("squeeze_excite.reduce"):
                whole = x
                x = _FeatureMap(self._add_node("GlobalAveragePool", f"{operation.name}.mean", x.name), (1, 1))
            x = self._add_conv(operation, x)
            if operation.activation == "sigmoid":
                x = _FeatureMap(self._add_node("Mul", f"{operation.name}.gated", whole.name, x.name), whole.size)
        return (
            _FeatureMap(self._add_node("Add", f"{layer.name}.add", x.name, start.name), x.size) if layer.residual else x
        )

    def _add_conv(self, operation: Operation, x: _FeatureMap) -> _FeatureMap:
        """A convolution with its bias and its activation."""
        parts = (".conv.weight", ".conv.bias") if operation.norm else (".weight", ".bias")
        weight, bias = (self._add_constant(operation.name + part) for part in parts)
        kernel, stride = operation.kernel, operation.stride
        size = x.size and (-(-x.size[0] // stride), -(-x.size[1] // stride))
        y = self._add_node(
            "Conv",
            operation.name,
            x.name,
            weight,
            bias,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            group=operation.groups,
            **self._padding(operation, x.size),
        )
        activation = self.model.arch.activation if operation.activation == "act" else operation.activation
        return _FeatureMap(self._add_activation(activation, operation.name, y), size)

    def _padding(self, operation: Operation, size: tuple[int, int] | None) -> NodeAttributes:
        kernel, stride, numerics = operation.kernel, operation.stride, self.model.numerics
        wanted = (operation.name.endswith(".fused") and numerics.fused_padding) or numerics.padding
        if wanted == "symmetric" or stride == 1:  # at stride 1 both are the same
            return {"pads": [kernel // 2] * 4}
        if size is None:
            return {"auto_pad": "SAME_UPPER"}
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
        return {"pads": [*(m // 2 for m in missing), *(m - m // 2 for m in missing)]}

    def _add_activation(self, activation: str, name: str, x: str) -> str:
        match activation:
            case "":
                return x
            case "relu":
                return self._add_node("Relu", f"{name}.relu", x)
            case "relu6":
                low, high = (
                    self._add_constant("zero", np.array(0, np.float32)),
                    self._add_constant("six", np.array(6, np.float32)),
                )
                return self._add_node("Clip", f"{name}.relu6", x, low, high)
        gate = self._add_node("Sigmoid", f"{name}.sigmoid", x)
        return gate if activation == "sigmoid" else self._add_node("Mul", f"{name}.silu", x, gate)

    def _add_constant(self, name: str, data: NDArray[Any] | None = None) -> str:
        from onnx import numpy_helper

        if name not in self._constant_names:
            self._constant_names.add(name)
            self.constants.append(numpy_helper.from_array(self.weights[name] if data is None else data, name))
        return name

    _constant_names: set[str] = field(default_factory=set)

    def _add_node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """One node, called as its only output is."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name
