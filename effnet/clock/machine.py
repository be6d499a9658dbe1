"""The machine on which something was measured, as far as it matters for speed. The standard library only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from effnet.arch.record import Record
from effnet.clock.cores import usable

# What convolutions are written in, by the names that Linux gives them (arm64's where they differ from everybody's).
INSTRUCTIONS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
RUNTIMES = ("torch", "onnxruntime", "openvino", "ai-edge-litert")
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

    def in_words(self) -> str:
        """One line for a person: "AMD EPYC, 2 cores, avx2 avx512f, 25.2 GB"."""
        known = " ".join(self.instructions)
        memory = f"{self.bytes / 1e9:.1f} GB" if self.bytes else ""
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return ", ".join(filter(None, (self.cpu, cores, known, memory, self.system)))


@cache
def machine() -> Machine:
    """This machine; asked once."""
    told = _cpuinfo()
    flags = set(f"{told.get('flags', '')} {told.get('Features', '')}".lower().split())
    if "asimd" in flags or (sys.platform == "darwin" and platform.machine() == "arm64"):
        flags.add("neon")
    if sys.platform == "darwin":
        flags |= _on_a_mac()
    return Machine(
        cpu=told.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine(),
        system=f"{platform.system()} {platform.machine()}",
        cores=cores(),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        bytes=_memory(),
        cache=_last_cache(),
    )


def versions(packages: tuple[str, ...] = RUNTIMES) -> dict[str, str]:
    """The versions of those of ``packages`` that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """How many cores this process may use: those it may be put on, within the share that its container is given."""
    allowed = len(usable())
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def _cpuinfo() -> dict[str, str]:
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


def _on_a_mac() -> set[str]:
    """Its instruction sets under Linux's names."""
    intel = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    named = {"AVX1.0": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512F": "avx512f"}
    found = {ours for theirs, ours in named.items() if theirs in intel.split()}
    arm = {"FP16": "asimdhp", "DotProd": "asimddp", "I8MM": "i8mm", "BF16": "bf16", "SME": "sme"}
    return found | {ours for theirs, ours in arm.items() if _sysctl(f"hw.optional.arm.FEAT_{theirs}") == "1"}


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _last_cache() -> int:
    sizes = [_read(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    sizes += [_sysctl("hw.l3cachesize"), _sysctl("hw.l2cachesize")]
    found = [re.fullmatch(r"(\d+)([KMG]?)", size) for size in sizes]
    return max((int(one[1]) * _UNITS.get(one[2], 1) for one in found if one), default=0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
