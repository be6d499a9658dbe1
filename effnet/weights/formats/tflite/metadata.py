"""What apps ask a TFLite file: how pixels become its input, and the labels in the archive behind its flatbuffer.

Source: metadata_schema.fbs of tensorflow/tflite-support; the numbers here are its fields' places.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers.number_types import Float32Flags, UOffsetTFlags
from flatbuffers.table import Table
from numpy.typing import NDArray

NAME, IDENTIFIER, LABELS = "TFLITE_METADATA", b"M001", "labels.txt"

MODEL_NAME, MODEL_SUBGRAPHS, MODEL_PARSER = 0, 3, 7
INPUTS, OUTPUTS = 2, 3  # of a subgraph
TENSOR_NAME, TENSOR_CONTENT, TENSOR_UNITS, TENSOR_FILES = 0, 3, 4, 6
IMAGE, NORMALIZATION, AXIS_LABELS, VALUE_LABELS, RGB = 2, 1, 2, 3, 1
MOST_LABELS = 2**24  # bytes


@dataclass(frozen=True)
class Facts:
    """Mean and std by which pixels of 0 … 255 become the input, where stated; the labels, where there are some."""

    normalised: tuple[NDArray[Any], NDArray[Any]] | None = None
    labels: tuple[str, ...] = ()


def read(metadata: bytes, content: bytes) -> Facts:
    """What ``metadata`` says of the file ``content``.

    Raises ``ValueError`` where it names labels that are not there: then the file's end is missing.
    """
    if metadata[4:8] != IDENTIFIER:
        return Facts()
    root = Table(metadata, flatbuffers.encode.Get(flatbuffers.packer.uoffset, metadata, 0))
    subgraph = next(iter(_tables(root, MODEL_SUBGRAPHS)), None)
    if subgraph is None:
        return Facts()
    units = [unit for each in _tables(subgraph, INPUTS)[:1] for unit in _tables(each, TENSOR_UNITS)]
    files = [file for each in _tables(subgraph, OUTPUTS)[:1] for file in _tables(each, TENSOR_FILES)]
    pairs = [(_floats(unit, 0), _floats(unit, 1)) for unit in map(_normalization, units) if unit is not None]
    named = [_text(file, 0) for file in files if _byte(file, 2) in (AXIS_LABELS, VALUE_LABELS)]
    pair = next((pair for pair in pairs if pair[0].size and pair[1].size), None)
    return Facts(pair, _labels(content, named[0]) if named else ())


def _labels(content: bytes, name: str) -> tuple[str, ...]:
    """The lines of the file ``name`` in the archive behind the flatbuffer; repeated ones with their number."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            if archive.getinfo(name).file_size > MOST_LABELS:
                raise ValueError(f"its {name} is far too large for labels")
            text = archive.read(name).decode("utf-8-sig", errors="replace")
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError, struct.error):
        raise ValueError(f"cut off or damaged: its metadata names {name}, which cannot be read from its end") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    repeated = len(set(lines)) < len(lines)  # as ImageNet's cranes, the bird and the machine
    return tuple(
        f"{line} ({index})" if repeated and lines.count(line) > 1 else line for index, line in enumerate(lines)
    )


def _normalization(unit: Table) -> Table | None:
    return _table(unit, 1) if _byte(unit, 0) == NORMALIZATION else None


def _at(table: Table, place: int) -> int:
    """Offset of the field in its table; 0 where it is left out."""
    offset: int = table.Offset(4 + 2 * place)
    return offset


def _table(table: Table, place: int) -> Table | None:
    offset = _at(table, place)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _tables(table: Table, place: int) -> list[Table]:
    offset = _at(table, place)
    if not offset:
        return []
    start, length = table.Vector(offset), table.VectorLen(offset)
    if length > len(table.Bytes) // UOffsetTFlags.bytewidth:
        raise IndexError(f"{length} entries")
    return [Table(table.Bytes, table.Indirect(start + UOffsetTFlags.bytewidth * index)) for index in range(length)]


def _text(table: Table, place: int) -> str:
    offset = _at(table, place)
    return table.String(table.Pos + offset).decode() if offset else ""


def _byte(table: Table, place: int) -> int:
    offset = _at(table, place)
    return int(table.Bytes[table.Pos + offset]) if offset else 0


def _floats(table: Table, place: int) -> NDArray[Any]:
    offset = _at(table, place)
    return table.GetVectorAsNumpy(Float32Flags, offset).astype(np.float64) if offset else np.empty(0)


def written(
    name: str, labels: Sequence[str], image: str = "image", outputs: Sequence[str] = (), ranged: bool = True
) -> bytes:
    """Metadata of an image classifier; the first of its ``outputs`` has the labels, which are in the file `LABELS`.

    Its input, ``image``, takes pixels of 0 … 255; with ``ranged`` false something else, of which nothing is said.
    """
    builder = flatbuffers.Builder(1024)
    picture = {TENSOR_NAME: builder.CreateString(image)}
    if ranged:
        colours = _write(builder, 2, {0: _Byte(RGB)})
        picture[TENSOR_CONTENT] = _write(builder, 2, {0: _Byte(IMAGE), 1: colours})
        mean, std = (builder.CreateNumpyVector(np.array([value], np.float32)) for value in (0, 1))
        unit = _write(builder, 2, {0: _Byte(NORMALIZATION), 1: _write(builder, 2, {0: mean, 1: std})})
        picture[TENSOR_UNITS] = _vector(builder, [unit])
    inputs = _vector(builder, [_write(builder, 7, picture)])
    answers = [{TENSOR_NAME: builder.CreateString(each)} for each in outputs or ("logits" if labels else "output",)]
    if labels:
        file = _write(builder, 5, {0: builder.CreateString(LABELS), 2: _Byte(AXIS_LABELS)})
        answers[0][TENSOR_FILES] = _vector(builder, [file])
    told = _vector(builder, [_write(builder, 7, each) for each in answers])
    subgraphs = _vector(builder, [_write(builder, 10, {INPUTS: inputs, OUTPUTS: told})])
    model = {
        MODEL_NAME: builder.CreateString(name),
        MODEL_SUBGRAPHS: subgraphs,
        MODEL_PARSER: builder.CreateString("1.0.0"),
    }
    builder.Finish(_write(builder, 8, model), IDENTIFIER)
    return bytes(builder.Output())


def append(labels: Sequence[str], path: Path) -> None:
    """The labels, a line each, in an archive behind the flatbuffer at ``path``: the same ones make the same bytes."""
    attach({LABELS: "\n".join(" ".join(label.split()) for label in labels)}, path)


def attach(texts: Mapping[str, str], path: Path) -> None:
    """``texts`` by their names in that archive."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)


class _Byte(int):
    """A field of one byte, where all others are offsets."""


def _write(builder: Any, places: int, fields: dict[int, int]) -> int:
    builder.StartObject(places)
    for place, value in fields.items():
        if isinstance(value, _Byte):
            builder.PrependUint8Slot(place, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
    offset: int = builder.EndObject()
    return offset


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for each in reversed(offsets):
        builder.PrependUOffsetTRelative(each)
    offset: int = builder.EndVector()
    return offset
