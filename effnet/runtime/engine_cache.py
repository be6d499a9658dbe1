"""The engine cache: files that engines open, and which engine was fastest here, per network. Imports no torch.

``EFFNET_HOME/engines/KEY/`` holds ``network.effplan``, ``network.onnx``, ``network.tflite``, ``choices.json`` and
OpenVINO's own folder. All of it can be recreated: damaged or outdated files are replaced, and a full disk only costs
time.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from effnet.arch.serde import Record, read_json
from effnet.data.storage import cache_dir
from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import ModelMetadata
from effnet.timing import machine

CACHE_VERSION = 5  # increase when files are written differently, or foreign weights are interpreted differently
MAX_CACHE_BYTES = 2 * 2**30
SIDECAR_FILES = ("config.json", "preprocessor_config.json")  # read beside a weights file when it is loaded
NETWORK_NAME = re.compile(r"(efficient|tiny|mobile|mnas|mix)_?net", re.I)
NAMED_PARTS = 4  # of a path: models--timm--tf_efficientnet_b0.in1k/snapshots/HASH/model.safetensors
HASHES_FILE, MAX_HASHES = "hashes.json", 500
MIN_FILE_AGE_SECONDS = 2.0  # a younger file may change again without a new timestamp: file systems' clocks are coarse
CHOICES_FILE, MAX_RECORDS = "choices.json", 50
SHORT_PRECISIONS = {"bfloat16": "bf16", "float16": "f16"}

LOG = logging.getLogger("effnet")


def file_key(path: Path, entry: str = "") -> str:
    """Return the cache key of a weights file: a hash of all that decides how it is read. ``entry``: catalog name."""
    sidecars = [path.with_name(name) for name in SIDECAR_FILES]
    contents = [_file_hash(sidecar).encode() if sidecar.is_file() else b"" for sidecar in sidecars]
    if (data := path.with_name(f"{path.name}.data")).is_file():  # the weights of a large or a dynamo's .onnx
        contents.append(_file_hash(data).encode())
    # Names of file, folder and repository are evidence: tf_efficientnet_b0 pads otherwise than efficientnet_b0
    names = [
        part.lower().encode("utf-8", "surrogatepass")
        for part in path.absolute().parts[-NAMED_PARTS:]
        if NETWORK_NAME.search(part)
    ]
    parts = [str(CACHE_VERSION).encode(), _file_hash(path).encode(), entry.encode(), *contents, *names]
    return sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()


def model_key(tensors: Mapping[str, np.ndarray], metadata: ModelMetadata) -> str:
    """Return the cache key of a network in memory: a hash of its tensors and its metadata."""
    digest = sha256(f"{CACHE_VERSION} {metadata.to_json()}".encode())
    for name in sorted(tensors):
        if not name.endswith("num_batches_tracked"):
            data = np.ascontiguousarray(tensors[name])
            digest.update(f"\0{name} {data.dtype} {data.shape}\0".encode())
            digest.update(data.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def engine_folder(key: str) -> Path:
    """Return the folder of ``key``, which may not exist yet. Raises ``OSError`` if there is no place for a cache."""
    return cache_dir.writable_cache_dir() / "engines" / key


def find_cached(key: str, name: str) -> Path | None:
    """Return the path of a cached file and mark it as used, or None."""
    try:
        path = engine_folder(key) / name
        if not path.is_file():
            return None
        with suppress(OSError):  # read-only caches work too
            os.utime(path.parent)
        return path
    except OSError:
        return None


def write_cached(key: str, name: str, write: Callable[[Path], object]) -> Path | None:
    """Create a cached file with ``write``, atomically. Warn once and return None if the disk does not accept it."""
    try:
        path = engine_folder(key) / name
        with atomic_write(path) as temporary:
            write(temporary)
        os.utime(path.parent)
        _evict(path.parent)
    except OSError as error:
        _warn_once(f"cannot write to the engine cache: {error}")
        return None
    return path


def remove_cached(key: str, name: str) -> None:
    """Remove a cached file that turned out to be unusable."""
    with suppress(OSError):
        (engine_folder(key) / name).unlink(missing_ok=True)


def _file_hash(path: Path) -> str:
    """Return the file's hash, kept by path, size, time and inode, so that an unchanged file is not read again."""
    path = path.absolute()
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    known = _read_hashes()
    if known.get(str(path), [])[:3] == stamp:
        return str(known[str(path)][3])
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if abs(time.time() - status.st_mtime) > MIN_FILE_AGE_SECONDS:
        known.pop(str(path), None)
        newest = dict([*known.items(), (str(path), [*stamp, digest])][-MAX_HASHES:])
        with suppress(OSError), atomic_write(cache_dir.writable_cache_dir() / "engines" / HASHES_FILE) as temporary:
            temporary.write_text(json.dumps(newest), encoding="utf-8")
    return digest


def _read_hashes() -> dict[str, list[Any]]:
    """Return path → [size, time, inode, sha256]."""
    try:
        found = read_json(cache_dir.writable_cache_dir() / "engines" / HASHES_FILE)
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 4}


def _evict(newest: Path) -> None:
    others = sorted((each for each in newest.parent.iterdir() if each.is_dir() and each != newest), key=_last_used)
    left = _folder_bytes(newest) + sum(map(_folder_bytes, others))
    for each in others:
        if left <= MAX_CACHE_BYTES:
            return
        left -= _folder_bytes(each)
        shutil.rmtree(each, ignore_errors=True)


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # removed by another process
        return 0.0


def _folder_bytes(folder: Path) -> int:
    total = 0
    for each in folder.rglob("*"):
        with suppress(OSError):  # removed by another process
            total += each.stat().st_size
    return total


@cache
def _warn_once(text: str) -> None:
    LOG.warning("%s", text)


# Records of what was measured, in choices.json
@dataclass(frozen=True)
class TuningKey(Record):
    """What the fastest engine depends on besides the network: machine, package versions and use."""

    cpu: str
    cores: int
    instructions: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    batch_size: int
    size: tuple[int, int] | None  # None: the network's own
    precision: str  # the lowest allowed
    threads: int | None  # None: one per core

    @classmethod
    def for_this_machine(
        cls,
        batch_size: int = 1,
        size: tuple[int, int] | None = None,
        precision: str = "float32",
        threads: int | None = None,
    ) -> Self:
        """Return the key for this machine with the versions installed now."""
        here, versions = machine.describe_machine(), _package_versions()
        return cls(here.cpu, here.cores, here.instructions, versions, batch_size, size, precision, threads)


@dataclass(frozen=True)
class EngineTiming(Record):
    """Time of one call of an engine: median, first and last decile; and its relative difference from float32 eager."""

    kind: str
    precision: str
    seconds: float
    p10: float
    p90: float
    calls: int
    max_difference: float


@dataclass(frozen=True)
class ExcludedEngine(Record):
    """An engine that was not timed, or whose outputs differ, and why."""

    kind: str
    precision: str
    reason: str


@dataclass(frozen=True)
class EngineChoice(Record):
    """The fastest engine, with all ``timings`` from the fastest to the slowest."""

    RECORDS = MappingProxyType({"key": TuningKey, "timings": EngineTiming, "excluded": ExcludedEngine})

    key: TuningKey
    kind: str
    precision: str
    timings: tuple[EngineTiming, ...]
    excluded: tuple[ExcludedEngine, ...]
    batch_size: int  # that was timed: smaller than requested if a call would have taken long
    date: str

    def describe(self) -> str:
        """Return one line such as "openvino, bf16, 4.9 ms; onnxruntime 6.6; eager 16.2"."""
        chosen, *others = sorted(self.timings, key=lambda one: (one.kind, one.precision) != (self.kind, self.precision))
        precision = SHORT_PRECISIONS.get(chosen.precision, chosen.precision)
        parts = [f"{chosen.kind}, {precision}, {chosen.seconds * 1e3:.1f} ms"]
        for one in others:
            suffix = f" {SHORT_PRECISIONS[one.precision]}" if one.precision in SHORT_PRECISIONS else ""
            parts.append(f"{one.kind}{suffix} {one.seconds * 1e3:.1f}")
        return "; ".join(parts)


@dataclass(frozen=True)
class EngineThroughput(Record):
    """Images per second of an engine. ``measured``: (batch size, images per second), in ascending order."""

    RECORDS = MappingProxyType({"key": TuningKey})

    key: TuningKey  # with batch_size 0
    kind: str
    precision: str
    measured: tuple[tuple[int, float], ...]
    date: str

    @property
    def max_images_per_second(self) -> float:
        """Images per second at the fastest batch size."""
        return max(speed for _, speed in self.measured)

    @property
    def best_batch_size(self) -> int:
        """The smallest batch size that reaches 97 % of the maximum; larger ones only take more memory."""
        return min(batch for batch, speed in self.measured if speed >= 0.97 * self.max_images_per_second)


@dataclass(frozen=True)
class VerifiedEngine(Record):
    """An engine whose outputs were compared with eager's and agreed."""

    kind: str
    precision: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TuningRecords(Record):
    """All records of a network, oldest first."""

    RECORDS = MappingProxyType({"choices": EngineChoice, "throughputs": EngineThroughput, "verified": VerifiedEngine})

    choices: tuple[EngineChoice, ...] = ()
    throughputs: tuple[EngineThroughput, ...] = ()
    verified: tuple[VerifiedEngine, ...] = ()


def read_records(key: str) -> TuningRecords:
    """Return the records of the network with that key; none if the file is damaged or outdated."""
    path = find_cached(key, CHOICES_FILE)
    try:
        return TuningRecords.from_json(path.read_text(encoding="utf-8")) if path else TuningRecords()
    except (OSError, ValueError):
        return TuningRecords()


def save_record(key: str, record: EngineChoice | EngineThroughput | VerifiedEngine) -> None:
    """Add a record, replacing an older one for the same use."""
    before = read_records(key)
    uses: dict[type, tuple[str, Callable[[Any], object]]] = {
        EngineChoice: ("choices", lambda one: one.key),
        EngineThroughput: ("throughputs", lambda one: (one.key, one.kind, one.precision)),
        VerifiedEngine: ("verified", lambda one: one),
    }
    name, use = uses[type(record)]
    others = (one for one in getattr(before, name) if use(one) != use(record))
    now = replace(before, **{name: (*others, record)[-MAX_RECORDS:]})
    text = json.dumps(now.to_dict(), indent=1, ensure_ascii=False)
    write_cached(key, CHOICES_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def is_verified(key: str, kind: str, precision: str) -> bool:
    """Return whether that engine, in the installed versions, is known to agree with eager."""
    records, versions = read_records(key), _package_versions()
    timed = ((one.kind, one.precision, choice.key.versions) for choice in records.choices for one in choice.timings)
    return VerifiedEngine(kind, precision, versions) in records.verified or (kind, precision, versions) in timed


def mark_verified(key: str, kind: str, precision: str) -> None:
    """Record that the engine, in the installed versions, agrees with eager."""
    save_record(key, VerifiedEngine(kind, precision, _package_versions()))


def find_choice(key: str, tuning_key: TuningKey) -> EngineChoice | None:
    """Return the choice recorded for this use, or None."""
    return next((one for one in read_records(key).choices if one.key == tuning_key), None)


def _package_versions() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(machine.installed_versions().items()))


# Files in the engine cache. One IOSpec serves every use
ENGINE_FILES = {
    "native": "network.effplan",
    "onnxruntime": "network.onnx",
    "openvino": "network.onnx",
    "litert": "network.tflite",
}
OPENVINO_CACHE_DIR = "openvino"  # where OpenVINO keeps compiled models
