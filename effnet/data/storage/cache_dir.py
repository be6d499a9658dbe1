"""The folder on this disk for downloads, copies of remote files and results kept between runs; offline mode."""

import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from effnet.data.storage.atomic_write import atomic_write

log = logging.getLogger("effnet")

_TRUE_VALUES = ("1", "on", "yes", "true")  # of an environment variable, as huggingface_hub reads them


def configured_cache_dir() -> Path:
    """Return ``$EFFNET_HOME``, or ``effnet`` in the user's cache."""
    provide_home()
    if chosen := os.environ.get("EFFNET_HOME"):
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "effnet"


def provide_home() -> None:
    """Make a temporary folder the home of a user who has none, and say so; a no-op for all others.

    Clusters run containers under a number that no user has, often without ``HOME``. PyTorch's compiler and the hub's
    client then fail, or write into a folder called ``~``, as we would.
    """
    if os.path.expanduser("~") != "~":
        return
    folder = _temporary_dir()
    os.environ |= {"HOME": str(folder), "USER": os.environ.get("USER") or folder.name}
    if not (os.environ.get("EFFNET_HOME") or os.environ.get("XDG_CACHE_HOME")):
        log.warning("there is no home directory: caches are kept in %s; set EFFNET_HOME to keep them elsewhere", folder)


def writable_cache_dir() -> Path:
    """Return the configured folder, or a temporary one of this user if that is read-only.

    Containers and clusters often mount the home directory read-only; losing a cache must not fail a prediction.

    Raises:
        OSError: if the temporary folder belongs to another user, who could put files into it.
    """
    configured = configured_cache_dir()
    existing = next(path for path in (configured.absolute(), *configured.absolute().parents) if os.path.exists(path))
    if existing.is_dir() and os.access(existing, os.W_OK):  # it is there, or can be created
        return configured
    return _temporary_dir()


def _temporary_dir() -> Path:
    """Return a temporary folder of this user's own."""
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir()) / f"effnet-{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise OSError(f"{folder} belongs to another user: set EFFNET_HOME to a folder of your own")
    return folder


def is_offline() -> bool:
    """Return whether the network must not be used: ``EFFNET_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``."""
    values = (os.environ.get(name, "").lower() for name in ("EFFNET_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value in _TRUE_VALUES for value in values)


# --- Copies of large remote files, each downloaded whole when it is needed, in a folder of bounded size ---------------

# Not fsspec's ``filecache``: several processes must share one download, and old files be evicted.
MAX_DISK_FRACTION = 0.5  # of the disk's free space and the cached files together
_CHUNK_BYTES = 2**20
_EVICTION_INTERVAL_BYTES = 64 * _CHUNK_BYTES
_STALE_NANOSECONDS = 3600 * 10**9  # without a byte


def cached_file(url: str, version: str) -> Path:
    """Return the path of a local copy of this ``version`` of ``url``, downloaded if it does not exist yet.

    One of several processes downloads it; copies that were used longest ago make room. ``OSError`` if that fails.
    """
    from filelock import FileLock

    path = (
        writable_cache_dir()
        / "copies"
        / f"{sha256(f'{url} {version}'.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.tar"
    )
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
    from effnet.data.storage import remote

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
