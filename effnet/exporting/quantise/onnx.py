"""From a float ONNX graph to one with QuantizeLinear and DequantizeLinear around whatever is to run in int8 (QDQ)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.exporting.quantise.calibrate import Range

FUSED = ("Relu", "Clip")  # part of the convolution before them, in every runtime
INT8, ACTIVATION = np.int8, np.uint8


def quantise(
    proto: Any, ranges: Mapping[str, Range], chosen: Collection[str], sizes: Mapping[str, NDArray[np.float32]]
) -> None:
    """Changes ``proto``, an ``onnx.ModelProto`` of ours, so that the operations ``chosen`` are in int8.

    Weights are int8, symmetric, a scale a channel; biases int32; maps uint8 with a zero point. Of the classifier the
    weights alone are in int8: neither the embedding nor the logits are rounded to 256 values. A residual's sum is in
    int8 where the convolution before it is. What is not chosen computes in float32, as do gates and SiLU. Maps that
    come divided by their channels' ``sizes`` are multiplied by them for σ.
    """
    graph = _Graph(proto.graph, ranges, sizes)
    whole = [
        node for node in proto.graph.node if node.name in chosen or (node.op_type == "Gemm" and "classifier" in chosen)
    ]
    made_by_whole = {graph.end(node) for node in whole}
    sums = [node for node in proto.graph.node if node.op_type == "Add" and node.input[0] in made_by_whole]
    maps = {name for node in whole if node.op_type == "Conv" for name in (node.input[0], graph.end(node))}
    maps |= {name for node in sums for name in (*node.input, *node.output)}
    graph.rewrite({node.name for node in whole}, maps)


class _Graph:
    """The nodes as they are laid out anew."""

    def __init__(self, graph: Any, ranges: Mapping[str, Range], sizes: Mapping[str, NDArray[np.float32]]) -> None:
        self.graph, self.ranges, self.sizes = graph, ranges, sizes
        self.constants = {each.name: each for each in graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[Any] = []

    def end(self, node: Any) -> str:
        """The map that ``node`` leaves, after an activation that is fused into it."""
        readers = self.readers.get(node.output[0], [])
        fused = len(readers) == 1 and readers[0].op_type in FUSED
        return str((readers[0] if fused else node).output[0])

    def rewrite(self, whole: Collection[str], maps: Collection[str]) -> None:
        """Lays the nodes out anew: ``whole`` with int8 weights, ``maps`` through 8 bits."""
        before = list(self.graph.node)
        for given in self.graph.input:
            if given.name in maps:
                self._through_8_bits(given.name)
        for node in before:
            if node.name in whole:
                self._integers(node)
            for place, name in enumerate(node.input):
                if name in maps:
                    node.input[place] = f"{name}.dequantised"
            layer = node.name.removesuffix(".sigmoid")
            if node.op_type == "Sigmoid" and layer in self.sizes:
                size = self._constant(f"{layer}.size", self.sizes[layer].reshape(1, -1, 1, 1))
                self._node("Mul", f"{layer}.sized", node.input[0], size)
                node.input[0] = f"{layer}.sized"
            self.nodes.append(node)
            if node.output[0] in maps:
                self._through_8_bits(node.output[0])
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _through_8_bits(self, name: str) -> None:
        found = self.ranges[name]
        scale = self._constant(f"{name}.scale", np.array(found.scale, np.float32))
        zero = self._constant(f"{name}.zero", np.array(found.zero, ACTIVATION))
        self._node("QuantizeLinear", f"{name}.quantised", name, scale, zero)
        self._node("DequantizeLinear", f"{name}.dequantised", f"{name}.quantised", scale, zero)

    def _integers(self, node: Any) -> None:
        """Weight and bias of ``node`` as integers, and how they become floats again; of the classifier the weight."""
        from onnx import numpy_helper

        weight, bias = (numpy_helper.to_array(self.constants[name]) for name in node.input[1:3])
        stored, scales = rounded(weight)
        integers: list[tuple[int, NDArray[Any], NDArray[np.float32]]] = [(1, stored, scales)]
        if node.op_type == "Conv":
            by = (scales * self.ranges[node.input[0]].scale).astype(np.float32)
            steps = np.rint(bias.astype(np.float64) / by).clip(-(2**31), 2**31 - 1).astype(np.int32)
            integers.append((2, steps, by))
        for place, data, scale in integers:
            name = node.input[place]
            self.graph.initializer.remove(self.constants.pop(name))
            inputs = (
                self._constant(f"{name}.quantised", data),
                self._constant(f"{name}.scale", scale),
                self._constant(f"{name}.zero", np.zeros(len(scale), data.dtype)),
            )
            self._node("DequantizeLinear", name, *inputs, axis=0)

    def _constant(self, name: str, data: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(data, name))
        return name

    def _node(self, kind: str, output: str, *inputs: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def rounded(weight: NDArray[np.float32], axis: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``weight`` as int8 and the scale of each channel along ``axis``: the largest of a channel becomes ±127."""
    others = tuple(each for each in range(weight.ndim) if each != axis)
    scales = (np.maximum(np.abs(weight).max(others, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scales).clip(-127, 127).astype(INT8), scales.reshape(-1)
