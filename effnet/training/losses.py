"""Training losses: label smoothing, class weights, distillation from a teacher, standardized regression targets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data import ImageDataset, preprocessing
from effnet.metadata import Labels
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import require_classes
from effnet.tasks import task_of
from effnet.training.recipes import Recipe
from effnet.weights import load

TeacherFunction = Callable[[Tensor], Tensor]  # images (N, H, W, 3), as the student sees them -> logits (N, outputs)


class TrainingLoss:
    """The loss of ``images``, by their task.

    Images count by their weight and, with ``balance="loss"``, by the inverse frequency of their class; on average an
    image counts once. With a teacher, ``distill_weight`` of the loss is the divergence from its answers
    (arXiv:1503.02531). Regression targets are standardized; see `TargetScaler`.
    """

    def __init__(
        self, images: ImageDataset, recipe: Recipe, device: torch.device, teacher: TeacherFunction | None = None
    ) -> None:
        self.task, self.recipe, self.teacher = task_of(images.labels.task), recipe, teacher
        self.outputs = len(images.labels.names)
        self._targets = torch.from_numpy(images.targets).to(device)
        weights = torch.tensor([item.weight for item in images.items], dtype=torch.float64)
        if recipe.balance == "loss":
            weights = weights * torch.from_numpy(class_weights(images))
        self._image_weights = (weights / weights.mean()).float().to(device)
        self._weights_are_equal = bool((self._image_weights == 1).all())
        self.target_scaler: TargetScaler | None = None
        if not self.task.has_probabilities:
            self.target_scaler = TargetScaler.from_dataset(images, device)
            self._targets = self.target_scaler.standardize(self._targets)

    def targets(self, indices: Tensor) -> Tensor:
        """Return the targets of these images: int64 (N,) class indices, or float32 (N, outputs)."""
        return self._targets[indices.to(self._targets.device)]

    def soft_targets(self, indices: Tensor) -> Tensor:
        """Return them as float32 (N, outputs), which can be mixed."""
        targets = self.targets(indices)
        return targets if targets.is_floating_point() else nn.functional.one_hot(targets, self.outputs).float()

    def __call__(self, logits: Tensor, targets: Tensor, indices: Tensor, images: Tensor) -> Tensor:
        """Return the sum of the losses of logits (N, outputs); the teacher sees ``images`` (N, H, W, 3).

        ``targets`` are those of `targets` or `soft_targets`; ``indices`` (N,) are the images' places in the data set.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = self._image_losses(logits, targets)
        if self.teacher is not None:
            weight, teacher_logits = self.recipe.distill_weight, self.teacher(images).to(logits.dtype)
            if self.target_scaler:
                teacher_logits = self.target_scaler.standardize(teacher_logits)
            temperature = self.recipe.distill_temperature
            distillation_losses = self.task.torch_distillation_losses(logits, teacher_logits, temperature)
            losses = (1 - weight) * losses + weight * distillation_losses
        if self._weights_are_equal:
            return losses.sum()
        return (losses * self._image_weights[indices.to(losses.device)]).sum()

    def _image_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.task.torch_losses(logits, targets, self.recipe.label_smoothing)


class Teacher:
    """A trained model whose answers a student learns from: images as the student sees them -> logits.

    Its outputs are reordered by name to match the student's ``labels``. Images of another size are resized.
    Raises ``ValueError`` if the teacher has another task or number of input channels, or lacks some of the labels.
    """

    def __init__(self, model: str | Path, labels: Labels, device: torch.device, channels: int = 3) -> None:
        teacher = load(model)
        require_classes(teacher.classes, f"the teacher {model}")
        if teacher.labels.task != labels.task:
            raise ValueError(f"the teacher {model} was trained for {teacher.labels.task}, not for {labels.task}")
        if teacher.channels != channels:
            raise ValueError(f"the teacher {model} takes {teacher.channels} channels, the network {channels}")
        unknown = [name for name in labels.names if name not in teacher.labels.names]
        if unknown:
            others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ValueError(
                f"the teacher {model} does not know {unknown[0]!r}{others}: it must have all classes, by the same names"
            )
        self._class_order = torch.tensor([teacher.labels.names.index(name) for name in labels.names], device=device)
        self._model = fold_batch_norm(teacher).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (N, outputs) of uint8 or float32 (N, H, W, 3) of 0 to 255."""
        size = self._model.preprocess.size
        inputs = preprocessing.normalize(images, self._model.preprocess)  # (N, 3, H, W)
        if inputs.shape[2:] != size:
            inputs = nn.functional.interpolate(inputs, size, mode="bilinear", antialias=True)
        logits: Tensor = self._model(inputs)
        return logits[:, self._class_order]


@dataclass(frozen=True, eq=False)
class TargetScaler:
    """Mean and standard deviation of regression targets, (values,) each, so that the loss is independent of units."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_dataset(cls, images: ImageDataset, device: torch.device) -> "TargetScaler":
        """Return those of ``images``."""
        targets = torch.from_numpy(images.target_matrix).to(device)
        return cls(targets.mean(0), targets.std(0, correction=0).clamp_min(1e-12))

    def standardize(self, values: Tensor) -> Tensor:
        """Return values (N, values) in standard deviations from the mean."""
        return (values - self.mean) / self.std

    @torch.no_grad()
    def standardize_head(self, head: nn.Module) -> None:
        """Make ``head`` answer in standardized units."""
        assert isinstance(head, nn.Linear)
        head.weight.div_(self.std[:, None])
        head.bias.sub_(self.mean).div_(self.std)

    @torch.no_grad()
    def unstandardize_head(self, head: nn.Module) -> None:
        """Make ``head``, which answers in standardized units, answer in the original ones."""
        assert isinstance(head, nn.Linear)
        head.weight.mul_(self.std[:, None])
        head.bias.mul_(self.std).add_(self.mean)


def class_weights(images: ImageDataset) -> np.ndarray:
    """Return float64 (N,): each image's weight by which all classes count the same; the largest of several labels."""
    if not task_of(images.labels.task).has_probabilities:
        return np.ones(len(images))
    counts = np.maximum(np.array(images.class_counts(), np.float64), 1)
    weights = len(images) / (len(counts) * counts)
    return np.array([max((weights[index] for index in item.classes), default=1.0) for item in images.items])
