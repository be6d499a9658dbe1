"""TFLite's flatbuffer as plain records, both ways: nothing here knows what an operator is for.

Source: tensorflow/lite/schema/schema.fbs, through the accessors that the package ``tflite`` generates from it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of every buffer: the interpreter maps the file and computes with it in place
MOST = 50_000  # tensors or operators: far above any network of the family, far below what a damaged length may say
MOST_AXES, MOST_INPUTS = 8, 1000
# What the accessors stumble over where offsets lead out of the file, or to something else
DAMAGE = (struct.error, TypeError, IndexError, KeyError, AttributeError, OverflowError)

TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
# The options that are read and written here: operator → (its table, its fields)
_WINDOW = ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", "FusedActivationFunction")
OPTIONS = {
    "CONV_2D": ("Conv2DOptions", _WINDOW),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, "DepthMultiplier")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction",)),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
}

Options = Mapping[str, int]
Fields = dict[str, Any]


def _named(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_TYPES, _OPERATORS = _named(tflite.TensorType), _named(tflite.BuiltinOperator)


@dataclass(frozen=True)
class Tensor:
    """``data``: its numbers as stored, None where they are computed. ``scale`` and ``zero``: per channel of ``axis``,
    or one for all; empty where the numbers mean themselves.
    """

    name: str
    shape: tuple[int, ...]
    type: str = "FLOAT32"
    data: NDArray[Any] | None = None
    scale: tuple[float, ...] = ()
    zero: tuple[int, ...] = ()
    axis: int = 0

    @property
    def numbers(self) -> NDArray[Any]:
        """What the stored numbers mean: float32 where they are floats or quantised, integers otherwise."""
        assert self.data is not None
        if not self.scale:
            return self.data.astype(np.float32) if self.data.dtype.kind == "f" else self.data
        spread = [1] * len(self.shape)
        if len(self.scale) > 1:
            spread[self.axis] = len(self.scale)
        scale = np.array(self.scale, np.float32).reshape(spread)
        zero = np.array(self.zero or 0, np.int64).reshape(spread if len(self.zero) > 1 else ())
        # An int8 and a float32 make an exact product in float64: rounded once, as by the interpreter's DEQUANTIZE.
        return ((self.data.astype(np.float64) - zero) * scale.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Operator:
    """One step: ``kind`` as in the schema ("CONV_2D"), indices of tensors (-1: left out), and its `OPTIONS`."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a file, its operators in the order in which they run; ``metadata``: bytes by name."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def decode(content: bytes) -> Graph:
    """The records in ``content``. Raises ``ValueError`` that says what is wrong with it.

    Lengths and shapes are believed only as far as the bytes go: nothing is allocated that the file does not hold.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError("not a TFLite file")
    try:
        return _decode(content)
    except (ValueError, *DAMAGE) as error:
        raise ValueError(f"damaged or cut off ({error})") from None


def notes(content: bytes) -> Mapping[str, bytes]:
    """The metadata of the file alone: bytes by name. Raises ``ValueError`` as `decode` does."""
    if content[4:8] != IDENTIFIER:
        raise ValueError("not a TFLite file")
    try:
        return _notes(tflite.Model.GetRootAs(content, 0), content)
    except (ValueError, *DAMAGE) as error:
        raise ValueError(f"damaged or cut off ({error})") from None


def _notes(model: Any, content: bytes) -> dict[str, bytes]:
    entries = _all(model.MetadataLength(), model.Metadata)
    return {each.Name().decode(): _bytes(model, each.Buffer(), content).tobytes() for each in entries}


def _decode(content: bytes) -> Graph:
    model = tflite.Model.GetRootAs(content, 0)
    if not model.SubgraphsLength():
        raise ValueError("there is no network in it")
    kinds = [_kind(code) for code in _all(model.OperatorCodesLength(), model.OperatorCodes)]
    subgraph = model.Subgraphs(0)
    tensors = tuple(_tensor(each, model, content) for each in _all(subgraph.TensorsLength(), subgraph.Tensors))
    operators = tuple(_operator(each, kinds) for each in _all(subgraph.OperatorsLength(), subgraph.Operators))
    inputs, outputs = _integers(subgraph.InputsAsNumpy()), _integers(subgraph.OutputsAsNumpy())
    used = {index for each in operators for index in (*each.inputs, *each.outputs)} | {*inputs, *outputs}
    if used and not -1 <= min(used) <= max(used) < len(tensors):
        raise ValueError("it computes with tensors that are not in it")
    return Graph(tensors, operators, inputs, outputs, _notes(model, content))


def _kind(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the older field holds the first 127
    return _OPERATORS.get(number, f"operator {number}")


def _tensor(tensor: Any, model: Any, content: bytes) -> Tensor:
    shape = _integers(tensor.ShapeAsNumpy(), MOST_AXES)
    kind = _TYPES.get(tensor.Type(), f"type {tensor.Type()}")
    name = (tensor.Name() or b"").decode(errors="replace")
    stored = _bytes(model, tensor.Buffer(), content)
    if tensor.Sparsity() is not None:
        kind = f"sparse {kind}"
    if not stored.size or kind not in TYPES:
        data = None
    elif min(shape, default=1) < 0 or prod(shape) * np.dtype(TYPES[kind]).itemsize != stored.size:
        raise ValueError(f"{name} has {stored.size} bytes for the shape {list(shape)}")
    else:
        data = stored.view(TYPES[kind]).reshape(shape)
    quantisation = tensor.Quantization()
    if quantisation is None or not quantisation.ScaleLength():
        return Tensor(name, shape, kind, data)
    scale, zero, axis = quantisation.ScaleAsNumpy(), quantisation.ZeroPointAsNumpy(), quantisation.QuantizedDimension()
    many = shape[axis] if 0 <= axis < len(shape) else 1
    if len(scale) not in (1, many) or np.size(zero) not in (0, 1, len(scale)):
        raise ValueError(f"{name} has {len(scale)} scales for the shape {list(shape)}")
    return Tensor(name, shape, kind, data, tuple(scale.tolist()), _integers(zero, len(scale)), axis)


def _bytes(model: Any, index: int, content: bytes) -> NDArray[np.uint8]:
    """Buffer ``index``: within the flatbuffer or, in files above 2 GiB, behind it."""
    if not 0 <= index < model.BuffersLength():
        raise ValueError(f"buffer {index} is not in it")
    buffer = model.Buffers(index)
    if buffer.Offset() > 1:
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else np.empty(0, np.uint8)


def _operator(operator: Any, kinds: Sequence[str]) -> Operator:
    kind = kinds[operator.OpcodeIndex()]
    options: dict[str, int] = {}
    if kind in OPTIONS:
        name, fields = OPTIONS[kind]
        table, union = getattr(tflite, name)(), operator.BuiltinOptions()
        if union is None:
            raise ValueError(f"{kind} without its options")
        table.Init(union.Bytes, union.Pos)
        options = {each: int(getattr(table, each)()) for each in fields}
    return Operator(kind, _integers(operator.InputsAsNumpy()), _integers(operator.OutputsAsNumpy()), options)


def _all(length: int, get: Callable[[int], Any]) -> list[Any]:
    if length > MOST:
        raise ValueError(f"{length:,} parts")
    return [get(index) for index in range(length)]


def _integers(vector: Any, most: int = MOST_INPUTS) -> tuple[int, ...]:
    """A vector as the accessors give it: 0 where there is none."""
    if np.size(vector) > most:
        raise ValueError(f"a list of {np.size(vector):,} where at most {most} can be")
    return tuple(vector.tolist()) if isinstance(vector, np.ndarray) else ()


def encode(graph: Graph, description: str = "effnet") -> bytes:
    """The bytes of a file that holds ``graph``. Raises ``ValueError`` where that would be above 2 GiB."""
    constants = [each.data for each in graph.tensors if each.data is not None]
    size = sum(each.nbytes + ALIGNMENT for each in constants) + sum(map(len, graph.metadata.values()))
    if size > flatbuffers.Builder.MAX_BUFFER_SIZE - 2**24:
        raise ValueError("a TFLite file holds at most 2 GiB: this network is too large for it")
    builder = flatbuffers.Builder(size + 2**20)
    buffers = [_table(builder, "Buffer", {})]  # the empty one, of all that is computed
    tensors, places = [], {}
    for name, content in graph.metadata.items():
        places[name] = len(buffers)
        buffers.append(_table(builder, "Buffer", {"Data": _aligned(builder, content)}))
    for tensor in graph.tensors:
        tensors.append(_write_tensor(builder, tensor, 0 if tensor.data is None else len(buffers)))
        if tensor.data is not None:
            data = _aligned(builder, np.ascontiguousarray(tensor.data).tobytes())
            buffers.append(_table(builder, "Buffer", {"Data": data}))
    kinds = list(dict.fromkeys(each.kind for each in graph.operators))
    operators = [_write_operator(builder, each, kinds.index(each.kind)) for each in graph.operators]
    fields = {
        "Tensors": _offsets(builder, tensors),
        "Inputs": builder.CreateNumpyVector(np.array(graph.inputs, np.int32)),
        "Outputs": builder.CreateNumpyVector(np.array(graph.outputs, np.int32)),
        "Operators": _offsets(builder, operators),
        "Name": builder.CreateString("main"),
    }
    subgraph = _table(builder, "SubGraph", fields)
    metadata = [
        _table(builder, "Metadata", {"Name": builder.CreateString(name), "Buffer": place})
        for name, place in places.items()
    ]
    fields = {
        "Version": 3,
        "OperatorCodes": _offsets(builder, [_write_code(builder, kind) for kind in kinds]),
        "Subgraphs": _offsets(builder, [subgraph]),
        "Description": builder.CreateString(description),
        "Buffers": _offsets(builder, buffers),
        "Metadata": _offsets(builder, metadata),
    }
    builder.Finish(_table(builder, "Model", fields), IDENTIFIER)
    return bytes(builder.Output())


def _write_tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    fields = {
        "Shape": builder.CreateNumpyVector(np.array(tensor.shape, np.int32)),
        "Type": getattr(tflite.TensorType, tensor.type),
        "Buffer": buffer,
        "Name": builder.CreateString(tensor.name),
    }
    if tensor.scale:
        quantisation = {
            "Scale": builder.CreateNumpyVector(np.array(tensor.scale, np.float32)),
            "ZeroPoint": builder.CreateNumpyVector(np.array(tensor.zero or (0,) * len(tensor.scale), np.int64)),
            "QuantizedDimension": tensor.axis,
        }
        fields["Quantization"] = _table(builder, "QuantizationParameters", quantisation)
    return _table(builder, "Tensor", fields)


def _write_operator(builder: Any, operator: Operator, code: int) -> int:
    fields: Fields = {
        "OpcodeIndex": code,
        "Inputs": builder.CreateNumpyVector(np.array(operator.inputs, np.int32)),
        "Outputs": builder.CreateNumpyVector(np.array(operator.outputs, np.int32)),
    }
    if operator.kind in OPTIONS:
        name, _ = OPTIONS[operator.kind]
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
        fields["BuiltinOptions"] = _table(builder, name, dict(operator.options))
    return _table(builder, "Operator", fields)


def _write_code(builder: Any, kind: str) -> int:
    number = getattr(tflite.BuiltinOperator, kind)
    return _table(
        builder, "OperatorCode", {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": 1}
    )


def _table(builder: Any, name: str, fields: Fields) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for each, value in fields.items():
        getattr(tflite, f"{name}Add{each}")(builder, value)
    offset: int = getattr(tflite, f"{name}End")(builder)
    return offset


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for each in reversed(offsets):
        builder.PrependUOffsetTRelative(each)
    vector: int = builder.EndVector()
    return vector


def _aligned(builder: Any, content: bytes) -> int:
    """A vector of bytes whose first lies at a multiple of `ALIGNMENT`: the builder's own knows no alignment."""
    builder.StartVector(1, len(content), ALIGNMENT)
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    vector: int = builder.EndVector()
    return vector
