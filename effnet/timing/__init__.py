"""How times and memory peaks are measured: warm-up, interleaving, medians, confidence intervals.

Importing it imports neither torch nor numpy; `measure_peaks` imports torch when called.
"""

from effnet.timing.child_process import run_command, run_in_subprocess
from effnet.timing.machine import (
    RUNTIME_PACKAGES,
    Machine,
    MachinePeaks,
    describe_machine,
    installed_versions,
    measure_peaks,
    pin_to_cores,
)
from effnet.timing.memory import peak_memory
from effnet.timing.timer import THREAD_POOL_PAUSE, Stopwatch, TimedCall, Timing, time_interleaved, time_ratio

__all__ = ["RUNTIME_PACKAGES", "THREAD_POOL_PAUSE", "Machine", "MachinePeaks", "Stopwatch", "TimedCall", "Timing"]
__all__ += ["describe_machine", "installed_versions", "measure_peaks", "peak_memory", "pin_to_cores", "run_command"]
__all__ += ["run_in_subprocess", "time_interleaved", "time_ratio"]
