"""Writing int8 files: rewriting our float ONNX and TFLite graphs so that chosen operations compute in int8."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effnet.data.storage import embedded_digest
from effnet.exporting.calibration import Calibration, QuantizationRange, equalize, file_ranges, weight_module
from effnet.net import EfficientNet
from effnet.runtime import litert, onnx_writer, openvino
from effnet.runtime.io_spec import IOSpec
from effnet.weights.formats import tflite_schema

QUANTIZED_FORMATS = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}
FUSED_ACTIVATIONS = ("Relu", "Clip")  # in ONNX: part of the convolution before them, in every runtime
CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # in TFLite: of the weights' output channels
FUSED_SUFFIXES = {1: ".relu", 3: ".relu6"}  # in TFLite: by the number of the fused activation
INT8_MIN = -128  # where our ranges count from 0

Scales = Mapping[str, NDArray[np.float32]]


def write_quantized(
    path: Path, model: EfficientNet, io_spec: IOSpec, calibration: Calibration, int8_operations: Collection[str]
) -> None:
    """Write the folded ``model`` in the format of ``path``'s suffix, with ``int8_operations`` in int8."""
    equalized = equalize(_correct_bias(model, calibration, int8_operations), calibration.channel_scales)
    ranges = file_ranges(calibration.ranges, model.preprocess)
    scales = {name: scale.numpy() for name, scale in calibration.channel_scales.items()}
    texts = io_spec.to_file_metadata(model.metadata)
    if path.suffix == ".tflite":
        with TemporaryDirectory() as folder:
            float_file = Path(folder) / "float.tflite"
            litert.write_litert(float_file, equalized, io_spec)
            graph = tflite_schema.decode_tflite(float_file.read_bytes())
        quantized = _TFLiteRewriter(graph, ranges, int8_operations, scales).rewrite()
        path.write_bytes(tflite_schema.encode_tflite(quantized))
        tflite_schema.append_files(path, model.labels.names, texts)
        embedded_digest.seal(path)
        return
    proto = onnx_writer.build_onnx_model(equalized, io_spec)
    quantize_onnx(proto, ranges, int8_operations, scales)
    if path.suffix == ".onnx":
        path.write_bytes(proto.SerializeToString())
        embedded_digest.seal(path)
    else:  # OpenVINO converts the QDQ pairs to its own form
        openvino.save_ir(proto, path, texts)


def _correct_bias(model: EfficientNet, calibration: Calibration, int8_operations: Collection[str]) -> EfficientNet:
    """Return a copy whose biases undo the mean shift caused by rounding the weights of ``int8_operations``."""
    copy = deepcopy(model)
    with torch.no_grad():
        for name in int8_operations:
            bias = weight_module(copy, name).bias
            assert bias is not None
            bias -= calibration.shifts[name]
    return copy


def quantize_weight(weight: NDArray[np.float32], axis: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return ``weight`` as int8 and a scale per channel along ``axis``; a channel's largest value becomes ±127."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scales = (np.maximum(np.abs(weight).max(others, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scales).clip(-127, 127).astype(np.int8), scales.reshape(-1)


def quantize_bias(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return ``bias`` in steps of ``scales``."""
    return np.rint(bias.astype(np.float64) / scales).clip(-(2**31), 2**31 - 1).astype(np.int32)


def quantize_onnx(
    proto: Any, ranges: Mapping[str, QuantizationRange], int8_operations: Collection[str], channel_scales: Scales
) -> None:
    """Change an ``onnx.ModelProto`` of ours so that ``int8_operations`` are in int8, with QDQ pairs around them.

    Weights are symmetric int8 with one scale per channel, biases int32, feature maps uint8 with a zero point. Of the
    classifier only the weights are in int8, so that neither embedding nor logits are rounded to 256 values. A
    residual's sum is in int8 if the convolution before it is. All else computes in float32, as do gates and SiLU.
    Feature maps that are divided by ``channel_scales`` are multiplied by them for σ.
    """
    graph = _ONNXRewriter(proto.graph, ranges, channel_scales)
    classifier = "Gemm" if "classifier" in int8_operations else ""  # type of its node
    nodes = [node for node in proto.graph.node if node.name in int8_operations or node.op_type == classifier]
    outputs = {graph.output_of(node) for node in nodes}
    sums = [node for node in proto.graph.node if node.op_type == "Add" and node.input[0] in outputs]
    maps = {name for node in nodes if node.op_type == "Conv" for name in (node.input[0], graph.output_of(node))}
    maps |= {name for node in sums for name in (*node.input, *node.output)}
    graph.rewrite({node.name for node in nodes}, maps)


class _ONNXRewriter:
    def __init__(self, graph: Any, ranges: Mapping[str, QuantizationRange], channel_scales: Scales) -> None:
        self.graph, self.ranges, self.channel_scales = graph, ranges, channel_scales
        self.constants = {constant.name: constant for constant in graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[Any] = []

    def output_of(self, node: Any) -> str:
        """Return the feature map that ``node`` writes, after an activation fused into it."""
        readers = self.readers.get(node.output[0], [])
        fused = len(readers) == 1 and readers[0].op_type in FUSED_ACTIVATIONS
        return str((readers[0] if fused else node).output[0])

    def rewrite(self, int8_nodes: Collection[str], maps: Collection[str]) -> None:
        """Replace all nodes: ``int8_nodes`` get int8 weights, and ``maps`` are rounded to 8 bits."""
        for source in self.graph.input:
            if source.name in maps:
                self._add_quantize_dequantize(source.name)
        for node in list(self.graph.node):
            if node.name in int8_nodes:
                self._quantize_constants(node)
            for index, name in enumerate(node.input):
                if name in maps:
                    node.input[index] = f"{name}.dequantized"
            layer = node.name.removesuffix(".sigmoid")
            if node.op_type == "Sigmoid" and layer in self.channel_scales:
                scale = self._add_constant(f"{layer}.channel_scale", self.channel_scales[layer].reshape(1, -1, 1, 1))
                self._add_node("Mul", f"{layer}.rescaled", node.input[0], scale)
                node.input[0] = f"{layer}.rescaled"
            self.nodes.append(node)
            if node.output[0] in maps:
                self._add_quantize_dequantize(node.output[0])
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _add_quantize_dequantize(self, name: str) -> None:
        scale = self._add_constant(f"{name}.scale", np.array(self.ranges[name].scale, np.float32))
        zero_point = self._add_constant(f"{name}.zero_point", np.array(self.ranges[name].zero_point, np.uint8))
        self._add_node("QuantizeLinear", f"{name}.quantized", name, scale, zero_point)
        self._add_node("DequantizeLinear", f"{name}.dequantized", f"{name}.quantized", scale, zero_point)

    def _quantize_constants(self, node: Any) -> None:
        """Store weight and bias of ``node`` as integers followed by DequantizeLinear; of the classifier the weight."""
        to_array = onnx_writer.import_onnx().numpy_helper.to_array
        weight, bias = (to_array(self.constants[name]) for name in node.input[1:3])
        data, scales = quantize_weight(weight)
        quantized: list[tuple[str, NDArray[Any], NDArray[np.float32]]] = [(node.input[1], data, scales)]
        if node.op_type == "Conv":
            bias_scales = (scales * self.ranges[node.input[0]].scale).astype(np.float32)
            quantized.append((node.input[2], quantize_bias(bias, bias_scales), bias_scales))
        for name, data, scales in quantized:
            self.graph.initializer.remove(self.constants.pop(name))
            inputs = (
                self._add_constant(f"{name}.quantized", data),
                self._add_constant(f"{name}.scale", scales),
                self._add_constant(f"{name}.zero_point", np.zeros(len(scales), data.dtype)),
            )
            self._add_node("DequantizeLinear", name, *inputs, axis=0)

    def _add_constant(self, name: str, data: NDArray[Any]) -> str:
        self.graph.initializer.append(onnx_writer.import_onnx().numpy_helper.from_array(data, name))
        return name

    def _add_node(self, kind: str, output: str, *inputs: str, **attributes: Any) -> None:
        self.nodes.append(onnx_writer.import_onnx().helper.make_node(kind, inputs, [output], name=output, **attributes))


@dataclass
class _TFLiteRewriter:
    """Rewrites a TFLite graph of ours, following TFLite's quantization specification.

    Weights are symmetric int8 with one scale per channel, biases int32, feature maps int8 with a zero point; QUANTIZE
    and DEQUANTIZE are inserted where int8 and float meet. The rest is as in `quantize_onnx`. An index below
    ``len(source.tensors)`` keeps its meaning.
    """

    source: tflite_schema.TfliteGraph
    ranges: Mapping[str, QuantizationRange]
    int8_operations: Collection[str]
    channel_scales: Scales
    tensors: list[tflite_schema.TfliteTensor] = field(default_factory=list)
    operators: list[tflite_schema.TfliteOperator] = field(default_factory=list)
    converted: dict[int, int] = field(default_factory=dict)  # the same feature map in the other type

    def rewrite(self) -> tflite_schema.TfliteGraph:
        """Return the graph with ``int8_operations`` in int8."""
        source = self.source
        self.tensors = list(source.tensors)
        readers = {index: operator for operator in source.operators for index in operator.inputs}
        self.int8_maps = {
            operator.outputs[0]
            for operator in source.operators
            if operator.kind in CHANNEL_AXES and self.tensors[operator.outputs[0]].name in self.int8_operations
        }
        for operator in source.operators:  # a residual's sum like its convolution, a padding like the one after it
            padding = operator.kind == "PAD" and readers[operator.outputs[0]].outputs[0] in self.int8_maps
            if padding or (operator.kind == "ADD" and operator.inputs[0] in self.int8_maps):
                self.int8_maps.add(operator.outputs[0])
        for operator in source.operators:
            if operator.outputs[0] in self.int8_maps:
                self._add_int8_operator(operator)
            else:
                self._add_float_operator(operator)
        outputs = tuple(self._to_float(index) for index in source.outputs)
        return replace(source, tensors=tuple(self.tensors), operators=tuple(self.operators), outputs=outputs)

    def _add_float_operator(self, operator: tflite_schema.TfliteOperator) -> None:
        if operator.kind == "FULLY_CONNECTED" and "classifier" in self.int8_operations:
            self._quantize_weight(operator.inputs[1], 0)
        inputs = tuple(self._to_float(index) for index in operator.inputs)
        layer = self._name(operator.outputs[0]).removesuffix(".sigmoid")
        if operator.kind == "LOGISTIC" and layer in self.channel_scales:
            inputs = (self._rescale(inputs[0], layer),)
        self.operators.append(replace(operator, inputs=inputs))

    def _add_int8_operator(self, operator: tflite_schema.TfliteOperator) -> None:
        output, maps = operator.outputs[0], 2 if operator.kind == "ADD" else 1
        inputs = (*(self._to_int8(index) for index in operator.inputs[:maps]), *operator.inputs[maps:])
        source = self.tensors[inputs[0]]
        if operator.kind == "PAD":
            self._set(output, type="INT8", scale=source.scale, zero_point=source.zero_point)
        else:
            fused = operator.options.get("FusedActivationFunction", 0) if operator.kind != "ADD" else 0
            self._set_int8_type(output, self.ranges[self._name(output) + FUSED_SUFFIXES.get(fused, "")])
        if operator.kind in CHANNEL_AXES:
            scales = self._quantize_weight(operator.inputs[1], CHANNEL_AXES[operator.kind])
            bias, scales = operator.inputs[2], scales * np.float32(source.scale[0])
            data = quantize_bias(self.source.tensors[bias].dequantized, scales)
            self._set_constant(bias, "INT32", data, scales, 0)
        self.operators.append(replace(operator, inputs=inputs))

    def _to_int8(self, index: int) -> int:
        if index in self.int8_maps:
            return index
        if index not in self.converted:
            self.converted[index] = self._convert(index, "quantized", "QUANTIZE")
            self._set_int8_type(self.converted[index], self.ranges[self._name(index)])
        return self.converted[index]

    def _to_float(self, index: int) -> int:
        if index not in self.int8_maps:
            return index
        if index not in self.converted:
            self.converted[index] = self._convert(index, "dequantized", "DEQUANTIZE")
        return self.converted[index]

    def _convert(self, index: int, suffix: str, kind: str) -> int:
        tensor = self.source.tensors[index]  # float32
        self.tensors.append(replace(tensor, name=f"{tensor.name}/{suffix}"))
        self.operators.append(tflite_schema.TfliteOperator(kind, (index,), (len(self.tensors) - 1,)))
        return len(self.tensors) - 1

    def _rescale(self, index: int, layer: str) -> int:
        scales, name, at = self.channel_scales[layer], layer.replace(".", "/"), len(self.tensors)
        self.tensors.append(tflite_schema.TfliteTensor(f"{name}/channel_scale", scales.shape, "FLOAT32", data=scales))
        self.tensors.append(replace(self.tensors[index], name=f"{name}/rescaled"))
        self.operators.append(
            tflite_schema.TfliteOperator("MUL", (index, at), (at + 1,), {"FusedActivationFunction": 0})
        )
        return at + 1

    def _quantize_weight(self, index: int, axis: int) -> NDArray[np.float32]:
        data, scales = quantize_weight(self.source.tensors[index].dequantized, axis)
        self._set_constant(index, "INT8", data, scales, axis)
        return scales

    def _set_int8_type(self, index: int, range_: QuantizationRange) -> None:
        scale = (float(np.float32(range_.scale)),)
        self._set(index, type="INT8", scale=scale, zero_point=(range_.zero_point + INT8_MIN,))

    def _set_constant(self, index: int, dtype: str, data: NDArray[Any], scales: NDArray[np.float32], axis: int) -> None:
        zero_point, scale = (0,) * len(scales), tuple(scales.tolist())
        self._set(index, type=dtype, data=data, scale=scale, zero_point=zero_point, axis=axis)

    def _set(self, index: int, **changes: Any) -> None:
        self.tensors[index] = replace(self.tensors[index], **changes)

    def _name(self, index: int) -> str:
        return self.tensors[index].name.replace("/", ".")
