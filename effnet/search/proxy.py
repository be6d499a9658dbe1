"""A short training, the same for every network of a search: what its accuracy is guessed by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.arch import ARCHS, Arch
from effnet.data.normalise import normalise
from effnet.net import EfficientNet, create
from effnet.search.examples import Examples, Part
from effnet.training.optimise import optimiser, set_rate
from effnet.training.recipe import Recipe
from effnet.training.schedule import Schedule

# Plain and fast: no running average, which would lag behind in so few steps, and statistics that follow as quickly
PROXY = Recipe(
    name="proxy",
    epochs=3,
    batch=64,
    optimiser="sgd",
    learning_rate=0.1,
    rate_batch=64,
    warm_up=0.5,
    weight_decay=5e-4,
    label_smoothing=0.0,
    average=0.0,
    norm_momentum=0.1,
)
# A network that trains a thousand pictures a second on one core, and whose stages still see maps of 4 pixels
BASE = replace(ARCHS["nano"], name="nano_16", resolution=16, dropout=0.0, drop_path=0.0)
SHIFT = 8  # a picture is moved by up to an eighth of its side
EVALUATED = 500  # pictures at once


@dataclass(frozen=True)
class Trained:
    """What a short training came to: top-1 accuracies as fractions, and its seconds.

    ``selected`` is of the pictures that a search chooses by, ``judged`` of those it never looks at; None where it was
    not judged.
    """

    selected: float
    judged: float | None
    loss: float  # cross-entropy of the pictures chosen by
    seconds: float


def train(
    arch: Arch,
    examples: Examples,
    epochs: int,
    seed: int,
    recipe: Recipe = PROXY,
    inherited: Mapping[str, Tensor] | None = None,
    judged: bool = True,
) -> tuple[Trained, EfficientNet]:
    """``arch`` trained for ``epochs`` on ``examples.fit`` and evaluated, on one thread of this process.

    All that is drawn depends on ``seed`` alone: weights, order, shifts and mirrors; networks of one seed see the same
    pictures in the same order. ``inherited`` tensors take the place of random ones of the same name and shape.
    A training that diverges is broken off, and its accuracy is what it then is: chance. Who is not to be ``judged``
    saves the time of looking at those pictures.
    """
    begun = time.perf_counter()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = create(arch, classes=len(examples.names)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if inherited:
            inherit(model, inherited)
        _fit(model.train(), examples, replace(recipe, epochs=epochs), seed)
    model.eval()
    selected, loss = evaluate(model, examples.select)
    unseen = None
    if judged:
        unseen = evaluate(model, examples.judge)[0] if examples.unseen else selected
    return Trained(selected, unseen, loss, time.perf_counter() - begun), model


def inherit(model: EfficientNet, tensors: Mapping[str, Tensor]) -> int:
    """Takes over each of ``tensors`` that has its name and shape in ``model``; how many they are."""
    mine = model.state_dict()
    taken = {name: value for name, value in tensors.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict(taken, strict=False)
    return len(taken)


def _fit(model: EfficientNet, examples: Examples, recipe: Recipe, seed: int) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.norm_momentum
    part = examples.fit.at(model.arch.resolution)
    batch = min(recipe.batch, len(part))
    schedule = Schedule(recipe, recipe.epochs, len(part) // batch)
    moves = optimiser(model, recipe)
    step = 0
    for epoch in range(recipe.epochs):
        for pictures, classes in _batches(part, batch, examples.mirror, seed, epoch):
            set_rate(moves, schedule.at(step))
            loss = F.cross_entropy(model(_ready(pictures, model)), classes, label_smoothing=recipe.label_smoothing)
            moves.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            moves.step()
            step += 1
        if not torch.isfinite(loss):
            return


def _batches(part: Part, batch: int, mirror: bool, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in an order of its own, moved and mirrored; what does not fill the last batch has its turn later."""
    drawn = torch.Generator().manual_seed((seed << 16) + epoch)
    side = part.pictures.shape[-1]
    margin = max(1, side // SHIFT)
    order = torch.randperm(len(part), generator=drawn)
    for indices in order[: len(order) // batch * batch].split(batch):  # type: ignore[no-untyped-call]
        padded = F.pad(part.pictures[indices], (margin,) * 4)
        down, right = torch.randint(2 * margin + 1, (2, batch), generator=drawn).tolist()
        moved = [one[:, y : y + side, x : x + side] for one, y, x in zip(padded, down, right, strict=True)]
        if mirror:
            turned = torch.rand(batch, generator=drawn) < 0.5
            moved = [one.flip(-1) if turn else one for one, turn in zip(moved, turned.tolist(), strict=True)]
        yield torch.stack(moved), part.classes[indices]


def _ready(pictures: Tensor, model: EfficientNet) -> Tensor:
    return normalise(pictures.permute(0, 2, 3, 1), model.preprocess)


@torch.no_grad()
def evaluate(model: EfficientNet, part: Part) -> tuple[float, float]:
    """Top-1 accuracy as a fraction, and mean cross-entropy, of ``model`` as it stands."""
    right, loss = 0, 0.0
    here = part.at(model.arch.resolution)
    for start in range(0, len(here), EVALUATED):
        classes = here.classes[start : start + EVALUATED]
        logits = model(_ready(here.pictures[start : start + EVALUATED], model))
        right += int((logits.argmax(1) == classes).sum())
        loss += float(F.cross_entropy(logits, classes, reduction="sum"))
    return right / len(here), loss / len(here)
