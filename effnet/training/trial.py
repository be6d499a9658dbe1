"""Trying out on a copy what training will cost here: seconds an epoch, and whether compiling pays."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from effnet.clock import Stopwatch
from effnet.data.loader import TrainingBatches
from effnet.data.normalise import normalise
from effnet.net import EfficientNet
from effnet.training.loop import prepare
from effnet.training.place import Place
from effnet.training.recipe import Recipe
from effnet.training.watch import Watch

COMPILE_SECONDS = 90.0  # that compiling forward and backward takes at the least
GAIN_LEAST = 1.05


def seconds_per_epoch(model: EfficientNet, batches: TrainingBatches, recipe: Recipe, place: Place) -> float:
    """How long an epoch will take here: two batches are trained on a copy and timed, the first one not counted."""
    trial = copy.deepcopy(model)
    prepare(trial, recipe)
    trial.train()
    taken = []
    for _, (pictures, _) in zip(range(2), batches.epoch(0), strict=False):
        taken.append(_seconds(trial, trial, len(pictures), pictures.shape[1], place))
    return min(taken[1:] or taken) * len(batches)


def compiling_pays(model: EfficientNet, recipe: Recipe, epochs: int, pictures: int, place: Place, watch: Watch) -> bool:
    """Whether ``torch.compile`` makes the run shorter, itself included: measured, where it could at all.

    On a CPU it does not: compiling both passes takes minutes, and convolutions are the same library's either way.
    """
    if place.device.type != "cuda" or recipe.progress is not None:
        return False
    batch, side = -(-recipe.batch // place.ranks), model.preprocess.size[0]
    trial = copy.deepcopy(model)
    prepare(trial, recipe)
    trial.train()
    plain = min(_seconds(trial, trial, batch, side, place) for _ in range(5))
    left = plain * epochs * pictures / recipe.batch
    if left * (1 - 1 / GAIN_LEAST) < COMPILE_SECONDS:
        return False
    compiled: nn.Module = torch.compile(trial)  # type: ignore[assignment]
    watch_ = Stopwatch()
    _seconds(trial, compiled, batch, side, place)
    cost = watch_.seconds
    faster = min(_seconds(trial, compiled, batch, side, place) for _ in range(5))
    pays = left * (1 - faster / plain) > cost
    watch.say(
        f"torch.compile: {faster * 1e3:.0f} ms a batch against {plain * 1e3:.0f}, after {cost:.0f} s: "
        + ("taken" if pays else "not taken")
    )
    return place.agreed(pays)


def _seconds(model: EfficientNet, called: nn.Module, batch: int, side: int, place: Place) -> float:
    """Of one forward and backward pass."""
    pictures = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=place.device)
    watch = Stopwatch()
    with place.numbers():
        logits = called(normalise(pictures, model.preprocess))
    loss = F.cross_entropy(logits.float(), torch.zeros(batch, dtype=torch.long, device=place.device))
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    if place.device.type == "cuda":
        torch.cuda.synchronize()
    return watch.seconds
