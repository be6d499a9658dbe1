"""Seconds and peak memory from a safetensors file to a B7, compared with timm.

    python benchmarks/loading.py [--name b7] [--runs 10]

Interleaved in one process, on files with the same weights: effnet from its own file, effnet from a file in timm's
layout (which is detected first), timm's ``create_model`` and ``load_checkpoint`` from that same file. effnet reads
every weight once, to check for NaN, so that the file is not merely mapped. Memory is the resident peak of loading and
of one forward pass at 64 pixels, in a fresh process, beyond what it held after its imports.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import platform
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from effnet.data.torchvision_compat import declare_operators
from effnet.net import create
from effnet.timing import peak_memory, time_interleaved
from effnet.weights import load, save

declare_operators()

import timm  # noqa: E402
from timm.models import load_checkpoint  # noqa: E402


def loader(side: str, name: str, folder: Path) -> Callable[[], nn.Module]:
    """Return a function that loads the network ``name`` as ``side`` does."""
    if side == "effnet, own file":
        return lambda: load(folder / "own.safetensors")
    if side == "effnet, timm's layout":
        return lambda: load(folder / "timm.safetensors")

    def theirs() -> nn.Module:
        model = timm.create_model(f"tf_efficientnet_{name}")
        load_checkpoint(model, str(folder / "timm.safetensors"))
        return model.eval()

    return theirs


SIDES = ("effnet, own file", "effnet, timm's layout", "timm")


def memory_growth(side: str, name: str, folder: Path) -> int:
    """Return the bytes by which loading raises this process's peak; call it in a fresh one."""
    call = loader(side, name, folder)
    before = peak_memory()
    model = call()
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    return peak_memory() - before


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--name", default="b7")
    options.add_argument("--runs", type=int, default=10)
    chosen = options.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    with TemporaryDirectory() as place:
        folder = Path(place)
        model = create(chosen.name)
        save(model, folder / "own.safetensors")
        save(model, folder / "timm.safetensors", layout="timm")
        size = (folder / "own.safetensors").stat().st_size
        for side in SIDES:  # the same network everywhere
            loaded = loader(side, chosen.name, folder)()
            assert sum(value.numel() for value in loaded.parameters()) == sum(p.numel() for p in model.parameters())
        times = time_interleaved({side: loader(side, chosen.name, folder) for side in SIDES}, chosen.runs, 1)
        print(f"{chosen.name}, file of {size / 1e6:.0f} MB; torch {torch.__version__}, timm {timm.__version__},")
        print(f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}\n")
        print("| loaded by | ms | ratio to timm | ratio of the fastest | peak memory / file |\n|---|--:|--:|--:|--:|")
        for side in SIDES:
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                memory = fresh.apply(memory_growth, (side, chosen.name, folder))
            timing, theirs = times[side], times["timm"]
            print(
                f"| {side} | {timing.seconds * 1e3:.0f} | {timing.seconds / theirs.seconds:.2f} "
                f"| {timing.fastest / theirs.fastest:.2f} | {memory / size:.2f} |"
            )


if __name__ == "__main__":
    main()
