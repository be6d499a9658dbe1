"""The machine: CPU, cores, instruction sets, package versions, and its measured peak throughput and bandwidth.

Only `measure_peaks` needs torch; everything else is the standard library.
"""

import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from effnet.arch.serde import Record, check_int

LOG = logging.getLogger("effnet")

# Instruction sets that convolutions use, by Linux's names (including those that only arm64 has).
INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
# Instruction sets that multiply bfloat16 directly; elsewhere it is widened first, and no faster than float32.
BFLOAT16_INSTRUCTION_SETS = ("avx512_bf16", "amx_bf16", "bf16")
RUNTIME_PACKAGES = ("torch", "effnet-native", "onnxruntime", "openvino", "ai-edge-litert")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

MATRIX_SIDES = (512, 1024)  # small enough for the caches, large enough for the kernels
CACHED_BYTES = 4 * 2**20  # size of an array that stays in the caches, as a network's maps do
MIN_TRIES, MIN_SECONDS = 10, 0.1  # of each measurement


# --- Cores -------------------------------------------------------------------------------------------------------


def usable_cores() -> tuple[int, ...]:
    """Return the ids of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def count_cores() -> int:
    """Return the number of cores that this process may use, within its container's CPU quota."""
    allowed = len(usable_cores())
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


@contextmanager
def pin_to_cores(cores: int | Collection[int]) -> Iterator[tuple[int, ...]]:
    """Pin the whole process, running threads included, to a number of cores, or to those with these ids; yield the ids.

    On systems without pinning (macOS, Windows) nothing changes, with a warning in the log. Raises ``ValueError`` if
    there is no core, or one that this process may not use.
    """
    allowed = usable_cores()
    if isinstance(cores, int):
        check_int("cores", cores, 1)
        wanted = allowed[:cores]
        if cores > len(allowed):
            raise ValueError(f"cannot pin to {cores} cores: this process may use only {len(allowed)}")
    else:
        wanted = tuple(sorted(set(cores)))
        if not wanted or not set(wanted) <= set(allowed):
            raise ValueError(f"cores must be among {', '.join(map(str, allowed))}, got {list(cores)}")
    if not hasattr(os, "sched_setaffinity"):
        LOG.warning("this system cannot pin a process to cores: times are measured on any core")
        yield wanted
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _thread_ids()}
    _set_affinity({thread: set(wanted) for thread in before})
    try:
        yield wanted
    finally:
        _set_affinity({thread: before.get(thread, set(allowed)) for thread in _thread_ids()})


def _thread_ids() -> list[int]:
    """Return the system's ids of this process's threads; 0 is the calling thread."""
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]


def _set_affinity(threads: dict[int, set[int]]) -> None:
    for thread, cores in threads.items():
        with suppress(ProcessLookupError):  # the thread has ended since it was listed
            os.sched_setaffinity(thread, cores)


# --- Description -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine(Record):
    """The machine that something was measured on. ``bytes`` and ``cache`` are 0 if the system does not report them."""

    cpu: str
    system: str
    cores: int  # that this process may use
    instructions: tuple[str, ...]  # among INSTRUCTION_SETS
    bytes: int  # of memory
    cache: int  # bytes of the last-level cache

    def describe(self) -> str:
        """Return one line such as "AMD EPYC, 2 cores, avx2 avx512f, 25.2 GB, Linux x86_64"."""
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        memory = f"{self.bytes / 1e9:.1f} GB" if self.bytes else ""
        return ", ".join(filter(None, (self.cpu, cores, " ".join(self.instructions), memory, self.system)))


@cache
def describe_machine() -> Machine:
    """Return a description of this machine."""
    cpuinfo = _read_cpuinfo()
    flags = set(f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".lower().split())
    if "asimd" in flags or (sys.platform == "darwin" and platform.machine() == "arm64"):
        flags.add("neon")
    if sys.platform == "darwin":
        flags |= _mac_instruction_sets()
    cpu = cpuinfo.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0
    return Machine(
        cpu=cpu or platform.machine(),
        system=f"{platform.system()} {platform.machine()}",
        cores=count_cores(),
        instructions=tuple(name for name in INSTRUCTION_SETS if name in flags),
        bytes=memory,
        cache=_last_level_cache(),
    )


def installed_versions(packages: tuple[str, ...] = RUNTIME_PACKAGES) -> dict[str, str]:
    """Return the version of each installed package of ``packages``."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _read_cpuinfo() -> dict[str, str]:
    first_core = _read_or_empty(Path("/proc/cpuinfo")).split("\n\n")[0]
    lines = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _sysctl(name: str) -> str:
    if sys.platform != "darwin":
        return ""
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _mac_instruction_sets() -> set[str]:
    intel = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    intel_names = {"AVX1.0": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512F": "avx512f"}
    arm_names = {"FP16": "asimdhp", "DotProd": "asimddp", "I8MM": "i8mm", "BF16": "bf16", "SME": "sme"}
    names = {linux for mac, linux in intel_names.items() if mac in intel.split()}
    return names | {linux for mac, linux in arm_names.items() if _sysctl(f"hw.optional.arm.FEAT_{mac}") == "1"}


def _last_level_cache() -> int:
    sizes = [_read_or_empty(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    sizes += [_sysctl("hw.l3cachesize"), _sysctl("hw.l2cachesize")]
    matches = (re.fullmatch(r"(\d+)([KMG]?)", size) for size in sizes)
    return max((int(match[1]) * _UNITS.get(match[2], 1) for match in matches if match), default=0)


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- Peak throughput and bandwidth -------------------------------------------------------------------------------


@dataclass(frozen=True)
class MachinePeaks(Record):
    """Peak throughput and bandwidth of this machine with ``threads`` threads, as the roofline model needs them.

    Throughputs are of matrix products, in multiply-accumulates per second; bandwidths of copying, in bytes read and
    written per second: of arrays within the caches, and of arrays far larger. They are measured with torch: a runtime
    with better kernels than torch's library can exceed them slightly.
    """

    threads: int
    float32: float
    bfloat16: float  # 0: not supported by the hardware
    cache: float
    memory: float

    def macs(self, precision: str) -> float:
        """Return the multiply-accumulates per second in ``precision``; 0 if it was not measured."""
        return {"float32": self.float32, "bfloat16": self.bfloat16}.get(precision, 0.0)

    def bandwidth(self, bytes_: float) -> float:
        """Return the bandwidth for a working set of that many bytes: the caches' if it fits."""
        return self.cache if bytes_ <= describe_machine().cache else self.memory

    def describe(self) -> str:
        """Return one line for people."""
        bfloat16 = f", {self.bfloat16 / 1e9:.0f} in bfloat16" if self.bfloat16 else ""
        return (
            f"{self.float32 / 1e9:.0f} GMAC/s in float32{bfloat16}; {self.cache / 1e9:.0f} GB/s within the caches, "
            f"{self.memory / 1e9:.0f} GB/s beyond; {self.threads} thread{'s' if self.threads != 1 else ''}"
        )


@cache
def measure_peaks(threads: int) -> MachinePeaks:
    """Measure the peaks of ``threads`` threads with torch, in about a second: the best of many tries, cached.

    They are at least those of a single thread. Raises ``ValueError`` if ``threads`` is below 1.
    """
    check_int("threads", threads, 1)
    import torch

    single = measure_peaks(1) if threads > 1 else MachinePeaks(1, 0.0, 0.0, 0.0, 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            has_bfloat16 = any(name in describe_machine().instructions for name in BFLOAT16_INSTRUCTION_SETS)
            return MachinePeaks(
                threads,
                float32=max(single.float32, _measure_matmul(torch.float32)),
                bfloat16=max(single.bfloat16, _measure_matmul(torch.bfloat16)) if has_bfloat16 else 0.0,
                cache=max(single.cache, _measure_copy(CACHED_BYTES)),
                memory=max(single.memory, _measure_copy(max(4 * describe_machine().cache, 2**27))),
            )
    finally:
        torch.set_num_threads(before)


def _measure_matmul(dtype: Any) -> float:
    import torch

    best = 0.0
    for side in MATRIX_SIDES:
        a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
        best = max(best, side**3 / _fastest_call(partial(torch.mm, a, b, out=torch.empty_like(a))))
    return best


def _measure_copy(size: int) -> float:
    """Return the bytes read and written per second when copying an array, ``size`` bytes in all."""
    import torch

    source = torch.ones(size // 8)
    return size / _fastest_call(partial(torch.empty_like(source).copy_, source))


def _fastest_call(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    while len(times) < MIN_TRIES or sum(times) < MIN_SECONDS:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)
