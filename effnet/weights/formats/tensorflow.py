"""TensorFlow checkpoints, ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``, read and written without TensorFlow.

This is our own code because only TensorFlow itself, a gigabyte, reads them. The index is a sorted string table (below)
from a variable's name to its place, shape and checksum; the key "" holds the number of data files. Data files are
memory-mapped.

Source: TensorFlow ``core/protobuf/tensor_bundle.proto`` and ``core/util/tensor_bundle/tensor_bundle.cc``.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import google_crc32c
import numpy
import torch

from effnet.data.storage.atomic_write import atomic_write
from effnet.net import EfficientNet
from effnet.weights.formats import TENSORFLOW_TABLE_MAGIC, Checkpoint

DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}  # of types.proto; others: skipped
MAX_AXES = 8
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class _BundleEntry:
    """Where a variable is stored: a BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    checksum: int
    sliced: bool


def read_tensorflow(path: Path) -> Checkpoint:
    """Read the floating-point variables of the checkpoint with the index ``path``; others are skipped.

    Raises ``ValueError`` if something is damaged or missing, and for kinds of checkpoints that are not supported:
    TensorFlow 1's single-file format, object graphs (Keras' ``save_weights``), partitioned variables.
    """
    try:
        variables = open_variables(path)
        tensors = {name: variables.read_tensor(name) for name in variables.entries}
    except ValueError as error:
        raise ValueError(f"{path}: not a checkpoint that can be read: {error}") from None
    return Checkpoint({name: tensor for name, tensor in tensors.items() if tensor is not None})


@dataclass(frozen=True)
class Variables:
    """The variables of an open checkpoint: where each is stored, and the mapped data files."""

    entries: Mapping[str, "_BundleEntry"]
    _files: Mapping[int, numpy.ndarray]

    def read_tensor(self, name: str) -> torch.Tensor | None:
        """Return a variable after verifying its checksum; None if it is not floating-point, or empty."""
        entry = self.entries[name]
        return _read_tensor(name, entry, self._files[entry.shard])


def open_variables(path: Path, allow_objects: bool = False) -> Variables:
    """Open the checkpoint with the index ``path``; with ``allow_objects`` also one that is a graph of Python objects.

    Raises ``ValueError`` if something is damaged or missing, or is of a kind that is not supported.
    """
    shards, entries = _read_index(path.read_bytes(), allow_objects)
    return Variables(
        entries, {shard: _map_data_file(path, shard, shards) for shard in {e.shard for e in entries.values()}}
    )


def write_tensorflow(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` under the scope of the model's name: the index to ``path``, the data file beside it.

    No moving averages are written: the official evaluation scripts read it with ``enable_ema=False``.
    """
    scope = variable_scope(model.arch.name)
    variables = sorted((f"{scope}/{name}".encode(), tensor) for name, tensor in tensors.items())
    header = encode_field(1, 1) + encode_field(3, encode_field(1, 1))  # one data file; version 1 of the producer
    entries, offset = [(b"", header)], 0
    with atomic_write(_data_file(path, 0, 1)) as temporary:
        with temporary.open("wb") as file:
            for name, tensor in variables:
                data = tensor.reshape(-1).view(torch.uint8).numpy()
                file.write(data.data)
                entries.append((name, _write_entry(tensor, offset, masked_checksum(data))))
                offset += data.size
        with path.open("wb") as file:  # complete before the data file is moved: what can fail has failed by then
            file.write(write_table(entries))
            os.fsync(file.fileno())


def variable_scope(name: str) -> str:
    """Return what precedes all variables of the official network: "efficientnet-b0" for the arch "b0"."""
    family, _, size = name.partition("_")
    suffix = {"v2": f"v2-{size}", "edge": f"-edgetpu-{size.upper()}"}.get(family, f"-{name}")
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"efficientnet{suffix}")


def _data_file(path: Path, shard: int, shards: int) -> Path:
    """Return the data file of an index, also of one that is being written to a temporary name."""
    unfinished = re.fullmatch(r"\.(.+)\.\d+\.part", path.name)
    prefix = (unfinished[1] if unfinished else path.name).removesuffix(".index")
    return path.with_name(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _read_index(table: bytes, allow_objects: bool) -> tuple[int, dict[str, _BundleEntry]]:
    items = read_table(table)
    key, value = next(items, (b"", b""))
    header = dict(read_fields(value))
    shards = header.get(1, 1)
    if key or isinstance(shards, bytes):
        raise ValueError(
            "it is in TensorFlow's first, single-file format; restore it in TensorFlow and save it again with "
            "tf.compat.v1.train.Saver, which writes an .index"
        )
    if header.get(2):
        raise ValueError("it was written on a big-endian machine")
    named = ((key.decode(errors="replace"), value) for key, value in items)  # a slice's name is not text
    found = {name: _read_entry(name, value) for name, value in named}
    if OBJECT_GRAPH_KEY in found and not allow_objects:
        raise ValueError(
            "it is a graph of Python objects (Keras' save_weights, tf.train.Checkpoint); save the network's weights as "
            ".h5, or its variables by name with tf.compat.v1.train.Saver"
        )
    return shards, found


def _read_entry(name: str, message: bytes) -> _BundleEntry:
    fields = dict(read_fields(message))
    shape, numbers = fields.get(2, b""), [fields.get(field, 0) for field in (1, 3, 4, 5, 6)]
    if not isinstance(shape, bytes) or any(isinstance(value, bytes) for value in numbers):
        raise ValueError(f"the entry of {name} is invalid")
    dtype, shard, offset, size, checksum = (int(value) for value in numbers)
    return _BundleEntry(dtype, tuple(_read_shape(shape)), shard, offset, size, checksum, sliced=7 in fields)


def _read_shape(shape: bytes) -> Iterator[int]:
    for field, side in read_fields(shape):
        if field == 2 and isinstance(side, bytes):
            size = dict(read_fields(side)).get(1, 0)
            yield size if isinstance(size, int) else -1


def _map_data_file(path: Path, shard: int, shards: int) -> numpy.ndarray:
    file = _data_file(path, shard, shards)
    if not file.is_file() or shard >= shards:
        raise ValueError(f"its data file {file.name} is missing")
    if not file.stat().st_size:
        return numpy.empty(0, numpy.uint8)
    return numpy.memmap(file, numpy.uint8, mode="c")  # writes to these arrays stay in memory


def _read_tensor(name: str, entry: _BundleEntry, data: numpy.ndarray) -> torch.Tensor | None:
    """Return the variable after verifying its checksum; None if it is not floating-point, or empty."""
    if entry.sliced:
        raise ValueError(f"{name} is a partitioned variable, which is not supported")
    if entry.offset + entry.size > data.size:
        raise ValueError(f"{name} is cut off")
    if entry.dtype not in DTYPES or not entry.size:
        return None
    dtype = DTYPES[entry.dtype]
    if len(entry.shape) > MAX_AXES or prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"the size of {name} does not match its shape")
    content = data[entry.offset : entry.offset + entry.size]
    if masked_checksum(content) != entry.checksum:
        raise ValueError(f"the checksum of {name} is wrong")
    tensor = torch.from_numpy(content)
    if tensor.data_ptr() % dtype.itemsize:  # strings and booleans before it have any length
        tensor = tensor.clone()
    return tensor.view(dtype).reshape(entry.shape)


def _write_entry(tensor: torch.Tensor, offset: int, checksum: int) -> bytes:
    dtype = next(number for number, dtype in DTYPES.items() if dtype == tensor.dtype)
    shape = b"".join(encode_field(2, encode_field(1, side)) for side in tensor.shape)
    place = encode_field(4, offset) + encode_field(5, tensor.numel() * tensor.element_size())
    return encode_field(1, dtype) + encode_field(2, shape) + place + encode_field(6, checksum, fixed=True)


# Sorted string tables --------------------------------------------------------------------------------------------
#
#     block     entry …, offsets of every 16th entry (uint32 …), how many offsets (uint32)
#     entry     shared key bytes, other key bytes, value bytes (varints), the other key bytes, the value
#     file      block, kind (1 byte, 0: not compressed), checksum (uint32) …
#     footer    two handles (offset and size of a block, varints) in 40 bytes: of a metadata block and of the index,
#               a block whose values are the handles of the others; then the magic number
#
# Source: TensorFlow ``core/lib/io/format.cc``, ``block_builder.cc`` and ``table_builder.cc``, which are LevelDB's.

FOOTER_BYTES, BLOCK_TRAILER_BYTES = 40, 5
RESTART_INTERVAL = 16  # how often a key is written in full
MAX_KEY_BYTES = 4096  # our limit: keys share their beginnings, so a small file could unfold into very long ones

KeyValue = tuple[bytes, bytes]


def masked_checksum(data: bytes | numpy.ndarray) -> int:
    """Return the CRC-32C as it is stored: rotated and shifted, so that checksums of checksums are not special."""
    checksum: int = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(table: bytes) -> Iterator[KeyValue]:
    """Yield (key, value) in the order of the keys. Raises ``ValueError`` if the table is damaged."""
    if not table.endswith(TENSORFLOW_TABLE_MAGIC) or len(table) < FOOTER_BYTES + len(TENSORFLOW_TABLE_MAGIC):
        raise ValueError("it does not end as an index does")
    end = len(table) - FOOTER_BYTES - len(TENSORFLOW_TABLE_MAGIC)
    _, _, at = _read_handle(table, end)
    offset, size, _ = _read_handle(table, at)
    last = None
    for _, handle in _read_block_entries(_read_block(table, offset, size, end)):
        offset, size, _ = _read_handle(handle, 0)
        for key, value in _read_block_entries(_read_block(table, offset, size, end)):
            if last is not None and key <= last:
                raise ValueError("its keys are out of order")
            last = key
            yield key, value


def write_table(items: Sequence[KeyValue]) -> bytes:
    """Return the table of ``items``, which are sorted by key, in one block."""
    table = bytearray()
    handles = []
    for content in (_write_block(items), _write_block([])):
        handles.append(encode_varint(len(table)) + encode_varint(len(content)))
        table += _seal_block(content)
    index = _write_block([(items[-1][0], handles[0])])
    handles.append(encode_varint(len(table)) + encode_varint(len(index)))
    footer = (handles[1] + handles[2]).ljust(FOOTER_BYTES, b"\0") + TENSORFLOW_TABLE_MAGIC
    return bytes(table + _seal_block(index) + footer)


def _read_handle(data: bytes, at: int) -> tuple[int, int, int]:  # offset and size of a block, where the handle ends
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at


def _read_block(table: bytes, offset: int, size: int, end: int) -> bytes:
    if offset + size + BLOCK_TRAILER_BYTES > end:
        raise ValueError("a block of its index is cut off")
    content, trailer = table[offset : offset + size + 1], table[offset + size + 1 : offset + size + BLOCK_TRAILER_BYTES]
    if masked_checksum(content) != int.from_bytes(trailer, "little"):
        raise ValueError("the checksum of its index is wrong")
    if content[-1]:
        raise ValueError("its index is compressed, as TensorFlow never writes it")
    return content[:-1]


def _seal_block(content: bytes) -> bytes:
    content += b"\0"
    return content + masked_checksum(content).to_bytes(4, "little")


def _read_block_entries(block: bytes) -> Iterator[KeyValue]:
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        other, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or shared + other > MAX_KEY_BYTES or at + other + size > end:
            raise ValueError("an entry of its index is invalid")
        key = key[:shared] + block[at : at + other]
        at += other + size
        yield key, block[at - size : at]
    if at != end:
        raise ValueError("a block of its index is invalid")


def _write_block(items: Sequence[KeyValue]) -> bytes:
    block, restarts, last = bytearray(), [0], b""
    for count, (key, value) in enumerate(items):
        shared = 0
        if count % RESTART_INTERVAL:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif count:
            restarts.append(len(block))
        block += b"".join(map(encode_varint, (shared, len(key) - shared, len(value)))) + key[shared:] + value
        last = key
    return bytes(block) + b"".join(offset.to_bytes(4, "little") for offset in (*restarts, len(restarts)))


# Protocol buffers ------------------------------------------------------------------------------------------------
#
# Source: Protocol Buffers Documentation, "Encoding".

MAX_VARINT_BYTES = 10  # of a 64-bit number


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at ``at``, seven bits per byte, and where it ends. Raises ``ValueError`` if it is cut off."""
    value = 0
    for place, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number in it has no end")


def encode_varint(value: int) -> bytes:
    """Return the bytes of an integer for `read_varint`."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of each field: an integer, or bytes. Raises ``ValueError`` for an invalid message."""
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        match key & 7:
            case 0:
                value, at = read_varint(message, at)
                yield key >> 3, value
            case 1 | 2 | 5 as kind:
                size, at = read_varint(message, at) if kind == 2 else ((8 if kind == 1 else 4), at)
                content = message[at : at + size]
                if len(content) < size:
                    raise ValueError("a field in it is cut off")
                yield key >> 3, content if kind == 2 else int.from_bytes(content, "little")
                at += size
            case kind:
                raise ValueError(f"a field in it is of the unknown kind {kind}")


def encode_field(field: int, value: int | bytes, fixed: bool = False) -> bytes:
    """Return a field for `read_fields`: a string or nested message, or an integer, ``fixed`` in four bytes."""
    if isinstance(value, bytes):
        return encode_varint(field << 3 | 2) + encode_varint(len(value)) + value
    return encode_varint(field << 3 | 5 * fixed) + (value.to_bytes(4, "little") if fixed else encode_varint(value))
