"""Atomic writes: a file is written completely or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces ``path`` if the block succeeds and is deleted otherwise.

    Raises ``OSError`` if the disk is full or the folder is not writable.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with name_write_errors(path, "; the previous file is unchanged"):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.touch()
            mode = beside.stat().st_mode
            yield beside
            beside.chmod(mode)  # safetensors makes its files for the owner alone
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(path)
    finally:
        with suppress(OSError):  # it does not exist, nor perhaps its folder
            beside.unlink()


@contextmanager
def name_write_errors(path: Path, remark: str = "") -> Iterator[None]:
    """Raise ``OSError`` that names ``path`` and says why, with a ``remark``, if writing in this block fails."""
    try:
        yield
    except Exception as error:
        reason = _write_error_reason(error)
        if reason is None:
            raise
        raise OSError(f"{path} could not be written: {reason}{remark}") from error


def write_text(path: Path, text: str) -> Path:
    r"""Write ``text`` to ``path`` in UTF-8, completely or not at all; return the path.

    Bytes of file names that are no UTF-8 become ``\udce9``, which JSON reads back.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _write_error_reason(error: Exception) -> str | None:
    """Return why a write failed, or None if something else than the writing failed."""
    cause: BaseException | None = error
    while cause is not None:  # torch and safetensors wrap the system's error in their own, or copy its text
        number = cause.errno if isinstance(cause, OSError) else None
        if number == errno.ENOSPC or "No space left" in str(cause):
            return "the disk is full"
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return "permission denied for the folder"
        cause = cause.__context__
    return (error.strerror or str(error)) if isinstance(error, OSError) else None


@contextmanager
def atomic_write_with_companions(path: Path) -> Iterator[Path]:
    """As `atomic_write`, with a path of the same name in a temporary folder of its own beside ``path``.

    All other files there, such as weights beside a graph, reach their places just before the file that refers to them.
    """
    with atomic_write(path) as target, TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name
        yield written
        with ExitStack() as companions:
            for file in written.parent.iterdir():
                if file != written:
                    file.replace(companions.enter_context(atomic_write(path.with_name(file.name))))
            written.replace(target)
