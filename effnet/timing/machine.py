"""Which of the machine's cores this process may use, and keeping it on some of them."""

from __future__ import annotations

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


def usable_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@contextmanager
def pin_to_cores(cores: int | Collection[int]) -> Iterator[tuple[int, ...]]:
    """In this block the whole process stays on ``cores``: on so many of those it may use, or on these by their numbers.

    Yields their numbers. Threads that run already are moved too, and back at the end. Where the system cannot pin
    (macOS, Windows) nothing changes, and a line of the log says so.
    Raises ``ValueError`` for no core, or for one that this process may not use.
    """
    allowed = usable_cores()
    if isinstance(cores, int):
        check_int("cores", cores, 1)
        wanted = allowed[:cores]
        if cores > len(allowed):
            raise ValueError(f"this process may use {len(allowed)} cores, not {cores}: pin it to fewer")
    else:
        wanted = tuple(sorted(set(cores)))
        if not wanted or not set(wanted) <= set(allowed):
            raise ValueError(f"cores must be among {', '.join(map(str, allowed))}, got {list(cores)}")
    if not hasattr(os, "sched_setaffinity"):
        LOG.warning("this system cannot pin a process to cores: times are taken on whichever it gives")
        yield wanted
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _thread_ids()}
    _set_affinity({thread: set(wanted) for thread in before})
    try:
        yield wanted
    finally:
        _set_affinity({thread: before.get(thread, set(allowed)) for thread in _thread_ids()})


def _thread_ids() -> list[int]:
    """The system's numbers of this process's threads; 0 is the one that asks."""
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]


def _set_affinity(threads: dict[int, set[int]]) -> None:
    for thread, cores in threads.items():
        with suppress(ProcessLookupError):  # it has ended since it was listed
            os.sched_setaffinity(thread, cores)


# The machine on which something was measured, as far as it matters for speed. The standard library only.


# What convolutions are written in, by the names that Linux gives them (arm64's where they differ from everybody's).
INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


RUNTIME_PACKAGES = ("torch", "onnxruntime", "openvino", "ai-edge-litert")


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Machine(Record):
    """What a figure was taken on. ``bytes`` and ``cache`` are 0 where the system does not tell."""

    cpu: str
    system: str
    cores: int  # that this process may use
    instructions: tuple[str, ...]  # of INSTRUCTIONS
    bytes: int  # of memory
    cache: int  # bytes of the last level of a core's caches

    def describe(self) -> str:
        """One line for a person: "AMD EPYC, 2 cores, avx2 avx512f, 25.2 GB"."""
        known = " ".join(self.instructions)
        memory = f"{self.bytes / 1e9:.1f} GB" if self.bytes else ""
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return ", ".join(filter(None, (self.cpu, cores, known, memory, self.system)))


@cache
def describe_machine() -> Machine:
    """This machine; asked once."""
    told = _read_cpuinfo()
    flags = set(f"{told.get('flags', '')} {told.get('Features', '')}".lower().split())
    if "asimd" in flags or (sys.platform == "darwin" and platform.machine() == "arm64"):
        flags.add("neon")
    if sys.platform == "darwin":
        flags |= _mac_instruction_sets()
    return Machine(
        cpu=told.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine(),
        system=f"{platform.system()} {platform.machine()}",
        cores=count_cores(),
        instructions=tuple(name for name in INSTRUCTION_SETS if name in flags),
        bytes=_total_memory(),
        cache=_last_level_cache(),
    )


def installed_versions(packages: tuple[str, ...] = RUNTIME_PACKAGES) -> dict[str, str]:
    """The versions of those of ``packages`` that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def count_cores() -> int:
    """How many cores this process may use: those it may be put on, within the share that its container is given."""
    allowed = len(usable_cores())
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def _read_cpuinfo() -> dict[str, str]:
    """What Linux says of the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in lines}


def _sysctl(name: str) -> str:
    if sys.platform != "darwin":
        return ""
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _mac_instruction_sets() -> set[str]:
    """Its instruction sets under Linux's names."""
    intel = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    named = {"AVX1.0": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512F": "avx512f"}
    found = {ours for theirs, ours in named.items() if theirs in intel.split()}
    arm = {"FP16": "asimdhp", "DotProd": "asimddp", "I8MM": "i8mm", "BF16": "bf16", "SME": "sme"}
    return found | {ours for theirs, ours in arm.items() if _sysctl(f"hw.optional.arm.FEAT_{theirs}") == "1"}


def _total_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _last_level_cache() -> int:
    sizes = [_read_or_empty(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    sizes += [_sysctl("hw.l3cachesize"), _sysctl("hw.l2cachesize")]
    found = [re.fullmatch(r"(\d+)([KMG]?)", size) for size in sizes]
    return max((int(one[1]) * _UNITS.get(one[2], 1) for one in found if one), default=0)


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# The machine's limits, measured: how fast it multiplies, and how fast it moves numbers.


MATRIX_SIDES = (512, 1024)  # of the matrices: small enough for the caches, large enough for the kernels


CACHED_BYTES = 4 * 2**20  # bytes of an array that stays in the caches, as a network's maps do


MIN_TRIES, MIN_SECONDS = 10, 0.1  # of each measurement, at least


# Instruction sets that multiply bfloat16 themselves; elsewhere it is widened first, and no faster than float32
BFLOAT16_INSTRUCTION_SETS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class MachinePeaks(Record):
    """What ``threads`` threads of this machine reach at most.

    Speeds are of matrix products, in multiply-accumulates a second; bandwidths of copying, in bytes read and written
    a second: of arrays within the caches, and of arrays far beyond them. They are torch's: a runtime whose kernels are
    better than those of torch's library can reach a little more.
    """

    threads: int
    float32: float
    bfloat16: float  # 0: not in hardware here
    cache: float
    memory: float

    def macs(self, precision: str) -> float:
        """Multiply-accumulates a second in ``precision``; 0 where its limit was not measured."""
        return {"float32": self.float32, "bfloat16": self.bfloat16}.get(precision, 0.0)

    def bandwidth(self, bytes_: float) -> float:
        """Bytes a second for work on so many bytes: the caches' where they hold them."""
        return self.cache if bytes_ <= describe_machine().cache else self.memory

    def describe(self) -> str:
        """One line for a person."""
        narrow = f", {self.bfloat16 / 1e9:.0f} in bfloat16" if self.bfloat16 else ""
        return (
            f"{self.float32 / 1e9:.0f} GMAC/s in float32{narrow}; {self.cache / 1e9:.0f} GB/s within the caches, "
            f"{self.memory / 1e9:.0f} GB/s beyond; {self.threads} thread{'s' if self.threads != 1 else ''}"
        )


@cache
def measure_peaks(threads: int) -> MachinePeaks:
    """The limits of ``threads`` threads, by torch: the best of many tries, measured once, in about a second.

    They are at least those of one thread, which nothing keeps from working alone.

    Raises ``ValueError`` for no threads.
    """
    check_int("threads", threads, 1)
    import torch

    alone = measure_peaks(1) if threads > 1 else MachinePeaks(1, 0.0, 0.0, 0.0, 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            narrow = any(name in describe_machine().instructions for name in BFLOAT16_INSTRUCTION_SETS)
            return MachinePeaks(
                threads,
                float32=max(alone.float32, _measure_matmul(torch.float32)),
                bfloat16=max(alone.bfloat16, _measure_matmul(torch.bfloat16)) if narrow else 0.0,
                cache=max(alone.cache, _measure_copy(CACHED_BYTES)),
                memory=max(alone.memory, _measure_copy(max(4 * describe_machine().cache, 2**27))),
            )
    finally:
        torch.set_num_threads(before)


def _measure_matmul(dtype: Any) -> float:
    """Multiply-accumulates a second of square matrix products."""
    import torch

    found = 0.0
    for side in MATRIX_SIDES:
        one, other = (torch.rand(side, side).to(dtype) for _ in range(2))
        out = torch.empty_like(one)
        found = max(found, side**3 / _fastest_call(partial(torch.mm, one, other, out=out)))
    return found


def _measure_copy(size: int) -> float:
    """Bytes read and written a second when an array is copied into another, ``size`` bytes in all."""
    import torch

    one = torch.ones(size // 8)
    other = torch.empty_like(one)
    return size / _fastest_call(partial(other.copy_, one))


def _fastest_call(call: Callable[[], object]) -> float:
    call()
    taken: list[float] = []
    while len(taken) < MIN_TRIES or sum(taken) < MIN_SECONDS:
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return min(taken)
