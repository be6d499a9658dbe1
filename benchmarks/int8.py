"""How much accuracy int8 costs, and how much time it saves, in each of the formats.

    python benchmarks/int8.py MODEL PICTURES [--max-drop 0.5] [--count 128] [--threads 2] [--runs 40] [--table]

MODEL is a file with a trained classifier, PICTURES a folder with train/ and val/ (or test/), a folder a class. Each
format is written in float and in int8; every file is opened by `effnet.engines`, and judged on all pictures of val that
fit into half a gigabyte. Times are of one picture, all contestants taking turns, medians. --table prints what each
layer costs alone. --runs 0 leaves the times out.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from effnet.clock import contest
from effnet.engines.interface import Interface
from effnet.engines.opening import open_file
from effnet.exporting import litert, onnx, openvino
from effnet.exporting.quantise import in_words, quantise, sensitivity
from effnet.weights import load

FLOAT = {".onnx": onnx.write, ".xml": openvino.write, ".tflite": litert.write}


def main() -> None:
    """Prints the tables as Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("pictures")
    options.add_argument("--max-drop", type=float, default=0.5)
    options.add_argument("--count", type=int, default=128)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--runs", type=int, default=40)
    options.add_argument("--table", action="store_true")
    given = options.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    model = load(given.model).eval()
    interface = Interface(size=model.preprocess.size)
    picture = np.random.default_rng(0).integers(0, 256, (1, *model.preprocess.size, 3), np.uint8)
    contestants: dict[str, Callable[[], object]] = {}
    rows: dict[str, list[str]] = {}
    with TemporaryDirectory() as place:
        for suffix, write in FLOAT.items():
            plain, path = Path(place) / f"float{suffix}", Path(place) / f"int8{suffix}"
            write(plain, model, interface)
            try:
                found = quantise(model, path, given.pictures, interface, given.max_drop, given.count)
            except ValueError as error:
                rows[suffix] = [str(error)]
                continue
            size = plain.stat().st_size + (plain.with_suffix(".bin").stat().st_size if suffix == ".xml" else 0)
            floats = [name for name in found.floats if "squeeze_excite" not in name]
            rows[suffix] = [
                f"{100 * found.before:.2f}",
                f"{100 * found.after:.2f}",
                f"{found.drop:+.2f} ({found.measure}, {found.pictures:,})",
                f"{len(floats)} of {found.layers}{': ' + ', '.join(floats) if floats else ''}",
                f"{size / 1e6:.1f} → {found.bytes / 1e6:.1f}",
            ]
            for name, file in (("float", plain), ("int8", path)):
                engine = open_file(file, threads=given.threads)
                contestants[f"{suffix} {name}"] = lambda engine=engine: engine.run(picture)
        timing = contest(contestants, given.runs, 5) if given.runs else {}
        print(f"{model.arch.name}, {given.threads} threads, calibrated on {given.count} pictures\n")
        print("| file | float % | int8 % | points lost | further layers in float | MB | float ms | int8 ms | ratio |")
        print("|:--|--:|--:|--:|:--|--:|--:|--:|--:|")
        for suffix, row in rows.items():
            times = [timing[f"{suffix} {name}"].seconds * 1e3 for name in ("float", "int8") if timing]
            told = [f"{times[0]:.2f}", f"{times[1]:.2f}", f"{times[1] / times[0]:.2f}"] if times else ["–"] * 3
            print(f"| {suffix} | {' | '.join([*row, *told])} |" if len(row) > 1 else f"| {suffix} | {row[0]} |")
    if given.table:
        print(f"\n```text\n{in_words(sensitivity(model, given.pictures))}\n```")


if __name__ == "__main__":
    main()
