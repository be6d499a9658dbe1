"""Measurements of speed before a run: epochs within a time budget, and whether to compile."""

import copy
from contextlib import closing

import torch

from effnet.timing import Stopwatch
from effnet.training import distributed, loop

MAX_EPOCHS = 200  # whatever the time budget
MIN_COMPILE_SECONDS = 90.0  # that compiling the forward and backward pass takes
MIN_SPEEDUP = 1.05  # that is worth compiling
TIMED_STEPS = 5


def epochs_within(minutes: float, setup: loop.TrainSetup) -> int:
    """Return how many epochs fit into ``minutes``: at least one, or none if the recipe has a linear probe."""
    recipe, step = setup.recipe, _trial_step(setup)
    with closing(setup.make_loader(recipe.phases(recipe.epochs)[-1])) as loader:
        times = [_time_step(step, *batch) for _, batch in zip(range(2), loader.epoch(0), strict=False)]
        seconds = min(times[1:] or times) * len(loader)  # the first batch takes longer
    epochs = max(0 if recipe.linear_probe else 1, min(int(minutes * 60 / seconds), MAX_EPOCHS))
    setup.callback.on_message(
        f"one epoch takes about {seconds:.0f} s: training for {epochs} in {minutes:g} min (--minutes)"
    )
    return epochs


def compiling_pays_off(setup: loop.TrainSetup, epochs: int) -> bool:
    """Return whether ``torch.compile`` makes the run shorter, compile time included; measured on a GPU.

    On a CPU it does not: compiling takes minutes, and convolutions are computed by the same library either way.
    """
    recipe, processes, image_count = setup.recipe, setup.distributed, len(setup.plan.train)
    if processes.device.type != "cuda" or recipe.progressive is not None:
        return False
    batch = -(-recipe.batch_size // processes.world_size)
    shape = (batch, *setup.model.preprocess.size, setup.model.channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=processes.device)
    indices = torch.arange(batch) % image_count
    eager = _trial_step(setup)
    eager_seconds = min(_time_step(eager, images, indices) for _ in range(TIMED_STEPS))
    remaining = eager_seconds * epochs * image_count / recipe.batch_size
    if remaining * (1 - 1 / MIN_SPEEDUP) < MIN_COMPILE_SECONDS:
        return False
    compiled = _trial_step(setup, torch_compile=True)
    compile_seconds = _time_step(compiled, images, indices)
    compiled_seconds = min(_time_step(compiled, images, indices) for _ in range(TIMED_STEPS))
    pays_off = remaining * (1 - compiled_seconds / eager_seconds) > compile_seconds
    setup.callback.on_message(
        f"torch.compile: {compiled_seconds * 1e3:.0f} ms per batch, eager {eager_seconds * 1e3:.0f} ms, compile time "
        f"{compile_seconds:.0f} s: {'enabled' if pays_off else 'not worth it'}"
    )
    return processes.broadcast(pays_off)


def _trial_step(setup: loop.TrainSetup, torch_compile: bool = False) -> loop.TrainStep:
    process = distributed.SingleProcess(setup.distributed.device, setup.distributed.precision)
    return loop.TrainStep(copy.deepcopy(setup.model), setup.recipe, setup.loss, process, torch_compile=torch_compile)


def _time_step(step: loop.TrainStep, images: torch.Tensor, indices: torch.Tensor) -> float:
    stopwatch = Stopwatch()
    step(images, indices)
    if step.processes.device.type == "cuda":
        torch.cuda.synchronize()
    return stopwatch.seconds
