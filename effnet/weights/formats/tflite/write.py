"""From a network to a ``.tflite`` that any TFLite interpreter runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
INTERFACE = "effnet.interface"  # what an exported file takes and gives, as `effnet.engines.interface` writes it


def write(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """``tensors``, folded and named as in the layout "tflite", and the graph of ``model`` around them.

    Input: (1, height, width, channels) float32, pixels of 0 … 255 in RGB; the normalisation is inside, step by step as
    in ``model.preprocess``. Output: (1, classes) logits, without a softmax; without a classifier the embedding. Both
    sides of the input may be resized. The whole contract lies in the metadata under "effnet", as in our own files; the
    labels and the range of pixels also where TFLite's own tools look for them.
    Raises ``ValueError`` for a network above 2 GiB.
    """
    plan = _Plan(model, {name: tensor.float().numpy() for name, tensor in tensors.items()})
    said = {
        HEADER: model.contract.to_json().encode(),
        metadata.NAME: metadata.written(model.arch.name, model.labels.names),
    }
    path.write_bytes(encode(plan.graph(said)))
    if model.labels.names:
        metadata.append(model.labels.names, path)


@dataclass(frozen=True)
class Ends:
    """What stands before and behind the network in an exported file.

    ``input``: "pixels", uint8 (1, H, W, C) of 0 … 255; "floats", the same as float32; "normalised", float32
    (1, C, H, W) that has been through mean and std. ``output``: "probabilities", "logits" or "values"; ``embedding``:
    whether it is given too. ``half``: weights are stored in 16 bits, and are float32 again when the file is opened.
    """

    input: str = "pixels"
    output: str = "probabilities"
    embedding: bool = False
    half: bool = False


def write_export(
    path: Path, tensors: dict[str, torch.Tensor], model: EfficientNet, ends: Ends, texts: Mapping[str, str]
) -> None:
    """A file for those who only run it: as `write` does, between ``ends``, and with ``texts`` by name as its metadata.

    The texts also lie in the archive behind the flatbuffer, beside the labels: Python's ``zipfile`` reads them.
    ``texts`` must have "effnet.interface", by which `read` finds the stem's weights again.
    """
    plan = _Plan(model, {name: tensor.float().numpy() for name, tensor in tensors.items()}, ends)
    graph = plan.graph({name: text.encode() for name, text in texts.items()})
    outputs = [graph.tensors[index].name for index in graph.outputs]
    labels = model.labels.names
    told = metadata.written(model.arch.name, labels, ends.input, outputs, ranged=ends.input != "normalised")
    path.write_bytes(encode(replace(graph, metadata={**graph.metadata, metadata.NAME: told})))
    if labels:
        metadata.append(labels, path)
    metadata.attach(texts, path)


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
    ends: Ends | None = None  # None: as `write` has them
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def graph(self, said: Mapping[str, bytes]) -> Graph:
        """The whole network; ``said``: its metadata."""
        model = self.model
        self.names = names(model.arch, model.classes)
        x = self._normalised_here() if self.ends is None else self._normalised(self.ends.input)
        for layer in layers(model.arch, model.classes, model.channels):
            if layer.kind != "classifier":
                x = self._block(layer, x)
        outputs = [self._mean("embedding", x, keep=False)]
        if model.classes:
            answer = self._classify(outputs[0])
            if self.ends and self.ends.output == "probabilities":
                shape = self.tensors[answer].shape
                kind, options = ("LOGISTIC", {}) if model.labels.kind == "any" else ("SOFTMAX", {"Beta": 1})
                answer = self._tensor("probabilities", shape, kind, (answer,), options)
            outputs = [answer, *(outputs if self.ends and self.ends.embedding else ())]
        return Graph(tuple(self.tensors), tuple(self.operators), (0,), tuple(outputs), said)

    def _normalised_here(self) -> _Map:
        """Pictures of 0 … 255, step by step as in the contract, so that whoever reads the file sees all of it."""
        model = self.model
        x = self._computed("image", (*model.preprocess.size, model.channels))
        for name, kind, values in (
            ("scaled", "DIV", (255.0,)),
            ("centred", "SUB", model.preprocess.mean),
            ("normalised", "DIV", model.preprocess.std),
        ):
            constant = self._constant(f"{name}/by", np.array(values, np.float32))
            x = self._apply(name, kind, (x.index, constant), x.size, PLAIN)
        return x

    def _normalised(self, given: str) -> _Map:
        """Pictures less their mean; what remains, 1 / (255 · std), goes into the stem and costs nothing there.

        The mean cannot: the stem pads with zeros what the mean has been taken from.
        """
        seen, channels = self.model.preprocess, self.model.channels
        size = (*seen.size, channels)
        if given == "normalised":
            self.tensors.append(Tensor(given, (1, channels, *seen.size)))
            order = self._constant("channels_last/order", np.array([0, 2, 3, 1], np.int32))
            return self._apply("channels_last", "TRANSPOSE", (0, order), size, {})
        x = self._computed(given, size, "UINT8" if given == "pixels" else "FLOAT32")
        if given == "pixels":
            x = self._apply("floats", "CAST", (x.index,), size, {})
        mean, std = (np.array(values, np.float64) * 255 for values in (seen.mean, seen.std))
        stem = self.names["stem.conv.weight"]
        self.weights[stem] = (self.weights[stem] / std).astype(np.float32)  # (out, height, width, in)
        if (mean == mean[0]).all():
            mean = mean[:1]  # one number is subtracted faster than three in turn
        by = self._constant("centred/by", mean.astype(np.float32))
        return self._apply("centred", "SUB", (x.index, by), size, PLAIN)

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
        name = "values" if self.ends and self.ends.output == "values" else "logits"
        return self._tensor(name, (1, self.model.classes), "FULLY_CONNECTED", inputs, PLAIN)

    def _weights(self, operation: Operation) -> tuple[int, int]:
        """The indices of its weight and its bias."""
        weight, bias = (".conv.weight", ".norm.bias") if operation.norm else (".weight", ".bias")
        half = self.ends is not None and self.ends.half
        kernel = self.weights[self.names[operation.name + weight]]
        index = (
            self._stored_in_half(operation.name + weight, kernel)
            if half
            else self._constant(operation.name + weight, kernel)
        )
        return index, self._constant(operation.name + bias, self.weights[self.names[operation.name + bias]])

    def _stored_in_half(self, name: str, data: NDArray[Any]) -> int:
        stored = self._constant(f"{name}/half", data.astype(np.float16))
        return self._tensor(name, data.shape, "DEQUANTIZE", (stored,), {})

    def _computed(self, name: str, size: tuple[int, int, int], kind: str = "FLOAT32") -> _Map:
        self.tensors.append(Tensor(name, (1, *size), kind))
        return _Map(len(self.tensors) - 1, size)

    def _constant(self, name: str, data: NDArray[Any]) -> int:
        self.tensors.append(Tensor(name, data.shape, data.dtype.name.upper(), data))
        return len(self.tensors) - 1

    def _apply(
        self, name: str, kind: str, inputs: tuple[int, ...], size: tuple[int, int, int], options: dict[str, int]
    ) -> _Map:
        return _Map(self._tensor(name, (1, *size), kind, inputs, options), size)

    def _tensor(
        self, name: str, shape: tuple[int, ...], kind: str, inputs: tuple[int, ...], options: Mapping[str, int]
    ) -> int:
        """One operator and the tensor that it makes."""
        self.tensors.append(Tensor(name, shape))
        self.operators.append(Operator(kind, inputs, (len(self.tensors) - 1,), options))
        return len(self.tensors) - 1
