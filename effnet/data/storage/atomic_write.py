"""A file is written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes ``path``'s place when the block ends well, and is gone otherwise.

    Raises ``OSError`` with one clear sentence where the disk is full or the folder is not to be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        mode = beside.stat().st_mode
        yield beside
        beside.chmod(mode)  # safetensors makes its files for the owner alone
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except Exception as error:
        reason = _write_error_reason(error)
        if reason is None:
            raise
        raise OSError(f"{path} could not be written: {reason}; what was there before is untouched") from error
    finally:
        beside.unlink(missing_ok=True)


def _write_error_reason(error: Exception) -> str | None:
    """Why a write failed, in words; None where it was not the writing that failed."""
    cause: BaseException | None = error
    while cause is not None:  # torch and safetensors put errors of their own over the system's, or its text into them
        number = cause.errno if isinstance(cause, OSError) else None
        if number == errno.ENOSPC or "No space left" in str(cause):
            return "the disk is full"
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return "the folder does not allow it"
        cause = cause.__context__
    return (error.strerror or str(error)) if isinstance(error, OSError) else None


# A file and its companions take their places together.


def move_with_companions(source: Path, path: Path, temporary: Path) -> None:
    """Moves the file ``made`` to ``beside``, which is about to become ``path``, and all else in its folder next to it.

    What lies with ``made``, as weights beside a graph, takes its places just before what names it does.
    """
    with ExitStack() as companions:
        for file in source.parent.iterdir():
            if file != source:
                file.replace(companions.enter_context(atomic_write(path.with_name(file.name))))
        source.replace(temporary)
