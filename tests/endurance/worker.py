"""A process that runs commands of the program one after the other and tells what each did, and a pool of such.

A command runs in the worker's own process, as it would in a user's program: where a runtime's fault kills it, that is
what would have happened to the user.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

HANG_SECONDS = 30.0  # of a processor: a busy machine does not make a hang
STUCK_SECONDS = 240.0  # by the clock: a process that waits for something
MAX_BYTES = 1_500_000_000
KILL_BYTES = 2_500_000_000
COMMANDS_PER_WORKER = 150
TALKATIVE = ("train", "evaluate", "search")  # say how far they are, without a name before each line
OWN_LINE = re.compile(r"effnet: |  |$|Usage: |Try |Error: |╭|│|╰")


@dataclass(frozen=True)
class Command:
    """A call of the program: its words, where it runs, and what it is called in messages."""

    name: str
    words: tuple[str, ...]
    folder: Path
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a command did: ``fault`` is empty if it was answered or refused as a user may expect."""

    command: Command
    status: int | None
    out: str = ""
    err: str = ""
    fault: str = ""
    peak_bytes: int = 0
    seconds: float = 0.0

    def describe(self) -> str:
        last = [line for line in self.err.strip().splitlines() if line.strip()][-6:]
        return f"{self.command.name}: {self.fault}\n    effnet {' '.join(self.command.words)}\n    " + "\n    ".join(
            last
        )


class Worker:
    """One process, started when it is needed and again after it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0

    def run(self, command: Command) -> Outcome:
        if self._process is None or self._done >= COMMANDS_PER_WORKER:
            self.close()
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._done += 1
        request = {"words": command.words, "folder": str(command.folder), "env": command.env}
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets the peak of memory
        begun, begun_cpu = monotonic(), cpu_seconds(process.pid)
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        fault = ""
        while not select.select([process.stdout], [], [], 0.05)[0]:
            if process.poll() is not None:
                break
            if cpu_seconds(process.pid) - begun_cpu > HANG_SECONDS:
                fault = f"hangs: more than {HANG_SECONDS:.0f} seconds of a processor"
            elif monotonic() - begun > STUCK_SECONDS:
                fault = f"hangs: no answer within {STUCK_SECONDS:.0f} seconds"
            elif memory(process.pid) > KILL_BYTES:
                fault = f"memory above {KILL_BYTES / 1e9:.1f} GB"
            if fault:
                os.killpg(process.pid, signal.SIGKILL)
                break
        peak = memory(process.pid)
        line = process.stdout.readline() if not fault else b""
        seconds = monotonic() - begun
        if not line:
            status = process.wait()
            self._process = None
            err = self._errors.read_text(errors="replace") if self._errors.exists() else ""
            fault = fault or f"the process was ended by {signal.Signals(-status).name if status < 0 else status}"
            return Outcome(command, None, "", err, fault, peak, seconds)
        reply: dict[str, Any] = json.loads(line)
        fault = find_fault(command.words, reply["status"], reply["err"], reply["traceback"], peak)
        err = reply["err"] + reply["traceback"]
        return Outcome(command, reply["status"], reply["out"], err, fault, peak, seconds)

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.endurance.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        self._process, self._done, self._errors = process, 0, Path(f"/tmp/effnet-worker-{process.pid}.err")

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def find_fault(words: Sequence[str], status: int, err: str, trace: str, peak: int) -> str:
    """Return what is wrong with how a command ended; "" if nothing is."""
    if trace or "Traceback (most recent call last)" in err:
        return "traceback"
    if peak > MAX_BYTES:
        return f"memory: {peak / 1e9:.2f} GB"
    foreign = [line for line in err.splitlines() if not OWN_LINE.match(line)]
    if foreign and words[0] not in TALKATIVE:
        return f"not our words: {foreign[0][:200]}"
    if status not in (0, 1, 2):
        return f"exit status {status}"
    if status and not err.strip():
        return f"exit status {status} without a word"
    if len(err) > 20_000:
        return f"{len(err)} characters of messages"
    return ""


def run_commands(commands: Iterable[Command], workers: int) -> Iterator[Outcome]:
    """Yield outcomes in the order of the commands, of which few are prepared before they are run."""
    idle: SimpleQueue[Worker] = SimpleQueue()
    made = [Worker() for _ in range(workers)]
    for worker in made:
        idle.put(worker)

    def run(command: Command) -> Outcome:
        worker = idle.get()
        try:
            return worker.run(command)
        finally:
            idle.put(worker)

    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting = []
            for command in commands:
                waiting.append(pool.submit(run, command))
                if len(waiting) >= 2 * workers:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
    finally:
        for worker in made:
            worker.close()


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # and that of children it waited for


def memory(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def serve_commands() -> None:
    """Run what comes in on standard input; answer with a line each."""
    answers = os.fdopen(os.dup(1), "wb")
    import torch

    import effnet.cli.app

    torch.set_num_threads(1)
    here, environment = os.getcwd(), dict(os.environ)
    for line in sys.stdin:
        request = json.loads(line)
        reply = run_captured(effnet.cli.app.main, request["words"], request["folder"], request["env"])
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


def run_captured(main: Any, words: Sequence[str], folder: str, env: dict[str, str]) -> dict[str, Any]:
    """Run ``main`` with both of its streams in files, so that also what C libraries print is found."""
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = ["effnet", *words]
    paths = [Path(f"/tmp/effnet-worker-{os.getpid()}.{name}") for name in ("out", "err")]
    for descriptor, path in enumerate(paths, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1, errors="backslashreplace") for number in (1, 2)
    )
    trace, status = "", 1
    try:
        status = main()
    except BaseException:
        trace = traceback.format_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        stream.close()
    out, err = (path.read_text(errors="backslashreplace") for path in paths)
    for path in paths:
        path.unlink()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    return {"status": status, "out": out, "err": err, "traceback": trace}


if __name__ == "__main__":
    serve_commands()
