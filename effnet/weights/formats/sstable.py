"""Sorted string tables: keys and values in blocks, each block under its checksum. TensorFlow keeps its indices so.

    block     entry …, where every 16th entry starts (uint32 …), how many starts (uint32)
    entry     shared key bytes, further key bytes, value bytes (varints), the further key bytes, the value
    file      block, kind (1 byte, 0: not compressed), checksum (uint32) …
    the end   two handles (offset and size of a block, varints) in 40 bytes: of a block of notes and of the index,
              a block whose values are the handles of the others; then the magic number

Source: TensorFlow ``core/lib/io/format.cc``, ``block_builder.cc`` and ``table_builder.cc``, which are LevelDB's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c

from effnet.weights.formats.protobuf import as_varint, varint

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
HANDLES, TRAILER = 40, 5
STARTS = 16  # a key is written in full this often
LONGEST_KEY = 4096  # ours; keys share their beginnings, so a small file could unfold into very long ones

Pair = tuple[bytes, bytes]


def masked(checksum: int) -> int:
    """A CRC-32C as the format stores it: turned and moved, so that a checksum of checksums is no special number."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def is_one(path: Path) -> bool:
    """Whether the file ends as a table does, whatever it is called."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(MAGIC), 0))
        return file.read() == MAGIC


def pairs(table: bytes) -> Iterator[Pair]:
    """(key, value) in the order of the keys. Raises ``ValueError``, with what is wrong, for a damaged table."""
    if table[-len(MAGIC) :] != MAGIC or len(table) < HANDLES + len(MAGIC):
        raise ValueError("it does not end as an index does")
    end = len(table) - HANDLES - len(MAGIC)
    _, _, at = _handle(table, end)
    offset, size, _ = _handle(table, at)
    last = None
    for _, handle in _entries(_block(table, offset, size, end)):
        offset, size, _ = _handle(handle, 0)
        for key, value in _entries(_block(table, offset, size, end)):
            if last is not None and key <= last:
                raise ValueError("its keys are out of order")
            last = key
            yield key, value


def packed(given: Sequence[Pair]) -> bytes:
    """The table of these pairs, sorted by their keys; one block holds them all."""
    table = bytearray()
    handles = []
    for content in (_packed(given), _packed([])):
        handles.append(as_varint(len(table)) + as_varint(len(content)))
        table += _sealed(content)
    index = _packed([(given[-1][0], handles[0])])
    handles.append(as_varint(len(table)) + as_varint(len(index)))
    return bytes(table + _sealed(index) + (handles[1] + handles[2]).ljust(HANDLES, b"\0") + MAGIC)


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where the handle ends."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at


def _block(table: bytes, offset: int, size: int, end: int) -> bytes:
    if offset + size + TRAILER > end:
        raise ValueError("a block of its index is cut off")
    content, trailer = table[offset : offset + size + 1], table[offset + size + 1 : offset + size + TRAILER]
    if masked(google_crc32c.value(content)) != int.from_bytes(trailer, "little"):
        raise ValueError("the checksum of its index is wrong")
    if content[-1]:
        raise ValueError("its index is compressed, as TensorFlow never writes it")
    return content[:-1]


def _sealed(content: bytes) -> bytes:
    content += b"\0"
    return content + masked(google_crc32c.value(content)).to_bytes(4, "little")


def _entries(block: bytes) -> Iterator[Pair]:
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        further, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or shared + further > LONGEST_KEY or at + further + size > end:
            raise ValueError("an entry of its index makes no sense")
        key = key[:shared] + block[at : at + further]
        at += further + size
        yield key, block[at - size : at]
    if at != end:
        raise ValueError("a block of its index makes no sense")


def _packed(given: Sequence[Pair]) -> bytes:
    block, starts, last = bytearray(), [0], b""
    for count, (key, value) in enumerate(given):
        shared = 0
        if count % STARTS:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif count:
            starts.append(len(block))
        block += as_varint(shared) + as_varint(len(key) - shared) + as_varint(len(value)) + key[shared:] + value
        last = key
    return bytes(block) + b"".join(place.to_bytes(4, "little") for place in (*starts, len(starts)))
