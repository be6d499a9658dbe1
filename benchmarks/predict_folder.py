"""Predicting a folder: throughput relative to the bare engine, memory over time, and ``kill -9`` at random times.

    python benchmarks/predict_folder.py [FOLDER] [--images 20000] [--model nano] [--engine auto] [--batch-size 64]
                                        [--kills 10]

FOLDER holds small JPEGs; without it, ``--images`` JPEGs of 32×32 are generated. "bare" decodes the images in a pool of
one thread per core and runs the batches, in sequence, without names, labels or files. "effnet" is ``effnet predict
FOLDER --output result.parquet`` called in this process, with the model loaded and the engine options beforehand. Rounds
are interleaved. Memory is the resident size of a process that runs the whole command, read every 0.25 s. The kill test
runs the same command in new processes, kills each with SIGKILL at a random time, and compares the result with the
folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from fixtures import EFFNET_COMMAND, resident_mib
from PIL import Image
from pyarrow import parquet

from effnet.data.image_io import load_input
from effnet.net import create
from effnet.prediction import Predictor
from effnet.prediction.bulk import describe_predictor, predict_to_file
from effnet.timing import Stopwatch
from effnet.timing.machine import count_cores
from effnet.weights import save


def generate_images(folder: Path, count: int) -> Path:
    """Write ``count`` JPEGs of 32×32, 1,000 per folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((32, 32)).save(path)
    return folder


def run_bare_engine(predictor: Predictor, paths: list[Path], batch_size: int) -> None:
    """Decode every image and run the batches, nothing else."""
    engine = predictor.choose_engine(batch_size)
    with ThreadPoolExecutor(count_cores()) as pool:
        for start in range(0, len(paths), batch_size):
            images = list(
                pool.map(lambda path: load_input(path, predictor.preprocess), paths[start : start + batch_size])
            )
            engine.run(np.stack(images))


def predict_command(source: Path, model: Path, output: Path, options: argparse.Namespace) -> list[str]:
    """Return the shell command that predicts ``source`` into ``output``."""
    arguments = ["predict", str(source), "--model", str(model), "--output", str(output)]
    return [*EFFNET_COMMAND, *arguments, "--batch-size", str(options.batch_size), "--engine", options.engine]


def sample_memory(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, float]]:
    """Yield (seconds, resident MiB) of the process every 0.25 s until it ends."""
    watch = Stopwatch()
    while process.poll() is None:
        try:
            yield watch.seconds, resident_mib(process.pid)
        except (OSError, StopIteration):
            return
        time.sleep(0.25)


def compare_with_folder(output: Path, paths: list[Path]) -> str:
    """Count the images that are missing from the result, duplicate in it, or not in the folder."""
    counts = Counter(parquet.read_table(output, columns=["path"])["path"].to_pylist())
    missing, duplicate = sum(str(path) not in counts for path in paths), sum(count > 1 for count in counts.values())
    foreign = len(counts.keys() - set(map(str, paths)))
    return f"{missing} missing, {duplicate} duplicate, {foreign} foreign"


def kill_repeatedly(
    source: Path, paths: list[Path], model: Path, folder: Path, seconds: float, options: argparse.Namespace
) -> None:
    """Kill the command at random times, restart it until it finishes, and print the result."""
    output, rng, kills, starts = folder / "killed.parquet", random.Random(options.seed), 0, 0
    print("| start | killed after s | chunks on disk |\n|--:|--:|--:|")
    while True:
        starts += 1
        # Startup takes a part of each time limit; in sum the limits are about as long as an undisturbed run
        timeout = rng.uniform(0.2, 2.2 * max(seconds / max(options.kills, 1), 3)) if kills < options.kills else None
        process = subprocess.Popen(predict_command(source, model, output, options), stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        chunks = len(list((folder / ".killed.parquet.parts").glob("*.jsonl")))
        killed_after = "not killed" if process.returncode == 0 else f"{timeout:.1f}"
        print(f"| {starts} | {killed_after} | {chunks if process.returncode else 'result'} |", flush=True)
        if process.returncode == 0 and kills < options.kills:  # finished before the kill: start over
            print(f"\nfinished after {kills} kills: {compare_with_folder(output, paths)}; starting over\n")
            output.unlink()
            continue
        if process.returncode == 0:
            break
    print(f"\n{kills} kills, {starts} starts, {len(paths)} images: {compare_with_folder(output, paths)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.setdefault("EFFNET_HOME", str(folder / "home"))
        source = options.folder or generate_images(folder / "images", options.images)
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        model = save(create(options.model, classes=10), folder / "model.safetensors")
        predictor = Predictor(model, options.engine, batch_size=options.batch_size)
        engine = predictor.choose_engine(options.batch_size)
        description = f"{options.model} on {engine.kind} {engine.precision}, batch size {options.batch_size}"
        print(f"{len(paths)} images, {description}, {count_cores()} cores\n")
        run_bare_engine(predictor, paths[: 4 * options.batch_size], options.batch_size)
        output = folder / "effnet.parquet"
        seconds: dict[str, list[float]] = {"bare": [], "effnet": []}
        for index in range(options.rounds):
            for side in ("bare", "effnet") if index % 2 == 0 else ("effnet", "bare"):
                watch = Stopwatch()
                if side == "bare":
                    run_bare_engine(predictor, paths, options.batch_size)
                else:
                    predict_to_file(output, [source], lambda: predictor, describe_predictor(model), force=True)
                seconds[side].append(watch.seconds)
        if options.rounds:
            medians = {side: sorted(values)[len(values) // 2] for side, values in seconds.items()}
            print("| | seconds of each round | images / s | relative to bare |\n|---|---|--:|--:|")
            for side, values in seconds.items():
                rounds, median = ", ".join(f"{value:.2f}" for value in values), medians[side]
                print(f"| {side} | {rounds} | {len(paths) / median:.0f} | {medians['bare'] / median:.2f} |")
            print(f"\n{compare_with_folder(output, paths)}\n")

        command = predict_command(source, model, folder / "memory.parquet", options)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        samples = list(sample_memory(process))
        assert process.wait() == 0, "the command failed"
        print("| after | resident MiB |\n|--:|--:|")
        for tenth in range(1, 11):
            elapsed, mib = samples[min(len(samples) * tenth // 10, len(samples) - 1)]
            print(f"| {elapsed:.1f} s | {mib:.0f} |")
        print()
        if options.kills:
            kill_repeatedly(source, paths, model, folder, samples[-1][0], options)


if __name__ == "__main__":
    main()
