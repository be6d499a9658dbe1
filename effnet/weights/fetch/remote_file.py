"""Where published files lie: at their publisher's, at a mirror's, and on this disk. One naming for all three.

``https://HOST/PATH`` is ``$EFFNET_MIRROR/HOST/PATH`` at a mirror and ``$EFFNET_HOME/weights/HOST/PATH`` here. So names
stay the publisher's and cannot clash, and a filled folder ``weights`` is itself a mirror once a web server shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from effnet.data.storage.cache_dir import configured_cache_dir as configured_cache_dir
from effnet.data.storage.cache_dir import is_offline as is_offline
from effnet.data.storage.cache_dir import writable_cache_dir as writable_cache_dir
from effnet.weights.catalog.entry import CatalogEntry

HUB_URL = "https://huggingface.co"


def mirror_url() -> str:
    """The address before which a mirror's files begin; "" where there is none. Raises ``ValueError`` for another."""
    prefix = os.environ.get("EFFNET_MIRROR", "").rstrip("/")
    if prefix and not prefix.startswith(("http://", "https://")):
        raise ValueError(f"EFFNET_MIRROR={prefix}: give an address that begins with https:// or http://")
    return prefix


def apply_mirror(url: str) -> str:
    """``url`` at the mirror, or itself where there is no mirror."""
    parts = urlsplit(url)
    prefix = mirror_url()
    return f"{prefix}/{parts.netloc}{parts.path}{'?' * bool(parts.query)}{parts.query}" if prefix else url


def cache_key(url: str) -> PurePosixPath:
    """``weights/HOST/PATH``: where the file at ``url`` lies below `home` or in a bundle.

    What differs in the query alone lies in folders of its own. Raises ``ValueError`` for an address without a file.
    """
    parts = urlsplit(url)
    names = [_sanitize_name(name) for name in unquote(parts.path).split("/") if name not in ("", ".")]
    if parts.scheme not in ("http", "https") or not parts.netloc or not names or ".." in names:
        raise ValueError(f"{url}: not the address of a file")
    if parts.query:
        names.insert(-1, sha256(parts.query.encode()).hexdigest()[:8])
    return PurePosixPath("weights", _sanitize_name(parts.netloc.rpartition("@")[2]), *names)


def _sanitize_name(name: str) -> str:
    """``name`` without the signs that some file system refuses."""
    return re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", name)


# One published file: where its publisher keeps it, and what it must hash to.


ProgressCallback = Callable[[int, int | None], None]  # (bytes here, bytes in all or None where not known)


_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class RemoteFile:
    """Where a file comes from: ``file`` in the hub's repository ``hub``, the ``url``, or ``file`` in an archive there.

    ``hash`` is "sha256:HEX" or "md5:HEX" of what lies at the address; HEX may be the first digits only. ``file`` of an
    archive may be a TensorFlow checkpoint's prefix, or "" for its one checkpoint. ``beside`` are files of the same
    folder that are brought too, if there are such.
    """

    name: str
    hub: str = ""
    file: str = ""
    url: str = ""
    hash: str | None = None
    companions: tuple[str, ...] = ()

    @classmethod
    def from_entry(cls, entry: CatalogEntry) -> RemoteFile:
        """The origin that ``card`` states."""
        return cls(entry.name, entry.hub, entry.file, "" if entry.hub else entry.url, entry.hash)

    @property
    def download_url(self) -> str:
        """The file's address, or its archive's."""
        return self.url or f"{HUB_URL}/{self.hub}/resolve/main/{self.file}"

    @property
    def key(self) -> str:
        """The name below a home or in a bundle of what lies at the address. Raises ``ValueError`` if there is none."""
        return str(cache_key(self.download_url))

    @property
    def is_archived(self) -> bool:
        """Whether the file must be taken out of an archive."""
        return self.key.endswith(_ARCHIVE_SUFFIXES)

    @property
    def unpacked_folder(self) -> str:
        """The folder, named as `key` is, of what was taken out of the archive."""
        return f"{self.key}.unpacked"

    def match_names(self, names: Iterable[str]) -> list[str]:
        """The ``names`` that are this file's: what belongs to it first, itself last; empty where it is not there."""
        if not self.is_archived:
            near = [str(PurePosixPath(self.key).with_name(name)) for name in self.companions]
            names = set(names)
            return [name for name in (*near, self.key) if name in names] if self.key in names else []
        inside = f"{self.unpacked_folder}/"
        members = {name.removeprefix(inside): name for name in names if name.startswith(inside)}
        return [members[member] for member in select_members(members, self.file)]


def select_members(members: Iterable[str], wanted: str) -> list[str]:
    """The ``members`` of an archive that ``wanted`` means: a file, or those of a checkpoint, its ``.index`` last.

    "" means the one checkpoint that there is. Empty where it is not there, or not whole.
    """
    names = list(members)
    if wanted in names:
        return [wanted]
    indices = [name for name in names if name.endswith(".index")]
    prefix = wanted or (indices[0].removesuffix(".index") if len(indices) == 1 else "")
    data = sorted(
        name for name in names if prefix and name.startswith(f"{prefix}.data-") and not name.endswith(".part")
    )
    return [*data, f"{prefix}.index"] if data and f"{prefix}.index" in indices else []
