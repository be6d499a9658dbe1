"""Where published files lie: at their publisher's, at a mirror's, and on this disk. One naming for all three.

``https://HOST/PATH`` is ``$EFFNET_MIRROR/HOST/PATH`` at a mirror and ``$EFFNET_HOME/weights/HOST/PATH`` here. So names
stay the publisher's and cannot clash, and a filled folder ``weights`` is itself a mirror once a web server shows it.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from effnet.data.storage.home import home as home
from effnet.data.storage.home import offline as offline
from effnet.data.storage.home import store as store

HUB = "https://huggingface.co"


def mirror() -> str:
    """The address before which a mirror's files begin; "" where there is none. Raises ``ValueError`` for another."""
    prefix = os.environ.get("EFFNET_MIRROR", "").rstrip("/")
    if prefix and not prefix.startswith(("http://", "https://")):
        raise ValueError(f"EFFNET_MIRROR={prefix}: give an address that begins with https:// or http://")
    return prefix


def mirrored(url: str) -> str:
    """``url`` at the mirror, or itself where there is no mirror."""
    parts = urlsplit(url)
    prefix = mirror()
    return f"{prefix}/{parts.netloc}{parts.path}{'?' * bool(parts.query)}{parts.query}" if prefix else url


def key(url: str) -> PurePosixPath:
    """``weights/HOST/PATH``: where the file at ``url`` lies below `home` or in a bundle.

    What differs in the query alone lies in folders of its own. Raises ``ValueError`` for an address without a file.
    """
    parts = urlsplit(url)
    names = [_plain(name) for name in unquote(parts.path).split("/") if name not in ("", ".")]
    if parts.scheme not in ("http", "https") or not parts.netloc or not names or ".." in names:
        raise ValueError(f"{url}: not the address of a file")
    if parts.query:
        names.insert(-1, sha256(parts.query.encode()).hexdigest()[:8])
    return PurePosixPath("weights", _plain(parts.netloc.rpartition("@")[2]), *names)


def _plain(name: str) -> str:
    """``name`` without the signs that some file system refuses."""
    return re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", name)
