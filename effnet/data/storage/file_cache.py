"""Local copies of large remote files, each downloaded whole when it is needed, in a folder of bounded size.

Not fsspec's ``filecache``: several processes must share one download, and old files be evicted.
"""

import os
import shutil
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from effnet.data.storage import cache_dir, remote
from effnet.data.storage.atomic_write import atomic_write

MAX_DISK_FRACTION = 0.5  # of the disk's free space and the cached files together
_CHUNK_BYTES = 2**20
_EVICTION_INTERVAL_BYTES = 64 * _CHUNK_BYTES
_STALE_NANOSECONDS = 3600 * 10**9  # without a byte


def cached_file(url: str, version: str) -> Path:
    """Return the path of a local copy of this ``version`` of ``url``, downloaded if it does not exist yet.

    One of several processes downloads it; copies that were used longest ago make room. ``OSError`` if that fails.
    """
    path = cache_dir.writable_cache_dir() / "copies" / f"{sha256(f'{url} {version}'.encode()).hexdigest()[:32]}.tar"
    if not _touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not _touch(path):
                _download(url, path)
    return path


def _touch(path: Path) -> bool:
    """Mark the file as used now; return whether it exists."""
    with suppress(OSError):
        os.utime(path)
        return True
    return False


def _download(url: str, path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file, remote.ResumingReader(url) as reader:
        while chunk := reader.read(_CHUNK_BYTES):
            if file.tell() % _EVICTION_INTERVAL_BYTES < _CHUNK_BYTES:
                _evict(path.parent)
            file.write(chunk)


def _evict(folder: Path) -> None:
    """Delete the files that were used longest ago while all take more than their share of the disk."""
    files = []
    for entry in os.scandir(folder):
        with suppress(OSError):  # another process has just deleted it
            files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in files)
    limit = MAX_DISK_FRACTION * (total + shutil.disk_usage(folder).free)
    for modified, size, name in sorted(files):
        is_stale = name.endswith(".part") and time.time_ns() - modified > _STALE_NANOSECONDS  # of a killed process
        if is_stale or (name.endswith(".tar") and total > limit):
            Path(name).unlink(missing_ok=True)
            total -= size
