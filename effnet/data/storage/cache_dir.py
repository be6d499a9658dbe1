"""The folder of this disk in which whatever was fetched or found out is kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_TRUE_VALUES = ("1", "on", "yes", "true")


def configured_cache_dir() -> Path:
    """``$EFFNET_HOME``, or ``effnet`` in the user's cache."""
    if chosen := os.environ.get("EFFNET_HOME"):
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "effnet"


def writable_cache_dir() -> Path:
    """Where files are written to: `home`, or a folder of this user's among the temporary ones where that is read-only.

    Raises ``OSError`` where neither can be had.
    """
    wanted = configured_cache_dir()
    if _is_writable(wanted):
        return wanted
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    instead = Path(tempfile.gettempdir()) / f"effnet-{owner}"
    instead.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and instead.stat().st_uid != os.getuid():  # laid there by somebody else
        raise OSError(f"{wanted} cannot be written to: set EFFNET_HOME to a folder that can")
    return instead


def _is_writable(folder: Path) -> bool:
    """Whether ``folder``, or what is to become it, takes files."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.exists(one))
    return there.is_dir() and os.access(there, os.W_OK)


def is_offline(override: bool | None = None) -> bool:
    """Whether the network is to be left alone: as ``said``, or by ``EFFNET_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``."""
    if override is not None:
        return override
    return any(os.environ.get(name, "").lower() in _TRUE_VALUES for name in ("EFFNET_OFFLINE", "HF_HUB_OFFLINE"))
