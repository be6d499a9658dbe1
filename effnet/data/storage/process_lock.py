"""A lock that keeps a second process from writing the same output. It names its holder, and ends with it."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from socket import gethostname

from effnet.arch.serde import parse_json

LOCK_NAME = ".lock"
ORPHAN_SECONDS = 60  # in which the worker processes of a killed holder end too; before that they keep its lock
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class OutputInUseError(FileExistsError, ValueError):
    """Another process is writing the same output."""


@contextmanager
def lock_output(output: Path, folder: Path | None = None) -> Iterator[None]:
    """Be the only process that writes ``output`` in this block: a folder, or a file whose lock is kept in ``folder``.

    The kernel holds the lock, on network file systems too, and gives it up when its process ends in any way: a lock
    file that a kill or a reboot left behind does not matter. On a file system without locks nothing is locked.

    Raises:
        OutputInUseError: With the process and the machine that hold the lock.
        OSError: If the folder cannot be written.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    path = (folder or output) / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=ORPHAN_SECONDS if _holder_is_dead(_read_holder(path)) else 0)
    except Timeout:
        raise OutputInUseError(_describe(output, _read_holder(path))) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(output)) from None
        yield
        return
    try:
        if not isinstance(lock, SoftFileLock):  # that one names its holder itself
            holder = {"pid": os.getpid(), "host": gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M}"}
            with suppress(OSError):  # a full disk: it is held without a name
                path.write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is still held: who waits for it sees that it is gone, and makes a new one
        lock.release()


def _read_holder(path: Path) -> dict[str, object]:
    """Return who holds the lock, as the file says; empty if it does not."""
    with suppress(OSError, ValueError):
        found = parse_json(path.read_bytes()[:1_000], path)
        return found if isinstance(found, dict) else {}
    return {}


def _holder_is_dead(holder: dict[str, object]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0 or holder.get("host") != gethostname() or not hasattr(os, "getuid"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        pass
    return False


def _describe(output: Path, holder: dict[str, object]) -> str:
    who = f"process {holder['pid']} on {holder.get('host')}, since {holder.get('since')}" if "pid" in holder else ""
    if holder.get("pid") == os.getpid() and holder.get("host") == gethostname():
        who = "this process"
    return f"{output} is being written by {who or 'another process'}: wait for it to end, or choose another output"
