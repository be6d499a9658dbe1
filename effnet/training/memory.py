"""Memory: gradient accumulation steps that fit, recovery from running out of memory, recomputing activations."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import ceil, prod

import torch

from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.timing import memory
from effnet.training import callbacks, distributed, init_model, recipes

LARGE_ACTIVATION_BYTES = 300e6  # below, memory is not short, and recomputing activations only costs time
MEMORY_MARGIN = 1.6  # times the activations: their gradients, the libraries' own memory, the data loading processes


def choose_accumulation_steps(
    model: EfficientNet, recipe: recipes.Recipe, processes: distributed.SingleProcess, callback: callbacks.Callback
) -> int:
    """Return how many gradient accumulation steps a batch needs to fit into the memory that is free now."""
    batch, batch_bytes = _measure_batch(model, recipe, processes)
    free = free_memory(processes.device)
    steps = max(1, ceil(batch_bytes * MEMORY_MARGIN / free)) if free else 1
    if steps > 1:
        callback.on_message(
            f"a batch of {batch} needs about {batch_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            f"using {steps} gradient accumulation steps"
        )
    return min(steps, batch)


def increase_accumulation_steps(
    error: RuntimeError,
    steps: int,
    image_count: int,
    processes: distributed.SingleProcess,
    callback: callbacks.Callback,
) -> int:
    """Return twice the ``steps`` for a batch of ``image_count`` if ``error`` says that memory ran out; else raise it.

    One of several processes cannot do so: the others wait for its gradients already.
    """
    if not is_out_of_memory(error):
        raise error
    if steps >= image_count:
        raise ValueError(
            "out of memory for a single image: try --checkpointing, a smaller --image-size or a smaller network"
        ) from error
    more = min(2 * steps, image_count)
    if processes.world_size > 1:
        raise ValueError(
            f"out of memory: continue with --resume --accumulate {more}, which splits the same batch into smaller "
            "micro-batches"
        ) from error
    if processes.device.type == "cuda":
        torch.cuda.empty_cache()
    callback.on_message(
        f"out of memory: continuing with {more} gradient accumulation steps; the batch size remains {image_count}"
    )
    return more


@contextmanager
def manage_memory(model: EfficientNet, recipe: recipes.Recipe, processes: distributed.SingleProcess) -> Iterator[None]:
    """On a CPU, trade memory for time or the other way round, by what is short; explain memory errors.

    Those within a batch do not come here: it is split into smaller micro-batches.
    """
    trades = processes.device.type == "cpu" and not model.gradient_checkpointing
    try:
        if trades:
            model.memory_efficient = _measure_batch(model, recipe, processes)[1] > LARGE_ACTIVATION_BYTES
        with memory.retain_freed_memory() if trades else nullcontext():
            yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError("out of memory: try a smaller --image-size or a smaller network") from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether ``error`` says so; torch has no common exception for all devices."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on ``device`` now; 0 if unknown."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what trials have left to torch's allocator
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.available_memory() if device.type == "cpu" else 0


def _measure_batch(
    model: EfficientNet, recipe: recipes.Recipe, processes: distributed.SingleProcess
) -> tuple[int, float]:
    """Return this process's share of a batch, and its activation bytes at the largest size of the recipe."""
    phase_sides = [phase.image_size or 0 for phase in recipe.phases(recipe.epochs)]
    size = max(model.preprocess.size, *((side, side) for side in phase_sides), key=prod)
    batch = -(-recipe.batch_size // processes.world_size)
    return batch, batch * activation_bytes_per_image(model, recipe, size, processes)


def activation_bytes_per_image(
    model: EfficientNet, recipe: recipes.Recipe, size: tuple[int, int], processes: distributed.SingleProcess
) -> float:
    """Return the bytes that the forward pass keeps for the backward pass, per image of ``size`` (height, width)."""
    trial = copy.deepcopy(model)
    init_model.prepare_model(trial, recipe)
    trial.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in trial.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(2, *size, model.channels, dtype=torch.uint8, device=processes.device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), processes.autocast():
        logits = trial(normalize(images, trial.preprocess))
    del logits  # it holds what was saved
    return sum(saved.values()) / 2
