"""A trained model whose answers another one learns from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from effnet.data.preprocessing import normalize
from effnet.metadata import Labels
from effnet.net.surgery import fold_batch_norm
from effnet.weights import load


class Teacher:
    """The answers of ``model``, anything that `load` opens, to the pictures that a student sees.

    Its classes are put into the student's order by their names. Pictures of another size than its own are resized.
    Raises ``ValueError`` where the teacher does not know all of the student's labels, or knows them as another kind.
    """

    def __init__(self, model: str | Path, labels: Labels, device: torch.device) -> None:
        teacher = load(model)
        if teacher.labels.task != labels.task:
            raise ValueError(f"the teacher {model} has labels of the kind {teacher.labels.task!r}, not {labels.task!r}")
        unknown = [name for name in labels.names if name not in teacher.labels.names]
        if unknown:
            raise ValueError(
                f"the teacher {model} does not know {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + ": a teacher must have all the classes, by the same names"
            )
        self._class_order = torch.tensor([teacher.labels.names.index(name) for name in labels.names], device=device)
        self._model = fold_batch_norm(teacher).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float32 (N, H, W, 3) of 0 … 255 -> logits (N, classes)."""
        size = self._model.preprocess.size
        inputs = normalize(images, self._model.preprocess)  # (N, 3, H, W)
        if inputs.shape[2:] != size:
            inputs = F.interpolate(inputs, size, mode="bilinear", antialias=True)
        logits: Tensor = self._model(inputs)
        return logits[:, self._class_order]
