"""From a float TFLite graph to one in which the chosen operators compute in int8, as TFLite's specification has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.exporting.quantise.calibrate import Range
from effnet.exporting.quantise.onnx import rounded
from effnet.weights.formats.tflite.schema import Graph, Operator, Tensor

CONVOLUTIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # and the axis of their weights' channels
ACTIVATED = {1: ".relu", 3: ".relu6"}  # by the number of the fused activation
LOWEST = -128  # of int8: where our ranges count from 0


def quantise(
    graph: Graph, ranges: Mapping[str, Range], chosen: Collection[str], sizes: Mapping[str, NDArray[np.float32]]
) -> Graph:
    """``graph``, of ours, with the operations ``chosen`` in int8.

    Weights are symmetric with a scale a channel, biases int32, maps int8 with a zero point; the classifier keeps its
    float input and output and has int8 weights, so that logits are not rounded to 256 values. A residual's sum is in
    int8 where the convolution before it is; QUANTIZE and DEQUANTIZE stand where int8 and float meet. Maps that come
    divided by their channels' ``sizes`` are multiplied by them for σ.
    """
    return _Rewrite(graph, ranges, chosen, sizes).graph()


@dataclass
class _Rewrite:
    """Tensors and operators laid out anew; an index below ``len(given.tensors)`` means what it meant there."""

    given: Graph
    ranges: Mapping[str, Range]
    chosen: Collection[str]
    sizes: Mapping[str, NDArray[np.float32]]
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    twins: dict[int, int] = field(default_factory=dict)  # the same map in the other type

    def graph(self) -> Graph:
        self.tensors = list(self.given.tensors)
        maker = {each.outputs[0]: each for each in self.given.operators}
        readers = {index: each for each in self.given.operators for index in each.inputs}
        self.whole = {
            each.outputs[0]
            for each in self.given.operators
            if each.kind in CONVOLUTIONS and self.tensors[each.outputs[0]].name in self.chosen
        }
        for each in self.given.operators:  # a residual's sum after its convolution, a padding before its own
            padding = each.kind == "PAD" and readers[each.outputs[0]].outputs[0] in self.whole
            if padding or (each.kind == "ADD" and each.inputs[0] in self.whole):
                self.whole.add(each.outputs[0])
        for each in self.given.operators:
            self._lay(each, maker)
        outputs = tuple(self._float(index) for index in self.given.outputs)
        return replace(self.given, tensors=tuple(self.tensors), operators=tuple(self.operators), outputs=outputs)

    def _lay(self, each: Operator, maker: Mapping[int, Operator]) -> None:
        output = each.outputs[0]
        if output not in self.whole:
            if each.kind == "FULLY_CONNECTED" and "classifier" in self.chosen:
                self._weight(each.inputs[1], 0)
            inputs = tuple(self._float(index) for index in each.inputs)
            layer = self.tensors[output].name.replace("/", ".").removesuffix(".sigmoid")
            if each.kind == "LOGISTIC" and layer in self.sizes:
                inputs = (self._sized(inputs[0], layer),)
            self.operators.append(replace(each, inputs=inputs))
            return
        data = 2 if each.kind == "ADD" else 1
        inputs = (*(self._int8(index) for index in each.inputs[:data]), *each.inputs[data:])
        if each.kind == "PAD":
            source = self.tensors[inputs[0]]
            self.tensors[output] = replace(self.tensors[output], type="INT8", scale=source.scale, zero=source.zero)
        else:
            key = self.tensors[output].name.replace("/", ".")
            fused = ACTIVATED.get(each.options.get("FusedActivationFunction", 0), "") if each.kind != "ADD" else ""
            self._as_int8(output, self.ranges[key + fused])
        if each.kind in CONVOLUTIONS:
            scales = self._weight(each.inputs[1], CONVOLUTIONS[each.kind])
            self._bias(each.inputs[2], scales * np.float32(self.tensors[inputs[0]].scale[0]))
        self.operators.append(replace(each, inputs=inputs))

    def _int8(self, index: int) -> int:
        """The map ``index`` in int8."""
        if index in self.whole:
            return index
        if index not in self.twins:
            tensor = self.tensors[index]
            self.twins[index] = len(self.tensors)
            self.tensors.append(replace(tensor, name=f"{tensor.name}/quantised"))
            self._as_int8(self.twins[index], self.ranges[tensor.name.replace("/", ".")])
            self.operators.append(Operator("QUANTIZE", (index,), (self.twins[index],)))
        return self.twins[index]

    def _float(self, index: int) -> int:
        """The map ``index`` in float32; a constant as it is."""
        if index not in self.whole:
            return index
        if index not in self.twins:
            self.twins[index] = len(self.tensors)
            tensor = self.given.tensors[index]
            self.tensors.append(replace(tensor, name=f"{tensor.name}/dequantised"))
            self.operators.append(Operator("DEQUANTIZE", (index,), (self.twins[index],)))
        return self.twins[index]

    def _sized(self, index: int, layer: str) -> int:
        """The map ``index`` times its channels' sizes."""
        given, size = self.tensors[index], self.sizes[layer]
        at = len(self.tensors)
        name = layer.replace(".", "/")
        self.tensors.append(Tensor(f"{name}/size", size.shape, "FLOAT32", data=size))
        self.tensors.append(replace(given, name=f"{name}/sized"))
        self.operators.append(Operator("MUL", (index, at), (at + 1,), {"FusedActivationFunction": 0}))
        return at + 1

    def _as_int8(self, index: int, found: Range) -> None:
        scale, zero = (float(np.float32(found.scale)),), (found.zero + LOWEST,)
        self.tensors[index] = replace(self.tensors[index], type="INT8", scale=scale, zero=zero)

    def _weight(self, index: int, axis: int) -> NDArray[np.float32]:
        tensor = self.given.tensors[index]
        stored, scales = rounded(tensor.numbers, axis)
        self._store(index, "INT8", stored, scales, axis)
        return scales

    def _bias(self, index: int, scales: NDArray[np.float32]) -> None:
        steps = np.rint(self.given.tensors[index].numbers.astype(np.float64) / scales)
        self._store(index, "INT32", steps.clip(-(2**31), 2**31 - 1).astype(np.int32), scales, 0)

    def _store(self, index: int, kind: str, data: NDArray[Any], scales: NDArray[np.float32], axis: int) -> None:
        zero = (0,) * len(scales)
        scale = tuple(scales.tolist())
        self.tensors[index] = replace(self.tensors[index], type=kind, data=data, scale=scale, zero=zero, axis=axis)
