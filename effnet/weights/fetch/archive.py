"""What is wanted of an archive, and nothing else of it: a file, or the files of a TensorFlow checkpoint."""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from effnet.weights.fetch.download import DownloadError
from effnet.weights.fetch.origin import chosen


def extract(archive: Path, wanted: str, folder: Path) -> Path:
    """``wanted`` of the tar ``archive``, written below ``folder``: a file, or the files of a checkpoint.

    "" means the only checkpoint. Returns the file, or the checkpoint's ``.index``. Each is written beside its place
    and moved there when whole, the ``.index`` last. Raises `DownloadError` for a file that is no archive, or that has
    no such member.
    """
    try:
        with tarfile.open(archive) as opened:
            members = _members(opened)
            names = chosen(members, wanted)
            if not names:
                raise DownloadError(f"{archive} has no {wanted or 'single checkpoint'} in it")
            for name in names:
                _write(opened, members[name], folder / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, DownloadError) or getattr(error, "errno", None):
            raise
        raise DownloadError(f"{archive} is damaged, or no archive: remove it to have it downloaded again") from error
    return folder / names[-1]


def _members(opened: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The plain files in the archive; links, devices and whatever leads out of a folder are as if not there."""
    found = {info.name.removeprefix("./"): info for info in opened.getmembers() if info.isreg()}
    return {name: info for name, info in found.items() if _stays_inside(name)}


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))  # a backslash parts folders on Windows
    return not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]


def _write(opened: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = opened.extractfile(info)
    assert content is not None, info.name
    try:
        with content, beside.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
