"""What a recipe will do, epoch by epoch, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from effnet.arch import Arch, layers
from effnet.arch.record import Record
from effnet.data.augment import Augment
from effnet.draw.schedule import schedule as drawn
from effnet.training.optimise import young
from effnet.training.recipe import Recipe
from effnet.training.schedule import Schedule

IMAGENET = 1_281_167  # pictures to learn from


@dataclass(frozen=True)
class Rehearsed(Record):
    """One epoch: the learning rate of its first and last batch, the average's decay at its end, and what else changes.

    ``step``: batches taken before it. ``frozen``: the last part that is not yet trained.
    """

    RECORDS = MappingProxyType({"augment": Augment})

    epoch: int
    step: int
    first_rate: float
    last_rate: float
    average: float
    size: int
    dropout: float
    frozen: str
    augment: Augment


@dataclass(frozen=True)
class Rehearsal(Record):
    """A run that was not made: its recipe, its epochs, and what holds in all of them.

    ``drop_path``: the stochastic-depth rate of every block, by its name.
    """

    RECORDS = MappingProxyType({"recipe": Recipe, "epochs": Rehearsed})

    recipe: Recipe
    network: str
    pictures: int
    batches: int  # in an epoch
    peak: float  # learning rate
    drop_path: tuple[tuple[str, float], ...]
    epochs: tuple[Rehearsed, ...]

    def to_svg(self) -> str:
        """The learning rate over the epochs, and what changes beside it."""
        changing = {"size in pixels": [float(one.size) for one in self.epochs]}
        changing["RandAugment"] = [one.augment.magnitude for one in self.epochs]
        changing["dropout"] = [one.dropout for one in self.epochs]
        changing = {name: values for name, values in changing.items() if len(set(values)) > 1}
        rates = [(one.epoch - 1, one.first_rate) for one in self.epochs]
        last = self.epochs[-1]
        return drawn([*rates, (last.epoch, last.last_rate)], changing, f"{self.recipe.name}, {self.network}")


def rehearse(recipe: Recipe, arch: Arch, pictures: int = IMAGENET, epochs: int | None = None) -> Rehearsal:
    """What ``recipe`` would do to a network of ``arch`` on so many pictures, those to choose by among them."""
    total = recipe.epochs if epochs is None else epochs
    learned = max(1, round(pictures * (1 - recipe.select_share)))
    batches = -(-learned // recipe.batch)
    schedule = Schedule(recipe, total, batches)
    rows = []
    parts = ("stem", *(f"stage{number}" for number in range(1, len(arch.stages) + 1)), "head")
    for stretch in recipe.stretches(total):
        for epoch in range(stretch.start, stretch.end):
            still = len(parts) - int(epoch / recipe.unfreeze) if recipe.unfreeze else 0
            rows.append(
                Rehearsed(
                    epoch + 1,
                    epoch * batches,
                    schedule.at(epoch * batches),
                    schedule.at((epoch + 1) * batches - 1),
                    young(recipe.average, (epoch + 1) * batches),
                    stretch.size or recipe.size or arch.resolution,
                    arch.dropout if stretch.dropout is None else stretch.dropout,
                    parts[still - 1] if still > 0 else "",
                    stretch.augment,
                )
            )
    blocks = [layer for layer in layers(arch) if layer.kind in ("mbconv", "fused")]
    rate = arch.drop_path if recipe.drop_path is None else recipe.drop_path
    dropped = tuple((block.name, rate * index / len(blocks)) for index, block in enumerate(blocks))
    return Rehearsal(recipe, arch.name, pictures, batches, recipe.peak, dropped, tuple(rows))
