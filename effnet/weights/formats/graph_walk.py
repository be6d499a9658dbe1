"""What a graph computes, whatever format it is stored in: the convolutions in the order in which they run.

Exporters fold batch norm and rename weights, or keep both, as they like; what never changes is what the graph does. So
its operators are walked in their order, to find out what each convolution does. Operators have ONNX's names and
attributes: readers of other formats translate theirs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.weights.formats import graph_facts

Array = NDArray[Any]
MAX_CONSTANT = 2**28  # elements of a constant that is computed from others: weights that are transposed or cast
ARITHMETIC = {"Mul": np.multiply, "Div": np.divide, "Add": np.add, "Sub": np.subtract}
UNARY: dict[str, Callable[[Array], Array]] = {
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Neg": np.negative,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
}
BINARY = {**ARITHMETIC, "Max": np.maximum, "Min": np.minimum, "Pow": np.power}
# What changes no number of a map, or only its place
PASS_THROUGH = ("Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
OTHER_ACTIVATIONS = ("HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Tanh", "Erf", "Softplus")
POOLS = ("GlobalAveragePool", "ReduceMean")


@dataclass(frozen=True)
class Node:
    """An operator of a graph. An input that is left out is called "". Attributes: numbers, tuples, arrays, bytes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class GraphConvolution:
    """A convolution or linear layer, and what is applied to its outputs. ``weight``: (out, in / groups, k, k)."""

    kind: str  # "conv", "depthwise", or "linear", whose weight is (out, in)
    weight: Array
    bias: Array | None = None
    stride: int = 1
    padding: str | None = None  # "same" or "symmetric"; None if both would be the same
    norm: tuple[Array, ...] = ()  # γ, β, mean and variance of a batch norm that was kept
    eps: float | None = None
    activation: str = ""
    pooled: str = "average"  # of a linear layer: how its input was pooled

    @property
    def signature(self) -> tuple[Any, ...]:
        """Shape, stride and activation: what tells networks apart. A linear layer counts as a 1×1 convolution."""
        shape = (*self.weight.shape, 1, 1)[:4]
        return "depthwise" if self.kind == "depthwise" else "conv", shape, self.stride, self.activation

    def activate(self, name: str) -> None:
        """Add an activation; two in a row make a name that no layer has."""
        self.activation = f"{self.activation}_{name}" if self.activation else name

    def fold(self, kind: str, numbers: Array) -> None:
        """Apply an operator with a constant, one number or one per output, to the outputs."""
        if numbers.size not in (1, len(self.weight)) or self.norm:
            raise ValueError(f"{kind} of a map by {numbers.size} constants is nothing that an EfficientNet does")
        apply, by = ARITHMETIC[kind], numbers.reshape(-1).astype(np.float64)
        bias = np.zeros(len(self.weight)) if self.bias is None else self.bias.astype(np.float64)
        self.bias = np.broadcast_to(apply(bias, by), len(self.weight)).astype(self.weight.dtype)
        if kind in ("Mul", "Div"):
            along = by.reshape(-1, *(1,) * (self.weight.ndim - 1))
            self.weight = apply(self.weight.astype(np.float64), along).astype(self.weight.dtype)


@dataclass(frozen=True)
class Value:
    """What is known of a tensor that the graph computes."""

    size: tuple[int, int] | None = None  # height and width
    channels_last: bool = False
    source: GraphConvolution | None = None  # whose output it is, not activated yet
    gate: GraphConvolution | None = None  # whose sigmoid it is
    image: graph_facts.InputTransform | None = None  # what was done to the image
    padded: tuple[int, ...] | str = ()  # (top, left, bottom, right), or "same": computed from the map's size
    pooled: str = ""  # "average" or another
    affine: tuple[tuple[str, Array], ...] = ()  # operators with constants on pooled features


@dataclass
class OperatorWalk:
    """The convolutions of a graph, in order, and how the input of the first one is made from the image."""

    constants: dict[str, Array]
    values: dict[str, Value] = field(default_factory=dict)
    convolutions: list[GraphConvolution] = field(default_factory=list)
    image: Value | None = None  # the input of the first convolution
    answers: dict[str, tuple[GraphConvolution, str]] = field(default_factory=dict)  # of linear layers: "", "sigmoid" …
    rounded: bool = False  # weights were stored as integers

    def step(self, node: Node) -> None:
        """Process one operator. Raises ``ValueError`` for what no EfficientNet does."""
        kind, inputs, out, attributes = node.kind, list(node.inputs), node.output, node.attributes
        if kind == "Constant":
            stored = next(iter(attributes.values()), None)
            if isinstance(stored, np.ndarray):
                self.constants[out] = stored
        elif inputs and all(name in self.constants for name in inputs if name):
            self._compute(kind, [self.constants[name] for name in inputs if name], attributes, out)
        elif kind in ("Conv", "ConvTranspose"):
            self._convolve(kind, inputs, attributes, out)
        elif kind == "FusedConv":  # of onnxruntime's optimizer
            self._convolve("Conv", inputs, attributes, out)
            fused = attributes.get("activation", b"").decode()
            limits = dict(zip(("min", "max"), attributes.get("activation_params", ()), strict=False))
            self._activate(fused, self.values[out], inputs[:1], limits, out)
        elif kind in ("Gemm", "MatMul"):
            self._multiply(kind, inputs, attributes, out)
        elif kind in ("QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul"):
            raise ValueError(
                f"it computes in integers ({kind}), and its weights are not read: take the file that it was quantized "
                "from, or run it as it stands (effnet predict, evaluate, serve) with --preprocess"
            )
        elif inputs and inputs[0] in self.values:
            self._apply(kind, inputs, attributes, out)
        elif kind in ARITHMETIC and len(inputs) == 2 and inputs[1] in self.values:
            self._calculate(kind, inputs, out)

    def _apply(self, kind: str, inputs: list[str], attributes: Mapping[str, Any], out: str) -> None:
        x = self.values[inputs[0]]
        if kind == "BatchNormalization":
            self._normalize(x, [self._constant(name) for name in inputs[1:5]], attributes.get("epsilon", 1e-5), out)
        elif kind in ARITHMETIC:
            self._calculate(kind, inputs, out)
        elif kind in PASS_THROUGH or kind in QUANTIZERS:
            self._pass_through(kind, x, attributes, inputs, out)
        elif kind == "Pad":
            self._pad(x, inputs, attributes, out)
        elif kind in POOLS or kind.startswith(("Global", "Reduce")):
            self.values[out] = Value(pooled="average" if kind in POOLS else kind)
        elif kind in ("AveragePool", "MaxPool"):
            self.values[out] = Value(pooled=kind)
        elif kind == "Softmax" or kind == "LogSoftmax":
            if x.source:
                self.answers[out] = x.source, "softmax"
        elif kind in ("Shape", "Size"):
            pass  # numbers that are not of the map
        elif kind in ("Gather", "Slice", "Split", "Resize") and x.image:
            self.values[out] = replace(x, image=None)  # another order of colors, or a size
        else:
            self._activate(kind, x, inputs, attributes, out)

    def _convolve(self, kind: str, inputs: list[str], attributes: Mapping[str, Any], out: str) -> None:
        weight = self._constant(inputs[1])
        bias = self._constant(inputs[2]).reshape(-1) if len(inputs) > 2 and inputs[2] else None
        if kind != "Conv" or weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
            raise ValueError(f"a {kind} with weights of the shape {list(weight.shape)}, which no EfficientNet has")
        strides = {*attributes.get("strides", (1, 1))}
        if len(strides) != 1 or not strides <= {1, 2} or {*attributes.get("dilations", (1,))} != {1}:
            raise ValueError("a convolution whose stride or dilation no EfficientNet has")
        x = self.values.get(inputs[0], Value())
        groups, stride, side = attributes.get("group", 1), strides.pop(), weight.shape[2]
        depthwise = groups > 1 and groups == len(weight) and weight.shape[1] == 1
        if groups > 1 and not depthwise:
            raise ValueError(f"a convolution in {groups} groups, which no EfficientNet has")
        found = GraphConvolution("depthwise" if depthwise else "conv", weight, bias, stride)
        found.padding = _padding(x, attributes, side, stride)
        if not self.convolutions:
            self.image = x
        self.convolutions.append(found)
        size = x.size and (-(-x.size[0] // stride), -(-x.size[1] // stride))
        self.values[out] = Value(size, source=found)

    def _multiply(self, kind: str, inputs: list[str], attributes: Mapping[str, Any], out: str) -> None:
        x = self.values.get(inputs[0], Value())
        if inputs[1] not in self.constants:
            return
        weight = self.constants[inputs[1]]
        if weight.ndim != 2 or attributes.get("transA"):
            return
        weight = weight if attributes.get("transB") else weight.T
        weight = weight * weight.dtype.type(attributes.get("alpha", 1.0))
        bias = self._constant(inputs[2]) * attributes.get("beta", 1.0) if len(inputs) > 2 and inputs[2] else None
        bias = None if bias is None else np.broadcast_to(bias.reshape(-1), len(weight)).astype(weight.dtype)
        found = GraphConvolution("linear", weight, bias, pooled=x.pooled)
        _fold_into_input(found, x.affine)
        self.convolutions.append(found)
        self.values[out] = Value(source=found)
        self.answers[out] = found, ""

    def _normalize(self, x: Value, parts: Sequence[Array], eps: float, out: str) -> None:
        if x.source is None and not x.pooled and x.image is None:
            raise ValueError("a batch norm that follows no convolution, as in no EfficientNet")
        gamma, beta, mean, variance = (each.reshape(-1) for each in parts)
        if x.source is not None and not x.source.norm and x.source.kind != "linear":
            if x.source.bias is not None:
                mean, x.source.bias = mean - x.source.bias, None
            x.source.norm, x.source.eps = (gamma, beta, mean, variance), float(f"{eps:.7g}")  # a float32
            self.values[out] = x
            return
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + eps)
        self._do(x, "Mul", scale, out)
        self._do(self.values[out], "Add", beta - mean * scale, out)

    def _calculate(self, kind: str, inputs: list[str], out: str) -> None:
        left, right = inputs
        if left in self.constants and kind in ("Mul", "Add"):
            left, right = right, left
        if right in self.constants:
            self._do(self.values[left], kind, self.constants[right], out)
            return
        x, other = self.values.get(left, Value()), self.values.get(right, Value())
        self.values[out] = Value(x.size or other.size)
        for gate, gated in ((x, other), (other, x)):
            if kind == "Mul" and gate.gate is not None:
                gate.gate.activate("silu" if gated.source is gate.gate else "sigmoid")
                self.values[out] = Value(gated.size, pooled=gated.pooled)  # of a squeeze-excite's inner layer
                return

    def _do(self, x: Value, kind: str, numbers: Array, out: str) -> None:
        """Apply an operator with a constant to what is known of ``x``."""
        if (numbers == (1 if kind in ("Mul", "Div") else 0)).all():  # such as the β = 1 of TensorFlow's swish
            self.values[out] = x
        elif x.source is not None:
            x.source.fold(kind, numbers)
            self.values[out] = x
            if x.source.kind == "linear":
                self.answers[out] = x.source, ""
        elif x.pooled:
            self.values[out] = replace(x, affine=(*x.affine, (kind, numbers)))
        elif x.image is not None:
            self.values[out] = replace(x, image=x.image.then(kind.upper(), numbers))
        elif x.gate is None and x.size is not None:
            raise ValueError(f"{kind} of an activated map by constants is nothing that an EfficientNet does")

    def _pass_through(self, kind: str, x: Value, attributes: Mapping[str, Any], inputs: list[str], out: str) -> None:
        if kind == "Transpose" and len(attributes.get("perm", ())) == 4:
            x = replace(
                x, channels_last={(0, 3, 1, 2): False, (0, 2, 3, 1): True}.get(tuple(attributes["perm"]), False)
            )
        if kind in ("Reshape", "Flatten") and not (x.pooled or x.source or x.gate or x.image):
            x = Value(pooled="flattened")  # a map as a vector
        self.values[out] = x
        if x.source is not None and x.source.kind == "linear" and inputs[0] in self.answers:
            self.answers[out] = self.answers[inputs[0]]

    def _pad(self, x: Value, inputs: list[str], attributes: Mapping[str, Any], out: str) -> None:
        stated = attributes.get("pads")
        if len(inputs) > 1 and inputs[1] in self.constants:
            stated = self.constants[inputs[1]].reshape(-1).tolist()
        padded: tuple[int, ...] | str = "same"  # computed from the map's size, as only 'same' has to be
        if stated is not None:
            if len(stated) != 8:
                raise ValueError(f"a map padded by {list(stated)}, as in no EfficientNet")
            places = (1, 2, 5, 6) if x.channels_last else (2, 3, 6, 7)
            padded = tuple(int(stated[place]) for place in places)
        self.values[out] = replace(x, padded=padded)

    def _activate(self, kind: str, x: Value, inputs: list[str], attributes: Mapping[str, Any], out: str) -> None:
        convolution = x.source
        if convolution is None:
            if x.gate is None:
                self.values[out] = Value(x.size, pooled=kind if x.pooled else "")
            return
        after = Value(x.size)
        if kind == "Sigmoid":
            after = Value(x.size, gate=convolution)  # what it multiplies says which activation it is
            if convolution.kind == "linear":
                self.answers[out] = convolution, "sigmoid"
        elif kind == "Relu":
            convolution.activate("relu")
            after = Value(x.size, source=convolution)  # a limit may follow
        elif kind in ("Clip", "Min"):
            low, high = self._limits(kind, inputs, attributes)
            if not 5.9 < high < 6.1 or (kind == "Clip" and low != 0):
                raise ValueError(f"a network that cuts its maps at {high:g}, which no EfficientNet does")
            convolution.activation = "relu6"
        elif kind in ("Swish", "SiLU") or (kind == "QuickGelu" and attributes.get("alpha") == 1):
            convolution.activate("silu")
        elif kind in OTHER_ACTIVATIONS:
            convolution.activate(kind.lower())
        if convolution.kind == "linear" and convolution.activation:
            self.answers.pop(out, None)
        self.values[out] = after

    def _limits(self, kind: str, inputs: list[str], attributes: Mapping[str, Any]) -> tuple[float, float]:
        given = [float(self._constant(name).reshape(-1)[0]) if name else math.inf for name in inputs[1:]]
        if kind == "Min":
            return 0.0, given[0]
        low, high = [*given, math.inf, math.inf][:2] if given else (attributes.get("min", 0), attributes.get("max", 0))
        return float(low), float(high)

    def _compute(self, kind: str, given: list[Array], attributes: Mapping[str, Any], out: str) -> None:
        """Compute a constant from constants, if it may be of weights; anything else stays unknown."""
        first = given[0]
        if max(each.size for each in given) > MAX_CONSTANT:
            return
        with np.errstate(all="ignore"):
            if kind in BINARY and len(given) == 2:
                self.constants[out] = BINARY[kind](*given)
            elif kind in UNARY:
                self.constants[out] = UNARY[kind](first)
            elif kind == "Transpose":
                self.constants[out] = first.transpose(attributes.get("perm"))
            elif kind == "Cast":
                self.constants[out] = first.astype(attributes["to"])
            elif kind == "Reshape" and len(given) == 2 and math.prod(map(abs, given[1].tolist())) <= first.size:
                self.constants[out] = first.reshape(_reshaped(first, given[1].tolist()))
            elif kind in ("Unsqueeze", "Squeeze", "Identity", "Flatten"):
                self.constants[out] = _squeezed(kind, first, given[1:], attributes)
            elif kind == "DequantizeLinear":
                self.constants[out] = _dequantized(given, attributes.get("axis", 1))
                self.rounded |= first.size > 1 and first.dtype.itemsize == 1

    def _constant(self, name: str) -> Array:
        if name not in self.constants:
            raise ValueError(f"its weights ({name or 'without a name'}) are computed, which is not read here")
        return self.constants[name]


def _fold_into_input(linear: GraphConvolution, affine: Iterable[tuple[str, Array]]) -> None:
    """Fold what is done to pooled features, such as a batch norm, into the linear layer that takes them."""
    scale, shift, inputs = np.ones(()), np.zeros(()), linear.weight.shape[1]
    for kind, numbers in affine:
        if numbers.size not in (1, inputs):
            raise ValueError(f"{kind} of {inputs} features by {numbers.size} constants")
        by = numbers.reshape(-1).astype(np.float64)
        scale = ARITHMETIC[kind](scale, by) if kind in ("Mul", "Div") else scale
        shift = ARITHMETIC[kind](shift, by)
    if scale.shape or shift.shape:
        weight = linear.weight.astype(np.float64)
        bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.astype(np.float64)
        linear.bias = (bias + (weight * shift).sum(1)).astype(linear.weight.dtype)
        linear.weight = (weight * scale).astype(linear.weight.dtype)


def _padding(x: Value, attributes: Mapping[str, Any], kernel: int, stride: int) -> str | None:
    """Return which padding a convolution of ``x`` has; None if it makes no difference there."""
    stated = attributes.get("auto_pad", b"NOTSET")
    auto = stated.decode() if isinstance(stated, bytes) else stated
    if auto == "SAME_UPPER" or x.padded == "same":
        return "same" if stride == 2 and kernel > 1 else None
    own = tuple(attributes.get("pads", (0, 0, 0, 0))) if auto == "NOTSET" else (0, 0, 0, 0)
    before = x.padded if isinstance(x.padded, tuple) and x.padded else (0, 0, 0, 0)
    if auto == "SAME_LOWER" or len(own) != 4:
        raise ValueError(f"a convolution padded as {auto}, which no EfficientNet is")
    top, left, bottom, right = (a + b for a, b in zip(own, before, strict=True))
    return graph_facts.explicit_padding(((top, bottom), (left, right)), kernel, stride, x.size or ())


def _reshaped(array: Array, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(array.shape[index] if side == 0 else int(side) for index, side in enumerate(shape))


def _squeezed(kind: str, array: Array, axes: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    along = tuple(axes[0].reshape(-1).tolist()) if axes else tuple(attributes.get("axes", ()))
    if kind == "Unsqueeze":
        return np.expand_dims(array, along)
    if kind == "Squeeze":
        return np.squeeze(array, along or None)
    return array.reshape(len(array), -1) if kind == "Flatten" else array


def _dequantized(given: Sequence[Array], axis: int) -> Array:
    stored, scale = given[0], given[1]
    zero = given[2] if len(given) > 2 else np.zeros((), stored.dtype)
    if scale.size == 1:  # onnxruntime's tools write that of a bias as one of a list, without an axis
        scale, zero = scale.reshape(()), zero.reshape(())
    else:
        along = [1] * stored.ndim
        along[axis] = -1
        scale, zero = scale.reshape(along), zero.reshape(along)
    floats: Array = ((stored.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)).astype(
        np.float32
    )
    return floats
