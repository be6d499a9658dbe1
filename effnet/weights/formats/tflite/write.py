"""From a network to a float32 ``.tflite`` that any TFLite interpreter runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import tflite
import torch
from numpy.typing import NDArray

from effnet.arch import Layer, Operation, layers, operations
from effnet.net import EfficientNet
from effnet.weights.formats.safetensors import HEADER
from effnet.weights.formats.tflite import metadata
from effnet.weights.formats.tflite.schema import Graph, Operator, Tensor, encode
from effnet.weights.layouts.tflite import names

NONE, RELU, RELU6 = (getattr(tflite.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))
FUSED = {"relu": RELU, "relu6": RELU6}
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
PLAIN = {"FusedActivationFunction": NONE}


def write(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """``tensors``, folded and named as in the layout "tflite", and the graph of ``model`` around them.

    Input: (1, height, width, channels) float32, pixels of 0 … 255 in RGB; the normalisation is inside, step by step as
    in ``model.preprocess``. Output: (1, classes) logits, without a softmax; without a classifier the embedding. Both
    sides of the input may be resized. The whole contract lies in the metadata under "effnet", as in our own files; the
    labels and the range of pixels also where TFLite's own tools look for them.
    Raises ``ValueError`` for a network above 2 GiB.
    """
    plan = _Plan(model, {name: tensor.float().numpy() for name, tensor in tensors.items()})
    content = encode(plan.graph())
    path.write_bytes(content)
    if model.labels.names:
        metadata.append(model.labels.names, path)


@dataclass(frozen=True)
class _Map:
    """A map in the graph: the index of its tensor, and (height, width, channels)."""

    index: int
    size: tuple[int, int, int]


@dataclass
class _Plan:
    """Tensors and operators as they are laid out, one layer after the other."""

    model: EfficientNet
    weights: dict[str, NDArray[Any]]
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def graph(self) -> Graph:
        """The whole network."""
        model = self.model
        self.names = names(model.arch, model.classes)
        x = source = self._computed("image", (*model.preprocess.size, model.channels))
        for name, kind, values in (
            ("scaled", "DIV", (255.0,)),
            ("centred", "SUB", model.preprocess.mean),
            ("normalised", "DIV", model.preprocess.std),
        ):
            constant = self._constant(f"{name}/by", np.array(values, np.float32))
            x = self._apply(name, kind, (x.index, constant), x.size, PLAIN)
        for layer in layers(model.arch, model.classes, model.channels):
            if layer.kind != "classifier":
                x = self._block(layer, x)
        out = self._mean("embedding", x, keep=False)
        if model.classes:
            out = self._classify(out)
        said = {
            HEADER: model.contract.to_json().encode(),
            metadata.NAME: metadata.written(model.arch.name, model.labels.names),
        }
        return Graph(tuple(self.tensors), tuple(self.operators), (source.index,), (out,), said)

    def _block(self, layer: Layer, x: _Map) -> _Map:
        """The operations of one layer, and its residual."""
        start = x
        for operation in operations(layer):
            if operation.name.endswith("squeeze_excite.reduce"):
                whole, mean = x, self._mean(f"{operation.name}/mean", x, keep=True)
                x = self._convolve(operation, _Map(mean, (1, 1, x.size[2])))
            elif operation.activation == "sigmoid":
                gate = self._convolve(operation, x)
                x = self._apply(f"{operation.name}/gated", "MUL", (whole.index, gate.index), whole.size, PLAIN)
            else:
                x = self._convolve(operation, x)
        return self._apply(f"{layer.name}/add", "ADD", (x.index, start.index), x.size, PLAIN) if layer.residual else x

    def _convolve(self, operation: Operation, x: _Map) -> _Map:
        """A convolution with its bias and its activation."""
        activation = self.model.arch.activation if operation.activation == "act" else operation.activation
        stride, depthwise = operation.stride, operation.groups > 1
        size = ceil(x.size[0] / stride), ceil(x.size[1] / stride), operation.channels
        numerics, padding = self.model.numerics, SAME
        wanted = (operation.name.endswith(".fused") and numerics.fused_padding) or numerics.padding
        if wanted == "symmetric" and stride > 1:  # at stride 1 both are the same
            x, padding = self._pad(operation, x), VALID
        options = {
            "Padding": padding,
            "StrideW": stride,
            "StrideH": stride,
            "FusedActivationFunction": FUSED.get(activation, NONE),
            **({"DepthMultiplier": 1} if depthwise else {}),
        }
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        y = self._apply(operation.name, kind, (x.index, *self._weights(operation)), size, options)
        if activation not in ("silu", "sigmoid"):
            return y
        gate = self._apply(f"{operation.name}/sigmoid", "LOGISTIC", (y.index,), size, {})
        if activation == "sigmoid":
            return gate
        return self._apply(f"{operation.name}/silu", "MUL", (y.index, gate.index), size, PLAIN)

    def _pad(self, operation: Operation, x: _Map) -> _Map:
        """Rows and columns of zeros on all four sides."""
        half = operation.kernel // 2
        around = self._constant(
            f"{operation.name}/around", np.array([[0, 0], [half] * 2, [half] * 2, [0, 0]], np.int32)
        )
        height, width, channels = x.size
        size = height + 2 * half, width + 2 * half, channels
        return self._apply(f"{operation.name}/padded", "PAD", (x.index, around), size, {})

    def _mean(self, name: str, x: _Map, keep: bool) -> int:
        """The index of the mean over the map: (1, 1, 1, channels), or (1, channels)."""
        axes = self._constant(f"{name}/axes", np.array([1, 2], np.int32))
        shape = (1, 1, 1, x.size[2]) if keep else (1, x.size[2])
        return self._tensor(name, shape, "MEAN", (x.index, axes), {"KeepDims": int(keep)})

    def _classify(self, embedding: int) -> int:
        operation = Operation("classifier", 1, self.model.classes, norm=False)
        inputs = embedding, *self._weights(operation)
        return self._tensor("logits", (1, self.model.classes), "FULLY_CONNECTED", inputs, PLAIN)

    def _weights(self, operation: Operation) -> tuple[int, int]:
        """The indices of its weight and its bias."""
        parts = (".conv.weight", ".norm.bias") if operation.norm else (".weight", ".bias")
        weight, bias = (
            self._constant(operation.name + part, self.weights[self.names[operation.name + part]]) for part in parts
        )
        return weight, bias

    def _computed(self, name: str, size: tuple[int, int, int]) -> _Map:
        self.tensors.append(Tensor(name, (1, *size)))
        return _Map(len(self.tensors) - 1, size)

    def _constant(self, name: str, data: NDArray[Any]) -> int:
        kind = "INT32" if data.dtype == np.int32 else "FLOAT32"
        self.tensors.append(Tensor(name, data.shape, kind, data))
        return len(self.tensors) - 1

    def _apply(
        self, name: str, kind: str, inputs: tuple[int, ...], size: tuple[int, int, int], options: dict[str, int]
    ) -> _Map:
        return _Map(self._tensor(name, (1, *size), kind, inputs, options), size)

    def _tensor(
        self, name: str, shape: tuple[int, ...], kind: str, inputs: tuple[int, ...], options: dict[str, int]
    ) -> int:
        """One operator and the tensor that it makes."""
        self.tensors.append(Tensor(name, shape))
        self.operators.append(Operator(kind, inputs, (len(self.tensors) - 1,), options))
        return len(self.tensors) - 1
