"""Downloads of published weights: over HTTP, from the Hugging Face hub, out of archives.

``https://HOST/PATH`` is ``$EFFNET_MIRROR/HOST/PATH`` at a mirror and ``$EFFNET_HOME/weights/HOST/PATH`` on disk. Names
stay the publisher's and cannot clash, and a filled cache directory behind a web server is itself a mirror.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from effnet.arch.serde import check_choice, read_json
from effnet.data.storage.archive import DamagedArchiveError, open_tar
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.errors import HTTPStatusError, RetryPolicy, describe_error, is_permanent, is_unreachable
from effnet.telemetry import disable_telemetry
from effnet.weights.catalog.entry import CatalogEntry

if TYPE_CHECKING:
    from effnet.data.storage.remote import HTTPResponse

HUB_URL = "https://huggingface.co"
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_CHUNK_BYTES = 2**16
RETRY = RetryPolicy()

ProgressCallback = Callable[[int, int | None], None]  # (bytes downloaded, total bytes or None if unknown)
log = logging.getLogger("effnet")


class DownloadError(OSError):
    """A file could not be downloaded.

    ``cause`` is the reason alone; ``not_found`` is true if the server has no file of that name.
    """

    def __init__(self, text: str, not_found: bool = False, cause: str = "") -> None:
        super().__init__(text)
        self.not_found, self.cause = not_found, cause or text


@dataclass(frozen=True)
class RemoteFile:
    """A published file: ``file`` in the hub repository ``hub``, the ``url`` itself, or ``file`` in the archive there.

    Or ``file`` in the installed ``package``, which is never downloaded.
    ``hash`` is "sha256:HEX" or "md5:HEX" of what the URL returns; HEX may be a prefix. In an archive, ``file`` may be
    the prefix of a TensorFlow checkpoint, or "" for the only checkpoint. ``companions`` are files of the same folder
    that are downloaded too if they exist. ``entry`` is the catalog's entry, if there is one.
    """

    name: str
    hub: str = ""
    file: str = ""
    url: str = ""
    hash: str | None = None
    companions: tuple[str, ...] = ()
    entry: CatalogEntry | None = None
    package: str = ""

    @classmethod
    def from_entry(cls, entry: CatalogEntry) -> "RemoteFile":
        """Return the file of a catalog entry."""
        url = "" if entry.hub else entry.url
        return cls(entry.name, entry.hub, entry.file, url, entry.hash, entry=entry, package=entry.package)

    @property
    def download_url(self) -> str:
        """URL of the file or of its archive."""
        return self.url or f"{HUB_URL}/{self.hub}/resolve/main/{self.file}"

    @property
    def key(self) -> str:
        """Path of the downloaded file relative to the cache directory, and its name in a bundle."""
        return f"weights/{self.package}/{self.file}" if self.package else cache_key(self.download_url)

    @property
    def is_archived(self) -> bool:
        """Whether the file has to be extracted from an archive."""
        return self.key.endswith(_ARCHIVE_SUFFIXES)

    @property
    def unpacked_folder(self) -> str:
        """Folder, relative to the cache directory, of files extracted from the archive."""
        return f"{self.key}.unpacked"

    def match_names(self, names: Iterable[str]) -> list[str]:
        """Return which of ``names`` belong to this file, itself last; an empty list if it is not among them."""
        if not self.is_archived:
            companions = [str(PurePosixPath(self.key).with_name(name)) for name in self.companions]
            names = set(names)
            return [name for name in (*companions, self.key) if name in names] if self.key in names else []
        prefix = f"{self.unpacked_folder}/"
        members = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
        return [members[member] for member in select_members(members, self.file)]


def select_members(members: Iterable[str], wanted: str) -> list[str]:
    """Return the names in an archive that ``wanted`` stands for: a file, or a checkpoint's files, its ``.index`` last.

    "" stands for the only checkpoint. The list is empty if it does not exist or is incomplete.
    """
    names = list(members)
    if wanted in names:
        return [wanted]
    indices = [name for name in names if name.endswith(".index")]
    prefix = wanted or (indices[0].removesuffix(".index") if len(indices) == 1 else "")
    data = sorted(name for name in names if name.startswith(f"{prefix}.data-") and not name.endswith(".part"))
    return [*data, f"{prefix}.index"] if prefix and data and f"{prefix}.index" in indices else []


# URLs ------------------------------------------------------------------------------------------------------------


def mirror_url() -> str:
    """Return ``$EFFNET_MIRROR``, "" if unset. Raises ``ValueError`` if it is not an HTTP URL."""
    prefix = os.environ.get("EFFNET_MIRROR", "").rstrip("/")
    if prefix and not prefix.startswith(("http://", "https://")):
        raise ValueError(f"EFFNET_MIRROR={prefix}: give an address that begins with https:// or http://")
    return prefix


def apply_mirror(url: str) -> str:
    """Return ``url`` at the mirror, or ``url`` itself if no mirror is set."""
    parts, prefix = urlsplit(url), mirror_url()
    return f"{prefix}/{parts.netloc}{parts.path}{'?' * bool(parts.query)}{parts.query}" if prefix else url


def cache_key(url: str) -> str:
    """Return ``weights/HOST/PATH``, where the file at ``url`` lies below the cache directory or in a bundle.

    URLs that differ in their query only get folders of their own. Raises ``ValueError`` if ``url`` names no file.
    """
    parts = urlsplit(url)
    names = [_sanitize(name) for name in unquote(parts.path).split("/") if name not in ("", ".")]
    if parts.scheme not in ("http", "https") or not parts.netloc or not names or ".." in names:
        raise ValueError(f"{url}: not the address of a file")
    if parts.query:
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:8])
    return "/".join(("weights", _sanitize(parts.netloc.rpartition("@")[2]), *names))


def _sanitize(name: str) -> str:
    return re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", name)


# HTTP ------------------------------------------------------------------------------------------------------------


def download_file(url: str, path: Path, hash: str | None = None, progress: ProgressCallback | None = None) -> Path:
    """Download ``url`` to ``path`` unless that file exists, and return ``path``.

    Until the file is complete and its ``hash`` ("sha256:HEX" or "md5:HEX", HEX may be a prefix) is verified it is
    ``path`` with ``.part`` appended, from where the next call resumes. If several processes want the same file, one
    downloads it and the others wait. Raises `DownloadError`.
    """
    try:
        with _lock_download(path):
            if not path.is_file():
                _download_verified(_PartialFile(path, url, hash, progress))
    except DownloadError:
        raise
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        not_found = missing or (isinstance(error, HTTPStatusError) and error.status == 410)
        cause = HTTPStatusError(404) if missing else error
        raise DownloadError(describe_error(cause), not_found) from error
    return path


def matches_hash(path: Path, hash: str) -> bool:
    """Return whether the file's digest begins with the digits in ``hash``, "sha256:HEX" or "md5:HEX"."""
    algorithm, _, digits = hash.partition(":")
    check_choice("the algorithm of a hash", algorithm, ("sha256", "md5"))
    return bool(digits) and hash_file(path, algorithm).startswith(digits.lower())


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _lock_download(path: Path) -> Any:
    """Keep other processes from downloading to ``path`` within the context. That of a process that dies is released."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process is downloading it; waiting", path.name)
        return lock.acquire()


class _PartialFile:
    """An incomplete download, with the version and size that the server stated for it in a second file.

    Without these, nothing may be appended.
    """

    def __init__(self, target: Path, url: str, hash: str | None, progress: ProgressCallback | None) -> None:
        self.target, self.url, self.hash, self.progress = target, url, hash, progress
        self.path = target.with_name(f"{target.name}.part")
        self._info_path = target.with_name(f"{target.name}.part.json")
        self.validator: str = ""
        self.total: int | None = None
        try:
            info = read_json(self._info_path)
            self.validator, self.total = str(info["validator"]), info["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.remove()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_complete(self) -> bool:
        return self.total is not None and self.size == self.total

    def restart(self, validator: str, total: int | None) -> None:
        self.remove()
        self.validator, self.total = validator, total
        self._info_path.write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._info_path.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def finish(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self.remove()


def _download_verified(part: _PartialFile) -> None:
    resumed = part.size > 0
    _download_until_complete(part)
    if part.hash and resumed and not matches_hash(part.path, part.hash):  # the older half may be what is wrong
        part.remove()
        _download_until_complete(part)
    if part.hash and not matches_hash(part.path, part.hash):
        part.remove()
        raise DownloadError(_wrong_hash(part.hash))
    part.finish()


def _wrong_hash(hash: str) -> str:
    return f"the downloaded file is not the published one (its {hash.partition(':')[0]} differs); it was removed"


def _download_until_complete(part: _PartialFile) -> None:
    """Send requests until the file is complete, or ``RETRY.attempts`` in a row bring nothing new."""
    furthest, failures, connected = part.size, 0, False
    while not part.is_complete:
        try:
            _request(part)
            return
        except OSError as error:
            if part.size > furthest:
                furthest, failures, connected = part.size, 0, True
            else:
                failures += 1
            if isinstance(error, DownloadError) or is_permanent(error) or failures >= RETRY.attempts:
                raise
            if is_unreachable(error) and not connected:
                raise
            log.info("%s: %s after %d bytes; trying again", part.url, describe_error(error), part.size)
        time.sleep(RETRY.backoff * 2**failures)


def _request(part: _PartialFile) -> None:
    """Send one request for the whole file or the rest. Raises ``OSError`` if not all of it arrives."""
    from effnet.data.storage.remote import open_http

    headers = {}
    if part.size and part.validator:  # If-Range: a file that has changed since is sent whole
        headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    try:
        with open_http(part.url, headers, timeout=RETRY.timeout) as response:
            _receive(response, part)
    except HTTPStatusError as error:
        if error.status == 416:  # the file has become shorter
            part.remove()
        raise
    except ValueError as error:
        raise DownloadError(str(error)) from error


def _receive(response: "HTTPResponse", part: _PartialFile) -> None:
    total, headers = response.length, response.headers
    # What identifies this version of the file: a strong ETag, or the date of the last change
    tag = headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    if headers.get("Content-Type", "").startswith("text/html"):  # a login page, or a captive portal
        raise DownloadError("the server sends a web page instead of the file")
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        start, whole = (int(span[1]), span[2]) if span else (-1, "")
        same = start == part.size and (part.total is None or whole in ("*", str(part.total)))
        if not same or (validator and validator != part.validator):
            part.remove()
            raise ConnectionError("the server continues with another file")
        if part.total is None and total is not None:  # the first response was chunked
            part.total = part.size + total
    else:
        if total is None and headers.get("Transfer-Encoding") != "chunked" and not part.hash:
            raise DownloadError("the server does not state the file's length, so a truncated file would go unnoticed")
        part.restart(validator, total)
        folder = part.path.parent
        if total and shutil.disk_usage(folder).free < total:
            part.remove()
            message = f"its {total / 1e6:.0f} MB do not fit on the disk of {folder} (EFFNET_HOME sets another folder)"
            raise DownloadError(message)
    with part.path.open("ab") as file:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            if part.progress is not None:
                part.progress(file.tell(), part.total)
    if part.total is not None and part.size < part.total:
        raise ConnectionError("the connection broke off")
    if part.total is not None and part.size > part.total:
        part.remove()
        raise ConnectionError("the server sent more than it announced")


# The Hugging Face hub, through its own library: its cache, its tokens, its environment variables -----------------


def find_in_hub_cache(remote: RemoteFile) -> Path | None:
    """Return the file in the hub's cache on disk (``HF_HOME``), or None. Sends no request."""
    disable_telemetry("huggingface_hub")
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(remote.hub, remote.file)
    return Path(found) if isinstance(found, str) else None


def download_from_hub(remote: RemoteFile) -> Path:
    """Download a file to the hub's cache. Raises `DownloadError`."""
    disable_telemetry("huggingface_hub")
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(remote.hub, remote.file))  # without a network this fails now, not in 20 seconds
        for name in remote.companions:
            with suppress(errors.EntryNotFoundError):
                hf_hub_download(remote.hub, name)  # nosec B615  # the newest is asked for
        downloaded = hf_hub_download(remote.hub, remote.file)  # nosec B615
    except errors.GatedRepoError as error:
        text = f"{remote.hub} requires accepting an agreement on its page, and a login (hf auth login)"
        raise DownloadError(text) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"the hub has no repository {remote.hub}, or it requires a login", True) from error
    except errors.EntryNotFoundError as error:
        raise DownloadError(f"{remote.hub} has no file {remote.file}", not_found=True) from error
    except Exception as error:  # what the library raises has changed with each of its HTTP clients
        raise DownloadError(describe_error(error)) from error
    path = Path(downloaded)
    if remote.hash and not matches_hash(path, remote.hash):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(_wrong_hash(remote.hash))
    return path


# Archives --------------------------------------------------------------------------------------------------------


def extract_members(archive: Path, wanted: str, folder: Path) -> Path:
    """Extract ``wanted`` from a tar archive into ``folder``: a file, or a checkpoint's files ("": the only one).

    Returns the file, or the checkpoint's ``.index``, which is written last. Raises `DownloadError` if ``archive`` is
    not an archive or has no such member.
    """
    try:
        with open_tar(archive) as tar:
            names = select_members(filter(_is_safe_path, tar.members), wanted)
            if not names:
                raise DownloadError(f"{archive} has no {wanted or 'single checkpoint'} in it")
            for name in names:
                with atomic_write(folder / name) as temporary, temporary.open("wb") as file:
                    file.writelines(tar.iter_chunks(name))
    except DamagedArchiveError as error:
        raise DownloadError(f"{archive} is damaged or not an archive: delete it to download it again") from error
    return folder / names[-1]


def _is_safe_path(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))  # a backslash separates folders on Windows
    return not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
