"""One file over HTTP, whole and checked or not at all; resumed where it broke off, in this process or another."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from effnet.arch.serde import check_choice
from effnet.data.storage.errors import RetryPolicy as RetryPolicy
from effnet.data.storage.errors import describe_error, is_permanent, is_unreachable
from effnet.weights.fetch.remote_file import ProgressCallback, RemoteFile, select_members

_CHUNK_BYTES = 2**16


log = logging.getLogger("effnet")


class DownloadError(OSError):
    """A file could not be got. ``why``: for what reason; ``absent``: because the server has none of that name."""

    def __init__(self, text: str, not_found: bool = False, cause: str = "") -> None:
        super().__init__(text)
        self.not_found, self.cause = not_found, cause or text


def download_file(
    url: str,
    path: Path,
    hash: str | None = None,
    patience: RetryPolicy | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Brings what lies at ``url`` to ``path`` and returns it; a file that is there already is left as it is.

    Until it is whole and its ``hash`` ("sha256:HEX" or "md5:HEX", perhaps the first digits only) is right, it is
    ``path`` with ``.part`` behind, which stays for the next try. Of several processes one downloads and the others
    wait. Raises `DownloadError` with a clear reason.
    """
    try:
        with _lock_download(path):
            if not path.is_file():
                _download_verified(url, _PartialFile(path), path, hash, patience or RetryPolicy(), progress)
    except (OSError, HTTPException) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(describe_error(error), not_found=getattr(error, "code", None) in (404, 410)) from error
    return path


def matches_hash(path: Path, hash: str) -> bool:
    """Whether the file's digest begins with the digits in ``hash``: "sha256:HEX" or "md5:HEX"."""
    kind, _, digits = hash.partition(":")
    check_choice("the kind of a hash", kind, ("sha256", "md5"))
    with path.open("rb") as file:
        return bool(digits) and hashlib.file_digest(file, kind).hexdigest().startswith(digits.lower())


@contextmanager
def _lock_download(path: Path) -> Iterator[None]:
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


class _PartialFile:
    """The file while it comes, and beside it what the server said of it, without which nothing may be appended."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._info_path = path.with_name(f"{path.name}.part.json")
        self.validator: str = ""
        self.total: int | None = None
        try:
            said = json.loads(self._info_path.read_text(encoding="utf-8"))
            self.validator, self.total = str(said["validator"]), said["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.remove()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_complete(self) -> bool:
        return self.total is not None and self.size == self.total

    def restart(self, validator: str, total: int | None) -> None:
        """Begins anew, with what the server says of the file now."""
        self.remove()
        self.validator, self.total = validator, total
        self._info_path.write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._info_path.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def move_to(self, path: Path) -> None:
        """Takes the file's place."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self.remove()


def _download_verified(
    url: str, part: _PartialFile, path: Path, hash: str | None, patience: RetryPolicy, progress: ProgressCallback | None
) -> None:
    earlier = part.size > 0
    _download_until_complete(url, part, hash, patience, progress)
    if hash and not matches_hash(part.path, hash) and earlier:  # the half from an earlier day may be what is wrong
        part.remove()
        _download_until_complete(url, part, hash, patience, progress)
    if hash and not matches_hash(part.path, hash):
        part.remove()
        raise DownloadError(
            f"what came is not the published file (its {hash.partition(':')[0]} differs) and is removed"
        )
    part.move_to(path)


def _download_until_complete(
    url: str, part: _PartialFile, hash: str | None, patience: RetryPolicy, progress: ProgressCallback | None
) -> None:
    """Asks until the part is whole."""
    furthest, in_vain = part.size, 0
    begun = False
    while not part.is_complete:
        try:
            _request(url, part, hash, patience.timeout, progress)
            return
        except (OSError, HTTPException) as error:
            if part.size > furthest:
                furthest, in_vain, begun = part.size, 0, True
            else:
                in_vain += 1
            if isinstance(error, DownloadError) or is_permanent(error) or in_vain >= patience.attempts:
                raise
            if is_unreachable(error) and not begun:
                raise
            log.info("%s: %s after %d bytes; trying again", url, describe_error(error), part.size)
        time.sleep(patience.backoff * 2**in_vain)


def _request(url: str, part: _PartialFile, hash: str | None, stall: float, progress: ProgressCallback | None) -> None:
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


def _receive(response: HTTPResponse, part: _PartialFile, hash: str | None, progress: ProgressCallback | None) -> None:
    validator, total = _read_validator(response), response.length
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
        _check_free_space(part)
    with part.path.open("ab") as file:
        while received := response.read1(_CHUNK_BYTES):
            file.write(received)
            if progress is not None:
                progress(file.tell(), part.total)
    if part.total is not None and part.size < part.total:
        raise ConnectionError("the connection broke off")
    if part.total is not None and part.size > part.total:
        part.remove()
        raise ConnectionError("more came than the server said")


def _read_validator(response: HTTPResponse) -> str:
    """What names this very version of the file: a strong ETag, or else when it was changed; "" if neither is said."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _check_free_space(part: _PartialFile) -> None:
    """Raises `DownloadError` where the file would not fit on the disk."""
    total, folder = part.total or 0, part.path.parent
    if shutil.disk_usage(folder).free < total:
        part.remove()
        raise DownloadError(f"the disk has no room for its {total / 1e6:.0f} MB in {folder} (EFFNET_HOME sets another)")


# Files of the Hugging Face hub, through its own library: its cache, its tokens, its environment variables.


def find_in_hub_cache(remote: RemoteFile) -> Path | None:
    """The file in the hub's cache on this disk (``HF_HOME``), if it is there; nobody is asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(remote.hub, remote.file, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download_from_hub(remote: RemoteFile) -> Path:
    """The file, downloaded to the hub's cache. Raises `DownloadError` with a clear reason."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(remote.hub, remote.file))  # without a network: an answer now, not in 20 seconds
        for name in remote.companions:
            with suppress(EntryNotFoundError):
                hf_hub_download(remote.hub, name)
        path = Path(hf_hub_download(remote.hub, remote.file))
    except GatedRepoError as error:
        raise DownloadError(
            f"{remote.hub} asks for an agreement on its page, and for a login (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"the hub has no repository {remote.hub}, or shows it to a login only", True) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{remote.hub} has no file {remote.file}", not_found=True) from error
    except Exception as error:  # what the library raises has changed with each of its HTTP clients
        raise DownloadError(describe_error(error)) from error
    if remote.hash and not matches_hash(path, remote.hash):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError("what came is not the published file (its hash differs) and is removed")
    return path


# What is wanted of an archive, and nothing else of it: a file, or the files of a TensorFlow checkpoint.


def extract_member(archive: Path, wanted: str, folder: Path) -> Path:
    """``wanted`` of the tar ``archive``, written below ``folder``: a file, or the files of a checkpoint.

    "" means the only checkpoint. Returns the file, or the checkpoint's ``.index``. Each is written beside its place
    and moved there when whole, the ``.index`` last. Raises `DownloadError` for a file that is no archive, or that has
    no such member.
    """
    try:
        with tarfile.open(archive) as opened:
            members = _list_archive_members(opened)
            names = select_members(members, wanted)
            if not names:
                raise DownloadError(f"{archive} has no {wanted or 'single checkpoint'} in it")
            for name in names:
                _write_archive_member(opened, members[name], folder / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, DownloadError) or getattr(error, "errno", None):
            raise
        raise DownloadError(f"{archive} is damaged, or no archive: remove it to have it downloaded again") from error
    return folder / names[-1]


def _list_archive_members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The plain files in the archive; links, devices and whatever leads out of a folder are as if not there."""
    found = {info.name.removeprefix("./"): info for info in archive.getmembers() if info.isreg()}
    return {name: info for name, info in found.items() if _stays_inside(name)}


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))  # a backslash parts folders on Windows
    return not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]


def _write_archive_member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = archive.extractfile(info)
    assert content is not None, info.name
    try:
        with content, beside.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
