"""The files that a served model was opened from, and whether they have been replaced since."""

import logging
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from effnet.runtime import engine_cache, io_spec
from effnet.weights.resolve import resolve_weights

LOG = logging.getLogger("effnet")

_Stamp = tuple[int, int, int, int]


@dataclass
class _File:
    path: Path
    stamp: _Stamp | None  # None: there was no such file
    digest: str


class ModelFiles:
    """The files of a model, as they were when this was created.

    A file that is written again with the same content has not been replaced, nor has one that was removed: the model
    that was read from it is still right.
    """

    def __init__(self, source: str | Path) -> None:
        self._files = [_File(path, stamp := _read_stamp(path), _read_digest(path, stamp)) for path in _list(source)]
        self._said = False

    @property
    def paths(self) -> list[Path]:
        """The files that are there or could be, the model's own first."""
        return [file.path for file in self._files]

    def were_replaced(self) -> bool:
        """Return whether a file has another content now; say so in the log, once. Reads those with a new timestamp."""
        replaced = next((file.path for file in self._files if _was_replaced(file)), None)
        if replaced and not self._said:
            LOG.warning("%s was replaced since it was opened: requests for it are refused until a restart", replaced)
        self._said = replaced is not None
        return self._said


def _list(source: str | Path) -> list[Path]:
    path = Path(source)
    if io_spec.is_exported(path):
        return [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
    path = resolve_weights(source).path
    shards = sorted(path.parent.glob(f"{path.stem}.data-*")) if path.suffix == ".index" else []
    sidecars = [path.with_name(name) for name in (*engine_cache.SIDECAR_FILES, f"{path.name}.data")]
    return [path, *sidecars, *shards]


def _was_replaced(file: _File) -> bool:
    stamp = _read_stamp(file.path)
    if stamp is None or stamp == file.stamp:
        return False
    if file.stamp is None or stamp[0] != file.stamp[0] or _read_digest(file.path, stamp) != file.digest:
        return True
    file.stamp = stamp
    return False


def _read_stamp(path: Path) -> _Stamp | None:
    """Return size, times of content and status, and inode; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _read_digest(path: Path, stamp: _Stamp | None) -> str:
    if stamp is None:
        return ""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:  # removed, or replaced by something that cannot be read
        return ""
