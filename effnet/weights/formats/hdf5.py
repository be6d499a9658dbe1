"""HDF5 files, opened so that nothing in them leads out of the file or asks for more memory than it holds.

Links to other files, datasets kept elsewhere, and shapes larger than what is stored are refused before anything is
read. HDF5 itself refuses a file that is shorter than its header says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import torch
from torch import Tensor

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_COMPRESSION_RATIO = 100  # bytes in memory to one in the file: weights hardly compress at all
MIN_CHECKED_BYTES = 2**20  # bytes, below which any compression is believed
# What h5py raises of a damaged file, beside its OSError
READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


class Hdf5Tree:
    """An open file, walked once: its groups and datasets by path, "" for the file itself."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path  # of the file, for complaints
        self.groups: dict[str, h5py.Group] = {"": file}
        self.datasets: dict[str, h5py.Dataset] = {}
        self._walk("", file, {_object_address(file)})

    def tensor(self, name: str) -> Tensor:
        """The dataset ``name`` in memory, in its own precision."""
        dataset = self.datasets[name]
        self._check_size(name, dataset)
        if (
            _decode_text(dataset.attrs.get("dtype", "")) == "bfloat16"
        ):  # as Keras marks two bytes that numpy has no name for
            return torch.from_numpy(dataset[()].view(np.int16)).view(torch.bfloat16)
        if dataset.dtype.kind not in "fiu":
            raise ValueError(f"{self.path}: {name} holds no numbers ({dataset.dtype})")
        array = np.asarray(dataset[()])
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))

    def string_list(self, group: str, attribute: str) -> tuple[str, ...]:
        """A list of texts in an attribute, or in as many (``attribute`` 0, 1 …) as Keras had to split it into."""
        attributes = self.groups[group].attrs
        if attribute in attributes:
            return tuple(_decode_text(text) for text in attributes[attribute])
        found: list[str] = []
        part = 0
        while f"{attribute}{part}" in attributes:
            found += (_decode_text(text) for text in attributes[f"{attribute}{part}"])
            part += 1
        return tuple(found)

    def string(self, group: str, attribute: str) -> str | None:
        """A text in an attribute; None where it is missing."""
        value = self.groups[group].attrs.get(attribute)
        return None if value is None else _decode_text(value)

    def _walk(self, at: str, group: h5py.Group, seen: set[Any]) -> None:
        for name in group:
            path = f"{at}/{name}" if at else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{self.path}: {path} is a link, which no file of weights needs")
            child = group[name]
            if _object_address(child) in seen:
                continue
            seen.add(_object_address(child))
            if isinstance(child, h5py.Group):
                self.groups[path] = child
                self._walk(path, child, seen)
            elif isinstance(child, h5py.Dataset):
                self.datasets[path] = child

    def _check_size(self, name: str, dataset: h5py.Dataset) -> None:
        """Raises ``ValueError`` for a dataset that claims more than the file holds."""
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{self.path}: {name} keeps its numbers in another file")
        stored = dataset.id.get_storage_size()
        most = (
            max(MAX_COMPRESSION_RATIO * stored, MIN_CHECKED_BYTES if stored else 0) if dataset.compression else stored
        )
        if dataset.nbytes > most:
            raise ValueError(f"{self.path}: {name} claims {dataset.nbytes} bytes and holds {stored}")


@contextmanager
def open_hdf5(source: Path | IO[bytes], path: Path) -> Iterator[Hdf5Tree]:
    """The tree of ``source``. Raises ``ValueError``, which names ``path``, for whatever is wrong with the file."""
    try:
        with h5py.File(source, "r") as file:
            yield Hdf5Tree(file, path)
    except RecursionError:
        raise ValueError(f"{path}: not a whole HDF5 file (groups without end)") from None
    except READ_ERRORS as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a whole HDF5 file ({reason})") from None


def _object_address(found: h5py.Group | h5py.Dataset) -> Any:
    return h5py.h5o.get_info(found.id).addr


def _decode_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
