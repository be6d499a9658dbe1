"""Which of the machine's cores this process may use, and keeping it on some of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from effnet.arch.record import whole

LOG = logging.getLogger("effnet")


def usable() -> tuple[int, ...]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@contextmanager
def pinned(cores: int | Collection[int]) -> Iterator[tuple[int, ...]]:
    """In this block the whole process stays on ``cores``: on so many of those it may use, or on these by their numbers.

    Yields their numbers. Threads that run already are moved too, and back at the end. Where the system cannot pin
    (macOS, Windows) nothing changes, and a line of the log says so.
    Raises ``ValueError`` for no core, or for one that this process may not use.
    """
    allowed = usable()
    if isinstance(cores, int):
        whole("cores", cores, 1)
        wanted = allowed[:cores]
        if cores > len(allowed):
            raise ValueError(f"this process may use {len(allowed)} cores, not {cores}: pin it to fewer")
    else:
        wanted = tuple(sorted(set(cores)))
        if not wanted or not set(wanted) <= set(allowed):
            raise ValueError(f"cores must be among {', '.join(map(str, allowed))}, got {list(cores)}")
    if not hasattr(os, "sched_setaffinity"):
        LOG.warning("this system cannot pin a process to cores: times are taken on whichever it gives")
        yield wanted
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    _place({thread: set(wanted) for thread in before})
    try:
        yield wanted
    finally:
        _place({thread: before.get(thread, set(allowed)) for thread in _threads()})


def _threads() -> list[int]:
    """The system's numbers of this process's threads; 0 is the one that asks."""
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]


def _place(threads: dict[int, set[int]]) -> None:
    for thread, cores in threads.items():
        with suppress(ProcessLookupError):  # it has ended since it was listed
            os.sched_setaffinity(thread, cores)
