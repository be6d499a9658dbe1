"""How a time or a memory peak is taken: warm-up, interleaving, medians, spread. The only timer in the program.

Importing it imports neither torch nor numpy; what measures the machine's limits brings torch when it is called.
"""

from effnet.clock.contest import PAUSE as PAUSE
from effnet.clock.contest import Contestant as Contestant
from effnet.clock.contest import contest as contest
from effnet.clock.cores import pinned as pinned
from effnet.clock.fresh import Fresh as Fresh
from effnet.clock.fresh import in_fresh_process as in_fresh_process
from effnet.clock.fresh import run_command as run_command
from effnet.clock.machine import RUNTIMES as RUNTIMES
from effnet.clock.machine import Machine as Machine
from effnet.clock.machine import machine as machine
from effnet.clock.machine import versions as versions
from effnet.clock.memory import peak_memory as peak_memory
from effnet.clock.peaks import Peaks as Peaks
from effnet.clock.peaks import peaks as peaks
from effnet.clock.stopwatch import Stopwatch as Stopwatch
from effnet.clock.timing import Ratio as Ratio
from effnet.clock.timing import Timing as Timing
from effnet.clock.timing import ratio as ratio
