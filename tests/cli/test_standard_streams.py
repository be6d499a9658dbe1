"""Closed and full streams, a second Ctrl+C, and child processes that crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from effnet.cli.standard_streams import EXIT_INTERRUPTED
from effnet.data.loader import _name_killed_workers
from effnet.timing.child_process import describe_exit, run_in_subprocess

PROGRAM = "import sys; from effnet.cli.app import main; sys.exit(main())"


def run_in_shell(words: str, folder: Path, redirections: str) -> tuple[int, str, str]:
    """Run ``effnet`` with streams as a shell gives them, here in one process per call."""
    command = f'"{sys.executable}" -c "{PROGRAM}" {words} {redirections}'
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("redirections", "status", "error"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "effnet: standard output: No space left on device\n"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_the_work_is_done_whatever_the_streams(redirections: str, status: int, error: str, tmp_path: Path) -> None:
    done = run_in_shell("scale nano --phi 1 --output a.json", tmp_path, redirections)
    assert (done[0], done[2].replace("effnet: wrote nano_phi1 to a.json\n", "")) == (status, error)
    # and no file has got the number of a closed stream, and with it what was printed
    assert json.loads((tmp_path / "a.json").read_text())["name"]


@pytest.mark.parametrize("words", ["models --json", "version"])
def test_short_output_to_a_full_disk_is_told(words: str, tmp_path: Path) -> None:
    assert run_in_shell(words, tmp_path, ">/dev/full") == (1, "", "effnet: standard output: No space left on device\n")


@pytest.mark.parametrize("interrupts", [1, 2])
def test_interrupts_are_one_sentence(interrupts: int, tmp_path: Path) -> None:
    """However slow the cleaning up is that the second one hits."""
    code = (
        "import signal, sys, time, effnet.arch, effnet.cli.app\n"
        # A shell's background process ignores it, and so would its children
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def work(*_):\n"
        "    try:\n"
        "        print('begun', flush=True); time.sleep(60)\n"
        "    finally:\n"
        f"        print('cleaning', flush=True); time.sleep({0 if interrupts == 1 else 60})\n"
        "effnet.arch.count = work\n"
        "sys.argv = ['effnet', 'show', 'nano']\n"
        "sys.exit(effnet.cli.app.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for _ in range(interrupts):
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (EXIT_INTERRUPTED, "effnet: interrupted\n")


def test_an_ignored_interrupt_stays_ignored(tmp_path: Path) -> None:
    """As below nohup, or in the background of a script."""
    code = (
        "import os, signal, sys, effnet.arch, effnet.cli.app\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "count = effnet.arch.count\n"
        "effnet.arch.count = lambda *given: (os.kill(os.getpid(), signal.SIGINT), count(*given))[1]\n"
        "sys.argv = ['effnet', 'scale', 'nano', '--phi', '1']\n"
        "sys.exit(effnet.cli.app.main())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3, "ended with exit status 3"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        (-signal.SIGABRT, "crashed (SIGABRT)"),
        (-signal.SIGILL, "crashed (SIGILL)"),
        (-signal.SIGBUS, "crashed (SIGBUS: a file that it had mapped was cut short, or /dev/shm is full)"),
        (-signal.SIGKILL, "was killed (SIGKILL: by someone, or by the system for lack of memory)"),
        (-signal.SIGTERM, "was killed (SIGTERM)"),
        (-(signal.SIGRTMIN + 5), "crashed (signal 39)"),
    ],
)
def test_how_a_child_process_ended(status: int, text: str) -> None:
    assert describe_exit(status) == text


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_process_that_dies_is_told_by_its_signal(number: signal.Signals) -> None:
    with pytest.raises(ChildProcessError, match=f"the child process .* ?\\({number.name}"):
        run_in_subprocess(signal.raise_signal, int(number))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", r"process 7 was killed \(SIGKILL"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", r"process 7 crashed \(SIGSEGV\)"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is", r"process 7 crashed \(SIGBUS"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "process 7 ended unexpectedly"),
    ],
)
def test_a_data_loading_process_that_dies_is_told_by_its_signal(message: str, expected: str) -> None:
    def load(error: str) -> Iterator[Exception]:
        raise RuntimeError(error)
        yield

    def name(error: str) -> Iterable[object]:
        return list(_name_killed_workers(load(error)))

    with pytest.raises(ChildProcessError, match=expected):
        name(message)
    with pytest.raises(RuntimeError, match="another error"):
        name("another error")
    assert os.getpid()
