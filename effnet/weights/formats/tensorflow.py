"""TensorFlow's checkpoints, read and written without TensorFlow: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``.

The index is a sorted table (see ``sstable.py``) from a variable's name to where it lies, how it is shaped, and its
checksum; the key "" holds the number of data files. Bytes are read when they are used.

Source: TensorFlow ``core/protobuf/tensor_bundle.proto`` and ``core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import google_crc32c
import numpy
import torch
from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.atomic import replacing
from effnet.weights.formats import sstable
from effnet.weights.formats.content import Content
from effnet.weights.formats.protobuf import content, fields, fixed, number
from effnet.weights.layouts.tensorflow import scope

DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}  # of types.proto; others: skipped
MOST_AXES = 8
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class _Entry:
    """Where a variable lies: a BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    checksum: int
    sliced: bool


def read(path: Path) -> Content:
    """The floating-point variables of the checkpoint with the index ``path``; all others, as counters, are left out.

    Raises ``ValueError`` where something of it is damaged or missing, and for the kinds of checkpoint that are not
    opened: TensorFlow 1's of one file, Keras' graphs of objects, partitioned variables.
    """
    try:
        shards, entries = _index(path.read_bytes())
        files: dict[int, numpy.ndarray] = {}
        for entry in entries.values():
            if entry.shard not in files:
                files[entry.shard] = _opened(path, entry.shard, shards)
        found = {name: _tensor(name, entry, files[entry.shard]) for name, entry in entries.items()}
    except ValueError as error:
        raise ValueError(f"{path}: not a checkpoint that can be read: {error}") from None
    return Content({name: tensor for name, tensor in found.items() if tensor is not None})


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` under the scope of the model's name: the index to ``path``, and the data file put into its place.

    There are no averages beside them: the official evaluation scripts read it with ``enable_ema=False``.
    """
    below = scope(model.arch.name)
    named = sorted((f"{below}/{name}".encode(), tensor) for name, tensor in tensors.items())
    header = number(1, 1) + content(3, number(1, 1))  # one data file; written by a producer of version 1
    entries, offset = [(b"", header)], 0
    with replacing(_data_file(path, 0, 1)) as beside:
        with beside.open("wb") as file:
            for name, tensor in named:
                data = tensor.reshape(-1).view(torch.uint8).numpy()
                file.write(data.data)
                entries.append((name, _described(tensor, offset, _masked_checksum(data))))
                offset += data.size
        with path.open("wb") as file:  # all of it before the data file moves: what may fail has failed by then
            file.write(sstable.packed(entries))
            os.fsync(file.fileno())


def _masked_checksum(data: numpy.ndarray) -> int:
    """The checksum of the bytes, as the format stores it."""
    return sstable.masked(google_crc32c.value(data))


def _data_file(path: Path, shard: int, shards: int) -> Path:
    """The data file of an index, also of one that is being written beside its place."""
    unfinished = re.fullmatch(r"\.(.+)\.\d+\.part", path.name)
    prefix = (unfinished[1] if unfinished else path.name).removesuffix(".index")
    return path.with_name(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _index(table: bytes) -> tuple[int, dict[str, _Entry]]:
    """The number of data files, and every variable by its name."""
    pairs = sstable.pairs(table)
    key, value = next(pairs, (b"", b""))
    header = dict(fields(value))
    shards = header.get(1, 1)
    if key or isinstance(shards, bytes):
        raise ValueError(
            "it is of TensorFlow's first format, of one file; restore it in TensorFlow and save it again by "
            "tf.compat.v1.train.Saver, which writes an .index"
        )
    if header.get(2):
        raise ValueError("it was written on a big-endian machine")
    named = ((key.decode(errors="replace"), value) for key, value in pairs)  # a slice's name is no text
    return shards, {name: _entry(name, value) for name, value in named}


def _entry(name: str, message: bytes) -> _Entry:
    if name == OBJECTS:
        raise ValueError(
            "it is a graph of Python objects (Keras' save_weights, tf.train.Checkpoint); save the network's weights as "
            ".h5, or its variables by name with tf.compat.v1.train.Saver"
        )
    found = dict(fields(message))
    shape, numbers = found.get(2, b""), [found.get(field, 0) for field in (1, 3, 4, 5, 6)]
    if not isinstance(shape, bytes) or any(isinstance(value, bytes) for value in numbers):
        raise ValueError(f"what is said of {name} makes no sense")
    dtype, shard, offset, size, checksum = (int(value) for value in numbers)
    return _Entry(dtype, tuple(_sides(shape)), shard, offset, size, checksum, sliced=7 in found)


def _sides(shape: bytes) -> Iterator[int]:
    """The sides in a TensorShapeProto."""
    for field, side in fields(shape):
        if field == 2 and isinstance(side, bytes):
            size = dict(fields(side)).get(1, 0)
            yield size if isinstance(size, int) else -1


def _opened(path: Path, shard: int, shards: int) -> numpy.ndarray:
    """The bytes of a data file, to be read when they are used."""
    file = _data_file(path, shard, shards)
    if not file.is_file() or shard >= shards:
        raise ValueError(f"its data file {file.name} is missing beside it")
    if not file.stat().st_size:
        return numpy.empty(0, numpy.uint8)
    return numpy.memmap(file, numpy.uint8, mode="c")  # what is written to these numbers stays in memory


def _tensor(name: str, entry: _Entry, data: numpy.ndarray) -> Tensor | None:
    """The variable, once its checksum was found right; None for what is not floating-point, or empty."""
    if entry.sliced:
        raise ValueError(f"{name} lies in slices (a partitioned variable), which are not put together here")
    if entry.offset + entry.size > data.size:
        raise ValueError(f"{name} is cut off")
    if entry.dtype not in DTYPES or not entry.size:
        return None
    dtype = DTYPES[entry.dtype]
    if len(entry.shape) > MOST_AXES or prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"{name} has another number of bytes than its shape")
    there = data[entry.offset : entry.offset + entry.size]
    if _masked_checksum(there) != entry.checksum:
        raise ValueError(f"the checksum of {name} is wrong")
    tensor = torch.from_numpy(there)
    if tensor.data_ptr() % dtype.itemsize:  # texts and booleans before it have any length
        tensor = tensor.clone()
    return tensor.view(dtype).reshape(entry.shape)


def _described(tensor: Tensor, offset: int, checksum: int) -> bytes:
    """The BundleEntryProto of a variable in the first data file."""
    dtype = next(number for number, dtype in DTYPES.items() if dtype == tensor.dtype)
    shape = b"".join(content(2, number(1, side)) for side in tensor.shape)
    size = tensor.numel() * tensor.element_size()
    return number(1, dtype) + content(2, shape) + number(4, offset) + number(5, size) + fixed(6, checksum)
