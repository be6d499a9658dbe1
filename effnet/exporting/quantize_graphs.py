"""From a float ONNX graph to one with QuantizeLinear and DequantizeLinear around whatever is to run in int8 (QDQ)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.exporting.calibration import QuantizationRange
from effnet.weights.formats.tflite_schema import TfliteGraph, TfliteOperator, TfliteTensor

FUSED_ACTIVATIONS = ("Relu", "Clip")  # part of the convolution before them, in every runtime


WEIGHT_DTYPE, ACTIVATION_DTYPE = np.int8, np.uint8


def quantize_onnx(
    proto: Any,
    ranges: Mapping[str, QuantizationRange],
    chosen: Collection[str],
    channel_scales: Mapping[str, NDArray[np.float32]],
) -> None:
    """Changes ``proto``, an ``onnx.ModelProto`` of ours, so that the operations ``chosen`` are in int8.

    Weights are int8, symmetric, a scale a channel; biases int32; maps uint8 with a zero point. Of the classifier the
    weights alone are in int8: neither the embedding nor the logits are rounded to 256 values. A residual's sum is in
    int8 where the convolution before it is. What is not chosen computes in float32, as do gates and SiLU. Maps that
    come divided by their channels' ``sizes`` are multiplied by them for σ.
    """
    graph = _ONNXRewriter(proto.graph, ranges, channel_scales)
    whole = [
        node for node in proto.graph.node if node.name in chosen or (node.op_type == "Gemm" and "classifier" in chosen)
    ]
    made_by_whole = {graph.output_of(node) for node in whole}
    sums = [node for node in proto.graph.node if node.op_type == "Add" and node.input[0] in made_by_whole]
    maps = {name for node in whole if node.op_type == "Conv" for name in (node.input[0], graph.output_of(node))}
    maps |= {name for node in sums for name in (*node.input, *node.output)}
    graph.rewrite({node.name for node in whole}, maps)


class _ONNXRewriter:
    """The nodes as they are laid out anew."""

    def __init__(
        self, graph: Any, ranges: Mapping[str, QuantizationRange], sizes: Mapping[str, NDArray[np.float32]]
    ) -> None:
        self.graph, self.ranges, self.channel_scales = graph, ranges, sizes
        self.constants = {each.name: each for each in graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[Any] = []

    def output_of(self, node: Any) -> str:
        """The map that ``node`` leaves, after an activation that is fused into it."""
        readers = self.readers.get(node.output[0], [])
        fused = len(readers) == 1 and readers[0].op_type in FUSED_ACTIVATIONS
        return str((readers[0] if fused else node).output[0])

    def rewrite(self, whole: Collection[str], maps: Collection[str]) -> None:
        """Lays the nodes out anew: ``whole`` with int8 weights, ``maps`` through 8 bits."""
        before = list(self.graph.node)
        for given in self.graph.input:
            if given.name in maps:
                self._add_quantize_dequantize(given.name)
        for node in before:
            if node.name in whole:
                self._quantize_constants(node)
            for place, name in enumerate(node.input):
                if name in maps:
                    node.input[place] = f"{name}.dequantised"
            layer = node.name.removesuffix(".sigmoid")
            if node.op_type == "Sigmoid" and layer in self.channel_scales:
                size = self._add_constant(f"{layer}.size", self.channel_scales[layer].reshape(1, -1, 1, 1))
                self._add_node("Mul", f"{layer}.sized", node.input[0], size)
                node.input[0] = f"{layer}.sized"
            self.nodes.append(node)
            if node.output[0] in maps:
                self._add_quantize_dequantize(node.output[0])
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _add_quantize_dequantize(self, name: str) -> None:
        found = self.ranges[name]
        scale = self._add_constant(f"{name}.scale", np.array(found.scale, np.float32))
        zero = self._add_constant(f"{name}.zero", np.array(found.zero_point, ACTIVATION_DTYPE))
        self._add_node("QuantizeLinear", f"{name}.quantised", name, scale, zero)
        self._add_node("DequantizeLinear", f"{name}.dequantised", f"{name}.quantised", scale, zero)

    def _quantize_constants(self, node: Any) -> None:
        """Weight and bias of ``node`` as integers, and how they become floats again; of the classifier the weight."""
        from onnx import numpy_helper

        weight, bias = (numpy_helper.to_array(self.constants[name]) for name in node.input[1:3])
        stored, scales = quantize_weight(weight)
        integers: list[tuple[int, NDArray[Any], NDArray[np.float32]]] = [(1, stored, scales)]
        if node.op_type == "Conv":
            by = (scales * self.ranges[node.input[0]].scale).astype(np.float32)
            steps = np.rint(bias.astype(np.float64) / by).clip(-(2**31), 2**31 - 1).astype(np.int32)
            integers.append((2, steps, by))
        for place, data, scale in integers:
            name = node.input[place]
            self.graph.initializer.remove(self.constants.pop(name))
            inputs = (
                self._add_constant(f"{name}.quantised", data),
                self._add_constant(f"{name}.scale", scale),
                self._add_constant(f"{name}.zero", np.zeros(len(scale), data.dtype)),
            )
            self._add_node("DequantizeLinear", name, *inputs, axis=0)

    def _add_constant(self, name: str, data: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(data, name))
        return name

    def _add_node(self, kind: str, output: str, *inputs: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def quantize_weight(weight: NDArray[np.float32], axis: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``weight`` as int8 and the scale of each channel along ``axis``: the largest of a channel becomes ±127."""
    others = tuple(each for each in range(weight.ndim) if each != axis)
    scales = (np.maximum(np.abs(weight).max(others, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scales).clip(-127, 127).astype(WEIGHT_DTYPE), scales.reshape(-1)


# From a float TFLite graph to one in which the chosen operators compute in int8, as TFLite's specification has it.


CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # and the axis of their weights' channels


FUSED_SUFFIXES = {1: ".relu", 3: ".relu6"}  # by the number of the fused activation


INT8_MIN = -128  # of int8: where our ranges count from 0


def quantize_tflite(
    graph: TfliteGraph,
    ranges: Mapping[str, QuantizationRange],
    chosen: Collection[str],
    channel_scales: Mapping[str, NDArray[np.float32]],
) -> TfliteGraph:
    """``graph``, of ours, with the operations ``chosen`` in int8.

    Weights are symmetric with a scale a channel, biases int32, maps int8 with a zero point; the classifier keeps its
    float input and output and has int8 weights, so that logits are not rounded to 256 values. A residual's sum is in
    int8 where the convolution before it is; QUANTIZE and DEQUANTIZE stand where int8 and float meet. Maps that come
    divided by their channels' ``sizes`` are multiplied by them for σ.
    """
    return _TFLiteRewriter(graph, ranges, chosen, channel_scales).rewrite()


@dataclass
class _TFLiteRewriter:
    """Tensors and operators laid out anew; an index below ``len(given.tensors)`` means what it meant there."""

    source: TfliteGraph
    ranges: Mapping[str, QuantizationRange]
    chosen: Collection[str]
    channel_scales: Mapping[str, NDArray[np.float32]]
    tensors: list[TfliteTensor] = field(default_factory=list)
    operators: list[TfliteOperator] = field(default_factory=list)
    converted: dict[int, int] = field(default_factory=dict)  # the same map in the other type

    def rewrite(self) -> TfliteGraph:
        self.tensors = list(self.source.tensors)
        maker = {each.outputs[0]: each for each in self.source.operators}
        readers = {index: each for each in self.source.operators for index in each.inputs}
        self.int8_maps = {
            each.outputs[0]
            for each in self.source.operators
            if each.kind in CHANNEL_AXES and self.tensors[each.outputs[0]].name in self.chosen
        }
        for each in self.source.operators:  # a residual's sum after its convolution, a padding before its own
            padding = each.kind == "PAD" and readers[each.outputs[0]].outputs[0] in self.int8_maps
            if padding or (each.kind == "ADD" and each.inputs[0] in self.int8_maps):
                self.int8_maps.add(each.outputs[0])
        for each in self.source.operators:
            self._add_operator(each, maker)
        outputs = tuple(self._to_float(index) for index in self.source.outputs)
        return replace(self.source, tensors=tuple(self.tensors), operators=tuple(self.operators), outputs=outputs)

    def _add_operator(self, each: TfliteOperator, maker: Mapping[int, TfliteOperator]) -> None:
        output = each.outputs[0]
        if output not in self.int8_maps:
            if each.kind == "FULLY_CONNECTED" and "classifier" in self.chosen:
                self._quantize_weight(each.inputs[1], 0)
            inputs = tuple(self._to_float(index) for index in each.inputs)
            layer = self.tensors[output].name.replace("/", ".").removesuffix(".sigmoid")
            if each.kind == "LOGISTIC" and layer in self.channel_scales:
                inputs = (self._rescale(inputs[0], layer),)
            self.operators.append(replace(each, inputs=inputs))
            return
        data = 2 if each.kind == "ADD" else 1
        inputs = (*(self._to_int8(index) for index in each.inputs[:data]), *each.inputs[data:])
        if each.kind == "PAD":
            source = self.tensors[inputs[0]]
            self.tensors[output] = replace(
                self.tensors[output], type="INT8", scale=source.scale, zero_point=source.zero_point
            )
        else:
            key = self.tensors[output].name.replace("/", ".")
            fused = FUSED_SUFFIXES.get(each.options.get("FusedActivationFunction", 0), "") if each.kind != "ADD" else ""
            self._set_int8_type(output, self.ranges[key + fused])
        if each.kind in CHANNEL_AXES:
            scales = self._quantize_weight(each.inputs[1], CHANNEL_AXES[each.kind])
            self._quantize_bias(each.inputs[2], scales * np.float32(self.tensors[inputs[0]].scale[0]))
        self.operators.append(replace(each, inputs=inputs))

    def _to_int8(self, index: int) -> int:
        """The map ``index`` in int8."""
        if index in self.int8_maps:
            return index
        if index not in self.converted:
            tensor = self.tensors[index]
            self.converted[index] = len(self.tensors)
            self.tensors.append(replace(tensor, name=f"{tensor.name}/quantised"))
            self._set_int8_type(self.converted[index], self.ranges[tensor.name.replace("/", ".")])
            self.operators.append(TfliteOperator("QUANTIZE", (index,), (self.converted[index],)))
        return self.converted[index]

    def _to_float(self, index: int) -> int:
        """The map ``index`` in float32; a constant as it is."""
        if index not in self.int8_maps:
            return index
        if index not in self.converted:
            self.converted[index] = len(self.tensors)
            tensor = self.source.tensors[index]
            self.tensors.append(replace(tensor, name=f"{tensor.name}/dequantised"))
            self.operators.append(TfliteOperator("DEQUANTIZE", (index,), (self.converted[index],)))
        return self.converted[index]

    def _rescale(self, index: int, layer: str) -> int:
        """The map ``index`` times its channels' sizes."""
        given, size = self.tensors[index], self.channel_scales[layer]
        at = len(self.tensors)
        name = layer.replace(".", "/")
        self.tensors.append(TfliteTensor(f"{name}/size", size.shape, "FLOAT32", data=size))
        self.tensors.append(replace(given, name=f"{name}/sized"))
        self.operators.append(TfliteOperator("MUL", (index, at), (at + 1,), {"FusedActivationFunction": 0}))
        return at + 1

    def _set_int8_type(self, index: int, found: QuantizationRange) -> None:
        scale, zero = (float(np.float32(found.scale)),), (found.zero_point + INT8_MIN,)
        self.tensors[index] = replace(self.tensors[index], type="INT8", scale=scale, zero_point=zero)

    def _quantize_weight(self, index: int, axis: int) -> NDArray[np.float32]:
        tensor = self.source.tensors[index]
        stored, scales = quantize_weight(tensor.dequantized, axis)
        self._set_constant(index, "INT8", stored, scales, axis)
        return scales

    def _quantize_bias(self, index: int, scales: NDArray[np.float32]) -> None:
        steps = np.rint(self.source.tensors[index].dequantized.astype(np.float64) / scales)
        self._set_constant(index, "INT32", steps.clip(-(2**31), 2**31 - 1).astype(np.int32), scales, 0)

    def _set_constant(self, index: int, kind: str, data: NDArray[Any], scales: NDArray[np.float32], axis: int) -> None:
        zero = (0,) * len(scales)
        scale = tuple(scales.tolist())
        self.tensors[index] = replace(
            self.tensors[index], type=kind, data=data, scale=scale, zero_point=zero, axis=axis
        )
