"""TFLite's flatbuffers decoded into dataclasses and encoded from them. Nothing here knows what an operator is for.

Source: tensorflow/lite/schema/schema.fbs, through the accessors that the package ``tflite`` generates from it.
"""

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import flatbuffers
import numpy as np
import tflite
from flatbuffers.number_types import Float32Flags, UOffsetTFlags
from flatbuffers.table import Table
from numpy.typing import NDArray

TFLITE_IDENTIFIER = b"TFL3"
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


def encode_tflite(graph: TfliteGraph, description: str = "effnet") -> bytes:
    """Return the bytes of a file with ``graph``. Raises ``ValueError`` if it would be above 2 GiB."""
    constants = [tensor.data for tensor in graph.tensors if tensor.data is not None]
    size = sum(data.nbytes + ALIGNMENT for data in constants) + sum(map(len, graph.metadata.values()))
    if size > flatbuffers.Builder.MAX_BUFFER_SIZE - 2**24:
        raise ValueError("a TFLite file holds at most 2 GiB: this network is too large for it")
    builder = flatbuffers.Builder(size + 2**20)
    buffers = [_write_table(builder, "Buffer", {})]  # the empty one, of all tensors that are computed
    tensors = []
    for content in graph.metadata.values():
        buffers.append(_write_table(builder, "Buffer", {"Data": _aligned_bytes(builder, content)}))
    for tensor in graph.tensors:
        tensors.append(_write_tensor(builder, tensor, 0 if tensor.data is None else len(buffers)))
        if tensor.data is not None:
            data = _aligned_bytes(builder, np.ascontiguousarray(tensor.data).tobytes())
            buffers.append(_write_table(builder, "Buffer", {"Data": data}))
    kinds = list(dict.fromkeys(operator.kind for operator in graph.operators))
    operators = [_write_operator(builder, operator, kinds.index(operator.kind)) for operator in graph.operators]
    fields = {
        "Tensors": _offset_vector(builder, tensors),
        "Inputs": builder.CreateNumpyVector(np.array(graph.inputs, np.int32)),
        "Outputs": builder.CreateNumpyVector(np.array(graph.outputs, np.int32)),
        "Operators": _offset_vector(builder, operators),
        "Name": builder.CreateString("main"),
    }
    subgraph = _write_table(builder, "SubGraph", fields)
    metadata = [
        _write_table(builder, "Metadata", {"Name": builder.CreateString(name), "Buffer": index})
        for index, name in enumerate(graph.metadata, 1)
    ]
    fields = {
        "Version": 3,
        "OperatorCodes": _offset_vector(builder, [_write_code(builder, kind) for kind in kinds]),
        "Subgraphs": _offset_vector(builder, [subgraph]),
        "Description": builder.CreateString(description),
        "Buffers": _offset_vector(builder, buffers),
        "Metadata": _offset_vector(builder, metadata),
    }
    builder.Finish(_write_table(builder, "Model", fields), TFLITE_IDENTIFIER)
    return bytes(builder.Output())


def _write_tensor(builder: Any, tensor: TfliteTensor, buffer: int) -> int:
    fields = {
        "Shape": builder.CreateNumpyVector(np.array(tensor.shape, np.int32)),
        "Type": getattr(tflite.TensorType, tensor.type),
        "Buffer": buffer,
        "Name": builder.CreateString(tensor.name),
    }
    if tensor.scale:
        quantization = {
            "Scale": builder.CreateNumpyVector(np.array(tensor.scale, np.float32)),
            "ZeroPoint": builder.CreateNumpyVector(np.array(tensor.zero_point or (0,) * len(tensor.scale), np.int64)),
            "QuantizedDimension": tensor.axis,
        }
        fields["Quantization"] = _write_table(builder, "QuantizationParameters", quantization)
    return _write_table(builder, "Tensor", fields)


def _write_operator(builder: Any, operator: TfliteOperator, code: int) -> int:
    fields: dict[str, Any] = {
        "OpcodeIndex": code,
        "Inputs": builder.CreateNumpyVector(np.array(operator.inputs, np.int32)),
        "Outputs": builder.CreateNumpyVector(np.array(operator.outputs, np.int32)),
    }
    if operator.kind in OPERATOR_OPTIONS:
        name, _ = OPERATOR_OPTIONS[operator.kind]
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
        fields["BuiltinOptions"] = _write_table(builder, name, operator.options)
    return _write_table(builder, "Operator", fields)


def _write_code(builder: Any, kind: str) -> int:
    number = getattr(tflite.BuiltinOperator, kind)
    fields = {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": 1}
    return _write_table(builder, "OperatorCode", fields)


def _write_table(builder: Any, name: str, fields: Mapping[str, Any]) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for key, value in fields.items():
        getattr(tflite, f"{name}Add{key}")(builder, value)
    offset: int = getattr(tflite, f"{name}End")(builder)
    return offset


def _offset_vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    vector: int = builder.EndVector()
    return vector


def _aligned_bytes(builder: Any, content: bytes) -> int:
    """Write a vector of bytes that begins at a multiple of `ALIGNMENT`; the builder's own are not aligned."""
    builder.StartVector(1, len(content), ALIGNMENT)
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    vector: int = builder.EndVector()
    return vector


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
    root = Table(metadata, flatbuffers.encode.Get(flatbuffers.packer.uoffset, metadata, 0))
    subgraph = next(iter(_read_tables(root, MODEL_SUBGRAPHS)), None)
    if subgraph is None:
        return TfliteMetadata()
    units = [unit for tensor in _read_tables(subgraph, INPUTS)[:1] for unit in _read_tables(tensor, TENSOR_UNITS)]
    files = [file for tensor in _read_tables(subgraph, OUTPUTS)[:1] for file in _read_tables(tensor, TENSOR_FILES)]
    stated = [_read_table(unit, 1) for unit in units if _read_byte(unit, 0) == NORMALIZATION]
    pairs = [(_read_floats(table, 0), _read_floats(table, 1)) for table in stated if table is not None]
    named = [_read_text(file, 0) for file in files if _read_byte(file, 2) in (AXIS_LABELS, VALUE_LABELS)]
    pair = next((pair for pair in pairs if pair[0].size and pair[1].size), None)
    return TfliteMetadata(pair, _read_labels_file(content, named[0]) if named else ())


def _read_labels_file(content: bytes, name: str) -> tuple[str, ...]:
    """Return the lines of ``name`` in the archive behind the flatbuffer, repeated ones with their index."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            if archive.getinfo(name).file_size > MAX_LABELS_BYTES:
                raise ValueError(f"its {name} is far too large for labels")
            text = archive.read(name).decode("utf-8-sig", errors="replace")
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError, struct.error):
        raise ValueError(f"cut off or damaged: its metadata names {name}, which cannot be read from its end") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    counts = Counter(lines)  # ImageNet has two cranes, the bird and the machine
    return tuple(f"{line} ({index})" if counts[line] > 1 else line for index, line in enumerate(lines))


def _field_offset(table: Table, place: int) -> int:
    """Return the offset of the field in its table; 0 if it is missing."""
    offset: int = table.Offset(4 + 2 * place)
    return offset


def _read_table(table: Table, place: int) -> Table | None:
    offset = _field_offset(table, place)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _read_tables(table: Table, place: int) -> list[Table]:
    offset = _field_offset(table, place)
    if not offset:
        return []
    start, length = table.Vector(offset), table.VectorLen(offset)
    if length > len(table.Bytes) // UOffsetTFlags.bytewidth:
        raise IndexError(f"{length} entries")
    return [Table(table.Bytes, table.Indirect(start + UOffsetTFlags.bytewidth * index)) for index in range(length)]


def _read_text(table: Table, place: int) -> str:
    offset = _field_offset(table, place)
    return table.String(table.Pos + offset).decode() if offset else ""


def _read_byte(table: Table, place: int) -> int:
    offset = _field_offset(table, place)
    return int(table.Bytes[table.Pos + offset]) if offset else 0


def _read_floats(table: Table, place: int) -> NDArray[Any]:
    offset = _field_offset(table, place)
    return table.GetVectorAsNumpy(Float32Flags, offset).astype(np.float64) if offset else np.empty(0)


def build_metadata(name: str, labels: Sequence[str], input: str = "image", outputs: Sequence[str] = ()) -> bytes:
    """Return the metadata of an image classifier whose first output has the labels in the file `LABELS_FILE`.

    The input is pixels of 0 … 255, or "normalized", which is not described.
    """
    builder = flatbuffers.Builder(1024)
    image_info = {TENSOR_NAME: builder.CreateString(input)}
    if input != "normalized":
        color = _write_fields(builder, 2, {0: _Byte(RGB)})
        image_info[TENSOR_CONTENT] = _write_fields(builder, 2, {0: _Byte(IMAGE), 1: color})
        mean, std = (builder.CreateNumpyVector(np.array([value], np.float32)) for value in (0, 1))
        unit = _write_fields(builder, 2, {0: _Byte(NORMALIZATION), 1: _write_fields(builder, 2, {0: mean, 1: std})})
        image_info[TENSOR_UNITS] = _offset_vector(builder, [unit])
    inputs = _offset_vector(builder, [_write_fields(builder, 7, image_info)])
    names = outputs or ("logits" if labels else "output",)
    output_info = [{TENSOR_NAME: builder.CreateString(output)} for output in names]
    if labels:
        file = _write_fields(builder, 5, {0: builder.CreateString(LABELS_FILE), 2: _Byte(AXIS_LABELS)})
        output_info[0][TENSOR_FILES] = _offset_vector(builder, [file])
    described = _offset_vector(builder, [_write_fields(builder, 7, info) for info in output_info])
    subgraphs = _offset_vector(builder, [_write_fields(builder, 10, {INPUTS: inputs, OUTPUTS: described})])
    model = {MODEL_NAME: builder.CreateString(name), MODEL_SUBGRAPHS: subgraphs}
    model[MODEL_PARSER] = builder.CreateString("1.0.0")
    builder.Finish(_write_fields(builder, 8, model), METADATA_IDENTIFIER)
    return bytes(builder.Output())


def append_labels(labels: Sequence[str], path: Path) -> None:
    """Append the labels, one per line, in an archive behind the flatbuffer. Equal labels give equal bytes."""
    append_files({LABELS_FILE: "\n".join(" ".join(label.split()) for label in labels)}, path)


def append_files(texts: Mapping[str, str], path: Path) -> None:
    """Append ``texts`` by name to that archive."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)


class _Byte(int):
    """A field of one byte; all others are offsets."""


def _write_fields(builder: Any, places: int, fields: dict[int, int]) -> int:
    builder.StartObject(places)
    for place, value in fields.items():
        if isinstance(value, _Byte):
            builder.PrependUint8Slot(place, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
    offset: int = builder.EndObject()
    return offset
