"""Loading B7 from a safetensors file, compared with timm: time and peak memory.

    python benchmarks/load_weights.py [--name b7] [--runs 10]

Three loaders are interleaved in one process, on files with the same weights: effnet from its own file, effnet from a
file in timm's layout (which it has to detect), and timm's ``create_model`` and ``load_checkpoint`` from that same file.
effnet reads every weight once to check for NaN, so that its file is not just memory-mapped. Memory is the peak resident
size of loading and one forward pass of 64×64 pixels in a new process, above its size after all imports.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from effnet.data.torchvision_compat import declare_operators
from effnet.net import create
from effnet.timing import describe_machine, installed_versions, peak_memory, time_interleaved
from effnet.weights import load, save

declare_operators()

import timm  # noqa: E402
from timm.models import load_checkpoint  # noqa: E402


def build_loader(side: str, name: str, folder: Path) -> Callable[[], nn.Module]:
    """Return a function that loads the network ``name``; ``side`` is one of `SIDES`."""
    if side == "effnet, own file":
        return lambda: load(folder / "own.safetensors")
    if side == "effnet, timm's layout":
        return lambda: load(folder / "timm.safetensors")

    def load_with_timm() -> nn.Module:
        model = timm.create_model(f"tf_efficientnet_{name}")
        load_checkpoint(model, str(folder / "timm.safetensors"))
        return model.eval()

    return load_with_timm


SIDES = ("effnet, own file", "effnet, timm's layout", "timm")


def measure_memory(side: str, name: str, folder: Path) -> int:
    """Return by how many bytes loading raises the peak memory of this process, which should be new."""
    load_model = build_loader(side, name, folder)
    before = peak_memory()
    model = load_model()
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    return peak_memory() - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="b7")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = create(options.name)
        save(model, folder / "own.safetensors")
        save(model, folder / "timm.safetensors", layout="timm")
        size = (folder / "own.safetensors").stat().st_size
        for side in SIDES:  # comparable only if all have the same parameters
            loaded = build_loader(side, options.name, folder)()
            assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
        timings = time_interleaved({side: build_loader(side, options.name, folder) for side in SIDES}, options.runs, 1)
        print(f"{options.name}, file of {size / 1e6:.0f} MB; {installed_versions(('torch', 'timm'))},")
        print(f"{torch.get_num_threads()} threads, {describe_machine().describe()}\n")
        print("| loader | ms | relative to timm | of the fastest calls | peak memory / file |\n|---|--:|--:|--:|--:|")
        for side in SIDES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory = pool.apply(measure_memory, (side, options.name, folder))
            timing, reference = timings[side], timings["timm"]
            print(
                f"| {side} | {timing.seconds * 1e3:.0f} | {timing.seconds / reference.seconds:.2f} "
                f"| {timing.fastest / reference.fastest:.2f} | {memory / size:.2f} |"
            )


if __name__ == "__main__":
    main()
