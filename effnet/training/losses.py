"""What training makes small: the loss of logits against labels, a teacher's answers mixed in where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effnet.data import ImageDataset
from effnet.training.recipes import Recipe

TeacherFunction = Callable[[Tensor], Tensor]  # uint8 (N, H, W, 3), as the student sees them -> logits (N, classes)


class TrainingLoss:
    """The loss on ``pictures``, by the kind of their labels.

    "classification": cross-entropy with smoothed labels; "multilabel": binary cross-entropy a class; "regression": the squared error, of
    logits without the values' `Units`. Pictures count by their weight and, with ``recipe.balance`` "loss", as much as
    makes every class count the same; on average a picture counts once. With a ``teacher`` (arXiv:1503.02531) its share
    of the loss is the divergence from its answers at ``recipe.temperature``, times that squared.
    """

    def __init__(
        self, images: ImageDataset, recipe: Recipe, device: torch.device, teacher: TeacherFunction | None = None
    ) -> None:
        self.task, self.recipe, self.teacher = images.labels.task, recipe, teacher
        self.classes = len(images.labels.names)
        wanted = images.targets if self.task == "classification" else images.target_matrix
        self._targets = torch.from_numpy(wanted).to(device)
        weights = torch.tensor([item.weight for item in images.items], dtype=torch.float64)
        if recipe.balance == "loss":
            weights = weights * torch.from_numpy(class_weights(images))
        self._image_weights = (weights / weights.mean()).float().to(device)
        self._weights_are_equal = bool((self._image_weights == 1).all())
        self.target_scaler = TargetScaler.from_dataset(images, device) if self.task == "regression" else None
        if self.target_scaler:
            self._targets = self.target_scaler.standardize(self._targets)

    def targets(self, indices: Tensor) -> Tensor:
        """What is to come out for these pictures: int64 (N,) classes, or float32 (N, classes)."""
        return self._targets[indices.to(self._targets.device)]

    def soft_targets(self, indices: Tensor) -> Tensor:
        """The same as float32 (N, classes), which can be mixed."""
        wanted = self.targets(indices)
        return F.one_hot(wanted, self.classes).float() if self.task == "classification" else wanted

    def __call__(
        self, logits: Tensor, targets: Tensor, indices: Tensor, teacher_logits: Tensor | None = None
    ) -> Tensor:
        """The sum over (N, classes) ``logits`` of each picture's loss; ``taught``: the teacher's logits for them."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = self._image_losses(logits, targets)
        if teacher_logits is not None:
            share, temperature = self.recipe.distill_weight, self.recipe.distill_temperature
            losses = (1 - share) * losses + share * self._distillation_losses(
                logits, teacher_logits.to(logits.dtype), temperature
            )
        if self._weights_are_equal:
            return losses.sum()
        return (losses * self._image_weights[indices.to(losses.device)]).sum()

    def _image_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if self.task == "classification":
            return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        if self.task == "multilabel":
            smoothed = targets * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").mean(1)
        return ((logits - targets) ** 2).mean(1)

    def _distillation_losses(self, logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        if self.task == "classification":
            theirs, ours = (F.log_softmax(each / temperature, 1) for each in (teacher_logits, logits))
            return F.kl_div(ours, theirs, log_target=True, reduction="none").sum(1) * temperature**2
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, teacher_logits.sigmoid(), reduction="none").mean(1)
        assert self.target_scaler
        return ((logits - self.target_scaler.standardize(teacher_logits)) ** 2).mean(1)


@dataclass(frozen=True, eq=False)
class TargetScaler:
    """Mean and spread of values, (values,) each: a network learns them without, whatever they are measured in."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_dataset(cls, images: ImageDataset, device: torch.device) -> TargetScaler:
        """Those of ``pictures``."""
        wanted = torch.from_numpy(images.target_matrix).to(device)
        return cls(wanted.mean(0), wanted.std(0, correction=0).clamp_min(1e-12))

    def standardize(self, values: Tensor) -> Tensor:
        """(N, values) as so many spreads from the mean."""
        return (values - self.mean) / self.std

    @torch.no_grad()
    def standardize_head(self, head: nn.Module) -> None:
        """Makes ``head`` answer without units."""
        assert isinstance(head, nn.Linear)
        head.weight.div_(self.std[:, None])
        head.bias.sub_(self.mean).div_(self.std)

    @torch.no_grad()
    def unstandardize_head(self, head: nn.Module) -> None:
        """Makes ``head``, which answers without units, answer with them."""
        assert isinstance(head, nn.Linear)
        head.weight.mul_(self.std[:, None])
        head.bias.mul_(self.std).add_(self.mean)


def class_weights(images: ImageDataset) -> np.ndarray:
    """What makes every class count the same, a picture: float64 (N,); of several labels, that of the rarest."""
    if images.labels.task == "regression":
        return np.ones(len(images))
    counts = np.maximum(np.array(images.class_counts(), np.float64), 1)
    share = len(images) / (len(counts) * counts)
    if images.labels.task == "classification":
        return share[images.targets]
    return np.array([max((share[one] for one in item.classes), default=1.0) for item in images.items])
