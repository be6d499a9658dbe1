"""What something takes in a process of its own: start-up, time and memory, with nothing left from before."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

from effnet.timing.memory import peak_memory

T = TypeVar("T")

CHILD_COMMAND = (
    "import sys; sys.path[:] = sys.argv[3:]; from effnet.timing.child_process import _answer; _answer(*sys.argv[1:3])"
)


@dataclass(frozen=True)
class ProcessResult(Generic[T]):
    """What came out of a process of its own, and what it took."""

    value: T
    seconds: float
    peak_bytes: int  # the most that the process held
    peak_growth: int  # of it, what came on top of the most that it held before


def run_in_subprocess(call: Callable[..., T], *arguments: object) -> ProcessResult[T]:
    """``call(*arguments)`` in a new process that shares nothing with this one; seconds and bytes are of the call alone.

    Both travel by pickle: ``call`` must be a function of a module other than the script that runs, which the new
    process does not run again. An error in the call is raised here.
    Raises ``MemoryError`` where the process dies, as it does when the system has no memory left for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "asked"), Path(folder, "answered")
        asked.write_bytes(pickle.dumps((call, arguments)))
        words = [sys.executable, "-c", CHILD_COMMAND, str(asked), str(answered), *sys.path]
        if subprocess.run(words, stdin=subprocess.DEVNULL).returncode:
            raise MemoryError("the process died at its work: the memory does not suffice, or it crashed")
        found: ProcessResult[T] | Exception = pickle.loads(answered.read_bytes())
    if isinstance(found, Exception):
        raise found
    return found


def _run_child(asked: str, answered: str) -> None:
    """The new process's work: the call is read from one file, and what comes out of it is written into the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for this process hears it too, and ends it
    try:
        content = pickle.dumps(_measure_call(*pickle.loads(Path(asked).read_bytes())))
    except Exception as error:
        content = pickle.dumps(error)
    Path(answered).write_bytes(content)


def _measure_call(call: Callable[..., T], arguments: tuple[object, ...]) -> ProcessResult[T]:
    before, start = peak_memory(), perf_counter()
    value = call(*arguments)
    seconds, after = perf_counter() - start, peak_memory()
    return ProcessResult(value, seconds, after, after - before)


def run_command(command: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None) -> ProcessResult[str]:
    """A command from its start to its end, as from a shell: what it prints, its wall time and its peak of memory.

    ``environment`` is added to this process's. Memory is read while the command runs, every 5 ms.
    Raises ``ValueError`` with the end of what it wrote on standard error where it does not end with 0.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        peak, ended = 0, None
        try:
            while ended is None:
                try:
                    ended = process.wait(0.005)
                except subprocess.TimeoutExpired:
                    peak = max(peak, _peak_or_zero(process.pid))
            seconds = perf_counter() - start
        finally:
            if ended is None:
                process.kill()
                process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if ended:
        raise ValueError(f"{command[0]} ended with {ended}: {texts[1].strip()[-500:]}")
    return ProcessResult(texts[0], seconds, peak, peak)


def _peak_or_zero(process: int) -> int:
    try:
        return peak_memory(process)
    except ProcessLookupError:
        return 0
