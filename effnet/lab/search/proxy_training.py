"""A short training, the same for every network of a search: what its accuracy is guessed by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.arch import ARCHS, Arch
from effnet.data.preprocessing import normalize
from effnet.lab.search.dataset import LabeledImages, SearchDataset
from effnet.net import EfficientNet, create
from effnet.training.optim import make_optimizer
from effnet.training.recipes import Recipe
from effnet.training.schedule import LRSchedule, set_learning_rate

# Plain and fast: no running average, which would lag behind in so few steps, and statistics that follow as quickly
PROXY_RECIPE = Recipe(
    name="proxy",
    epochs=3,
    batch_size=64,
    optimizer="sgd",
    learning_rate=0.1,
    lr_reference_batch=64,
    warmup_epochs=0.5,
    weight_decay=5e-4,
    label_smoothing=0.0,
    ema_decay=0.0,
    bn_momentum=0.1,
)
# A network that trains a thousand pictures a second on one core, and whose stages still see maps of 4 pixels
BASE_ARCH = replace(ARCHS["nano"], name="nano_16", resolution=16, dropout=0.0, drop_path=0.0)
SHIFT_DIVISOR = 8  # a picture is moved by up to an eighth of its side
EVALUATION_BATCH_SIZE = 500  # pictures at once


@dataclass(frozen=True)
class ProxyResult:
    """What a short training came to: top-1 accuracies as fractions, and its seconds.

    ``selected`` is of the pictures that a search chooses by, ``judged`` of those it never looks at; None where it was
    not judged.
    """

    selection_accuracy: float
    test_accuracy: float | None
    loss: float  # cross-entropy of the pictures chosen by
    seconds: float


def train_proxy(
    arch: Arch,
    dataset: SearchDataset,
    epochs: int,
    seed: int,
    recipe: Recipe = PROXY_RECIPE,
    initial_weights: Mapping[str, Tensor] | None = None,
    evaluate_test: bool = True,
) -> tuple[ProxyResult, EfficientNet]:
    """``arch`` trained for ``epochs`` on ``examples.fit`` and evaluated, on one thread of this process.

    All that is drawn depends on ``seed`` alone: weights, order, shifts and mirrors; networks of one seed see the same
    pictures in the same order. ``inherited`` tensors take the place of random ones of the same name and shape.
    A training that diverges is broken off, and its accuracy is what it then is: chance. Who is not to be ``judged``
    saves the time of looking at those pictures.
    """
    begun = time.perf_counter()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = create(arch, classes=len(dataset.class_names)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if initial_weights:
            load_matching(model, initial_weights)
        _train_model(model.train(), dataset, replace(recipe, epochs=epochs), seed)
    model.eval()
    selected, loss = evaluate_proxy(model, dataset.selection)
    unseen = None
    if evaluate_test:
        unseen = evaluate_proxy(model, dataset.test)[0] if dataset.has_test else selected
    return ProxyResult(selected, unseen, loss, time.perf_counter() - begun), model


def load_matching(model: EfficientNet, tensors: Mapping[str, Tensor]) -> int:
    """Takes over each of ``tensors`` that has its name and shape in ``model``; how many they are."""
    mine = model.state_dict()
    taken = {name: value for name, value in tensors.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict(taken, strict=False)
    return len(taken)


def _train_model(model: EfficientNet, dataset: SearchDataset, recipe: Recipe, seed: int) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    part = dataset.train.resize(model.arch.resolution)
    batch = min(recipe.batch_size, len(part))
    schedule = LRSchedule(recipe, recipe.epochs, len(part) // batch)
    moves = make_optimizer(model, recipe)
    step = 0
    for epoch in range(recipe.epochs):
        for pictures, classes in _batches(part, batch, dataset.horizontal_flip, seed, epoch):
            set_learning_rate(moves, schedule.learning_rate_at(step))
            loss = F.cross_entropy(model(_preprocess(pictures, model)), classes, label_smoothing=recipe.label_smoothing)
            moves.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            moves.step()
            step += 1
        if not torch.isfinite(loss):
            return


def _batches(
    images: LabeledImages, batch_size: int, horizontal_flip: bool, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in an order of its own, moved and mirrored; what does not fill the last batch has its turn later."""
    drawn = torch.Generator().manual_seed((seed << 16) + epoch)
    side = images.images.shape[-1]
    margin = max(1, side // SHIFT_DIVISOR)
    order = torch.randperm(len(images), generator=drawn)
    for indices in order[: len(order) // batch_size * batch_size].split(batch_size):  # type: ignore[no-untyped-call]
        padded = F.pad(images.images[indices], (margin,) * 4)
        down, right = torch.randint(2 * margin + 1, (2, batch_size), generator=drawn).tolist()
        moved = [one[:, y : y + side, x : x + side] for one, y, x in zip(padded, down, right, strict=True)]
        if horizontal_flip:
            turned = torch.rand(batch_size, generator=drawn) < 0.5
            moved = [one.flip(-1) if turn else one for one, turn in zip(moved, turned.tolist(), strict=True)]
        yield torch.stack(moved), images.classes[indices]


def _preprocess(images: Tensor, model: EfficientNet) -> Tensor:
    return normalize(images.permute(0, 2, 3, 1), model.preprocess)


@torch.no_grad()
def evaluate_proxy(model: EfficientNet, images: LabeledImages) -> tuple[float, float]:
    """Top-1 accuracy as a fraction, and mean cross-entropy, of ``model`` as it stands."""
    right, loss = 0, 0.0
    here = images.resize(model.arch.resolution)
    for start in range(0, len(here), EVALUATION_BATCH_SIZE):
        classes = here.classes[start : start + EVALUATION_BATCH_SIZE]
        logits = model(_preprocess(here.images[start : start + EVALUATION_BATCH_SIZE], model))
        right += int((logits.argmax(1) == classes).sum())
        loss += float(F.cross_entropy(logits, classes, reduction="sum"))
    return right / len(here), loss / len(here)
