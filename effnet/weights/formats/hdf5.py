"""HDF5 files, opened so that nothing in them refers to another file or needs more memory than the file explains.

Links to other files, external datasets, and shapes larger than what is stored are refused before anything is read. HDF5
itself refuses a file that is shorter than its header states.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import torch

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_COMPRESSION_RATIO = 100  # bytes in memory per byte in the file: weights hardly compress
MIN_CHECKED_BYTES = 2**20  # any compression is accepted below
# What h5py raises for a damaged file
READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


class Hdf5Tree:
    """An open file: its groups and datasets by path, "" for the file itself."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path  # of the file, for messages
        self.groups: dict[str, h5py.Group] = {"": file}
        self.datasets: dict[str, h5py.Dataset] = {}
        self._walk("", file, {_object_address(file)})

    def tensor(self, name: str) -> torch.Tensor:
        """Read the dataset ``name`` in its own dtype."""
        dataset = self.datasets[name]
        self._check_size(name, dataset)
        if _decode_text(dataset.attrs.get("dtype", "")) == "bfloat16":  # Keras' mark, since numpy has no bfloat16
            return torch.from_numpy(dataset[()].view(np.int16)).view(torch.bfloat16)
        if dataset.dtype.kind not in "fiu":
            raise ValueError(f"{self.path}: {name} contains no numbers ({dataset.dtype})")
        array = np.asarray(dataset[()])
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))

    def string_list(self, group: str, attribute: str) -> tuple[str, ...]:
        """Read a list of strings from ``attribute``, or ``attribute0``, ``attribute1`` … as Keras splits long ones."""
        attributes = self.groups[group].attrs
        parts = (f"{attribute}{part}" for part in count())
        names = [attribute] if attribute in attributes else takewhile(attributes.__contains__, parts)
        return tuple(_decode_text(text) for name in names for text in attributes[name])

    def string(self, group: str, attribute: str) -> str | None:
        """Read a string from an attribute; None if it is missing."""
        value = self.groups[group].attrs.get(attribute)
        return None if value is None else _decode_text(value)

    def _walk(self, at: str, group: h5py.Group, visited: set[Any]) -> None:
        for name in group:
            path = f"{at}/{name}" if at else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{self.path}: {path} is a link, which no weights file needs")
            child = group[name]
            if _object_address(child) in visited:
                continue
            visited.add(_object_address(child))
            if isinstance(child, h5py.Group):
                self.groups[path] = child
                self._walk(path, child, visited)
            elif isinstance(child, h5py.Dataset):
                self.datasets[path] = child

    def _check_size(self, name: str, dataset: h5py.Dataset) -> None:
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{self.path}: {name} is stored in another file")
        stored = dataset.id.get_storage_size()
        compressed = dataset.compression and stored
        most = max(MAX_COMPRESSION_RATIO * stored, MIN_CHECKED_BYTES) if compressed else stored
        if dataset.nbytes > most:
            raise ValueError(f"{self.path}: {name} has {dataset.nbytes} bytes but stores {stored}")


@contextmanager
def open_hdf5(source: Path | IO[bytes], path: Path) -> Iterator[Hdf5Tree]:
    """Open ``source``. Raises ``ValueError`` that names ``path`` if the file is damaged, also inside the block."""
    try:
        with h5py.File(source, "r") as file:
            yield Hdf5Tree(file, path)
    except RecursionError:
        raise ValueError(f"{path}: a damaged HDF5 file (endless groups)") from None
    except READ_ERRORS as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: a damaged HDF5 file ({reason})") from None


def _object_address(found: h5py.Group | h5py.Dataset) -> Any:
    return h5py.h5o.get_info(found.id).addr


def _decode_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
