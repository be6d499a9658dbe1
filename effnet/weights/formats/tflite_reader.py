"""TFLite files, read without TensorFlow: float32, float16 and quantized ones.

This is our own code because TensorFlow only runs such files and gives no weights by name. Operators are walked in the
order in which they run, to find out what each convolution does. Batch norm that was not folded, and biases that were
not fused, are folded here in float64. Residuals and the means of squeeze-excites hold no numbers and are walked past.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tflite
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch import ARCHS
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.weights import default_preprocessing, key_maps
from effnet.weights.formats import METADATA_KEY, Checkpoint, tflite_schema, tflite_writer
from effnet.weights.formats.tflite_schema import TfliteGraph, TfliteOperator, TfliteTensor

Numbers = NDArray[Any]
CONVOLUTION_KINDS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise", "FULLY_CONNECTED": "conv"}


ARITHMETIC_OPERATORS = ("MUL", "DIV", "ADD", "SUB")
# What leaves each number what it is, or puts it elsewhere
PASS_THROUGH_OPERATORS = ("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
ACTIVATIONS = {"RELU": "relu", "RELU6": "relu6"}


OTHER_ACTIVATIONS = ("HARD_SWISH", "LEAKY_RELU", "PRELU", "ELU", "GELU", "TANH", "RELU_N1_TO_1", "RELU_0_TO_1")
FUSED_ACTIVATIONS = {
    value: name for name, value in vars(tflite.ActivationFunctionType).items() if isinstance(value, int)
}


@dataclass
class Convolution:
    """``weight`` as TFLite keeps it: (out, height, width, in), depthwise (1, height, width, channels)."""

    kind: str  # "conv", "depthwise", or "linear": the classifier, (out, in)
    weight: Numbers
    bias: Numbers
    stride: int = 1
    activation: str = ""
    padding: str | None = None  # "same" or "symmetric"; None where both would be the same

    @property
    def window(self) -> int:
        """Its side in pixels."""
        side: int = self.weight.shape[1] if self.weight.ndim == 4 else 1
        return side

    def activate(self, name: str) -> None:
        """Notes an activation; one behind another makes a name that no row has."""
        self.activation = f"{self.activation}_{name}" if self.activation else name

    def fold(self, kind: str, numbers: Numbers) -> None:
        """A constant that is added to its outputs, or multiplies them: one number, or one an output."""
        if numbers.size not in (1, self.bias.size):
            raise ValueError(f"{kind} of a map by {numbers.size} constants is nothing that an EfficientNet does")
        by = numbers.reshape(-1).astype(np.float64)
        bias = self.bias.astype(np.float64)
        if kind in ("ADD", "SUB"):
            self.bias = (bias + by if kind == "ADD" else bias - by).astype(np.float32)
            return
        by = by if kind == "MUL" else 1 / by
        along = (-1,) if self.kind == "depthwise" else (-1, *(1,) * (self.weight.ndim - 1))
        self.weight = (self.weight.astype(np.float64) * by.reshape(along)).astype(np.float32)
        self.bias = (bias * by).astype(np.float32)


@dataclass(frozen=True)
class InputTransform:
    """What a tensor holds of the image: ``gain · x + offset`` of the input x, each one number or one a channel."""

    gain: Numbers = field(default_factory=lambda: np.ones(()))
    offset: Numbers = field(default_factory=lambda: np.zeros(()))

    def then(self, kind: str, numbers: Numbers) -> InputTransform:
        """The same after an operator with a constant."""
        by = numbers.reshape(-1).astype(np.float64)
        match kind:
            case "ADD":
                return replace(self, offset=self.offset + by)
            case "SUB":
                return replace(self, offset=self.offset - by)
            case "MUL":
                return InputTransform(self.gain * by, self.offset * by)
        return InputTransform(self.gain / by, self.offset / by)


@dataclass
class GraphWalk:
    """What was found: the convolutions in order, and what the first of them sees of the image."""

    graph: TfliteGraph
    convolutions: list[Convolution] = field(default_factory=list)
    input_transform: InputTransform | None = None  # None where it went through something that is not understood
    # By the index of a tensor: what it was made from, and not activated since
    _sources: dict[int, Convolution] = field(default_factory=dict)
    _gates: dict[int, Convolution] = field(default_factory=dict)  # the sigmoid of it
    _inputs: dict[int, InputTransform] = field(default_factory=dict)
    _padded: dict[int, tuple[int, Numbers]] = field(default_factory=dict)  # (tensor before, rows and columns added)
    _constants: dict[int, Numbers] = field(default_factory=dict)

    def step(self, operator: TfliteOperator) -> None:
        """Takes in one operator. Raises ``ValueError`` for what no EfficientNet does."""
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
            self._copy_state(inputs[0], operator.outputs[0], self._inputs)
            self._padded[operator.outputs[0]] = inputs[0], self._require_constant(inputs[-1])
        elif operator.kind in ARITHMETIC_OPERATORS and len(inputs) == 2:
            self._calculate(operator, *inputs)
        elif inputs[0] in self._sources:
            self._activate(operator, self._sources[inputs[0]])

    def _convolve(self, operator: TfliteOperator) -> None:
        x, weight, *rest = operator.inputs
        kernel = self._require_constant(weight)
        bias = self._require_constant(rest[0]) if rest and rest[0] >= 0 else None
        kind, options = CONVOLUTION_KINDS[operator.kind], operator.options
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
            found.stride, found.padding = self._window(options, kernel.shape[1:3], x)
        if not self.convolutions and x in self._inputs:
            self.input_transform = self._inputs[x]
        self.convolutions.append(found)
        self._record_output(found, operator)

    def _window(self, options: Mapping[str, int], kernel: tuple[int, ...], x: int) -> tuple[int, str | None]:
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
        return stride, _explicit_padding(added[1:3], side, stride, self.graph.tensors[before].shape[1:3])

    def _record_output(self, convolution: Convolution, operator: TfliteOperator) -> None:
        """Notes what the outputs are, with the activation that the operator itself applies."""
        fused = FUSED_ACTIVATIONS.get(operator.options.get("FusedActivationFunction", 0), "unknown")
        if fused != "NONE":
            convolution.activate(ACTIVATIONS.get(fused, fused.lower()))
        self._sources[operator.outputs[0]] = convolution

    def _pass_through(self, operator: TfliteOperator) -> None:
        x, out = operator.inputs[0], operator.outputs[0]
        for known in (self._sources, self._gates, self._inputs):
            self._copy_state(x, out, known)
        if operator.kind == "DEQUANTIZE" and self._constant(x) is not None:
            self._constants[out] = self._require_constant(x)  # of float16 weights

    def _calculate(self, operator: TfliteOperator, left: int, right: int) -> None:
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
        """A product with a sigmoid: of the same map SiLU, of another the gate of a squeeze-excite."""
        for gate, gated in ((left, right), (right, left)):
            if kind == "MUL" and gate in self._gates:
                convolution = self._gates[gate]
                convolution.activate("silu" if self._sources.get(gated) is convolution else "sigmoid")
                return

    def _activate(self, operator: TfliteOperator, convolution: Convolution) -> None:
        kind, out = operator.kind, operator.outputs[0]
        if kind == "LOGISTIC":
            self._gates[out] = convolution  # what it multiplies says which activation it is
        elif kind in ACTIVATIONS:
            convolution.activate(ACTIVATIONS[kind])
            self._sources[out] = convolution
        elif kind == "MINIMUM" and (most := self._constant(operator.inputs[-1])) is not None:
            # Some exporters cut above what RELU cut below; in int8 the scale may end before 6
            if not (most < 6.1).all():
                raise ValueError(f"a network that cuts its maps at {most.max():g}, which no EfficientNet does")
            convolution.activation = "relu6"
        elif kind in OTHER_ACTIVATIONS:
            raise ValueError(f"a network with {kind}, which no EfficientNet has")

    def _copy_state(self, x: int, out: int, known: dict[int, Any]) -> None:
        if x in known:
            known[out] = known[x]

    def _constant(self, index: int) -> Numbers | None:
        if index not in self._constants and self.graph.tensors[index].data is not None:
            self._constants[index] = self.graph.tensors[index].dequantized
        return self._constants.get(index)

    def _require_constant(self, index: int) -> Numbers:
        numbers = self._constant(index)
        if numbers is None:
            raise ValueError(f"its weights are {_describe_storage(self.graph.tensors[index])}, which is not read here")
        return numbers


def walk_graph(graph: TfliteGraph) -> GraphWalk:
    """The convolutions of ``graph``. Raises ``ValueError`` that names what no EfficientNet does."""
    found = GraphWalk(graph, _inputs={index: InputTransform() for index in graph.inputs})
    with np.errstate(all="ignore"):  # damaged constants may be anything
        for operator in graph.operators:
            found.step(operator)
    if not found.convolutions:
        raise ValueError("there are no convolutions in it")
    for before, behind in pairwise(found.convolutions):
        _move_stride(before, behind)
    last = found.convolutions[-1]
    if not last.activation and last.window == 1 and last.kind == "conv":  # only the classifier ends without one
        last.kind, last.weight = "linear", last.weight[:, 0, 0, :]
    return found


def _move_stride(before: Convolution, behind: Convolution) -> None:
    """From a projection to the fused convolution before it, where all of our networks stride.

    The official EdgeTPU networks have it behind (``MBConvBlockWithoutDepthwise`` of tensorflow/tpu): the same numbers
    as of a fused convolution that is padded symmetrically.
    """
    if behind.window == 1 and behind.stride == 2 and (before.kind, before.stride) == ("conv", 1) and before.window > 1:
        before.stride, before.padding = 2, "symmetric"
        behind.stride, behind.padding = 1, None


def _explicit_padding(added: Numbers, kernel: int, stride: int, size: tuple[int, ...]) -> str | None:
    """Which padding the rows and columns are that were added before a window without padding of its own."""
    half = kernel // 2
    if (added == half).all():
        odd = len(size) == 2 and all(side % 2 == 1 and side > 1 for side in size)
        return None if stride == 1 or kernel == 1 or odd else "symmetric"  # at odd sizes 'same' is symmetric
    # At even sizes 'same' leaves the first row out, at odd ones not: of a map 24×25 the columns are symmetric.
    rows = {tuple(each) for each in added.tolist()}
    if stride == 2 and rows <= {(half - 1, half), (half, half)}:
        return "same"
    raise ValueError(f"a {kernel}×{kernel} convolution padded by {added.tolist()}, as no EfficientNet is")


def _describe_storage(tensor: TfliteTensor) -> str:
    return f"stored as {tensor.type}" if tensor.type not in ("FLOAT32", "FLOAT16", "INT8", "UINT8") else "computed"


# How a file's network wants its images, from its input, its first operators and its metadata.


MeanStdArrays = tuple[NDArray[Any], NDArray[Any]]
UNCLEAR_INPUT = "its preprocessing before the first convolution is unknown"


@dataclass(frozen=True)
class InputPreprocess:
    """``preprocess``: the fields of `Preprocess` that the file states. ``factor``: what the kernels of the stem are to
    be multiplied by for them, one number a channel of the image.
    """

    preprocess: dict[str, Any] = field(default_factory=dict)
    stem_factor: NDArray[Any] = field(default_factory=lambda: np.ones(1))
    notes: tuple[str, ...] = ()


def infer_preprocess(
    source: TfliteTensor, transform: InputTransform | None, mean_std: MeanStdArrays | None, channels: int
) -> InputPreprocess:
    """What is known of images of ``channels`` from the graph's input and what the stem sees of it.

    ``mean_std``: mean and std by which the metadata says that pixels of 0 … 255 become the input. A converter moves
    the division by std into the stem's kernels where it can: for a mean of the official weights it is moved back.
    """
    if transform is None:
        return InputPreprocess(notes=(UNCLEAR_INPUT,))
    size = _input_size(source.shape, channels)
    pair = mean_std or _pixel_range(source) or _likely_range(transform)
    if pair is None:
        untouched = (transform.gain == 1).all() and (transform.offset == 0).all()
        return InputPreprocess(size, notes=() if untouched else (UNCLEAR_INPUT,))
    with np.errstate(all="ignore"):
        mean = (pair[0] - pair[1] * transform.offset / transform.gain) / 255
        std = pair[1] / transform.gain / 255
    if mean.size not in (1, channels) or std.size not in (1, channels):
        return InputPreprocess(size, notes=(UNCLEAR_INPUT,))
    mean, std = (np.broadcast_to(value.reshape(-1), channels) for value in (mean, std))
    if not ((std > 0) & (std <= 10) & (abs(mean) <= 10)).all():
        return InputPreprocess(size, notes=(UNCLEAR_INPUT,))
    said = tuple(map(_undo_float32_rounding, mean)), tuple(map(_undo_float32_rounding, std))
    for known in _known_mean_std():
        if channels == 3 and np.allclose(said[0], known[0], 0, 1e-5) and not np.allclose(said[1], known[1], 0, 1e-5):
            remark = "the division by std, which was hidden in the stem's kernels, is preprocessing again"
            return InputPreprocess({**size, "mean": known[0], "std": known[1]}, np.array(known[1]) / said[1], (remark,))
    return InputPreprocess({**size, "mean": said[0], "std": said[1]})


def _input_size(shape: tuple[int, ...], channels: int) -> dict[str, Any]:
    """Height and width of the input, whether its channels come last or first; 1 stands for what is not known."""
    if len(shape) != 4:
        return {}
    height, width = shape[1:3] if shape[3] == channels else shape[2:4]
    return {"size": (height, width)} if min(height, width) > 1 else {}


def _pixel_range(source: TfliteTensor) -> MeanStdArrays | None:
    """For an input of bytes, which are the pixels themselves (int8: less 128)."""
    if source.type not in ("UINT8", "INT8"):
        return None
    least = 0 if source.type == "UINT8" else 128
    scale, zero = (source.scale or (1.0,))[0], (source.zero_point or (0,))[0]
    return np.array(float(zero + least)), np.array(1 / scale if scale else np.inf)


def _likely_range(transform: InputTransform) -> MeanStdArrays | None:
    """For an input of floats: 0 … 255 or 0 … 1, as its mean shows where the graph takes one off. None: no telling."""
    with np.errstate(all="ignore"):
        mean = -transform.offset / transform.gain
    if ((mean > 1) & (mean < 255)).all() or ((mean == 0) & (transform.gain < 0.02)).all():
        return np.array(0.0), np.array(1.0)
    if ((mean > 0) & (mean <= 1)).all():
        return np.array(0.0), np.array(255.0)
    return None


def _known_mean_std() -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Mean and std of the official weights."""
    pairs: dict[Preprocess, None] = dict.fromkeys(
        default_preprocessing.default_preprocess(arch) for arch in ARCHS.values()
    )
    return iter(dict.fromkeys((each.mean, each.std) for each in pairs))


def _undo_float32_rounding(value: float) -> float:
    """A float32 as it was meant before it was rounded: 127/255, or .485 for .4850000143."""
    for meant in (round(value * 255) / 255, round(value, 6)):
        if abs(meant - value) <= 1e-7 * abs(value):
            return float(meant)
    return float(value)


# From a ``.tflite`` to tensors by name: float32, float16 and quantized files alike.


def read_tflite(path: Path) -> Checkpoint:
    """Weights and biases of all convolutions as float32, and what the file says of images, padding and labels.

    Quantized weights are dequantized, within half a step of the original. Logits are the
    network's output: a softmax at its end is left out. Raises ``ValueError`` with one sentence for a file that is
    damaged, cut off, or does what no EfficientNet does. A file is cut off too where its metadata names labels that are
    not behind its end any more.
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
    stated = infer_preprocess(
        graph.tensors[graph.inputs[0]], found.input_transform, facts.mean_std, stem.weight.shape[-1]
    )
    if METADATA_KEY in graph.metadata:  # our own file says more than its operators show
        if tflite_writer.IO_SPEC_KEY in graph.metadata:
            stem.weight = _unscale_stem(
                stem.weight, graph.metadata[METADATA_KEY], graph.metadata[tflite_writer.IO_SPEC_KEY]
            )
        return Checkpoint(
            _name_tensors(found.convolutions), {METADATA_KEY: graph.metadata[METADATA_KEY].decode()}, "tflite"
        )
    if not (stated.stem_factor == 1).all():
        stem.weight = (stem.weight * stated.stem_factor).astype(np.float32)
    labels, notes = Labels(), stated.notes
    if facts.labels and last.kind == "linear" and len(facts.labels) == len(last.bias):
        labels = Labels(facts.labels)
    elif facts.labels:
        notes += (f"its {len(facts.labels)} labels do not match its outputs and are ignored",)
    return Checkpoint(
        _name_tensors(found.convolutions),
        {},
        "tflite",
        stated.preprocess,
        _infer_numerics(found.convolutions),
        labels,
        notes,
    )


def _unscale_stem(weight: NDArray[Any], header: bytes, interface: bytes) -> NDArray[Any]:
    """The stem's kernels of an exported file, into which the division by std was moved unless others are to do it."""
    if json.loads(interface)["input"] in ("normalized", "normalised"):  # older files; words: allow
        return weight
    std = np.array(json.loads(header)["preprocess"]["std"])
    whole: NDArray[Any] = (weight.astype(np.float64) * std * 255).astype(np.float32)
    return whole


def _name_tensors(convolutions: list[Convolution]) -> dict[str, Tensor]:
    tensors = {}
    for index, each in enumerate(convolutions):
        name = key_maps.tflite_name(index, each.kind, each.stride, each.activation)
        tensors[f"{name}/weight"], tensors[f"{name}/bias"] = _to_tensor(each.weight), _to_tensor(each.bias)
    return tensors


def _to_tensor(numbers: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(numbers, np.float32))  # a copy: nothing keeps the file's bytes alive


def _infer_numerics(convolutions: list[Convolution]) -> Numerics | None:
    """The padding that the windows have, which shows where they stride; batch norm's ε is folded away."""
    fused: set[str] = set()
    others: set[str] = set()
    for index, each in enumerate(convolutions):
        if each.padding:
            (fused if index and each.kind == "conv" else others).add(each.padding)
    if len(fused) > 1 or len(others) > 1:
        raise ValueError("it pads some convolutions as TensorFlow does and some symmetrically, as no EfficientNet does")
    padding = next(iter(others or fused), None)
    if padding is None:
        return None
    return Numerics(padding, fused_padding="" if fused <= {padding} else next(iter(fused)))
