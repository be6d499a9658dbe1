"""The most memory that a process has held."""

from __future__ import annotations

import sys
from pathlib import Path


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
