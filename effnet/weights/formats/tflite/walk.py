"""A graph's operators, walked in the order in which they run: what every convolution does, in our words.

Batch norm that was not folded, and biases that were not fused, are folded here in float64. Residuals and the means of
squeeze-excites hold no numbers and are walked past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from effnet.weights.formats.tflite.schema import Graph, Operator, Tensor

Numbers = NDArray[Any]

CONVOLUTIONS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise", "FULLY_CONNECTED": "conv"}
ARITHMETIC = ("MUL", "DIV", "ADD", "SUB")
# What leaves each number what it is, or puts it elsewhere
THROUGH = ("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
ACTIVATIONS = {"RELU": "relu", "RELU6": "relu6"}
OTHERS = ("HARD_SWISH", "LEAKY_RELU", "PRELU", "ELU", "GELU", "TANH", "RELU_N1_TO_1", "RELU_0_TO_1")
FUSED = {value: name for name, value in vars(tflite.ActivationFunctionType).items() if isinstance(value, int)}


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
class Picture:
    """What a tensor holds of the picture: ``gain · x + offset`` of the input x, each one number or one a channel."""

    gain: Numbers = field(default_factory=lambda: np.ones(()))
    offset: Numbers = field(default_factory=lambda: np.zeros(()))

    def then(self, kind: str, numbers: Numbers) -> Picture:
        """The same after an operator with a constant."""
        by = numbers.reshape(-1).astype(np.float64)
        match kind:
            case "ADD":
                return replace(self, offset=self.offset + by)
            case "SUB":
                return replace(self, offset=self.offset - by)
            case "MUL":
                return Picture(self.gain * by, self.offset * by)
        return Picture(self.gain / by, self.offset / by)


@dataclass
class Walk:
    """What was found: the convolutions in order, and what the first of them sees of the picture."""

    graph: Graph
    convolutions: list[Convolution] = field(default_factory=list)
    picture: Picture | None = None  # None where it went through something that is not understood
    # By the index of a tensor: what it was made from, and not activated since
    _made: dict[int, Convolution] = field(default_factory=dict)
    _gates: dict[int, Convolution] = field(default_factory=dict)  # the sigmoid of it
    _pictures: dict[int, Picture] = field(default_factory=dict)
    _padded: dict[int, tuple[int, Numbers]] = field(default_factory=dict)  # (tensor before, rows and columns added)
    _constants: dict[int, Numbers] = field(default_factory=dict)

    def step(self, operator: Operator) -> None:
        """Takes in one operator. Raises ``ValueError`` for what no EfficientNet does."""
        inputs = [index for index in operator.inputs if index >= 0]
        if operator.kind == "VAR_HANDLE":
            raise ValueError("its weights are variables: convert it from a frozen function, which makes them constants")
        if operator.kind in CONVOLUTIONS and len(inputs) >= 2:
            self._convolve(operator)
        elif not inputs or not operator.outputs:
            return
        elif operator.kind in THROUGH:
            self._through(operator)
        elif operator.kind == "PAD" and self._constant(inputs[-1]) is not None:
            self._pass_on(inputs[0], operator.outputs[0], self._pictures)
            self._padded[operator.outputs[0]] = inputs[0], self._number(inputs[-1])
        elif operator.kind in ARITHMETIC and len(inputs) == 2:
            self._calculate(operator, *inputs)
        elif inputs[0] in self._made:
            self._activate(operator, self._made[inputs[0]])

    def _convolve(self, operator: Operator) -> None:
        x, weight, *rest = operator.inputs
        kernel = self._number(weight)
        bias = self._number(rest[0]) if rest and rest[0] >= 0 else None
        kind, options = CONVOLUTIONS[operator.kind], operator.options
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
        if not self.convolutions and x in self._pictures:
            self.picture = self._pictures[x]
        self.convolutions.append(found)
        self._made_by(found, operator)

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
        return stride, _explicit(added[1:3], side, stride, self.graph.tensors[before].shape[1:3])

    def _made_by(self, convolution: Convolution, operator: Operator) -> None:
        """Notes what the outputs are, with the activation that the operator itself applies."""
        fused = FUSED.get(operator.options.get("FusedActivationFunction", 0), "unknown")
        if fused != "NONE":
            convolution.activate(ACTIVATIONS.get(fused, fused.lower()))
        self._made[operator.outputs[0]] = convolution

    def _through(self, operator: Operator) -> None:
        x, out = operator.inputs[0], operator.outputs[0]
        for known in (self._made, self._gates, self._pictures):
            self._pass_on(x, out, known)
        if operator.kind == "DEQUANTIZE" and self._constant(x) is not None:
            self._constants[out] = self._number(x)  # of float16 weights

    def _calculate(self, operator: Operator, left: int, right: int) -> None:
        out, kind = operator.outputs[0], operator.kind
        if kind in ("MUL", "ADD") and self._constant(left) is not None:
            left, right = right, left
        numbers = self._constant(right)
        if numbers is None and self._constant(left) is not None:
            raise ValueError(f"{kind} from a constant is nothing that an EfficientNet does")
        if numbers is None:
            self._gate(kind, left, right)
        elif left in self._pictures:
            self._pictures[out] = self._pictures[left].then(kind, numbers)
        elif left in self._made and not self._made[left].activation:
            self._made[left].fold(kind, numbers)
            self._made_by(self._made[left], operator)
        elif self.graph.tensors[left].type not in ("INT32", "INT64"):  # shapes are computed with, too
            raise ValueError(f"{kind} of an activated map by constants is nothing that an EfficientNet does")

    def _gate(self, kind: str, left: int, right: int) -> None:
        """A product with a sigmoid: of the same map SiLU, of another the gate of a squeeze-excite."""
        for gate, gated in ((left, right), (right, left)):
            if kind == "MUL" and gate in self._gates:
                convolution = self._gates[gate]
                convolution.activate("silu" if self._made.get(gated) is convolution else "sigmoid")
                return

    def _activate(self, operator: Operator, convolution: Convolution) -> None:
        kind, out = operator.kind, operator.outputs[0]
        if kind == "LOGISTIC":
            self._gates[out] = convolution  # what it multiplies says which activation it is
        elif kind in ACTIVATIONS:
            convolution.activate(ACTIVATIONS[kind])
            self._made[out] = convolution
        elif kind == "MINIMUM" and (most := self._constant(operator.inputs[-1])) is not None:
            # Some exporters cut above what RELU cut below; in int8 the scale may end before 6
            if not (most < 6.1).all():
                raise ValueError(f"a network that cuts its maps at {most.max():g}, which no EfficientNet does")
            convolution.activation = "relu6"
        elif kind in OTHERS:
            raise ValueError(f"a network with {kind}, which no EfficientNet has")

    def _pass_on(self, x: int, out: int, known: dict[int, Any]) -> None:
        if x in known:
            known[out] = known[x]

    def _constant(self, index: int) -> Numbers | None:
        if index not in self._constants and self.graph.tensors[index].data is not None:
            self._constants[index] = self.graph.tensors[index].numbers
        return self._constants.get(index)

    def _number(self, index: int) -> Numbers:
        numbers = self._constant(index)
        if numbers is None:
            raise ValueError(f"its weights are {_words(self.graph.tensors[index])}, which is not read here")
        return numbers


def walk(graph: Graph) -> Walk:
    """The convolutions of ``graph``. Raises ``ValueError`` that names what no EfficientNet does."""
    found = Walk(graph, _pictures={index: Picture() for index in graph.inputs})
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


def _explicit(added: Numbers, kernel: int, stride: int, size: tuple[int, ...]) -> str | None:
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


def _words(tensor: Tensor) -> str:
    return f"stored as {tensor.type}" if tensor.type not in ("FLOAT32", "FLOAT16", "INT8", "UINT8") else "computed"
