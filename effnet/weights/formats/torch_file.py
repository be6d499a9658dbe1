"""The files of ``torch.save`` in all their forms, read without running them: archives, TorchScript, and before 1.6.

What a file holds is read by `unpickler`; here is where the numbers of its tensors lie. They are read only for tensors
that are asked for, and never more bytes than the file can hold.

Sources: PyTorch ``torch/serialization.py`` (``_load``, ``_legacy_load``), ``torch/csrc/jit/serialization``.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from effnet.data.storage.archive import ZIP_MAGIC, ZipReader, open_zip
from effnet.weights.formats.stand_ins import (
    ITEM_SIZES,
    DamagedPickleError,
    Storage,
    StoredTensor,
    UnreadableTensor,
    read_storage_dtype,
)
from effnet.weights.formats.unpickler import Budget, InertUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first of several pickles in the format before 1.6
MAX_PICKLE_BYTES = 2**28
MAX_CODE_BYTES = 2**24
MAX_NESTED_FILES = 2  # a pickled tensor is a file of PyTorch's within the pickle


class Source(Protocol):
    """Where the bytes of storages lie."""

    def read(self, key: str) -> Tensor:
        """Return the bytes of storage ``key``, uint8 (bytes,)."""


@dataclass(frozen=True)
class TorchFile:
    """An open file of PyTorch's: its content with stand-ins for all objects, and TorchScript's programs as text."""

    content: Any
    code: Mapping[str, str] | None = None  # path → text, if it is TorchScript

    def read_tensors(self, tensors: Mapping[str, StoredTensor | UnreadableTensor]) -> dict[str, Tensor]:
        """Return the tensors with their values; a meta tensor instead of one that is not a plain array of numbers.

        Tensors that share a storage in the file share memory.
        """
        buffers: dict[tuple[int, str], Tensor] = {}
        found = {}
        for name, tensor in tensors.items():
            if isinstance(tensor, UnreadableTensor):
                found[name] = torch.empty(tensor.size, device="meta")
                continue
            storage, size = tensor.storage, ITEM_SIZES[tensor.storage.dtype]
            place = id(storage.source), storage.key
            if place not in buffers:
                buffers[place] = storage.source.read(storage.key)
            start, end = storage.start * size, (storage.start + storage.elements) * size
            if end > len(buffers[place]):
                raise DamagedPickleError(f"{name} lies beyond the end of its storage")
            numbers = buffers[place][start:end].view(getattr(torch, tensor.dtype))
            found[name] = numbers.as_strided(tensor.size, tensor.stride, tensor.offset)
        return found


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Read what a file of ``torch.save``, ``torch.jit.save`` or ``pickle.dump`` holds, without running any of it.

    Raises:
        ValueError: the file is damaged, or claims to hold more than it can.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            with open_zip(path) as archive:
                yield _read_archive(archive)
        else:
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                yield TorchFile(_read_stream(data, Budget(), MAX_NESTED_FILES))


# Archives ------------------------------------------------------------------------------------------------------------


class _ArchiveSource:
    def __init__(self, archive: ZipReader, root: str) -> None:
        self.archive, self.root = archive, root

    def read(self, key: str) -> Tensor:
        name, filled = f"{self.root}data/{key}", 0
        chunks = self.archive.iter_chunks(name)
        first = next(chunks, b"")  # which checks the size that the archive states
        buffer = torch.empty(self.archive.member_size(name), dtype=torch.uint8)
        for chunk in chain((first,), chunks):
            buffer.numpy()[filled : filled + len(chunk)] = numpy.frombuffer(chunk, numpy.uint8)
            filled += len(chunk)
        return buffer


def _read_archive(archive: ZipReader) -> TorchFile:
    names = [name for name in archive.names if name == "data.pkl" or name.endswith("/data.pkl")]
    if not names:
        raise DamagedPickleError("an archive without a data.pkl")
    root = min(names, key=len).removesuffix("data.pkl")
    if f"{root}byteorder" in archive and archive.member_size(f"{root}byteorder") == len("big"):
        raise DamagedPickleError("written on a machine with another byte order")
    source = _ArchiveSource(archive, root)
    content = archive.read(f"{root}data.pkl", MAX_PICKLE_BYTES)

    def load_persistent(saved: Any) -> Any:
        if not isinstance(saved, tuple) or len(saved) < 5 or saved[0] != "storage":
            raise DamagedPickleError("a reference to something that is no storage")
        _, kind, key, _, elements = saved[:5]
        return _make_storage(source, key, kind, elements)

    machine = InertUnpickler(
        content, load_persistent, lambda data: _read_stream(data, machine.budget, MAX_NESTED_FILES - 1)
    )
    found = machine.load()
    is_script = f"{root}constants.pkl" in archive
    return TorchFile(found, _read_code(archive, f"{root}code/") if is_script else None)


def _read_code(archive: ZipReader, folder: str) -> dict[str, str]:
    """Return the programs of TorchScript, to be read, not run."""
    found, left = {}, MAX_CODE_BYTES
    for name in archive.names:
        if name.startswith(folder) and name.endswith(".py"):
            text = archive.read(name, left)
            left -= len(text)
            found[name.removeprefix(folder)] = text.decode("utf-8", "replace")
    return found


def _make_storage(source: Source, key: Any, kind: Any, elements: Any, start: int = 0) -> Storage:
    if not isinstance(key, (str, int)) or type(elements) is not int or not 0 <= elements < 2**48:
        raise DamagedPickleError("a storage without a key or a number of elements")
    return Storage(source, str(key), read_storage_dtype(kind), elements, start)


# Before 1.6, and plain pickles ---------------------------------------------------------------------------------------


class _StreamSource:
    """Storages behind the pickles: where each lies is known once these are read."""

    def __init__(self, data: bytes | mmap) -> None:
        self.data = data
        self.places: dict[str, tuple[int, int]] = {}  # key → first byte, bytes

    def read(self, key: str) -> Tensor:
        first, count = self.places[key]
        buffer = torch.empty(count, dtype=torch.uint8)
        buffer.numpy()[:] = numpy.frombuffer(self.data, numpy.uint8, count, first)
        return buffer


def _explain_tar(data: bytes | mmap) -> str:
    """Say what a tar archive is that is given as a file of weights."""
    names = {data[start : start + 100].rstrip(b"\0") for start in range(0, len(data) - 511, 512)}
    if {b"storages", b"tensors", b"pickle"} <= names:
        return (
            "an archive of PyTorch 0.1: if you trust it, open it with torch.load(FILE, weights_only=False), and save "
            "the network's state_dict() with torch.save"
        )
    return "a tar archive, not a file of weights: unpack it (tar -xf FILE), and pass the file in it"


def _read_stream(data: bytes | mmap, budget: Budget, depth: int) -> Any:
    """Return the content of a file of the format before 1.6, or of a plain pickle."""
    if depth < 0:
        raise DamagedPickleError("pickles within pickles")
    if data[257:262] == b"ustar":
        raise DamagedPickleError(_explain_tar(data))
    source, item_sizes = _StreamSource(data), {}

    def load_persistent(saved: Any) -> Any:
        if not isinstance(saved, tuple) or len(saved) < 2:
            raise DamagedPickleError("a reference to something that is no storage")
        if saved[0] == "module":  # a class, with its program beside it
            return saved[1]
        if saved[0] != "storage" or len(saved) < 6:
            raise DamagedPickleError("a reference to something that is no storage")
        _, kind, key, _, elements, view = saved[:6]
        whole = _make_storage(source, key, kind, elements)
        item_sizes[whole.key] = ITEM_SIZES.get(whole.dtype, 0)
        if view is None:
            return whole
        if not isinstance(view, tuple) or len(view) != 3 or type(view[1]) is not int or not 0 <= view[1] <= elements:
            raise DamagedPickleError("a storage within a storage without its place")
        return _make_storage(source, key, kind, view[2], view[1])

    machine = InertUnpickler(data, load_persistent, lambda inner: _read_stream(inner, budget, depth - 1), budget)
    content = machine.load()
    if type(content) is not int or content != LEGACY_MAGIC:
        return content
    machine.load()  # the version of the format
    machine.load()  # about the machine that wrote it
    content = machine.load()
    keys = machine.load()
    if not isinstance(keys, list):
        raise DamagedPickleError("no list of storages")
    place = machine.position
    for key in map(str, keys):
        if len(data) < place + 8:
            raise DamagedPickleError("it ends early")
        count = struct.unpack("<q", data[place : place + 8])[0] * item_sizes.get(key, 0)
        place += 8
        if key not in item_sizes or not 0 <= count <= len(data) - place:
            raise DamagedPickleError(f"storage {key} lies beyond the end of the file")
        source.places[key] = place, count
        place += count
    return content
