"""TFLite files that any TFLite interpreter runs, written without TensorFlow.

This is our own code because the converter takes TensorFlow and rearranges weights and normalization so that they cannot
be read back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch import Layer, Operation, layers, operations
from effnet.data.storage import embedded_digest
from effnet.net import EfficientNet
from effnet.weights.formats import METADATA_KEY, tflite_schema
from effnet.weights.key_maps import tflite_key_map

NONE, RELU, RELU6 = (getattr(tflite.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))
FUSED_CODES = {"relu": RELU, "relu6": RELU6}
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
NO_ACTIVATION = {"FusedActivationFunction": NONE}
IO_SPEC_KEY = "effnet.interface"  # what an exported file takes and gives, as `effnet.runtime.io_spec` writes it


def write_tflite(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """Write ``tensors``, folded and named as in the layout "tflite", with the graph of ``model``.

    Input: (1, H, W, channels) float32, RGB pixels of 0 … 255, normalized inside, step by step. Output: (1, classes)
    logits, or the embedding of a network without a classifier. Both sides of the input may be resized. All metadata is
    stored as "effnet"; labels and pixel range also where TFLite's own tools look for them. Raises ``ValueError`` for a
    network above 2 GiB.
    """
    _write_file(path, tensors, model, {METADATA_KEY: model.metadata.to_json()})


@dataclass(frozen=True)
class TfliteIO:
    """Inputs and outputs of an exported file.

    ``input``: "pixels", uint8 (1, H, W, C) of 0 … 255; "floats", the same as float32; "normalized", float32
    (1, C, H, W). ``output``: "probabilities", "logits" or "values"; ``embedding``: also output the embedding.
    ``float16``: store weights as float16, which the interpreter converts to float32.
    """

    input: str = "pixels"
    output: str = "probabilities"
    embedding: bool = False
    float16: bool = False


def write_tflite_export(
    path: Path, tensors: dict[str, Tensor], model: EfficientNet, io: TfliteIO, texts: Mapping[str, str]
) -> None:
    """Write a file for inference only: like `write_tflite`, with other inputs and outputs and ``texts`` as metadata.

    The texts are also in the archive at the end of the file, where Python's ``zipfile`` reads them. ``texts`` must have
    "effnet.interface", from which `read_tflite` restores the stem's weights.
    """
    _write_file(path, tensors, model, texts, io)


def _write_file(
    path: Path, tensors: Mapping[str, Tensor], model: EfficientNet, texts: Mapping[str, str], io: TfliteIO | None = None
) -> None:
    graph = _GraphBuilder(model, {name: tensor.float().numpy() for name, tensor in tensors.items()}, io).build()
    input, *outputs = (graph.tensors[index].name for index in (*graph.inputs, *graph.outputs))
    described = tflite_schema.build_metadata(model.arch.name, model.labels.names, input, outputs)
    stated = {**texts, **embedded_digest.DIGEST_TEXTS}
    metadata = {**{name: text.encode() for name, text in stated.items()}, tflite_schema.METADATA_NAME: described}
    path.write_bytes(tflite_schema.encode_tflite(replace(graph, metadata=metadata)))
    tflite_schema.append_files(path, model.labels.names, texts if io else {})
    embedded_digest.seal(path)


@dataclass(frozen=True)
class _FeatureMap:
    index: int  # of its tensor
    size: tuple[int, int, int]  # (height, width, channels)


@dataclass
class _GraphBuilder:
    """Tensors and operators, added one layer after the other."""

    model: EfficientNet
    weights: dict[str, NDArray[Any]]
    io: TfliteIO | None = None  # None: as in `write_tflite`
    tensors: list[tflite_schema.TfliteTensor] = field(default_factory=list)
    operators: list[tflite_schema.TfliteOperator] = field(default_factory=list)

    def build(self) -> tflite_schema.TfliteGraph:
        model = self.model
        self.names = tflite_key_map(model.arch, model.classes)
        x = self._normalize_step_by_step() if self.io is None else self._normalize(self.io.input)
        for layer in layers(model.arch, model.classes, model.channels):
            if layer.kind != "classifier":
                x = self._block(layer, x)
        outputs = [self._mean("embedding", x, keep=False)]
        if model.classes:
            output = self._classify(outputs[0])
            if self.io and self.io.output == "probabilities":
                kind, options = ("LOGISTIC", {}) if model.labels.task == "multilabel" else ("SOFTMAX", {"Beta": 1})
                output = self._add_operator("probabilities", (1, model.classes), kind, (output,), options)
            outputs = [output, *(outputs if self.io and self.io.embedding else ())]
        return tflite_schema.TfliteGraph(tuple(self.tensors), tuple(self.operators), (0,), tuple(outputs))

    def _normalize_step_by_step(self) -> _FeatureMap:
        """Normalize images of 0 … 255 step by step, so that readers of the file see all of it."""
        model = self.model
        x = self._add_activation("image", (*model.preprocess.size, model.channels))
        for name, kind, values in (
            ("scaled", "DIV", (255.0,)),
            ("centered", "SUB", model.preprocess.mean),
            ("normalized", "DIV", model.preprocess.std),
        ):
            constant = self._add_constant(f"{name}/by", np.array(values, np.float32))
            x = self._add_map(name, kind, (x.index, constant), x.size, NO_ACTIVATION)
        return x

    def _normalize(self, kind: str) -> _FeatureMap:
        """Subtract the mean; the rest of the normalization, 1 / (255 · std), is folded into the stem.

        The mean cannot be: the stem pads with zeros after it was subtracted.
        """
        preprocess, channels = self.model.preprocess, self.model.channels
        size = (*preprocess.size, channels)
        if kind == "normalized":
            self.tensors.append(tflite_schema.TfliteTensor(kind, (1, channels, *preprocess.size)))
            order = self._add_constant("channels_last/order", np.array([0, 2, 3, 1], np.int32))
            return self._add_map("channels_last", "TRANSPOSE", (0, order), size, {})
        x = self._add_activation(kind, size, "UINT8" if kind == "pixels" else "FLOAT32")
        if kind == "pixels":
            x = self._add_map("floats", "CAST", (x.index,), size, {})
        mean, std = (np.array(values, np.float64) * 255 for values in (preprocess.mean, preprocess.std))
        stem = self.names["stem.conv.weight"]
        self.weights[stem] = (self.weights[stem] / std).astype(np.float32)  # (out, height, width, in)
        if (mean == mean[0]).all():
            mean = mean[:1]  # one number is subtracted faster than three in turn
        by = self._add_constant("centered/by", mean.astype(np.float32))
        return self._add_map("centered", "SUB", (x.index, by), size, NO_ACTIVATION)

    def _block(self, layer: Layer, x: _FeatureMap) -> _FeatureMap:
        start = x
        for operation in operations(layer):
            if operation.name.endswith("squeeze_excite.reduce"):
                whole, mean = x, self._mean(f"{operation.name}/mean", x, keep=True)
                x = self._convolve(operation, _FeatureMap(mean, (1, 1, x.size[2])))
            elif operation.activation == "sigmoid":
                gate = self._convolve(operation, x)
                inputs = whole.index, gate.index
                x = self._add_map(f"{operation.name}/gated", "MUL", inputs, whole.size, NO_ACTIVATION)
            else:
                x = self._convolve(operation, x)
        if not layer.residual:
            return x
        return self._add_map(f"{layer.name}/add", "ADD", (x.index, start.index), x.size, NO_ACTIVATION)

    def _convolve(self, operation: Operation, x: _FeatureMap) -> _FeatureMap:
        activation = self.model.arch.activation if operation.activation == "act" else operation.activation
        stride, depthwise = operation.stride, operation.groups > 1
        size = ceil(x.size[0] / stride), ceil(x.size[1] / stride), operation.channels
        numerics, code = self.model.numerics, SAME
        padding = (operation.name.endswith(".fused") and numerics.fused_padding) or numerics.padding
        if padding == "symmetric" and stride > 1:  # at stride 1 both are the same
            x, code = self._pad(operation, x), VALID
        options = {
            "Padding": code,
            "StrideW": stride,
            "StrideH": stride,
            "FusedActivationFunction": FUSED_CODES.get(activation, NONE),
            **({"DepthMultiplier": 1} if depthwise else {}),
        }
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        y = self._add_map(operation.name, kind, (x.index, *self._weights(operation)), size, options)
        if activation not in ("silu", "sigmoid"):
            return y
        gate = self._add_map(f"{operation.name}/sigmoid", "LOGISTIC", (y.index,), size, {})
        if activation == "sigmoid":
            return gate
        return self._add_map(f"{operation.name}/silu", "MUL", (y.index, gate.index), size, NO_ACTIVATION)

    def _pad(self, operation: Operation, x: _FeatureMap) -> _FeatureMap:
        half = operation.kernel // 2
        pads = np.array([[0, 0], [half] * 2, [half] * 2, [0, 0]], np.int32)
        around = self._add_constant(f"{operation.name}/around", pads)
        size = x.size[0] + 2 * half, x.size[1] + 2 * half, x.size[2]
        return self._add_map(f"{operation.name}/padded", "PAD", (x.index, around), size, {})

    def _mean(self, name: str, x: _FeatureMap, keep: bool) -> int:
        """Return the index of the mean over the map: (1, 1, 1, channels), or (1, channels)."""
        axes = self._add_constant(f"{name}/axes", np.array([1, 2], np.int32))
        shape = (1, 1, 1, x.size[2]) if keep else (1, x.size[2])
        return self._add_operator(name, shape, "MEAN", (x.index, axes), {"KeepDims": int(keep)})

    def _classify(self, embedding: int) -> int:
        operation = Operation("classifier", 1, self.model.classes, norm=False)
        inputs = embedding, *self._weights(operation)
        name = "values" if self.io and self.io.output == "values" else "logits"
        return self._add_operator(name, (1, self.model.classes), "FULLY_CONNECTED", inputs, NO_ACTIVATION)

    def _weights(self, operation: Operation) -> tuple[int, int]:
        parts = (".conv.weight", ".norm.bias") if operation.norm else (".weight", ".bias")
        weight, bias = (operation.name + part for part in parts)
        data = self.weights[self.names[weight]]
        if self.io and self.io.float16:
            stored = self._add_constant(f"{weight}/half", data.astype(np.float16))
            index = self._add_operator(weight, data.shape, "DEQUANTIZE", (stored,), {})
        else:
            index = self._add_constant(weight, data)
        return index, self._add_constant(bias, self.weights[self.names[bias]])

    def _add_activation(self, name: str, size: tuple[int, int, int], kind: str = "FLOAT32") -> _FeatureMap:
        self.tensors.append(tflite_schema.TfliteTensor(name, (1, *size), kind))
        return _FeatureMap(len(self.tensors) - 1, size)

    def _add_constant(self, name: str, data: NDArray[Any]) -> int:
        self.tensors.append(tflite_schema.TfliteTensor(name, data.shape, data.dtype.name.upper(), data))
        return len(self.tensors) - 1

    def _add_map(
        self, name: str, kind: str, inputs: tuple[int, ...], size: tuple[int, int, int], options: dict[str, int]
    ) -> _FeatureMap:
        return _FeatureMap(self._add_operator(name, (1, *size), kind, inputs, options), size)

    def _add_operator(
        self, name: str, shape: tuple[int, ...], kind: str, inputs: tuple[int, ...], options: Mapping[str, int]
    ) -> int:
        self.tensors.append(tflite_schema.TfliteTensor(name, shape))
        self.operators.append(tflite_schema.TfliteOperator(kind, inputs, (len(self.tensors) - 1,), options))
        return len(self.tensors) - 1
