"""Eager B0 compared with timm's: time and memory of inference and of a training step.

    python benchmarks/eager_vs_timm.py [--runs 20] [--rows inference-1,training-8]

Both sides get weights of the same shapes and the same padding, ε, memory format, number of threads and input. Both run
as an expert would run them: in inference mode, contiguous and channels-last. "symmetric" is timm's ``efficientnet_b0``,
"same" its ``tf_efficientnet_b0``. Calls are interleaved, and ratios are of medians; below 1 effnet is faster. Memory is
the peak resident size of a new process above its size before the first call.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable

import torch
from torch import nn

from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Numerics
from effnet.net import create
from effnet.timing import describe_machine, installed_versions, peak_memory, time_interleaved

NUMERICS = {"symmetric": Numerics("symmetric", 1e-5), "same": Numerics("same", 1e-3)}
TIMM = {"symmetric": "efficientnet_b0", "same": "tf_efficientnet_b0"}
ROWS = [
    (mode, batch_size, padding, memory_format)
    for mode, batch_size in (("inference", 1), ("inference", 32), ("training", 8), ("training", 32))
    for padding in ("symmetric", "same")
    for memory_format in ("contiguous", "channels_last")
]


def build_step(side: str, mode: str, batch_size: int, padding: str, memory_format: str) -> Callable[[], object]:
    """Return a function that runs one step of ``side`` ("effnet" or "timm")."""
    torch.manual_seed(0)
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    if side == "effnet":
        model: nn.Module = create("b0", numerics=NUMERICS[padding])
    else:
        declare_operators()
        import timm

        model = timm.create_model(TIMM[padding], drop_path_rate=0.2, drop_rate=0.2)
    model = model.train(mode == "training").to(memory_format=layout)
    images = torch.randn(batch_size, 3, 224, 224).to(memory_format=layout)
    if mode == "inference":

        def infer() -> object:
            with torch.inference_mode():
                return model(images)

        return infer
    targets = torch.randint(1000, (batch_size,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> object:
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def measure_memory(row: tuple[str, str, int, str, str]) -> float:
    """Return the peak memory of two steps in a new process, in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run_two_steps, row)


def _run_two_steps(side: str, mode: str, batch_size: int, padding: str, memory_format: str) -> float:
    step = build_step(side, mode, batch_size, padding, memory_format)
    before = peak_memory()
    step()
    step()
    return (peak_memory() - before) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds at batch size 1; fewer for larger batches")
    parser.add_argument("--rows", default="", help="rows to run, such as inference-1,training-32")
    options = parser.parse_args()
    selected = set(filter(None, options.rows.split(",")))
    print(
        f"{describe_machine().describe()}, {torch.get_num_threads()} threads; {installed_versions(('torch', 'timm'))}\n"
    )
    print("| | padding | memory format | effnet ms | timm ms | ratio | ratio of the fastest | effnet MB | timm MB |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for row in ROWS:
        mode, batch_size, padding, memory_format = row
        if selected and f"{mode}-{batch_size}" not in selected:
            continue
        runs = options.runs * 3 if (mode, batch_size) == ("inference", 1) else max(5, options.runs // 2)
        timings = time_interleaved(
            {side: build_step(side, *row) for side in ("effnet", "timm")}, runs=runs, warmup_runs=2
        )
        effnet, timm = timings["effnet"], timings["timm"]
        ratio, fastest_ratio = effnet.seconds / timm.seconds, effnet.fastest / timm.fastest
        memory = [measure_memory((side, *row)) for side in ("effnet", "timm")]
        print(
            f"| {mode}, batch size {batch_size} | {padding} | {memory_format} "
            f"| {effnet.seconds * 1e3:.1f} | {timm.seconds * 1e3:.1f} | {ratio:.2f} | {fastest_ratio:.2f} "
            f"| {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
