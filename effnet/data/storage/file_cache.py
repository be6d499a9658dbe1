"""Copies of large files that lie elsewhere, each brought here whole when it is needed, in a folder of bounded size."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.cache_dir import writable_cache_dir
from effnet.data.storage.remote import ResumingReader

MAX_DISK_FRACTION = 0.5  # of what the disk has free, or is taken by copies, that they may take together
_CHUNK_BYTES = 2**20
_STALE_NANOSECONDS = 3600 * 10**9  # nanoseconds without a byte


def file_cache_dir() -> Path:
    """The folder of the copies. What lies in it may be deleted at any time: it is brought again."""
    return writable_cache_dir() / "copies"


def cached_file(address: str, version: str) -> Path:
    """The file at ``address``, of that ``version``, on this disk: brought if it is not here yet.

    Of several processes one brings it and the others wait. Copies that nobody has used for longest go first when there
    are too many. Raises ``OSError`` with one sentence where it cannot be read or the disk is full.
    """
    path = file_cache_dir() / f"{sha256(f'{address} {version}'.encode()).hexdigest()[:32]}.tar"
    if not _touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not _touch(path):
                _download(address, path)
    return path


def _touch(path: Path) -> bool:
    """Whether the copy is here; it is the youngest then."""
    with suppress(OSError):
        os.utime(path)
        return True
    return False


def _download(address: str, path: Path) -> None:
    with atomic_write(path) as beside, beside.open("wb") as file, ResumingReader(address) as there:
        while piece := there.read(_CHUNK_BYTES):
            if file.tell() % (64 * _CHUNK_BYTES) == 0:
                _evict(path.parent)
            file.write(piece)


def _evict(folder: Path) -> None:
    """Deletes the copies that were used longest ago while all of them take more than their share of the disk."""
    here = []
    for entry in os.scandir(folder):
        with suppress(OSError):  # another process has just deleted it
            here.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    taken = sum(size for _, size, _ in here)
    most = MAX_DISK_FRACTION * (taken + shutil.disk_usage(folder).free)
    for when, size, name in sorted(here):
        left_over = (
            name.endswith(".part") and time.time_ns() - when > _STALE_NANOSECONDS
        )  # by a process that was killed
        if left_over or (name.endswith(".tar") and taken > most):
            Path(name).unlink(missing_ok=True)
            taken -= size
