"""From pictures of 0 to 255 to the network's float input."""

from __future__ import annotations

import torch
from torch import Tensor

from effnet.contract import Preprocess


def normalise(pictures: Tensor, preprocess: Preprocess) -> Tensor:
    """Pictures of 0 to 255 (N, H, W, C) -> float32 (N, C, H, W) by ``preprocess``'s mean and std.

    In memory it lies as channels-last.
    Divided, subtracted, divided, in torchvision's order (``ToTensor``, ``Normalize``): bit for bit the same numbers.
    """
    mean = torch.tensor(preprocess.mean, device=pictures.device)
    std = torch.tensor(preprocess.std, device=pictures.device)
    return (pictures / 255).sub_(mean).div_(std).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
