"""One file over HTTP, whole and checked or not at all; resumed where it broke off, in this process or another."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from effnet.arch.record import choice
from effnet.data.storage.patience import Patience as Patience
from effnet.data.storage.reasons import final, reason, unreachable
from effnet.weights.fetch.origin import Progress

_CHUNK = 2**16
log = logging.getLogger("effnet")


class DownloadError(OSError):
    """A file could not be got. ``why``: for what reason; ``absent``: because the server has none of that name."""

    def __init__(self, text: str, absent: bool = False, why: str = "") -> None:
        super().__init__(text)
        self.absent, self.why = absent, why or text


def download(
    url: str,
    path: Path,
    hash: str | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path:
    """Brings what lies at ``url`` to ``path`` and returns it; a file that is there already is left as it is.

    Until it is whole and its ``hash`` ("sha256:HEX" or "md5:HEX", perhaps the first digits only) is right, it is
    ``path`` with ``.part`` behind, which stays for the next try. Of several processes one downloads and the others
    wait. Raises `DownloadError` with a clear reason.
    """
    try:
        with _alone(path):
            if not path.is_file():
                _download(url, _Part(path), path, hash, patience or Patience(), progress)
    except (OSError, HTTPException) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(reason(error), absent=getattr(error, "code", None) in (404, 410)) from error
    return path


def matches(path: Path, hash: str) -> bool:
    """Whether the file's digest begins with the digits in ``hash``: "sha256:HEX" or "md5:HEX"."""
    kind, _, digits = hash.partition(":")
    choice("the kind of a hash", kind, ("sha256", "md5"))
    with path.open("rb") as file:
        return bool(digits) and hashlib.file_digest(file, kind).hexdigest().startswith(digits.lower())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else downloads to ``path`` meanwhile. The system lets go of the lock of a process that dies."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process is downloading it; waiting", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Part:
    """The file while it comes, and beside it what the server said of it, without which nothing may be appended."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._notes = path.with_name(f"{path.name}.part.json")
        self.validator: str = ""
        self.total: int | None = None
        try:
            said = json.loads(self._notes.read_text(encoding="utf-8"))
            self.validator, self.total = str(said["validator"]), said["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.remove()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def whole(self) -> bool:
        return self.total is not None and self.size == self.total

    def restart(self, validator: str, total: int | None) -> None:
        """Begins anew, with what the server says of the file now."""
        self.remove()
        self.validator, self.total = validator, total
        self._notes.write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def into(self, path: Path) -> None:
        """Takes the file's place."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self.remove()


def _download(
    url: str, part: _Part, path: Path, hash: str | None, patience: Patience, progress: Progress | None
) -> None:
    earlier = part.size > 0
    _complete(url, part, hash, patience, progress)
    if hash and not matches(part.path, hash) and earlier:  # the half from an earlier day may be what is wrong
        part.remove()
        _complete(url, part, hash, patience, progress)
    if hash and not matches(part.path, hash):
        part.remove()
        raise DownloadError(
            f"what came is not the published file (its {hash.partition(':')[0]} differs) and is removed"
        )
    part.into(path)


def _complete(url: str, part: _Part, hash: str | None, patience: Patience, progress: Progress | None) -> None:
    """Asks until the part is whole."""
    furthest, in_vain = part.size, 0
    begun = False
    while not part.whole:
        try:
            _ask(url, part, hash, patience.stall, progress)
            return
        except (OSError, HTTPException) as error:
            if part.size > furthest:
                furthest, in_vain, begun = part.size, 0, True
            else:
                in_vain += 1
            if isinstance(error, DownloadError) or final(error) or in_vain >= patience.tries:
                raise
            if unreachable(error) and not begun:
                raise
            log.info("%s: %s after %d bytes; trying again", url, reason(error), part.size)
        time.sleep(patience.pause * 2**in_vain)


def _ask(url: str, part: _Part, hash: str | None, stall: float, progress: Progress | None) -> None:
    """One request, for all or for the rest. Raises ``OSError`` or ``HTTPException`` where not all of it comes."""
    headers = {"User-Agent": "effnet", "Accept-Encoding": "identity"}
    here = part.size
    if here and part.validator:  # with If-Range a file that has changed since is sent whole
        headers |= {"Range": f"bytes={here}-", "If-Range": part.validator}
    try:
        with urlopen(Request(url, headers=headers), timeout=stall) as response:
            _receive(response, part, hash, progress)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the file is shorter now
            part.remove()
        raise


def _receive(response: HTTPResponse, part: _Part, hash: str | None, progress: Progress | None) -> None:
    validator, total = _validator(response), response.length
    if response.headers.get_content_type() == "text/html":  # of a login, or a network that wants to be paid first
        raise DownloadError("the server sends a web page in place of the file")
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        first, whole = (int(span[1]), span[2]) if span else (-1, "")
        same = first == part.size and (part.total is None or whole in ("*", str(part.total)))
        if not same or (validator and validator != part.validator):
            part.remove()
            raise ConnectionError("the server continues another file")
        if part.total is None and total is not None:  # it came in chunks at first
            part.total = part.size + total
    else:
        if total is None and not response.chunked and not hash:
            raise DownloadError("the server does not say how long the file is, so a half could not be told from it")
        part.restart(validator, total)
        _assure_room(part)
    with part.path.open("ab") as file:
        while received := response.read1(_CHUNK):
            file.write(received)
            if progress is not None:
                progress(file.tell(), part.total)
    if part.total is not None and part.size < part.total:
        raise ConnectionError("the connection broke off")
    if part.total is not None and part.size > part.total:
        part.remove()
        raise ConnectionError("more came than the server said")


def _validator(response: HTTPResponse) -> str:
    """What names this very version of the file: a strong ETag, or else when it was changed; "" if neither is said."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _assure_room(part: _Part) -> None:
    """Raises `DownloadError` where the file would not fit on the disk."""
    total, folder = part.total or 0, part.path.parent
    if shutil.disk_usage(folder).free < total:
        part.remove()
        raise DownloadError(f"the disk has no room for its {total / 1e6:.0f} MB in {folder} (EFFNET_HOME sets another)")
