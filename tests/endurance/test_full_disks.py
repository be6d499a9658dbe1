"""A disk that is full at any write: one sentence with the user's path, nothing lost, and the work ends with room."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import effnet
from tests.endurance.worker import Command, Outcome, Worker
from tests.exporting.networks import network
from tests.training.conftest import paint

ROOM = 64 * 2**20  # bytes of the small disk
TIMES = int(os.environ.get("EFFNET_ENDURE_DISKS", "12"))  # per command
PAGE = 4096
TRAIN = ("--model", "nano", "--weights", "none", "--batch-size", "8")


@dataclass(frozen=True)
class Job:
    """A command that writes into the folder ``{}``, and what a second one needs to go on after a failure."""

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()  # words that are added then
    exact: tuple[str, ...] = ()  # files that end with the same bytes whenever they are made


def jobs(model: Path, photos: Path, many: Path) -> list[Job]:
    predict = ("predict", str(photos), "--model", str(model), "--engine", "eager", "--threads", "1", "--output")
    train = ("train", str(photos), *TRAIN, "--epochs", "2", "--workers", "0", "--track", "none", "--output", "{}/run")
    search = ("search", "network", str(many), "--trials", "2", "--epochs", "1", "--final", "1", "--final-epochs", "1")
    made = [
        Job("convert", ("convert", str(model), "{}/a.pth", "--to", "timm"), exact=()),
        Job("convert tensorflow", ("convert", str(model), "{}/a.index", "--to", "tensorflow"), ("--force",)),
        Job("predict csv", (*predict, "{}/a.csv"), exact=("a.csv",)),
        Job("predict jsonl", (*predict, "{}/a.jsonl"), exact=("a.jsonl",)),
        Job("predict parquet", (*predict, "{}/a.parquet")),
        Job("embeddings", (*predict[:-1], "--embeddings", "{}/a.npz")),
        Job("shard", ("shard", str(photos), "{}/shards", "--shard-size", "0.02")),
        Job("explain", ("explain", str(model), str(photos / "dark" / "00.png"), "--output", "{}/maps"), ("--force",)),
        Job("train", train, ("--resume",), exact=("run/model.safetensors",)),
        Job("search", (*search, "--processes", "1", "--output", "{}/search")),
    ]
    for suffix in ("onnx", "xml", "tflite"):
        made.append(Job(f"export {suffix}", ("export", str(model), "{}/a." + suffix)))
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; ``EFFNET_SMALL_DISK`` names an empty one where mounting is not allowed."""
    if given := os.environ.get("EFFNET_SMALL_DISK"):
        yield Path(given)
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("full disks: mounting one is not allowed here; set EFFNET_SMALL_DISK to a folder on a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.sweep
def test_full_disks(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = effnet.save(network(classes=2), tmp_path / "model.safetensors")
    paint(tmp_path / "photos", "dark", 70, 24)
    paint(tmp_path / "photos", "light", 180, 24)
    for name, brightness in (("dark", 110), ("light", 140)):
        paint(tmp_path / "many", name, brightness, 280)
    worker, faults, report = Worker(), [], []
    try:
        for job in jobs(model, tmp_path / "photos", tmp_path / "many"):
            found, line = try_job(job, disk, worker)
            faults += found
            report.append(line)
    finally:
        worker.close()
    with capsys.disabled():
        print("\n" + "\n".join(report))
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


def try_job(job: Job, disk: Path, worker: Worker) -> tuple[list[str], str]:
    """Run a job with room, then with less and less; return what was wrong, and a line of report."""
    first = run(job, job.words, disk / "first", worker)
    if first.status != 0 or first.fault:
        return [f"with room: {first.describe()}"], f"{job.name}: does not work at all"
    need = sum(path.stat().st_blocks * 512 for path in (disk / "first").rglob("*"))
    expected = {name: (disk / "first" / name).read_bytes() for name in job.exact}
    shutil.rmtree(disk / "first")
    faults, full, rng = [], 0, random.Random(job.name)
    # Temporary files come on top of what is left in the end, so that the last ones may fit
    for free in sorted(rng.randrange(0, need // PAGE + 1) * PAGE for _ in range(TIMES)):
        where = disk / "folder"
        where.mkdir()
        filler = fill(disk, free)
        outcome = run(job, job.words, where, worker)
        full += outcome.status != 0
        if wrong := find_fault(outcome, where):
            faults.append(f"{free} bytes free: {wrong}: {outcome.describe()}")
        if hidden := [path for path in where.rglob("*") if ".part" in path.suffixes or path.suffix == ".tmp"]:
            faults.append(f"{free} bytes free: left behind: {hidden}: {outcome.describe()}")
        filler.unlink()
        done = (
            run(job, (*job.words, *(job.again if outcome.status else ())), where, worker) if outcome.status else outcome
        )
        if done.status != 0 or done.fault:
            faults.append(f"again, with room, after {free} bytes free: {done.describe()}")
        elif wrong_files := [name for name, content in expected.items() if (where / name).read_bytes() != content]:
            faults.append(f"again, after {free} bytes free: other content: {wrong_files}")
        shutil.rmtree(where)
    return faults, f"{job.name}: needs {need / 1e3:.0f} kB; the disk was full in {full} of {TIMES} runs"


def run(job: Job, words: tuple[str, ...], where: Path, worker: Worker) -> Outcome:
    where.mkdir(exist_ok=True)
    return worker.run(Command(job.name, tuple(word.replace("{}", str(where)) for word in words), where))


def fill(disk: Path, free: int) -> Path:
    """Write a file that leaves ``free`` bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        space = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, max(PAGE, space.f_bavail * space.f_frsize - free))
    return filler


def find_fault(outcome: Outcome, where: Path) -> str:
    if outcome.fault or outcome.status == 0:
        return outcome.fault
    if os.strerror(errno.ENOSPC).lower() not in outcome.err.lower() and "full" not in outcome.err.lower():
        return "no word of the disk being full"
    if str(where) not in outcome.err:
        return "the user's path is not named"
    if re.search(r"\.part\b|\.tmp\b|/tmp/tmp", outcome.err):  # .a.csv.parts is a folder that stays, and may be named
        return "a hidden file is named"
    return ""
