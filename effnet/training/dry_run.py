"""What a recipe will do, epoch by epoch, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from effnet.arch import Arch, layers
from effnet.arch.serde import Record
from effnet.data.augment import Augment
from effnet.draw.training_plots import plot_lr_schedule as drawn
from effnet.training.ema import ema_decay_at
from effnet.training.recipes import Recipe
from effnet.training.schedule import LRSchedule

IMAGENET_TRAIN_IMAGES = 1_281_167  # pictures to learn from


@dataclass(frozen=True)
class DryRunEpoch(Record):
    """One epoch: the learning rate of its first and last batch, the average's decay at its end, and what else changes.

    ``step``: batches taken before it. ``frozen``: the last part that is not yet trained.
    """

    RECORDS = MappingProxyType({"augment": Augment})

    epoch: int
    step: int
    first_learning_rate: float
    last_learning_rate: float
    ema_decay: float
    image_size: int
    dropout: float
    frozen_up_to: str
    augment: Augment


@dataclass(frozen=True)
class DryRun(Record):
    """A run that was not made: its recipe, its epochs, and what holds in all of them.

    ``drop_path``: the stochastic-depth rate of every block, by its name.
    """

    RECORDS = MappingProxyType({"recipe": Recipe, "epochs": DryRunEpoch})

    recipe: Recipe
    network: str
    images: int
    steps_per_epoch: int  # in an epoch
    peak_learning_rate: float  # learning rate
    drop_path: tuple[tuple[str, float], ...]
    epochs: tuple[DryRunEpoch, ...]

    def to_svg(self) -> str:
        """The learning rate over the epochs, and what changes beside it."""
        changing = {"size in pixels": [float(one.image_size) for one in self.epochs]}
        changing["RandAugment"] = [one.augment.randaugment_magnitude for one in self.epochs]
        changing["dropout"] = [one.dropout for one in self.epochs]
        changing = {name: values for name, values in changing.items() if len(set(values)) > 1}
        rates = [(one.epoch - 1, one.first_learning_rate) for one in self.epochs]
        last = self.epochs[-1]
        return drawn(
            [*rates, (last.epoch, last.last_learning_rate)], changing, f"{self.recipe.name}, {self.network}"
        ).svg


def simulate_recipe(
    recipe: Recipe, arch: Arch, image_count: int = IMAGENET_TRAIN_IMAGES, epochs: int | None = None
) -> DryRun:
    """What ``recipe`` would do to a network of ``arch`` on so many pictures, those to choose by among them."""
    total = recipe.epochs if epochs is None else epochs
    learned = max(1, round(image_count * (1 - recipe.selection_fraction)))
    batches = -(-learned // recipe.batch_size)
    schedule = LRSchedule(recipe, total, batches)
    rows = []
    parts = ("stem", *(f"stage{number}" for number in range(1, len(arch.stages) + 1)), "head")
    for stretch in recipe.phases(total):
        for epoch in range(stretch.start_epoch, stretch.end_epoch):
            still = len(parts) - int(epoch / recipe.unfreeze_every_epochs) if recipe.unfreeze_every_epochs else 0
            rows.append(
                DryRunEpoch(
                    epoch + 1,
                    epoch * batches,
                    schedule.learning_rate_at(epoch * batches),
                    schedule.learning_rate_at((epoch + 1) * batches - 1),
                    ema_decay_at(recipe.ema_decay, (epoch + 1) * batches),
                    stretch.image_size or recipe.image_size or arch.resolution,
                    arch.dropout if stretch.dropout is None else stretch.dropout,
                    parts[still - 1] if still > 0 else "",
                    stretch.augment,
                )
            )
    blocks = [layer for layer in layers(arch) if layer.kind in ("mbconv", "fused")]
    rate = arch.drop_path if recipe.drop_path is None else recipe.drop_path
    dropped = tuple((block.name, rate * index / len(blocks)) for index, block in enumerate(blocks))
    return DryRun(recipe, arch.name, image_count, batches, recipe.peak_learning_rate, dropped, tuple(rows))
