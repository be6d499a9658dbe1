"""B0 compared with timm's, eager, on this machine: ratios of medians in one run, interleaved.

    python benchmarks/against_timm.py [--runs 20] [--rows inference-1,training-8]

Both sides have the same shapes, numerics, memory format, threads and input, and are used as an expert would: inference
mode, channels-last tried beside the default. "symmetric" is timm's ``efficientnet_b0``, "same" its
``tf_efficientnet_b0``. Peak memory is the resident size that a fresh process reaches beyond what it has before the
first call. A ratio below 1 means that effnet is faster.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Numerics
from effnet.net import create
from effnet.timing import peak_memory, time_interleaved

NUMERICS = {"symmetric": Numerics("symmetric", 1e-5), "same": Numerics("same", 1e-3)}
TIMM = {"symmetric": "efficientnet_b0", "same": "tf_efficientnet_b0"}
ROWS = [
    (mode, batch, padding, memory)
    for mode, batch in (("inference", 1), ("inference", 32), ("training", 8), ("training", 32))
    for padding in ("symmetric", "same")
    for memory in ("contiguous", "channels_last")
]


def step_of(side: str, mode: str, batch: int, padding: str, memory: str) -> Callable[[], object]:
    """Return a function that runs one step of ``side`` ("effnet" or "timm")."""
    torch.manual_seed(0)
    layout = torch.channels_last if memory == "channels_last" else torch.contiguous_format
    if side == "effnet":
        model: nn.Module = create("b0", numerics=NUMERICS[padding])
    else:
        declare_operators()
        import timm

        model = timm.create_model(TIMM[padding], drop_path_rate=0.2, drop_rate=0.2)
    model = model.train(mode == "training").to(memory_format=layout)
    images = torch.randn(batch, 3, 224, 224).to(memory_format=layout)
    if mode == "inference":

        def infer() -> object:
            with torch.inference_mode():
                return model(images)

        return infer
    targets = torch.randint(1000, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> object:
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def memory_of(side: str, mode: str, batch: int, padding: str, memory: str) -> float:
    """Peak memory of two steps in MB, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (side, mode, batch, padding, memory))


def _memory(*row: object) -> float:
    step = step_of(*row)  # type: ignore[arg-type]
    before = peak_memory()
    step()
    step()
    return (peak_memory() - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds at batch size 1; fewer at larger ones")
    parser.add_argument("--rows", default="", help="only these, such as inference-1,training-32")
    options = parser.parse_args()
    wanted = set(filter(None, options.rows.split(",")))
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | padding | memory format | effnet ms | timm ms | ratio | spread | effnet MB | timm MB |")
    print("|---|---|---|--:|--:|--:|---|--:|--:|")
    for row in ROWS:
        mode, batch, padding, memory = row
        if wanted and f"{mode}-{batch}" not in wanted:
            continue
        runs = options.runs * 3 if (mode, batch) == ("inference", 1) else max(5, options.runs // 2)
        timings = time_interleaved({side: step_of(side, *row) for side in ("effnet", "timm")}, runs=runs, warmup_runs=2)
        ours, theirs = timings["effnet"], timings["timm"]
        ratio = ours.seconds / theirs.seconds
        spread = f"{ours.fastest / theirs.fastest:.2f} (fastest)"
        sizes = [memory_of(side, *row) for side in ("effnet", "timm")]
        print(
            f"| {mode}, batch size {batch} | {padding} | {memory} "
            f"| {ours.seconds * 1e3:.1f} | {theirs.seconds * 1e3:.1f} | {ratio:.2f} | {spread} "
            f"| {sizes[0]:.0f} | {sizes[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
