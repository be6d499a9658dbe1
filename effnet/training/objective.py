"""What training makes small: the loss of logits against labels, a teacher's answers mixed in where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.data import Pictures
from effnet.training.recipe import Recipe

Teacher = Callable[[Tensor], Tensor]  # uint8 (N, H, W, 3), as the student sees them -> logits (N, classes)


class Objective:
    """The loss on ``pictures``, by the kind of their labels.

    "one": cross-entropy with smoothed labels; "any": binary cross-entropy a class; "value": the squared error, of
    logits without the values' `Units`. Pictures count by their weight and, with ``recipe.balance`` "loss", as much as
    makes every class count the same; on average a picture counts once. With a ``teacher`` (arXiv:1503.02531) its share
    of the loss is the divergence from its answers at ``recipe.temperature``, times that squared.
    """

    def __init__(
        self, pictures: Pictures, recipe: Recipe, device: torch.device, teacher: Teacher | None = None
    ) -> None:
        self.kind, self.recipe, self.teacher = pictures.labels.kind, recipe, teacher
        self.classes = len(pictures.labels.names)
        wanted = pictures.targets if self.kind == "one" else pictures.wanted
        self._wanted = torch.from_numpy(wanted).to(device)
        weights = torch.tensor([item.weight for item in pictures.items], dtype=torch.float64)
        if recipe.balance == "loss":
            weights = weights * torch.from_numpy(rarity(pictures))
        self._weights = (weights / weights.mean()).float().to(device)
        self._even = bool((self._weights == 1).all())
        self.units = Units.of(pictures, device) if self.kind == "value" else None
        if self.units:
            self._wanted = self.units.without(self._wanted)

    def wanted(self, indices: Tensor) -> Tensor:
        """What is to come out for these pictures: int64 (N,) classes, or float32 (N, classes)."""
        return self._wanted[indices.to(self._wanted.device)]

    def soft(self, indices: Tensor) -> Tensor:
        """The same as float32 (N, classes), which can be mixed."""
        wanted = self.wanted(indices)
        return F.one_hot(wanted, self.classes).float() if self.kind == "one" else wanted

    def __call__(self, logits: Tensor, wanted: Tensor, indices: Tensor, taught: Tensor | None = None) -> Tensor:
        """The sum over (N, classes) ``logits`` of each picture's loss; ``taught``: the teacher's logits for them."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = self._losses(logits, wanted)
        if taught is not None:
            share, temperature = self.recipe.teach, self.recipe.temperature
            losses = (1 - share) * losses + share * self._divergence(logits, taught.to(logits.dtype), temperature)
        if self._even:
            return losses.sum()
        return (losses * self._weights[indices.to(losses.device)]).sum()

    def _losses(self, logits: Tensor, wanted: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if self.kind == "one":
            return F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="none")
        if self.kind == "any":
            smoothed = wanted * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").mean(1)
        return ((logits - wanted) ** 2).mean(1)

    def _divergence(self, logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
        if self.kind == "one":
            theirs, ours = (F.log_softmax(each / temperature, 1) for each in (taught, logits))
            return F.kl_div(ours, theirs, log_target=True, reduction="none").sum(1) * temperature**2
        if self.kind == "any":
            return F.binary_cross_entropy_with_logits(logits, taught.sigmoid(), reduction="none").mean(1)
        assert self.units
        return ((logits - self.units.without(taught)) ** 2).mean(1)


@dataclass(frozen=True, eq=False)
class Units:
    """Mean and spread of values, (values,) each: a network learns them without, whatever they are measured in."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, pictures: Pictures, device: torch.device) -> Units:
        """Those of ``pictures``."""
        wanted = torch.from_numpy(pictures.wanted).to(device)
        return cls(wanted.mean(0), wanted.std(0, correction=0).clamp_min(1e-12))

    def without(self, values: Tensor) -> Tensor:
        """(N, values) as so many spreads from the mean."""
        return (values - self.mean) / self.spread

    @torch.no_grad()
    def take_off(self, head: nn.Module) -> None:
        """Makes ``head`` answer without units."""
        assert isinstance(head, nn.Linear)
        head.weight.div_(self.spread[:, None])
        head.bias.sub_(self.mean).div_(self.spread)

    @torch.no_grad()
    def put_on(self, head: nn.Module) -> None:
        """Makes ``head``, which answers without units, answer with them."""
        assert isinstance(head, nn.Linear)
        head.weight.mul_(self.spread[:, None])
        head.bias.mul_(self.spread).add_(self.mean)


def rarity(pictures: Pictures) -> np.ndarray:
    """What makes every class count the same, a picture: float64 (N,); of several labels, that of the rarest."""
    if pictures.labels.kind == "value":
        return np.ones(len(pictures))
    counts = np.maximum(np.array(pictures.counts(), np.float64), 1)
    share = len(pictures) / (len(counts) * counts)
    if pictures.labels.kind == "one":
        return share[pictures.targets]
    return np.array([max((share[one] for one in item.classes), default=1.0) for item in pictures.items])
