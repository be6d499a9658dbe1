"""TIFF and PNG written by hand: kinds that PIL reads, or half reads, and does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Entry = tuple[int, int, Sequence[int] | bytes]  # tag, type (1 byte, 2 text, 3 short, 4 long), values
_SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}


def png(width: int, height: int, bits: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG: for headers without their pixels and for what PIL reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def deep_png(values: NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits: grey (H, W), or with 2, 3 or 4 channels (H, W, C)."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, *chunks)


def tiff(*pages: Mapping[int, Any], order: str = "<") -> bytes:
    """A TIFF of pages, each a mapping of tags to numbers, and "pixels" to bytes, "inner" to pages below it."""
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4
    for page in pages:
        offset = _add_page(body, page, order)
        struct.pack_into(f"{order}I", body, link, offset)
        link = len(body) - 4 if not page.get("inner") else page_link(body, offset, order)
    return bytes(body)


def page_link(body: bytearray, offset: int, order: str) -> int:
    (count,) = struct.unpack_from(f"{order}H", body, offset)
    return int(offset + 2 + 12 * count)


def _add_page(body: bytearray, page: Mapping[Any, Any], order: str) -> int:
    tags = {tag: value for tag, value in page.items() if isinstance(tag, int)}
    if "pixels" in page:
        tags |= {273: len(body), 279: len(page["pixels"])}
        body += page["pixels"]
    if page.get("inner"):
        tags[330] = [_add_page(body, inner, order) for inner in page["inner"]]
    body += bytes(len(body) % 2)
    entries = []
    for tag, value in sorted(tags.items()):
        kind = 2 if isinstance(value, str) else 1 if isinstance(value, bytes) else 4 if tag in (273, 279, 330) else 3
        raw = value.encode() + b"\0" if isinstance(value, str) else value
        numbers = list(raw) if isinstance(raw, (bytes, list, tuple)) else [raw]
        packed = struct.pack(f"{order}{len(numbers)}{_SIZES[kind]}", *numbers)
        if len(packed) > 4:
            place, packed = len(body), packed + bytes(len(packed) % 2)
            body += packed
            packed = struct.pack(f"{order}I", place)
        entries.append(struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0"))
    offset = len(body)
    body += struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return offset


def grey_page(values: NDArray[np.uint16], bits: int = 16, photometric: int = 1, order: str = "<", **more: Any) -> Any:
    """A page of grey: 8, 12 (packed) or 16 bits; ``photometric`` 0 has white as zero."""
    height, width = values.shape
    if bits == 12:
        digits = ((values[..., None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
        pixels = np.packbits(digits.reshape(height, -1), axis=1).tobytes()
    else:
        pixels = values.astype(np.uint8 if bits == 8 else f"{order}u2").tobytes()
    page = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, "pixels": pixels}
    return page | {int(tag[1:]): value for tag, value in more.items()}


def color_page(values: NDArray[np.uint16], order: str = "<") -> Any:
    """A page of 16-bit RGB (H, W, 3)."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    return {256: width, 257: height, 258: [16] * channels, 259: 1, 262: 2, 277: channels, 278: height, "pixels": pixels}
