"""TFLite files, read without TensorFlow: float32, float16 and quantized ones.

This is our own code because TensorFlow only runs such files and gives no weights by name. Operators are walked in the
order in which they run, to find out what each convolution does. Batch norm that was not folded, and biases that were
not fused, are folded here in float64. Residuals and the means of squeeze-excites hold no numbers and are skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tflite
import torch
from numpy.typing import NDArray

from effnet.arch.serde import parse_json
from effnet.metadata import Labels
from effnet.weights import key_maps
from effnet.weights.formats import METADATA_KEY, Checkpoint, graph_facts, tflite_schema, tflite_writer

Numbers = NDArray[Any]
CONVOLUTION_KINDS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise", "FULLY_CONNECTED": "conv"}
# What changes no number, or only its place
PASS_THROUGH_OPERATORS = ("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
ACTIVATIONS = {"RELU": "relu", "RELU6": "relu6"}
OTHER_ACTIVATIONS = ("HARD_SWISH", "LEAKY_RELU", "PRELU", "ELU", "GELU", "TANH", "RELU_N1_TO_1", "RELU_0_TO_1")
FUSED_ACTIVATIONS = tflite_schema.enum_names(tflite.ActivationFunctionType)


@dataclass
class Convolution:
    """``weight`` as TFLite stores it: (out, height, width, in), depthwise (1, height, width, channels)."""

    kind: str  # "conv", "depthwise", or "linear": the classifier, (out, in)
    weight: Numbers
    bias: Numbers
    stride: int = 1
    activation: str = ""
    padding: str | None = None  # "same" or "symmetric"; None if both would be the same

    @property
    def kernel(self) -> int:
        """Side of the kernel in pixels."""
        return int(self.weight.shape[1]) if self.weight.ndim == 4 else 1

    def activate(self, name: str) -> None:
        """Add an activation; two in a row make a name that no layer has."""
        self.activation = f"{self.activation}_{name}" if self.activation else name

    def fold(self, kind: str, numbers: Numbers) -> None:
        """Apply an operator with a constant, one number or one per output, to the outputs."""
        if numbers.size not in (1, self.bias.size):
            raise ValueError(f"{kind} of a map by {numbers.size} constants is nothing that an EfficientNet does")
        apply, by = graph_facts.ARITHMETIC_OPERATORS[kind], numbers.reshape(-1).astype(np.float64)
        self.bias = apply(self.bias.astype(np.float64), by).astype(np.float32)
        if kind in ("MUL", "DIV"):
            along = (-1,) if self.kind == "depthwise" else (-1, *(1,) * (self.weight.ndim - 1))
            self.weight = apply(self.weight.astype(np.float64), by.reshape(along)).astype(np.float32)


@dataclass
class GraphWalk:
    """The convolutions found, in order, and how the input of the first one is made from the image."""

    graph: tflite_schema.TfliteGraph
    convolutions: list[Convolution] = field(default_factory=list)
    input_transform: graph_facts.InputTransform | None = None  # None if the image went through an unknown operator
    # Index of a tensor → what it was made from, and not activated since
    _sources: dict[int, Convolution] = field(default_factory=dict)
    _gates: dict[int, Convolution] = field(default_factory=dict)  # the sigmoid of it
    _inputs: dict[int, graph_facts.InputTransform] = field(default_factory=dict)
    _padded: dict[int, tuple[int, Numbers]] = field(default_factory=dict)  # (tensor before, rows and columns added)
    _constants: dict[int, Numbers] = field(default_factory=dict)

    def step(self, operator: tflite_schema.TfliteOperator) -> None:
        """Process one operator. Raises ``ValueError`` for what no EfficientNet does."""
        inputs = [index for index in operator.inputs if index >= 0]
        if operator.kind == "VAR_HANDLE":
            raise ValueError("its weights are variables: convert it from a frozen function, which makes them constants")
        if operator.kind in CONVOLUTION_KINDS and len(inputs) >= 2:
            self._convolve(operator)
        elif not inputs or not operator.outputs:
            return
        elif operator.kind in PASS_THROUGH_OPERATORS:
            self._pass_through(operator)
        elif operator.kind == "PAD" and self._constant(inputs[-1]) is not None:
            if inputs[0] in self._inputs:
                self._inputs[operator.outputs[0]] = self._inputs[inputs[0]]
            self._padded[operator.outputs[0]] = inputs[0], self._require_constant(inputs[-1])
        elif operator.kind in graph_facts.ARITHMETIC_OPERATORS and len(inputs) == 2:
            self._calculate(operator, *inputs)
        elif inputs[0] in self._sources:
            self._activate(operator, self._sources[inputs[0]])

    def _convolve(self, operator: tflite_schema.TfliteOperator) -> None:
        x, weight, *rest = operator.inputs
        kernel = self._require_constant(weight)
        bias = self._require_constant(rest[0]) if rest and rest[0] >= 0 else None
        kind = CONVOLUTION_KINDS[operator.kind]
        if kernel.ndim != (2 if operator.kind == "FULLY_CONNECTED" else 4) or kernel.dtype != np.float32:
            raise ValueError(f"{operator.kind} with weights of the shape {list(kernel.shape)} is damaged")
        if kernel.ndim == 2:
            kernel = kernel[:, None, None, :]
        out = kernel.shape[-1 if kind == "depthwise" else 0]
        bias = np.zeros(out, np.float32) if bias is None else bias.reshape(-1)
        if bias.size != out or bias.dtype != np.float32:
            raise ValueError(f"{operator.kind} with {bias.size} biases for {out} outputs is damaged")
        found = Convolution(kind, kernel, bias)
        if operator.kind != "FULLY_CONNECTED":
            found.stride, found.padding = self._stride_and_padding(operator.options, kernel.shape[1:3], x)
        if not self.convolutions and x in self._inputs:
            self.input_transform = self._inputs[x]
        self.convolutions.append(found)
        self._record_output(found, operator)

    def _stride_and_padding(
        self, options: Mapping[str, int], kernel: tuple[int, ...], x: int
    ) -> tuple[int, str | None]:
        stride, side = options["StrideH"], kernel[0]
        if stride != options["StrideW"] or kernel[0] != kernel[1] or stride not in (1, 2):
            raise ValueError("a convolution whose window or stride is no square of this family")
        if (options["DilationHFactor"], options["DilationWFactor"]) != (1, 1):
            raise ValueError("a dilated convolution, which no EfficientNet has")
        before, added = self._padded.get(x, (x, np.zeros((4, 2), np.int64)))
        if options["Padding"] == tflite.Padding.SAME and not added.any():
            return stride, "same" if stride == 2 and side > 1 else None
        if options["Padding"] != tflite.Padding.VALID or added.shape != (4, 2) or added[[0, 3]].any():
            raise ValueError("a convolution padded twice, which no EfficientNet has")
        return stride, graph_facts.explicit_padding(added[1:3], side, stride, self.graph.tensors[before].shape[1:3])

    def _record_output(self, convolution: Convolution, operator: tflite_schema.TfliteOperator) -> None:
        fused = FUSED_ACTIVATIONS.get(operator.options.get("FusedActivationFunction", 0), "unknown")
        if fused != "NONE":
            convolution.activate(ACTIVATIONS.get(fused, fused.lower()))
        self._sources[operator.outputs[0]] = convolution

    def _pass_through(self, operator: tflite_schema.TfliteOperator) -> None:
        x, out = operator.inputs[0], operator.outputs[0]
        made_from: tuple[dict[int, Any], ...] = self._sources, self._gates, self._inputs
        for known in made_from:
            if x in known:
                known[out] = known[x]
        if operator.kind == "DEQUANTIZE" and self._constant(x) is not None:
            self._constants[out] = self._require_constant(x)  # of float16 weights

    def _calculate(self, operator: tflite_schema.TfliteOperator, left: int, right: int) -> None:
        out, kind = operator.outputs[0], operator.kind
        if kind in ("MUL", "ADD") and self._constant(left) is not None:
            left, right = right, left
        numbers = self._constant(right)
        if numbers is None and self._constant(left) is not None:
            raise ValueError(f"{kind} from a constant is nothing that an EfficientNet does")
        if numbers is None:
            self._gate(kind, left, right)
        elif left in self._inputs:
            self._inputs[out] = self._inputs[left].then(kind, numbers)
        elif left in self._sources and not self._sources[left].activation:
            self._sources[left].fold(kind, numbers)
            self._record_output(self._sources[left], operator)
        elif self.graph.tensors[left].type not in ("INT32", "INT64"):  # shapes are computed with, too
            raise ValueError(f"{kind} of an activated map by constants is nothing that an EfficientNet does")

    def _gate(self, kind: str, left: int, right: int) -> None:
        """Activate a convolution if a map is multiplied by its sigmoid: SiLU of its own map, otherwise a gate."""
        for gate, gated in ((left, right), (right, left)):
            if kind == "MUL" and gate in self._gates:
                convolution = self._gates[gate]
                convolution.activate("silu" if self._sources.get(gated) is convolution else "sigmoid")
                return

    def _activate(self, operator: tflite_schema.TfliteOperator, convolution: Convolution) -> None:
        kind, out = operator.kind, operator.outputs[0]
        if kind == "LOGISTIC":
            self._gates[out] = convolution  # what it multiplies says which activation it is
        elif kind in ACTIVATIONS:
            convolution.activate(ACTIVATIONS[kind])
            self._sources[out] = convolution
        elif kind == "MINIMUM" and (most := self._constant(operator.inputs[-1])) is not None:
            # Some exporters write RELU6 as RELU and MINIMUM; in int8 the scale may end before 6
            if not (most < 6.1).all():
                raise ValueError(f"a network that cuts its maps at {most.max():g}, which no EfficientNet does")
            convolution.activation = "relu6"
        elif kind in OTHER_ACTIVATIONS:
            raise ValueError(f"a network with {kind}, which no EfficientNet has")

    def _constant(self, index: int) -> Numbers | None:
        if index not in self._constants and self.graph.tensors[index].data is not None:
            self._constants[index] = self.graph.tensors[index].dequantized
        return self._constants.get(index)

    def _require_constant(self, index: int) -> Numbers:
        numbers = self._constant(index)
        if numbers is None:
            kind = self.graph.tensors[index].type
            how = "computed" if kind in ("FLOAT32", "FLOAT16", "INT8", "UINT8") else f"stored as {kind}"
            raise ValueError(f"its weights are {how}, which is not read here")
        return numbers


def walk_graph(graph: tflite_schema.TfliteGraph) -> GraphWalk:
    """Return the convolutions of ``graph``. Raises ``ValueError`` that names what no EfficientNet does."""
    found = GraphWalk(graph, _inputs={index: graph_facts.InputTransform() for index in graph.inputs})
    with np.errstate(all="ignore"):  # damaged constants may be anything
        for operator in graph.operators:
            found.step(operator)
    if not found.convolutions:
        raise ValueError("there are no convolutions in it")
    for before, after in pairwise(found.convolutions):
        _move_stride(before, after)
    last = found.convolutions[-1]
    if not last.activation and last.kernel == 1 and last.kind == "conv":  # only the classifier ends without one
        last.kind, last.weight = "linear", last.weight[:, 0, 0, :]
    return found


def _move_stride(before: Convolution, after: Convolution) -> None:
    """Move a projection's stride to the fused convolution before it, where it is in all of our networks.

    The official EdgeTPU networks (``MBConvBlockWithoutDepthwise`` of tensorflow/tpu) stride in the projection, which
    gives the same numbers as a fused convolution that is padded symmetrically.
    """
    if after.kernel == 1 and after.stride == 2 and (before.kind, before.stride) == ("conv", 1) and before.kernel > 1:
        before.stride, before.padding = 2, "symmetric"
        after.stride, after.padding = 1, None


# Checkpoints ---------------------------------------------------------------------------------------------------------


def read_tflite(path: Path) -> Checkpoint:
    """Read the weights and biases of all convolutions as float32, and what the file states of images and labels.

    Quantized weights are dequantized, within half a step of the original. A softmax at the end is left out. Raises
    ``ValueError`` for a file that is damaged, cut off (also if only the labels at its end are missing), or does what
    no EfficientNet does.
    """
    try:
        return _decode_checkpoint(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except tflite_schema.DECODE_ERRORS as error:
        raise ValueError(f"{path}: damaged or cut off ({error})") from None


def _decode_checkpoint(content: bytes) -> Checkpoint:
    graph = tflite_schema.decode_tflite(content)
    found = walk_graph(graph)
    facts = tflite_schema.read_metadata(graph.metadata.get(tflite_schema.METADATA_NAME, b""), content)
    if not graph.inputs:
        raise ValueError("damaged: it has no input")
    stem, last = found.convolutions[0], found.convolutions[-1]
    if METADATA_KEY in graph.metadata:  # our own file states more than its operators show
        header = graph.metadata[METADATA_KEY].decode()
        if tflite_writer.IO_SPEC_KEY in graph.metadata:
            stem.weight = _unscale_stem(stem.weight, header, graph.metadata[tflite_writer.IO_SPEC_KEY])
        return Checkpoint(_name_tensors(found.convolutions), {METADATA_KEY: header}, "tflite")
    source = graph.tensors[graph.inputs[0]]
    quantization = (source.scale or (1.0,))[0], (source.zero_point or (0,))[0]
    stated = graph_facts.infer_preprocess(
        source.type, source.shape, quantization, found.input_transform, facts.mean_std, stem.weight.shape[-1]
    )
    if not (stated.stem_factor == 1).all():
        stem.weight = (stem.weight * stated.stem_factor).astype(np.float32)
    labels, notes = Labels(), stated.notes
    if facts.labels and last.kind == "linear" and len(facts.labels) == len(last.bias):
        labels = Labels(facts.labels)
    elif facts.labels:
        notes += (f"its {len(facts.labels)} labels do not match its outputs and are ignored",)
    tensors, numerics = _name_tensors(found.convolutions), graph_facts.infer_padding(found.convolutions)
    return Checkpoint(tensors, {}, "tflite", stated.preprocess, numerics, labels, notes)


def _unscale_stem(weight: NDArray[Any], header: str, interface: bytes) -> NDArray[Any]:
    """Return the stem's kernels without the division by std, which our exports fold in if they take raw pixels."""
    if not graph_facts.takes_pixels(interface):
        return weight
    std = np.array(parse_json(header, METADATA_KEY)["preprocess"]["std"])
    return np.asarray(weight.astype(np.float64) * std * 255, np.float32)


def _name_tensors(convolutions: list[Convolution]) -> dict[str, torch.Tensor]:
    tensors = {}
    for index, each in enumerate(convolutions):
        name = key_maps.tflite_name(index, each.kind, each.stride, each.activation)
        for part, numbers in (("weight", each.weight), ("bias", each.bias)):
            # A copy, so that nothing keeps the file's bytes alive
            tensors[f"{name}/{part}"] = torch.from_numpy(np.array(numbers, np.float32))
    return tensors
