"""Dry run: what a recipe would do in every epoch, without training."""

from dataclasses import dataclass
from types import MappingProxyType

import torch

from effnet.arch import Arch, serde
from effnet.data.augment import Augment
from effnet.draw.report_plots import plot_lr_schedule
from effnet.net import create, layers
from effnet.training import ema, init_model, recipes, schedule

IMAGENET_TRAIN_IMAGES = 1_281_167


@dataclass(frozen=True)
class DryRunEpoch(serde.Record):
    """The settings of one epoch."""

    RECORDS = MappingProxyType({"augment": Augment})

    epoch: int
    step: int  # batches before it
    first_learning_rate: float  # of its first batch
    last_learning_rate: float
    ema_decay: float  # at its end
    image_size: int | tuple[int, int]  # side in pixels, or (height, width)
    dropout: float
    frozen_until: str  # the last stage that is not trained yet; empty if all are
    augment: Augment


@dataclass(frozen=True)
class DryRun(serde.Record):
    """A recipe on a network and a number of images, epoch by epoch."""

    RECORDS = MappingProxyType({"recipe": recipes.Recipe, "epochs": DryRunEpoch})

    recipe: recipes.Recipe
    network: str
    images: int
    steps_per_epoch: int
    peak_learning_rate: float
    drop_path: tuple[tuple[str, float], ...]  # of every block that has stochastic depth, by its name
    epochs: tuple[DryRunEpoch, ...]

    def to_svg(self) -> str:
        """Return a drawing of the learning rate, and of what changes with it."""
        curves = {
            "size in pixels": [float(max(serde.check_size(one.image_size))) for one in self.epochs],
            "RandAugment": [one.augment.randaugment_magnitude for one in self.epochs],
            "dropout": [one.dropout for one in self.epochs],
        }
        changing = {name: values for name, values in curves.items() if len(set(values)) > 1}
        learning_rates = [(one.epoch - 1, one.first_learning_rate) for one in self.epochs]
        learning_rates.append((self.epochs[-1].epoch, self.epochs[-1].last_learning_rate))
        return plot_lr_schedule(learning_rates, changing, f"{self.recipe.name}, {self.network}").svg


def simulate_recipe(
    recipe: recipes.Recipe,
    arch: Arch,
    image_count: int = IMAGENET_TRAIN_IMAGES,
    epochs: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> DryRun:
    """Return what ``recipe`` would do to a network of ``arch`` on ``image_count`` images, selection images included.

    ``epochs`` and ``image_size`` are instead of the recipe's and the network's.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if isinstance(image_size, tuple) and image_size[0] == image_size[1]:
        image_size = image_size[0]
    train_images = max(1, round(image_count * (1 - recipe.selection_fraction)))
    steps_per_epoch = -(-train_images // recipe.batch_size)
    lr_schedule = schedule.LRSchedule(recipe, epochs, steps_per_epoch)
    with torch.device("meta"):  # shapes without memory: the same functions as in training set it up
        model = create(arch)
    init_model.prepare_model(model, recipe)
    rows = []
    for phase in recipe.phases(epochs):
        for epoch in range(phase.start_epoch, phase.end_epoch):
            init_model.apply_phase(model, recipe, phase, epoch)
            first, last = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1
            rows.append(
                DryRunEpoch(
                    epoch=epoch + 1,
                    step=first,
                    first_learning_rate=lr_schedule.learning_rate_at(first),
                    last_learning_rate=lr_schedule.learning_rate_at(last),
                    ema_decay=ema.ema_decay_at(recipe.ema_decay, last + 1),
                    image_size=phase.image_size or image_size or recipe.image_size or arch.resolution,
                    dropout=model.dropout.p,
                    frozen_until=model.frozen_until or "",
                    augment=phase.augment,
                )
            )
    drop_path = tuple(
        (name.removesuffix(".stochastic_depth"), module.drop_prob)
        for name, module in model.named_modules()
        if isinstance(module, layers.StochasticDepth)
    )
    return DryRun(recipe, arch.name, image_count, steps_per_epoch, recipe.peak_learning_rate, drop_path, tuple(rows))
