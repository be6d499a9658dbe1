"""Whole folders: throughput compared with the bare engine, memory over time, and ``kill -9`` at random times.

    python benchmarks/bulk.py [FOLDER] [--images 20000] [--model nano] [--engine auto] [--batch-size 64] [--kills 10]

FOLDER holds small JPEGs; without it, that many of 32 pixels are generated. Bare: images decoded in a pool of one thread
per core and batches computed, in sequence in the same threads, without names, labels or files. Bulk: ``effnet predict
FOLDER --output result.parquet`` as a function in this process, with the model loaded and the engine chosen before the
clock starts. Both are interleaved. Memory is the resident size of a process that runs the whole command, read every
quarter of a second. Kills: the same command, each time in a new process, SIGKILL at random times; then the result is
compared with the folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from pyarrow import parquet

from effnet.data.image_io import load_input
from effnet.net import create
from effnet.prediction import Predictor
from effnet.prediction.bulk import describe_predictor, predict_to_file
from effnet.timing import Stopwatch
from effnet.timing.machine import count_cores
from effnet.weights import save


def make_images(folder: Path, count: int) -> Path:
    """Write ``count`` JPEGs of 32 pixels, a thousand per folder."""
    noise = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), np.uint8)).resize((32, 32)).save(path)
    return folder


def bare(predictor: Predictor, paths: list[Path], batch: int) -> None:
    """Decode and compute every image, and nothing else."""
    engine = predictor.choose_engine(batch)
    with ThreadPoolExecutor(count_cores()) as pool:
        for start in range(0, len(paths), batch):
            read = list(pool.map(lambda path: load_input(path, predictor.preprocess), paths[start : start + batch]))
            engine.run(np.stack(read))


def command(source: Path, model: Path, out: Path, chosen: argparse.Namespace) -> list[str]:
    """The same as a command."""
    words = ["predict", str(source), "--model", str(model), "--output", str(out)]
    words += ["--batch-size", str(chosen.batch_size)]
    return [
        sys.executable,
        "-c",
        "from effnet.cli.app import main; raise SystemExit(main())",
        *words,
        "--engine",
        chosen.engine,
    ]


def resident(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, float]]:
    """Yield (seconds, MiB) of the process until it ends."""
    watch = Stopwatch()
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            yield watch.seconds, next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            return
        time.sleep(0.25)


def check_result(out: Path, paths: list[Path]) -> str:
    """Return the number of missing, duplicate and foreign rows as text."""
    found = Counter(parquet.read_table(out, columns=["path"])["path"].to_pylist())
    missing, duplicate = sum(str(path) not in found for path in paths), sum(count > 1 for count in found.values())
    foreign = len(found.keys() - set(map(str, paths)))
    return f"{missing} missing, {duplicate} duplicate, {foreign} foreign"


def kill_and_resume(
    source: Path, paths: list[Path], model: Path, folder: Path, seconds: float, chosen: argparse.Namespace
) -> None:
    """Kill the command again and again, and print what became of it."""
    out, rng, kills, starts = folder / "killed.parquet", random.Random(chosen.seed), 0, 0
    print("| start | killed after s | chunks |\n|--:|--:|--:|")
    while True:
        starts += 1
        # starting takes a share of each life; together the lives are about as long as the whole work
        life = rng.uniform(0.2, 2.2 * max(seconds / max(chosen.kills, 1), 3)) if kills < chosen.kills else None
        process = subprocess.Popen(command(source, model, out, chosen), stderr=subprocess.DEVNULL)
        try:
            process.wait(life)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        parts = len(list((folder / ".killed.parquet.parts").glob("*.jsonl")))
        fate = "not killed" if process.returncode == 0 else f"{life:.1f}"
        print(f"| {starts} | {fate} | {parts if process.returncode else 'result'} |", flush=True)
        if process.returncode == 0 and kills < chosen.kills:  # it finished before it was killed: start again
            print(f"\nfinished after {kills} kills: {check_result(out, paths)}; started again\n")
            out.unlink()
            continue
        if process.returncode == 0:
            break
    print(f"\n{kills} kills, {starts} starts, {len(paths)} images: {check_result(out, paths)}")


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", nargs="?", type=Path)
    options.add_argument("--images", type=int, default=20_000)
    options.add_argument("--model", default="nano")
    options.add_argument("--engine", default="auto")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        os.environ.setdefault("EFFNET_HOME", str(folder / "home"))
        source = chosen.folder or make_images(folder / "images", chosen.images)
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        model = save(create(chosen.model, classes=10), folder / "model.safetensors")
        predictor = Predictor(model, chosen.engine, batch_size=chosen.batch_size)
        engine = predictor.choose_engine(chosen.batch_size)
        print(f"{len(paths)} images, {chosen.model} on {engine.kind} {engine.precision},", end=" ")
        print(f"batch size {chosen.batch_size}, {count_cores()} cores\n")
        bare(predictor, paths[: 4 * chosen.batch_size], chosen.batch_size)
        seconds: dict[str, list[float]] = {"bare": [], "bulk": []}
        for turn in range(chosen.rounds):
            for side in ("bare", "bulk") if turn % 2 == 0 else ("bulk", "bare"):
                watch = Stopwatch()
                if side == "bare":
                    bare(predictor, paths, chosen.batch_size)
                else:
                    predict_to_file(
                        folder / "bulk.parquet", [source], lambda: predictor, describe_predictor(model), force=True
                    )
                seconds[side].append(watch.seconds)
        middle = {side: sorted(taken)[len(taken) // 2] for side, taken in seconds.items()}
        if chosen.rounds:
            print("| | s, each round | images / s | / bare |\n|---|---|--:|--:|")
            for side, taken in seconds.items():
                rounds = ", ".join(f"{one:.2f}" for one in taken)
                print(f"| {side} | {rounds} | {len(paths) / middle[side]:.0f} | {middle['bare'] / middle[side]:.2f} |")
            print(f"\n{check_result(folder / 'bulk.parquet', paths)}\n")

        process = subprocess.Popen(command(source, model, folder / "memory.parquet", chosen), stderr=subprocess.DEVNULL)
        watched = list(resident(process))
        assert process.wait() == 0, "the command failed"
        print("| after | resident MiB |\n|--:|--:|")
        for tenth in range(1, 11):
            at, size = watched[min(len(watched) * tenth // 10, len(watched) - 1)]
            print(f"| {at:.1f} s | {size:.0f} |")
        print()
        if chosen.kills:
            kill_and_resume(source, paths, model, folder, watched[-1][0], chosen)


if __name__ == "__main__":
    main()
