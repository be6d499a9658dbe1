"""How long B7 takes from a safetensors file to a network, against timm, and the memory that it needs at its worst.

    python benchmarks/loading.py [--name b7] [--runs 10]

Three contestants take turns in one process, on files with the same numbers: ours from our own file, ours from a file
in timm's layout (which is recognised first), timm's ``create_model`` and ``load_checkpoint`` from that same file. Our
side reads every number once, to look for NaN, so that the file is not merely mapped. Memory is the resident peak of
loading and of one answer for a 64-pixel picture, in a fresh process, beyond what it held once everything was imported.
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
    """A function that loads the network ``name`` as ``side`` does it."""
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


def grown(side: str, name: str, folder: Path) -> int:
    """Bytes by which loading raises this process's peak; meant for a fresh one."""
    call = loader(side, name, folder)
    before = peak_memory()
    model = call()
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    return peak_memory() - before


def main() -> None:
    """Prints the table."""
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
        for side in SIDES:  # the same numbers everywhere, or there would be nothing to compare
            loaded = loader(side, chosen.name, folder)()
            assert sum(value.numel() for value in loaded.parameters()) == sum(p.numel() for p in model.parameters())
        times = time_interleaved({side: loader(side, chosen.name, folder) for side in SIDES}, chosen.runs, 1)
        print(f"{chosen.name}, file of {size / 1e6:.0f} MB; torch {torch.__version__}, timm {timm.__version__},")
        print(f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}\n")
        print("| loaded by | ms | ratio to timm | ratio of the fastest | peak memory / file |\n|---|--:|--:|--:|--:|")
        for side in SIDES:
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                memory = fresh.apply(grown, (side, chosen.name, folder))
            timing, theirs = times[side], times["timm"]
            print(
                f"| {side} | {timing.seconds * 1e3:.0f} | {timing.seconds / theirs.seconds:.2f} "
                f"| {timing.fastest / theirs.fastest:.2f} | {memory / size:.2f} |"
            )


if __name__ == "__main__":
    main()
