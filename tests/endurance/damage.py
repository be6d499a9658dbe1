"""Ways in which files are damaged on their way: by disks, transfers, editors, and by people who mean harm."""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile
import zipfile
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]

EDGE = 4096  # bytes at both ends of a file, where most formats keep their structure
TEXT_SUFFIXES = (".json", ".csv", ".tsv", ".txt", ".xml", ".jsonl", ".toml", ".yaml")
# In place of a number or a string of a text
VALUES = ["-1", "0", "1e999", "NaN", "null", "[]", "{}", '""', "99999999999999999999", "true", '"\\ud800"', "0.0"]


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] if content else b""


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    at, count = place(content, rng), rng.choice([1, 4, 16, 256])
    return content[:at] + rng.randbytes(count) + content[at + count :]


def blow_up_number(content: bytes, rng: random.Random) -> bytes:
    """Offsets, counts and sizes of most formats are integers of 1 to 8 bytes."""
    at, count = place(content, rng), rng.choice([1, 2, 4, 8])
    value = rng.choice([b"\xff", b"\x7f", b"\x80", b"\x00"]) * count
    return content[:at] + value + content[at + count :]


def zero_sector(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng) // 512 * 512
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


def remove_piece(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + content[at + rng.choice([1, 7, 512]) :]


def repeat_piece(content: bytes, rng: random.Random) -> bytes:
    at, count = place(content, rng), rng.choice([1, 7, 512])
    return content[: at + count] + content[at:]


def insert_text_mode(content: bytes, rng: random.Random) -> bytes:
    """What a transfer in text mode does."""
    return content.replace(b"\n", b"\r\n")


def append_zeros(content: bytes, rng: random.Random) -> bytes:
    return content + bytes(rng.choice([1, 512, 100_000]))


def be_something_else(content: bytes, rng: random.Random) -> bytes:
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 457532\n"
    return rng.choice([b"", page, pointer, b"PK\x03\x04" + content[:100], b"\x80\x04." + content, bytes(len(content))])


def change_value(content: bytes, rng: random.Random) -> bytes:
    """In a text: another value at the place of a number or a string."""
    found = list(re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"', content))
    if not found:
        return overwrite(content, rng)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(VALUES).encode() + content[match.end() :]


def nest_deeply(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([1_000, 100_000])
    nested = b"[" * depth + b"]" * depth
    found = list(re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"', content))
    match = rng.choice(found) if found else None
    return content[: match.start()] + nested + content[match.end() :] if match else nested


def break_encoding(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [content[:1] + b"\xff\xfe\x00" + content[1:], content.decode("utf-8", "replace").encode("utf-16")]
    )


BYTES: list[Damage] = [truncate, flip_bit, overwrite, blow_up_number, zero_sector, remove_piece, repeat_piece]
BYTES += [flip_bit, overwrite, blow_up_number]  # thrice as often as the others: these get furthest into a reader
RARE: list[Damage] = [insert_text_mode, append_zeros, be_something_else]
TEXT: list[Damage] = [change_value, change_value, change_value, nest_deeply, break_encoding, truncate, overwrite]


def place(content: bytes, rng: random.Random) -> int:
    """Return a place in the file: two of three times near its beginning or its end."""
    where, size = rng.randrange(3), len(content)
    first, last = [(0, min(EDGE, size)), (max(0, size - EDGE), size), (0, size)][where]
    return rng.randrange(first, max(last, first + 1)) if size else 0


def damage(name: str, content: bytes, rng: random.Random) -> bytes:
    """Return the content of the file called ``name``, damaged; different from it in any case."""
    for _ in range(50):
        if rng.random() < 0.1:
            changed = rng.choice(RARE)(content, rng)
        elif name.endswith(TEXT_SUFFIXES) and rng.random() < 0.7:
            changed = rng.choice(TEXT)(content, rng)
        elif rng.random() < 0.5:
            changed = damage_within(name, content, rng)
        else:
            changed = rng.choice(BYTES)(content, rng) if content else b"\0"
        if changed != content:
            return changed
    return content + b"\0"


def damage_within(name: str, content: bytes, rng: random.Random) -> bytes:
    """Damage what an archive holds, with check sums that fit, so that it is not the archive that notices; or a byte."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        return rezip(content, rng)
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(damage("content.tar", gzip.decompress(content), rng))
    if name.endswith(".tar"):
        return retar(content, rng)
    if name.endswith(".safetensors"):
        size = int.from_bytes(content[:8], "little")
        header = rng.choice(TEXT)(content[8 : 8 + size], rng)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return rng.choice(BYTES)(content, rng) if content else b"\0"


def rezip(content: bytes, rng: random.Random) -> bytes:
    """Write a .zip again with one member changed, left out, renamed, grown or compressed by another method."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        members = [(info, source.read(info)) for info in source.infolist()]
        # Evenly over kinds of members: of a hundred, most are tensors
        chosen = rng.choice(
            [rng.randrange(len(members)), min(range(len(members)), key=lambda at: members[at][0].filename)]
        )
        how = rng.randrange(8)
        for at, (info, data) in enumerate(members):
            name, method = info.filename, info.compress_type
            if at == chosen:
                if how < 4:
                    data = damage_member(name, data, rng)
                elif how == 4:
                    continue
                elif how == 5:
                    name = rng.choice(["../" + name, "/" + name, name.upper(), name + "\0x", "x" * 300])
                elif how == 6:
                    method = rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
                else:
                    data, method = data + bytes(300_000_000), zipfile.ZIP_DEFLATED
            target.writestr(name, data, method)
    changed = out.getvalue()
    if rng.random() < 0.15:  # flags and methods that lie: an encrypted member, an unknown method
        at = changed.rfind(b"PK\x01\x02")
        field = rng.choice([8, 10])  # flags, method
        changed = (
            changed[: at + field] + rng.choice([b"\x01\x00", b"\x63\x00", b"\x00\x08"]) + changed[at + field + 2 :]
        )
    return changed


def damage_member(name: str, data: bytes, rng: random.Random) -> bytes:
    if name.endswith(TEXT_SUFFIXES):
        return rng.choice(TEXT)(data, rng)
    return rng.choice(BYTES)(data, rng) if data else b"\0"


def retar(content: bytes, rng: random.Random) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as source, tarfile.open(fileobj=out, mode="w") as target:
        members = source.getmembers()
        chosen = rng.randrange(len(members))
        for at, member in enumerate(members):
            file = source.extractfile(member)
            data = file.read() if file else b""
            if at == chosen:
                how = rng.randrange(4)
                if how == 0:
                    continue
                if how == 1:
                    member.name = rng.choice(["../x.jpg", "/x.jpg", "x" * 300, member.name + "\udcff", "a/b/c"])
                if how == 2:
                    member.type, member.linkname = (
                        rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]),
                        "/etc/passwd",
                    )
                if how == 3:
                    data = damage_member(member.name, data, rng)
            member.size = len(data) if member.isreg() else 0
            target.addfile(member, io.BytesIO(data))
    return out.getvalue()
