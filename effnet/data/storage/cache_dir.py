"""The folder on this disk for downloads and for results that are kept between runs; offline mode."""

import os
import tempfile
from pathlib import Path

_TRUE_VALUES = ("1", "on", "yes", "true")  # of an environment variable, as huggingface_hub reads them


def configured_cache_dir() -> Path:
    """Return ``$EFFNET_HOME``, or ``effnet`` in the user's cache."""
    if chosen := os.environ.get("EFFNET_HOME"):
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "effnet"


def writable_cache_dir() -> Path:
    """Return the configured folder, or a temporary one of this user if that is read-only.

    Containers and clusters often mount the home directory read-only; losing a cache must not fail a prediction.

    Raises:
        OSError: if the temporary folder belongs to another user, who could put files into it.
    """
    configured = configured_cache_dir()
    existing = next(path for path in (configured.absolute(), *configured.absolute().parents) if os.path.exists(path))
    if existing.is_dir() and os.access(existing, os.W_OK):  # it is there, or can be created
        return configured
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    fallback = Path(tempfile.gettempdir()) / f"effnet-{owner}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and fallback.stat().st_uid != os.getuid():
        raise OSError(f"{configured} is not writable: set EFFNET_HOME to a folder that is")
    return fallback


def is_offline() -> bool:
    """Return whether the network must not be used: ``EFFNET_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``."""
    values = (os.environ.get(name, "").lower() for name in ("EFFNET_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value in _TRUE_VALUES for value in values)
