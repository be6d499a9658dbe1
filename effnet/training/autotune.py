"""Trying out on a copy what training will cost here: seconds, memory, and whether compiling pays."""

from __future__ import annotations

import copy
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.data.loader import TrainingLoader
from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.timing import Stopwatch
from effnet.timing.memory import available_memory
from effnet.training.callbacks import Callback
from effnet.training.distributed import Distributed
from effnet.training.loop import prepare_model
from effnet.training.recipes import Recipe

MIN_COMPILE_SECONDS = 90.0  # that compiling forward and backward takes at the least
MIN_SPEEDUP = 1.05
LARGE_ACTIVATION_BYTES = (
    300e6  # bytes of maps: below it, memory is not what is short, and making them again costs some time
)
MEMORY_MARGIN = 1.6  # for what comes and goes beside it: gradients of maps, the library's own, the readers


def measure_epoch_seconds(
    model: EfficientNet, batches: TrainingLoader, recipe: Recipe, distributed: Distributed
) -> float:
    """How long an epoch will take here: two batches are trained on a copy and timed, the first one not counted."""
    trial = copy.deepcopy(model)
    prepare_model(trial, recipe)
    trial.train()
    taken = []
    for _, (pictures, _) in zip(range(2), batches.epoch(0), strict=False):
        taken.append(_time_step(trial, trial, len(pictures), pictures.shape[1], distributed))
    return min(taken[1:] or taken) * len(batches)


def compiling_pays_off(
    model: EfficientNet, recipe: Recipe, epochs: int, image_count: int, distributed: Distributed, callback: Callback
) -> bool:
    """Whether ``torch.compile`` makes the run shorter, itself included: measured, where it could at all.

    On a CPU it does not: compiling both passes takes minutes, and convolutions are the same library's either way.
    """
    if distributed.device.type != "cuda" or recipe.progressive is not None:
        return False
    batch, side = -(-recipe.batch_size // distributed.world_size), model.preprocess.size[0]
    trial = copy.deepcopy(model)
    prepare_model(trial, recipe)
    trial.train()
    plain = min(_time_step(trial, trial, batch, side, distributed) for _ in range(5))
    left = plain * epochs * image_count / recipe.batch_size
    if left * (1 - 1 / MIN_SPEEDUP) < MIN_COMPILE_SECONDS:
        return False
    compiled: nn.Module = torch.compile(trial)  # type: ignore[assignment]
    watch_ = Stopwatch()
    _time_step(trial, compiled, batch, side, distributed)
    cost = watch_.seconds
    faster = min(_time_step(trial, compiled, batch, side, distributed) for _ in range(5))
    pays = left * (1 - faster / plain) > cost
    callback.on_message(
        f"torch.compile: {faster * 1e3:.0f} ms a batch against {plain * 1e3:.0f}, after {cost:.0f} s: "
        + ("taken" if pays else "not taken")
    )
    return distributed.broadcast(pays)


def choose_accumulation_steps(model: EfficientNet, recipe: Recipe, distributed: Distributed, callback: Callback) -> int:
    """In how many parts a batch must be computed so that it fits into the memory that is free now.

    What the backward pass needs is counted on two pictures, in the largest size that the recipe has.
    """
    batch, each = _largest_batch(model, recipe, distributed)
    free = free_memory(distributed.device)
    parts = max(1, ceil(batch * each * MEMORY_MARGIN / free)) if free else 1
    if parts > 1:
        callback.on_message(
            f"a batch of {batch} needs about {batch * each / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            f"it is computed in {parts} parts"
        )
    return int(distributed.broadcast(min(parts, batch)))


def has_large_activations(model: EfficientNet, recipe: Recipe, distributed: Distributed) -> bool:
    """Whether the maps of a batch take memory that is worth saving."""
    batch, each = _largest_batch(model, recipe, distributed)
    return batch * each > LARGE_ACTIVATION_BYTES


def _largest_batch(model: EfficientNet, recipe: Recipe, distributed: Distributed) -> tuple[int, float]:
    """This process's pictures in a batch, and the bytes that each keeps in the largest size that the recipe has."""
    batch: int = -(-recipe.batch_size // distributed.world_size)
    side = max(model.preprocess.size[0], *(stretch.image_size or 0 for stretch in recipe.phases(recipe.epochs)))
    return batch, activation_bytes_per_image(model, recipe, side, distributed)


def activation_bytes_per_image(model: EfficientNet, recipe: Recipe, side: int, distributed: Distributed) -> float:
    """Bytes a picture of ``side`` pixels that the forward pass keeps for the backward one."""
    trial = copy.deepcopy(model)
    prepare_model(trial, recipe)
    trial.train()
    own = {parameter.untyped_storage().data_ptr() for parameter in trial.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    pictures = torch.zeros(2, side, side, 3, dtype=torch.uint8, device=distributed.device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), distributed.autocast():
        held = trial(normalize(pictures, trial.preprocess))
    del held
    return sum(kept.values()) / 2


def free_memory(device: torch.device) -> int:
    """Bytes that are free on ``device`` now; 0 where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() if device.type == "cpu" else 0


def _time_step(
    model: EfficientNet, compiled_model: nn.Module, batch_size: int, side: int, distributed: Distributed
) -> float:
    """Of one forward and backward pass."""
    pictures = torch.randint(0, 256, (batch_size, side, side, 3), dtype=torch.uint8, device=distributed.device)
    watch = Stopwatch()
    with distributed.autocast():
        logits = compiled_model(normalize(pictures, model.preprocess))
    loss = F.cross_entropy(logits.float(), torch.zeros(batch_size, dtype=torch.long, device=distributed.device))
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    if distributed.device.type == "cuda":
        torch.cuda.synchronize()
    return watch.seconds
