"""How times and memory peaks are measured: warm-up, interleaving, medians, confidence intervals.

Importing it imports neither torch nor numpy; `measure_peaks` imports torch when called.
"""

from effnet.timing.child_process import run_command as run_command
from effnet.timing.child_process import run_in_subprocess as run_in_subprocess
from effnet.timing.machine import RUNTIME_PACKAGES as RUNTIME_PACKAGES
from effnet.timing.machine import Machine as Machine
from effnet.timing.machine import MachinePeaks as MachinePeaks
from effnet.timing.machine import describe_machine as describe_machine
from effnet.timing.machine import installed_versions as installed_versions
from effnet.timing.machine import measure_peaks as measure_peaks
from effnet.timing.machine import pin_to_cores as pin_to_cores
from effnet.timing.memory import peak_memory as peak_memory
from effnet.timing.timer import THREAD_POOL_PAUSE as THREAD_POOL_PAUSE
from effnet.timing.timer import Stopwatch as Stopwatch
from effnet.timing.timer import TimedCall as TimedCall
from effnet.timing.timer import Timing as Timing
from effnet.timing.timer import time_interleaved as time_interleaved
from effnet.timing.timer import time_ratio as time_ratio
