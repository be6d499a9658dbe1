"""TFLite's flatbuffers decoded into dataclasses and encoded from them. Nothing here knows what an operator is for.

Source: tensorflow/lite/schema/schema.fbs, through the accessors that the package ``tflite`` generates from it.
"""

import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

from effnet.data.storage.archive import DamagedArchiveError, open_zip

TFLITE_IDENTIFIER = b"TFL3"
OFFSET_BYTES = flatbuffers.number_types.UOffsetTFlags.bytewidth
ALIGNMENT = 16  # of every buffer: the interpreter maps the file and computes with it in place
MAX_PARTS = 50_000  # tensors or operators: far above any network of the family, far below what a damaged length may say
MAX_AXES, MAX_VECTOR = 8, 1000
# What the accessors raise if an offset leads out of the file, or to something else
DECODE_ERRORS = (struct.error, TypeError, IndexError, KeyError, AttributeError, OverflowError)
NUMPY_TYPES = ("FLOAT32", "FLOAT16", "FLOAT64", "INT8", "UINT8", "INT16", "INT32", "INT64")
# The options that are read and written here: operator → (its table, its fields)
_WINDOW = ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", "FusedActivationFunction")
OPERATOR_OPTIONS = {
    "CONV_2D": ("Conv2DOptions", _WINDOW),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, "DepthMultiplier")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", _WINDOW[-1:]),
    **{kind: (f"{kind.capitalize()}Options", _WINDOW[-1:]) for kind in ("ADD", "SUB", "MUL", "DIV")},
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
}
Decoded = TypeVar("Decoded")


def enum_names(enumeration: type) -> dict[int, str]:
    """Return number → name of one of the schema's enumerations."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_TYPES, _OPERATORS = enum_names(tflite.TensorType), enum_names(tflite.BuiltinOperator)


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor: ``data`` as stored, None if it is computed.

    ``scale`` and ``zero_point``: one per channel of ``axis``, or one for all; empty if it is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    type: str = "FLOAT32"
    data: NDArray[Any] | None = None
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0

    @property
    def dequantized(self) -> NDArray[Any]:
        """The stored numbers as float32 if they are floats or quantized, as integers otherwise."""
        assert self.data is not None
        if not self.scale:
            return self.data.astype(np.float32) if self.data.dtype.kind == "f" else self.data
        along = [1] * len(self.shape)
        if len(self.scale) > 1:
            along[self.axis] = len(self.scale)
        scale = np.array(self.scale, np.float32).reshape(along)
        zero = np.array(self.zero_point or 0, np.int64).reshape(along if len(self.zero_point) > 1 else ())
        # An int8 and a float32 make an exact product in float64: rounded once, as by the interpreter's DEQUANTIZE.
        return ((self.data.astype(np.float64) - zero) * scale.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class TfliteOperator:
    """An operator: ``kind`` as in the schema ("CONV_2D"), indices of tensors (-1: none), `OPERATOR_OPTIONS`."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TfliteGraph:
    """The first subgraph of a file, its operators in the order in which they run; ``metadata``: bytes by name."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def decode_tflite(content: bytes) -> TfliteGraph:
    """Decode a file. Raises ``ValueError`` that says what is wrong with it.

    Nothing is allocated that the file does not hold, whatever lengths and shapes it states.
    """
    return _decode(content, _decode_graph)


def read_metadata_buffers(content: bytes) -> Mapping[str, bytes]:
    """Decode the metadata of the file alone: bytes by name. Raises ``ValueError`` as `decode_tflite` does."""
    return _decode(content, _metadata_buffers)


def _decode(content: bytes, decode: Callable[[Any, bytes], Decoded]) -> Decoded:
    if content[4:8] != TFLITE_IDENTIFIER:
        raise ValueError("not a TFLite file")
    try:
        return decode(tflite.Model.GetRootAs(content, 0), content)
    except (ValueError, *DECODE_ERRORS) as error:
        raise ValueError(f"damaged or cut off ({error})") from None


def _metadata_buffers(model: Any, content: bytes) -> dict[str, bytes]:
    entries = _read_all(model.MetadataLength(), model.Metadata)
    return {each.Name().decode(): _read_buffer(model, each.Buffer(), content).tobytes() for each in entries}


def _decode_graph(model: Any, content: bytes) -> TfliteGraph:
    if not model.SubgraphsLength():
        raise ValueError("there is no network in it")
    kinds = [_operator_name(code) for code in _read_all(model.OperatorCodesLength(), model.OperatorCodes)]
    subgraph = model.Subgraphs(0)
    stored = _read_all(subgraph.TensorsLength(), subgraph.Tensors)
    tensors = tuple(_decode_tensor(tensor, model, content) for tensor in stored)
    steps = _read_all(subgraph.OperatorsLength(), subgraph.Operators)
    operators = tuple(_decode_operator(step, kinds) for step in steps)
    inputs, outputs = _read_integers(subgraph.InputsAsNumpy()), _read_integers(subgraph.OutputsAsNumpy())
    used = {index for step in operators for index in (*step.inputs, *step.outputs)} | {*inputs, *outputs}
    if used and not -1 <= min(used) <= max(used) < len(tensors):
        raise ValueError("it computes with tensors that are not in it")
    return TfliteGraph(tensors, operators, inputs, outputs, _metadata_buffers(model, content))


def _operator_name(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the older field holds the first 127
    return _OPERATORS.get(number, f"operator {number}")


def _decode_tensor(tensor: Any, model: Any, content: bytes) -> TfliteTensor:
    shape = _read_integers(tensor.ShapeAsNumpy(), MAX_AXES)
    kind = _TYPES.get(tensor.Type(), f"type {tensor.Type()}")
    name = (tensor.Name() or b"").decode(errors="replace")
    stored = _read_buffer(model, tensor.Buffer(), content)
    if tensor.Sparsity() is not None:
        kind = f"sparse {kind}"
    if not stored.size or kind not in NUMPY_TYPES:
        data = None
    elif min(shape, default=1) < 0 or prod(shape) * np.dtype(kind.lower()).itemsize != stored.size:
        raise ValueError(f"{name} has {stored.size} bytes for the shape {list(shape)}")
    else:
        data = stored.view(kind.lower()).reshape(shape)
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return TfliteTensor(name, shape, kind, data)
    scale, zero, axis = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy(), quantization.QuantizedDimension()
    many = shape[axis] if 0 <= axis < len(shape) else 1
    if len(scale) not in (1, many) or np.size(zero) not in (0, 1, len(scale)):
        raise ValueError(f"{name} has {len(scale)} scales for the shape {list(shape)}")
    return TfliteTensor(name, shape, kind, data, tuple(scale.tolist()), _read_integers(zero, len(scale)), axis)


def _read_buffer(model: Any, index: int, content: bytes) -> NDArray[np.uint8]:
    """Return a buffer from within the flatbuffer or, in files above 2 GiB, from behind it."""
    if not 0 <= index < model.BuffersLength():
        raise ValueError(f"buffer {index} is not in it")
    buffer = model.Buffers(index)
    if buffer.Offset() > 1:
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else np.empty(0, np.uint8)


def _decode_operator(operator: Any, kinds: Sequence[str]) -> TfliteOperator:
    kind = kinds[operator.OpcodeIndex()]
    options: dict[str, int] = {}
    if kind in OPERATOR_OPTIONS:
        name, fields = OPERATOR_OPTIONS[kind]
        table, union = getattr(tflite, name)(), operator.BuiltinOptions()
        if union is None:
            raise ValueError(f"{kind} without its options")
        table.Init(union.Bytes, union.Pos)
        options = {name: int(getattr(table, name)()) for name in fields}
    inputs, outputs = _read_integers(operator.InputsAsNumpy()), _read_integers(operator.OutputsAsNumpy())
    return TfliteOperator(kind, inputs, outputs, options)


def _read_all(length: int, get: Callable[[int], Any]) -> list[Any]:
    if length > MAX_PARTS:
        raise ValueError(f"{length:,} parts")
    return [get(index) for index in range(length)]


def _read_integers(vector: Any, most: int = MAX_VECTOR) -> tuple[int, ...]:
    """Return the numbers of a vector; the accessors return 0 if there is none."""
    if np.size(vector) > most:
        raise ValueError(f"a list of {np.size(vector):,} where at most {most} can be")
    return tuple(vector.tolist()) if isinstance(vector, np.ndarray) else ()


@dataclass(frozen=True)
class _NewTable:
    """A table to be written: of the model's schema by its name, of the metadata's by the number of its fields."""

    kind: str | int
    fields: Mapping[Any, Any]


def encode_tflite(graph: TfliteGraph) -> bytes:
    """Return the bytes of a file with ``graph``. Raises ``ValueError`` if it would be above 2 GiB."""
    constants = [tensor.data for tensor in graph.tensors if tensor.data is not None]
    size = sum(data.nbytes + ALIGNMENT for data in constants) + sum(map(len, graph.metadata.values()))
    if size > flatbuffers.Builder.MAX_BUFFER_SIZE - 2**24:
        raise ValueError("a TFLite file holds at most 2 GiB: this network is too large for it")
    buffers = [_NewTable("Buffer", {})]  # the empty one, of all tensors that are computed
    buffers += [_NewTable("Buffer", {"Data": np.frombuffer(each, np.uint8)}) for each in graph.metadata.values()]
    tensors = []
    for tensor in graph.tensors:
        tensors.append(_tensor_table(tensor, 0 if tensor.data is None else len(buffers)))
        if tensor.data is not None:
            data = np.ascontiguousarray(tensor.data).reshape(-1)
            buffers.append(_NewTable("Buffer", {"Data": data.view(np.uint8)}))
    kinds = list(dict.fromkeys(operator.kind for operator in graph.operators))
    codes = [getattr(tflite.BuiltinOperator, kind) for kind in kinds]
    subgraph = {
        "Tensors": tensors,
        "Inputs": np.array(graph.inputs, np.int32),
        "Outputs": np.array(graph.outputs, np.int32),
        "Operators": [_operator_table(operator, kinds.index(operator.kind)) for operator in graph.operators],
        "Name": "main",
    }
    model = {
        "Buffers": buffers,  # first, which is at the end of the file: what describes them is together at its beginning
        "Version": 3,
        "OperatorCodes": [
            _NewTable("OperatorCode", {"DeprecatedBuiltinCode": min(code, 127), "BuiltinCode": code, "Version": 1})
            for code in codes
        ],
        "Subgraphs": [_NewTable("SubGraph", subgraph)],
        "Description": "effnet",
        "Metadata": [_NewTable("Metadata", {"Name": name, "Buffer": at}) for at, name in enumerate(graph.metadata, 1)],
    }
    return _encode(_NewTable("Model", model), TFLITE_IDENTIFIER, size + 2**20)


def _tensor_table(tensor: TfliteTensor, buffer: int) -> _NewTable:
    kind = getattr(tflite.TensorType, tensor.type)
    fields = {"Shape": np.array(tensor.shape, np.int32), "Type": kind, "Buffer": buffer, "Name": tensor.name}
    if tensor.scale:
        quantization = {
            "Scale": np.array(tensor.scale, np.float32),
            "ZeroPoint": np.array(tensor.zero_point or (0,) * len(tensor.scale), np.int64),
            "QuantizedDimension": tensor.axis,
        }
        fields["Quantization"] = _NewTable("QuantizationParameters", quantization)
    return _NewTable("Tensor", fields)


def _operator_table(operator: TfliteOperator, code: int) -> _NewTable:
    inputs, outputs = np.array(operator.inputs, np.int32), np.array(operator.outputs, np.int32)
    fields = {"OpcodeIndex": code, "Inputs": inputs, "Outputs": outputs}
    if operator.kind in OPERATOR_OPTIONS:
        name, _ = OPERATOR_OPTIONS[operator.kind]
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
        fields["BuiltinOptions"] = _NewTable(name, operator.options)
    return _NewTable("Operator", fields)


def _encode(root: _NewTable, identifier: bytes, size: int) -> bytes:
    builder = flatbuffers.Builder(size)
    builder.Finish(_write(builder, root), identifier)
    return bytes(builder.Output())


def _write(builder: Any, value: Any) -> Any:
    """Write a table, list of tables, array or string, and return its offset; return a number, which takes no room."""
    match value:
        case _NewTable(kind, fields):
            written = {key: _write(builder, content) for key, content in fields.items()}
            if isinstance(kind, str):
                getattr(tflite, f"{kind}Start")(builder)
                for key, content in written.items():
                    getattr(tflite, f"{kind}Add{key}")(builder, content)
                return getattr(tflite, f"{kind}End")(builder)
            builder.StartObject(kind)
            for place, content in written.items():
                is_byte = isinstance(fields[place], int)  # the only numbers of the metadata
                (builder.PrependUint8Slot if is_byte else builder.PrependUOffsetTRelativeSlot)(place, content, 0)
            return builder.EndObject()
        case list():
            offsets = [_write(builder, each) for each in value]
            builder.StartVector(OFFSET_BYTES, len(offsets), OFFSET_BYTES)
            for offset in reversed(offsets):
                builder.PrependUOffsetTRelative(offset)
            return builder.EndVector()
        case np.ndarray():  # the builder's own vectors are not aligned
            builder.StartVector(value.itemsize, value.size, ALIGNMENT)
            builder.head -= value.nbytes
            builder.Bytes[builder.head : builder.head + value.nbytes] = value.tobytes()
            return builder.EndVector()
        case str():
            return builder.CreateString(value)
    return value


# Metadata for apps: how pixels become the input, and the labels in an archive behind the flatbuffer --------------
#
# Source: metadata_schema.fbs of tensorflow/tflite-support; the numbers here are its fields' indices.

METADATA_NAME, METADATA_IDENTIFIER, LABELS_FILE = "TFLITE_METADATA", b"M001", "labels.txt"
MODEL_NAME, MODEL_SUBGRAPHS, MODEL_PARSER = 0, 3, 7
INPUTS, OUTPUTS = 2, 3  # of a subgraph
TENSOR_NAME, TENSOR_CONTENT, TENSOR_UNITS, TENSOR_FILES = 0, 3, 4, 6
IMAGE, NORMALIZATION, AXIS_LABELS, VALUE_LABELS, RGB = 2, 1, 2, 3, 1
MAX_LABELS_BYTES = 2**24


@dataclass(frozen=True)
class TfliteMetadata:
    """Mean and std by which pixels of 0 … 255 become the input, and the labels, as far as they are stated."""

    mean_std: tuple[NDArray[Any], NDArray[Any]] | None = None
    labels: tuple[str, ...] = ()


def read_metadata(metadata: bytes, content: bytes) -> TfliteMetadata:
    """Return what ``metadata`` states of the file ``content``.

    Raises ``ValueError`` if it names labels that are not there: then the file's end is missing.
    """
    if metadata[4:8] != METADATA_IDENTIFIER:
        return TfliteMetadata()
    root = flatbuffers.Table(metadata, flatbuffers.encode.Get(flatbuffers.packer.uoffset, metadata, 0))
    units = _follow(root, MODEL_SUBGRAPHS, INPUTS, TENSOR_UNITS)
    files = _follow(root, MODEL_SUBGRAPHS, OUTPUTS, TENSOR_FILES)
    stated = [_read_field(unit, 1, "table") for unit in units if _read_field(unit, 0, "byte") == NORMALIZATION]
    pairs = [
        (_read_field(table, 0, "floats"), _read_field(table, 1, "floats")) for table in stated if table is not None
    ]
    pair = next((pair for pair in pairs if all(each is not None and each.size for each in pair)), None)
    kinds = AXIS_LABELS, VALUE_LABELS
    named = [_read_field(file, 0, "text") or "" for file in files if _read_field(file, 2, "byte") in kinds]
    return TfliteMetadata(pair, _read_labels_file(content, named[0]) if named else ())


def _read_labels_file(content: bytes, name: str) -> tuple[str, ...]:
    """Return the lines of ``name`` in the archive behind the flatbuffer, repeated ones with their index."""
    try:
        with open_zip(content, "the archive at its end") as archive:
            text = archive.read(name, MAX_LABELS_BYTES).decode("utf-8-sig", errors="replace")
    except DamagedArchiveError as error:
        raise ValueError(f"cut off or damaged: its metadata names {name}, which cannot be read ({error})") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    counts = Counter(lines)  # ImageNet has two cranes, the bird and the machine
    return tuple(f"{line} ({index})" if counts[line] > 1 else line for index, line in enumerate(lines))


def _follow(table: flatbuffers.Table, *places: int) -> list[flatbuffers.Table]:
    """Return the tables that the last of these fields holds, through the first table of each before it."""
    tables = [table]
    for place in places:
        tables = [inner for outer in tables[:1] for inner in _read_field(outer, place, "tables")]
    return tables


def _read_field(table: flatbuffers.Table, place: int, kind: str) -> Any:
    """Return a "byte", "text", "floats", "table" or "tables"; None, or no tables, if the field is missing."""
    offset = table.Offset(4 + 2 * place)
    if not offset:
        return [] if kind == "tables" else None
    at = table.Pos + offset
    match kind:
        case "byte":
            return table.Bytes[at]
        case "text":
            return table.String(at).decode()
        case "floats":
            return table.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, offset).astype(np.float64)
        case "table":
            return flatbuffers.Table(table.Bytes, table.Indirect(at))
    start, length = table.Vector(offset), table.VectorLen(offset)
    if length > len(table.Bytes) // OFFSET_BYTES:
        raise IndexError(f"{length} entries")
    ends = [table.Indirect(start + OFFSET_BYTES * index) for index in range(length)]
    return [flatbuffers.Table(table.Bytes, end) for end in ends]


def build_metadata(
    name: str, labels: Sequence[str], input: str = "image", outputs: Sequence[str] = ("logits",)
) -> bytes:
    """Return the metadata of an image classifier whose first output has the labels in the file `LABELS_FILE`.

    The input is pixels of 0 … 255, or "normalized", which is not described.
    """
    image: dict[int, Any] = {TENSOR_NAME: input}
    if input != "normalized":
        mean_std = _NewTable(2, {0: np.array([0], np.float32), 1: np.array([1], np.float32)})
        image[TENSOR_CONTENT] = _NewTable(2, {0: IMAGE, 1: _NewTable(2, {0: RGB})})
        image[TENSOR_UNITS] = [_NewTable(2, {0: NORMALIZATION, 1: mean_std})]
    described: list[dict[int, Any]] = [{TENSOR_NAME: output} for output in outputs]
    if labels:
        described[0][TENSOR_FILES] = [_NewTable(5, {0: LABELS_FILE, 2: AXIS_LABELS})]
    subgraph = _NewTable(10, {INPUTS: [_NewTable(7, image)], OUTPUTS: [_NewTable(7, output) for output in described]})
    model = _NewTable(8, {MODEL_NAME: name, MODEL_SUBGRAPHS: [subgraph], MODEL_PARSER: "1.0.0"})
    return _encode(model, METADATA_IDENTIFIER, 1024)


def append_files(path: Path, labels: Sequence[str], texts: Mapping[str, str]) -> None:
    """Append labels, one per line, and texts by name in an archive behind the flatbuffer, where ``zipfile`` finds them.

    Equal ones give equal bytes.
    """
    lines = {LABELS_FILE: "\n".join(" ".join(label.split()) for label in labels)} if labels else {}
    if lines or texts:
        with zipfile.ZipFile(path, "a") as archive:
            for name, text in {**lines, **texts}.items():
                archive.writestr(zipfile.ZipInfo(name), text)
