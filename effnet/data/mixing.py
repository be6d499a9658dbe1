"""Training pictures mixed with each other, labels and all: MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta


def mix(pictures: Tensor, wanted: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Each picture mixed with the one before it in the batch, and what is wanted of it in the same share.

    ``pictures``: (N, H, W, C) of 0 to 255; ``wanted``: floating (N, classes). ``mixup`` and ``cutmix`` are α of the
    distribution Beta(α, α) of a picture's own share, drawn for every picture anew; 0: not this one. Where both are
    above 0, a fair coin chooses one of them for the batch. MixUp gives float32, CutMix the type that it was given.
    All random numbers are torch's own, on the CPU: the same on every device.
    """
    if mixup and (not cutmix or torch.rand(()) < 0.5):
        return _blended(pictures, wanted, _shares(len(pictures), mixup))
    if cutmix:
        return _pasted(pictures, wanted, _shares(len(pictures), cutmix))
    return pictures, wanted


def _shares(count: int, alpha: float) -> Tensor:
    """(N,): how much of each picture stays."""
    return Beta(alpha, alpha).sample((count,))


def _blended(pictures: Tensor, wanted: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    weights = shares.to(pictures.device)[:, None, None, None]
    mixed = pictures.float()
    return torch.lerp(mixed.roll(1, 0), mixed, weights), _mixed_labels(wanted, shares)


def _pasted(pictures: Tensor, wanted: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """A box of the other picture, of the area 1 − share, about a point anywhere; what lies outside is cut off."""
    _, height, width, _ = pictures.shape
    half = (1 - shares).sqrt() / 2
    inside_rows, rows = _stretch(half, height)
    inside_columns, columns = _stretch(half, width)
    box = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]  # (N, H, W, 1)
    mixed = torch.where(box.to(pictures.device), pictures.roll(1, 0), pictures)
    return mixed, _mixed_labels(wanted, 1 - rows * columns / (height * width))


def _stretch(half: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(N, side) which pixels lie within ``half`` × side of a random middle, and (N,) how many they are."""
    middle = torch.randint(side, half.shape)
    reach = (half * side).int()
    place = torch.arange(side)
    inside = (place >= (middle - reach)[:, None]) & (place < (middle + reach)[:, None])
    return inside, inside.sum(1)


def _mixed_labels(wanted: Tensor, shares: Tensor) -> Tensor:
    return torch.lerp(wanted.roll(1, 0), wanted, shares.to(wanted)[:, None])
