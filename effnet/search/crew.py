"""Processes that work beside this one: one thread each, and gone when it is gone, however it goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import torch

POLL = 0.5  # seconds between two looks at whether the others are still there


@contextmanager
def crew(work: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> Iterator[Callable[[], bool]]:
    """So many ``processes`` that each do ``work(*arguments)``; they are ended with this block.

    Gives a function that says, after a short wait, whether any of them still works. It raises
    ``ChildProcessError`` where one has failed.
    """
    context = get_context("spawn")
    started: list[BaseProcess] = [
        context.Process(target=_member, args=(work, arguments, os.getpid()), daemon=True) for _ in range(processes)
    ]

    def working() -> bool:
        next((one for one in started if one.is_alive()), started[0]).join(POLL)
        failed = next((one.exitcode for one in started if one.exitcode), None)
        if failed is not None:
            raise ChildProcessError(f"one of the processes of the search ended with status {failed}")
        return any(one.is_alive() for one in started)

    try:
        for one in started:
            one.start()
        yield working
    finally:
        for one in started:
            if one.pid is not None:
                one.kill()
                one.join()


def _member(work: Callable[..., None], arguments: tuple[Any, ...], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this one
    Thread(target=_until_gone, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    work(*arguments)


def _until_gone(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)
