"""Peak memory of a process, available memory, and keeping freed memory for reuse."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
MAX_THRESHOLD, DEFAULT_THRESHOLD = 2**31 - 1, 128 * 1024  # bytes


def peak_memory(process: int | str = "self") -> int:
    """Return the peak resident memory of this process, or on Linux of the running one with that id, in bytes.

    Raises ``ProcessLookupError`` if there is no such process (any more).
    """
    if Path("/proc/self/status").exists():  # rusage would include what the parent held before this program started
        with suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"process {process} is not running")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory() -> int:
    """Return the bytes that the machine, or this process's control group, can still provide; 0 if unknown."""
    limits = []
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text()))
    return max(0, min(limits, default=0))


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Let the process keep freed memory for reuse inside this context, if its C library is glibc.

    Otherwise every large block is returned to the system and comes back filled with zeros: a third of the time of
    training on a CPU, whose steps free and allocate the same gigabytes over and over. It is returned at the end.
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
