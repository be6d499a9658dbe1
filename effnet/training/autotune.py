"""Measurements before a run: epochs within a time budget, gradient accumulation steps, whether to compile."""

import copy
from contextlib import closing
from math import ceil, prod

import torch
from torch import Tensor

from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.timing import Stopwatch, memory
from effnet.training import loop, recipes
from effnet.training.distributed import SingleProcess

MAX_EPOCHS = 200  # whatever the time budget
MIN_COMPILE_SECONDS = 90.0  # that compiling the forward and backward pass takes
MIN_SPEEDUP = 1.05  # that is worth compiling
LARGE_ACTIVATION_BYTES = 300e6  # below, memory is not short, and recomputing activations only costs time
MEMORY_MARGIN = 1.6  # times the activations: their gradients, the libraries' own memory, the data loading processes
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
    recipe, distributed, image_count = setup.recipe, setup.distributed, len(setup.plan.train)
    if distributed.device.type != "cuda" or recipe.progressive is not None:
        return False
    batch = -(-recipe.batch_size // distributed.world_size)
    shape = (batch, *setup.model.preprocess.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=distributed.device)
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
    return distributed.broadcast(pays_off)


def choose_accumulation_steps(setup: loop.TrainSetup) -> int:
    """Return how many gradient accumulation steps a batch needs to fit into the memory that is free now.

    What the backward pass needs is measured on two images, at the largest size of the recipe.
    """
    batch, bytes_per_image = _largest_batch(setup)
    free = free_memory(setup.distributed.device)
    steps = max(1, ceil(batch * bytes_per_image * MEMORY_MARGIN / free)) if free else 1
    if steps > 1:
        setup.callback.on_message(
            f"a batch of {batch} needs about {batch * bytes_per_image / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            f"using {steps} gradient accumulation steps"
        )
    return int(setup.distributed.broadcast(min(steps, batch)))


def has_large_activations(setup: loop.TrainSetup) -> bool:
    """Return whether the activations of a batch take memory that is worth saving."""
    batch, bytes_per_image = _largest_batch(setup)
    return batch * bytes_per_image > LARGE_ACTIVATION_BYTES


def _largest_batch(setup: loop.TrainSetup) -> tuple[int, float]:
    """Return this process's share of a batch, and the activation bytes per image at the largest size of the recipe."""
    model, recipe, distributed = setup.model, setup.recipe, setup.distributed
    phase_sides = [phase.image_size or 0 for phase in recipe.phases(recipe.epochs)]
    size = max(model.preprocess.size, *((side, side) for side in phase_sides), key=prod)
    batch = -(-recipe.batch_size // distributed.world_size)
    return batch, activation_bytes_per_image(model, recipe, size, distributed)


def activation_bytes_per_image(
    model: EfficientNet, recipe: recipes.Recipe, size: tuple[int, int], processes: SingleProcess
) -> float:
    """Return the bytes that the forward pass keeps for the backward pass, per image of ``size`` (height, width)."""
    trial = copy.deepcopy(model)
    loop.prepare_model(trial, recipe)
    trial.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in trial.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(2, *size, 3, dtype=torch.uint8, device=processes.device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), processes.autocast():
        logits = trial(normalize(images, trial.preprocess))
    del logits  # it holds what was saved
    return sum(saved.values()) / 2


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on ``device`` now; 0 if unknown."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what trials have left to torch's allocator
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.available_memory() if device.type == "cpu" else 0


def _trial_step(setup: loop.TrainSetup, torch_compile: bool = False) -> loop.TrainStep:
    process = SingleProcess(setup.distributed.device, setup.distributed.precision)
    return loop.TrainStep(copy.deepcopy(setup.model), setup.recipe, setup.loss, process, torch_compile=torch_compile)


def _time_step(step: loop.TrainStep, images: Tensor, indices: Tensor) -> float:
    stopwatch = Stopwatch()
    step(images, indices)
    if step.processes.device.type == "cuda":
        torch.cuda.synchronize()
    return stopwatch.seconds
