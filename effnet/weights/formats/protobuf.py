"""Protocol buffers without their compiler: whole numbers of any length, and a message's fields by number.

Source: Protocol Buffers Documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

LONGEST = 10  # bytes of a 64-bit number


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The whole number at ``at``, seven bits a byte, and where it ends. Raises ``ValueError`` where it is cut off."""
    value = 0
    for place, byte in enumerate(data[at : at + LONGEST]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number in it has no end")


def as_varint(value: int) -> bytes:
    """The whole number as `varint` reads it."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field in order: a number, or the bytes of a text or a message within.

    Raises ``ValueError`` for what is no message.
    """
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        match key & 7:
            case 0:
                value, at = varint(message, at)
                yield key >> 3, value
            case 1 | 2 | 5 as kind:
                size, at = varint(message, at) if kind == 2 else ((8 if kind == 1 else 4), at)
                content = message[at : at + size]
                if len(content) < size:
                    raise ValueError("a field in it is cut off")
                yield key >> 3, content if kind == 2 else int.from_bytes(content, "little")
                at += size
            case kind:
                raise ValueError(f"a field in it is of the unknown kind {kind}")


def number(field: int, value: int) -> bytes:
    """A field that holds a whole number."""
    return as_varint(field << 3) + as_varint(value)


def fixed(field: int, value: int) -> bytes:
    """A field that holds a whole number in four bytes."""
    return as_varint(field << 3 | 5) + value.to_bytes(4, "little")


def content(field: int, value: bytes) -> bytes:
    """A field that holds a text or another message."""
    return as_varint(field << 3 | 2) + as_varint(len(value)) + value
