"""The engine cache: what was made of a network so that engines open it at once. Imports no torch.

``EFFNET_HOME/engines/KEY/`` holds ``network.onnx``, ``network.tflite``, ``choices.json``, and OpenVINO's own folder.
All of it can be made anew at any time: what is damaged or of another version is, and a full disk costs time alone.
"""

from __future__ import annotations

import json
import logging
import os
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
from numpy.typing import NDArray

from effnet.arch.serde import Record
from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import ModelMetadata
from effnet.timing.machine import describe_machine, installed_versions
from effnet.weights.fetch.remote_file import writable_cache_dir

CACHE_VERSION = (
    1  # of what lies here: raised when files are written otherwise, or foreign weights are understood otherwise
)


MAX_CACHE_BYTES = 2 * 2**30


SIDECAR_FILES = ("config.json", "preprocessor_config.json")  # that loading reads beside a file of weights


HASHES_FILE, MAX_HASHES = "hashes.json", 500


MIN_FILE_AGE_SECONDS = (
    2.0  # seconds after which a file's time tells whether it was written again: file systems' clocks are coarse
)


log = logging.getLogger("effnet")


def file_key(path: Path, card: str = "") -> str:
    """What a network from the file ``path`` is kept by: the file's sha256, and whatever else decides how it is read.

    ``card``: the catalogue's name for the file, where it was asked for by that. Hashes are remembered by path, size,
    time and inode: a file that did not change is not read again. Raises ``OSError`` where it cannot be read.
    """
    beside = [(path.with_name(name).read_bytes() if path.with_name(name).is_file() else b"") for name in SIDECAR_FILES]
    told = [str(CACHE_VERSION).encode(), _file_hash(path).encode(), card.encode(), *beside]
    return sha256(b"".join(len(each).to_bytes(8, "little") + each for each in told)).hexdigest()


def model_key(tensors: Mapping[str, NDArray[Any]], metadata: ModelMetadata) -> str:
    """What a network in memory is kept by: its tensors and its contract."""
    found = sha256(f"{CACHE_VERSION} {metadata.to_json()}".encode())
    for name in sorted(tensors):
        if not name.endswith("num_batches_tracked"):
            data = np.ascontiguousarray(tensors[name])
            found.update(f"\0{name} {data.dtype} {data.shape}\0".encode())
            found.update(data.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def engine_folder(key: str) -> Path:
    """Where what belongs to a key lies, or would lie. Raises ``OSError`` where there is no place for a cache."""
    return writable_cache_dir() / "engines" / key


def find_cached(key: str, name: str) -> Path | None:
    """The kept file of that name, None where there is none; it counts as used now."""
    try:
        path = engine_folder(key) / name
        if not path.is_file():
            return None
        with suppress(OSError):  # a cache that is read-only serves as well
            os.utime(path.parent)
        return path
    except OSError:
        return None


def write_cached(key: str, name: str, write: Callable[[Path], object]) -> Path | None:
    """Has ``write`` make the file, whole or not at all; None where the disk does not take it, which is said once."""
    try:
        path = engine_folder(key) / name
        with atomic_write(path) as beside:
            write(beside)
        os.utime(path.parent)
        _evict(path.parent)
    except OSError as error:
        _warn_once(f"engines cannot be kept for the next time: {error}")
        return None
    return path


def remove_cached(key: str, name: str) -> None:
    """Removes the kept file of that name, which turned out to be of no use."""
    with suppress(OSError):
        (engine_folder(key) / name).unlink(missing_ok=True)


def _file_hash(path: Path) -> str:
    path = path.absolute()
    status = path.stat()
    now = [status.st_size, status.st_mtime_ns, status.st_ino]
    known = _read_hashes()
    if known.get(str(path), [])[:3] == now:
        return str(known[str(path)][3])
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if abs(time.time() - status.st_mtime) > MIN_FILE_AGE_SECONDS:
        known.pop(str(path), None)
        newest = dict([*known.items(), (str(path), [*now, found])][-MAX_HASHES:])
        with suppress(OSError), atomic_write(writable_cache_dir() / "engines" / HASHES_FILE) as beside:
            beside.write_text(json.dumps(newest))
    return found


def _read_hashes() -> dict[str, list[Any]]:
    """Path → size, time, inode and sha256; nothing where the note is damaged."""
    try:
        found = json.loads((writable_cache_dir() / "engines" / HASHES_FILE).read_text())
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 4}


def _evict(newest: Path) -> None:
    """Removes the networks that were not used for longest, never ``newest``, until all take `BYTES_MOST` at most."""
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
    except OSError:  # another process has just removed it
        return 0.0


def _folder_bytes(folder: Path) -> int:
    total = 0
    for each in folder.rglob("*"):
        with suppress(OSError):
            total += each.stat().st_size
    return total


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


# Which engine a machine's contest chose for a network, and why: records, remembered as JSON. Imports no torch.


CHOICES_FILE = "choices.json"


MAX_RECORDS = 50  # choices that are remembered of a network


SHORT_PRECISIONS = {"bfloat16": "bf16", "float16": "f16"}


@dataclass(frozen=True)
class TuningKey(Record):
    """What a choice depends on beside the network: another machine, version or use is another question.

    ``batch``: pictures at once; ``size``: their (height, width), None for the network's own; ``precision``: what was
    allowed; ``threads``: None for a thread each core.
    """

    cpu: str
    cores: int
    instructions: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    batch_size: int
    size: tuple[int, int] | None
    precision: str
    threads: int | None

    @classmethod
    def for_this_machine(
        cls, batch_size: int, size: tuple[int, int] | None, precision: str, threads: int | None
    ) -> Self:
        """The question as this machine asks it today."""
        here, found = describe_machine(), _package_versions()
        return cls(here.cpu, here.cores, here.instructions, found, batch_size, size, precision, threads)


@dataclass(frozen=True)
class EngineTiming(Record):
    """An engine that was timed. Seconds are of one call, its median, first and last decile.

    ``apart``: by how much its answers differ from eager's in float32, as a share of the largest of these.
    """

    kind: str
    precision: str
    seconds: float
    p10: float
    p90: float
    calls: int
    max_difference: float


@dataclass(frozen=True)
class ExcludedEngine(Record):
    """An engine that was not timed, or whose answers differ, and why."""

    kind: str
    precision: str
    reason: str


@dataclass(frozen=True)
class EngineChoice(Record):
    """What was chosen, and its reasons: ``contestants`` from the fastest to the slowest."""

    RECORDS = MappingProxyType({"question": TuningKey, "contestants": EngineTiming, "left_out": ExcludedEngine})

    key: TuningKey
    kind: str
    precision: str
    timings: tuple[EngineTiming, ...]
    excluded: tuple[ExcludedEngine, ...]
    batch_size: int  # that was timed: fewer than asked for where a call would have taken long
    date: str

    def in_words(self) -> str:
        """One line for a person: "openvino, bf16, 4.9 ms; onnxruntime 6.6; eager 16.2"."""
        chosen, *others = sorted(self.timings, key=lambda one: (one.kind, one.precision) != (self.kind, self.precision))
        told = [
            f"{chosen.kind}, {SHORT_PRECISIONS.get(chosen.precision, chosen.precision)}, {chosen.seconds * 1e3:.1f} ms"
        ]
        for one in others:
            narrow = f" {SHORT_PRECISIONS[one.precision]}" if one.precision in SHORT_PRECISIONS else ""
            told.append(f"{one.kind}{narrow} {one.seconds * 1e3:.1f}")
        return "; ".join(told)


@dataclass(frozen=True)
class EngineThroughput(Record):
    """What an engine makes of batches. ``measured``: (pictures at once, pictures a second), in order."""

    RECORDS = MappingProxyType({"question": TuningKey})

    key: TuningKey  # its batch is 0: it is what is asked for
    kind: str
    precision: str
    measured: tuple[tuple[int, float], ...]
    date: str

    @property
    def max_images_per_second(self) -> float:
        """The most pictures a second."""
        return max(speed for _, speed in self.measured)

    @property
    def best_batch_size(self) -> int:
        """The smallest batch that reaches 97 % of the most pictures a second: more would take memory alone."""
        return min(batch for batch, speed in self.measured if speed >= 0.97 * self.max_images_per_second)


@dataclass(frozen=True)
class VerifiedEngine(Record):
    """An engine that was asked for by its name, and answered as eager does."""

    kind: str
    precision: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TuningRecords(Record):
    """All that is remembered of a network, oldest first."""

    RECORDS = MappingProxyType({"choices": EngineChoice, "throughputs": EngineThroughput, "proofs": VerifiedEngine})

    choices: tuple[EngineChoice, ...] = ()
    throughputs: tuple[EngineThroughput, ...] = ()
    verified: tuple[VerifiedEngine, ...] = ()


def read_records(key: str) -> TuningRecords:
    """What is remembered of the network with that key; nothing where the note is damaged or of another version."""
    path = find_cached(key, CHOICES_FILE)
    try:
        return TuningRecords.from_json(path.read_text(encoding="utf-8")) if path else TuningRecords()
    except (OSError, ValueError):
        return TuningRecords()


def save_record(key: str, record: EngineChoice | EngineThroughput | VerifiedEngine) -> None:
    """Notes what was found, in place of an older answer to the same question."""
    before = read_records(key)
    match record:
        case EngineChoice():
            others = tuple(one for one in before.choices if one.key != record.key)
            now = replace(before, choices=(*others, record)[-MAX_RECORDS:])
        case EngineThroughput():
            same = (record.key, record.kind, record.precision)
            rest = tuple(one for one in before.throughputs if (one.key, one.kind, one.precision) != same)
            now = replace(before, throughputs=(*rest, record)[-MAX_RECORDS:])
        case VerifiedEngine():
            now = replace(before, verified=(*before.verified, record)[-MAX_RECORDS:])
    text = json.dumps(now.to_dict(), indent=1, ensure_ascii=False)
    write_cached(key, CHOICES_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def is_verified(key: str, kind: str, precision: str) -> bool:
    """Whether that engine, in the versions that are installed, is known to answer as eager does."""
    known, now = read_records(key), _package_versions()
    timed = ((one.kind, one.precision, choice.key.versions) for choice in known.choices for one in choice.timings)
    return VerifiedEngine(kind, precision, now) in known.verified or (kind, precision, now) in timed


def mark_verified(key: str, kind: str, precision: str) -> None:
    """Notes that the engine was seen to answer as eager does."""
    save_record(key, VerifiedEngine(kind, precision, _package_versions()))


def find_choice(
    key: str,
    batch_size: int = 1,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> EngineChoice | None:
    """The choice for this machine as it is today, with the versions that are installed; None where there is none."""
    question = TuningKey.for_this_machine(batch_size, size, precision, threads)
    return next((one for one in read_records(key).choices if one.key == question), None)


def _package_versions() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(installed_versions().items()))
