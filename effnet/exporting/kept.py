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
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Contract
from effnet.weights.atomic import replacing
from effnet.weights.fetch.places import store

VERSION = 1  # of what lies here: raised when files are written otherwise, or foreign weights are understood otherwise
BYTES_MOST = 2 * 2**30
BESIDE = ("config.json", "preprocessor_config.json")  # that loading reads beside a file of weights
HASHES, HASHES_MOST = "hashes.json", 500
SETTLED = 2.0  # seconds after which a file's time tells whether it was written again: file systems' clocks are coarse

log = logging.getLogger("effnet")


def key(path: Path, card: str = "") -> str:
    """What a network from the file ``path`` is kept by: the file's sha256, and whatever else decides how it is read.

    ``card``: the catalogue's name for the file, where it was asked for by that. Hashes are remembered by path, size,
    time and inode: a file that did not change is not read again. Raises ``OSError`` where it cannot be read.
    """
    beside = [(path.with_name(name).read_bytes() if path.with_name(name).is_file() else b"") for name in BESIDE]
    told = [str(VERSION).encode(), _hash(path).encode(), card.encode(), *beside]
    return sha256(b"".join(len(each).to_bytes(8, "little") + each for each in told)).hexdigest()


def key_of(tensors: Mapping[str, NDArray[Any]], contract: Contract) -> str:
    """What a network in memory is kept by: its tensors and its contract."""
    found = sha256(f"{VERSION} {contract.to_json()}".encode())
    for name in sorted(tensors):
        if not name.endswith("num_batches_tracked"):
            data = np.ascontiguousarray(tensors[name])
            found.update(f"\0{name} {data.dtype} {data.shape}\0".encode())
            found.update(data.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def folder(kept_by: str) -> Path:
    """Where what belongs to a key lies, or would lie. Raises ``OSError`` where there is no place for a cache."""
    return store() / "engines" / kept_by


def find(kept_by: str, name: str) -> Path | None:
    """The kept file of that name, None where there is none; it counts as used now."""
    try:
        path = folder(kept_by) / name
        if not path.is_file():
            return None
        with suppress(OSError):  # a cache that is read-only serves as well
            os.utime(path.parent)
        return path
    except OSError:
        return None


def keep(kept_by: str, name: str, write: Callable[[Path], object]) -> Path | None:
    """Has ``write`` make the file, whole or not at all; None where the disk does not take it, which is said once."""
    try:
        path = folder(kept_by) / name
        with replacing(path) as beside:
            write(beside)
        os.utime(path.parent)
        _make_room(path.parent)
    except OSError as error:
        _say_once(f"engines cannot be kept for the next time: {error}")
        return None
    return path


def drop(kept_by: str, name: str) -> None:
    """Removes the kept file of that name, which turned out to be of no use."""
    with suppress(OSError):
        (folder(kept_by) / name).unlink(missing_ok=True)


def _hash(path: Path) -> str:
    path = path.absolute()
    status = path.stat()
    now = [status.st_size, status.st_mtime_ns, status.st_ino]
    known = _hashes()
    if known.get(str(path), [])[:3] == now:
        return str(known[str(path)][3])
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if abs(time.time() - status.st_mtime) > SETTLED:
        known.pop(str(path), None)
        newest = dict([*known.items(), (str(path), [*now, found])][-HASHES_MOST:])
        with suppress(OSError), replacing(store() / "engines" / HASHES) as beside:
            beside.write_text(json.dumps(newest))
    return found


def _hashes() -> dict[str, list[Any]]:
    """Path → size, time, inode and sha256; nothing where the note is damaged."""
    try:
        found = json.loads((store() / "engines" / HASHES).read_text())
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 4}


def _make_room(newest: Path) -> None:
    """Removes the networks that were not used for longest, never ``newest``, until all take `BYTES_MOST` at most."""
    others = sorted((each for each in newest.parent.iterdir() if each.is_dir() and each != newest), key=_used)
    left = _bytes(newest) + sum(map(_bytes, others))
    for each in others:
        if left <= BYTES_MOST:
            return
        left -= _bytes(each)
        shutil.rmtree(each, ignore_errors=True)


def _used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def _bytes(place: Path) -> int:
    total = 0
    for each in place.rglob("*"):
        with suppress(OSError):
            total += each.stat().st_size
    return total


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)
