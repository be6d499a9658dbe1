"""Names of files and folders: bytes that are no text, the two forms of accented letters, and where a file then is."""

import os
import unicodedata
from pathlib import Path


def normalize_name(name: str) -> str:
    r"""Return the name of a class or an image as text that can be written anywhere, and is the same on every system.

    Accented letters are one character each (NFC), as macOS may store two. Bytes that are no UTF-8, as in archives of
    old systems, are shown as ``\xe9``. Only the path keeps the bytes, with which the file is opened.

    Example:
        >>> normalize_name("cafe\u0301"), normalize_name(os.fsdecode(b"caf\xe9"))
        ('café', 'caf\\xe9')
    """
    if name.isascii():
        return name
    decodable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", decodable)


def existing_path(path: str | Path) -> Path:
    """Return ``path``, or if there is nothing, what differs from it only in the form of accented letters."""
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not os.path.lexists(found / part):
            part = _find_same_name(found, part)
        found /= part
    return found if os.path.lexists(found) else path


def _find_same_name(folder: Path, name: str) -> str:
    wanted = normalize_name(name)
    for form in ("NFC", "NFD"):  # one of these, but for a name that mixes both
        other = unicodedata.normalize(form, name)
        if os.path.lexists(folder / other):
            return other
    try:
        return next((entry.name for entry in os.scandir(folder) if normalize_name(entry.name) == wanted), name)
    except OSError:
        return name
