"""Running a function or a command in a process of its own, and measuring its time and memory."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

from effnet.timing.memory import peak_memory

T = TypeVar("T")

CHILD_COMMAND = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from effnet.timing.child_process import _run_child; _run_child(*sys.argv[1:3])"
)


@dataclass(frozen=True)
class ProcessResult(Generic[T]):
    """What a child process returned or printed, its time, and its memory."""

    value: T
    seconds: float
    peak_bytes: int
    peak_growth: int  # bytes by which the peak exceeds that before the call


def run_in_subprocess(call: Callable[..., T], *arguments: object) -> ProcessResult[T]:
    """Run ``call(*arguments)`` in a new Python process; seconds and bytes are those of the call alone.

    Both travel by pickle: ``call`` must be a function of a module other than the main script, which the child process
    does not run again.

    Raises:
        ChildProcessError: The process was killed, or crashed; see `describe_exit`.
        Exception: Any error that the call raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, response = Path(folder, "request"), Path(folder, "response")
        request.write_bytes(pickle.dumps((call, arguments)))
        command = [sys.executable, "-c", CHILD_COMMAND, str(request), str(response), *sys.path]
        status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
        if status:
            raise ChildProcessError(f"the child process {describe_exit(status)}")
        result: ProcessResult[T] | Exception = pickle.loads(response.read_bytes())  # nosec B301  # our child's
    if isinstance(result, Exception):
        raise result
    return result


def describe_exit(status: int) -> str:
    """Return how a process ended: with an exit status, or by a signal if ``status`` is negative.

    Example:
        >>> describe_exit(-11)
        'crashed (SIGSEGV)'
    """
    if status >= 0:
        return f"ended with exit status {status}"
    name = next((each.name for each in signal.Signals if each == -status), f"signal {-status}")
    if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
        return f"was killed ({name}{': by someone, or by the system for lack of memory' if name == 'SIGKILL' else ''})"
    hint = ": a file that it had mapped was cut short, or /dev/shm is full" if name == "SIGBUS" else ""
    return f"crashed ({name}{hint})"


def _run_child(request: str, response: str) -> None:
    """Read the call from one file and write its result to the other: the main function of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and ends the child
    try:
        call, arguments = pickle.loads(Path(request).read_bytes())  # nosec B301  # our parent's
        content = pickle.dumps(_measure_call(call, arguments))
    except Exception as error:
        content = pickle.dumps(error)
    Path(response).write_bytes(content)


def _measure_call(call: Callable[..., T], arguments: tuple[object, ...]) -> ProcessResult[T]:
    before, start = peak_memory(), perf_counter()
    value = call(*arguments)
    seconds, after = perf_counter() - start, peak_memory()
    return ProcessResult(value, seconds, after, after - before)


def run_command(command: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None) -> ProcessResult[str]:
    """Run a command as a shell would: its output, wall time, and peak memory, which is sampled every 5 ms.

    ``env`` is added to this process's. Raises ``ValueError``, with the end of standard error, for an exit status but 0.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        peak, status = 0, None
        try:
            while status is None:
                try:
                    status = process.wait(0.005)
                except subprocess.TimeoutExpired:
                    with suppress(ProcessLookupError):
                        peak = max(peak, peak_memory(process.pid))
            seconds = perf_counter() - start
        finally:
            if status is None:
                process.kill()
                process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if status:
        raise ValueError(f"{command[0]} {describe_exit(status)}: {texts[1].strip()[-500:]}")
    return ProcessResult(texts[0], seconds, peak, peak)
