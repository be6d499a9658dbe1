"""The streams and signals that a process is started with: closed or full ones, a reader that has left, Ctrl+C twice."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

EXIT_INTERRUPTED = 130  # as in shells: 128 + SIGINT


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make standard streams that can be written to in this block, whatever the caller has closed or filled.

    Text that cannot be encoded is escaped. What cannot be written to standard error is dropped: the work goes on.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened, such as a model, would get its number and what is printed
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any file name can be printed in any encoding
    with (
        redirect_stdout(cast(TextIO, _Stream(sys.stdout, "standard output"))),
        redirect_stderr(cast(TextIO, _Stream(sys.stderr, "standard error"))),
    ):
        yield


class _Stream:
    """A standard stream that says which one could not be written; standard error drops what it cannot write."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._named_errors():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._named_errors():
            self._stream.flush()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._name == "standard output":
                raise OSError(error.errno, error.strerror, self._name) from None


@contextmanager
def immediate_second_interrupt() -> Iterator[None]:
    """Say that Ctrl+C interrupts the work in this block; another one ends the process at once, without cleaning up.

    It would hit the cleaning up, or Python's own end, and print a traceback of that. Half-written files are hidden ones
    that the next run removes.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as it is below nohup
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    process, interrupts = os.getpid(), 0

    def interrupt(*_: object) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            os._exit(EXIT_INTERRUPTED)
        if os.getpid() == process:  # not in a data loading process, which receives it too
            with suppress(OSError):
                os.write(2, b"effnet: interrupted\n")
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def flush_stdout(status: int) -> int:
    """Return ``status``; or 1 if standard output cannot be written, quietly if the reader of a pipe has closed it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not status and not isinstance(error, BrokenPipeError):
            print(f"effnet: {error.filename}: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return status or 1
    return status
