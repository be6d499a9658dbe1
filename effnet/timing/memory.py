"""The most memory that a process has held, how much there still is, and keeping what is freed."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # in malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
MAX_THRESHOLD, DEFAULT_THRESHOLD = 2**31 - 1, 128 * 1024  # bytes


def peak_memory(process: int | str = "self") -> int:
    """Bytes of memory that this process has held at its worst moment, as the system counts them.

    ``process`` is the number of another one, which must still run, on Linux. Raises ``ProcessLookupError`` where it
    does not.
    """
    status = Path(f"/proc/{process}/status")
    if Path("/proc/self/status").exists():  # rusage would count what the parent held before this program was started
        try:
            lines = status.read_text().splitlines()
        except OSError:
            lines = []
        for line in lines:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"process {process} runs no more")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory() -> int:
    """Bytes that this machine, or the group of processes that this one belongs to, could still give; 0: not known."""
    found = [number * 1024 for name, number in _read_meminfo() if name == "MemAvailable"]
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            found.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(0, min(found, default=0))


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """In this block the process keeps what it frees, for what comes next, where glibc is its library.

    Otherwise every large block goes back to the system and comes again filled with zeros: a third of the time of
    training on a CPU, whose steps free and want the same gigabytes over and over. What is kept goes back at the end.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, MAX_THRESHOLD)
    library.mallopt(M_TRIM_THRESHOLD, MAX_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, DEFAULT_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_THRESHOLD)
        library.malloc_trim(0)


def _read_meminfo() -> Iterator[tuple[str, int]]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, rest = line.partition(":")
        yield name, int(rest.split()[0])
