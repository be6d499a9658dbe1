"""Runs several readings over the same pictures: each picture is decoded once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from effnet.data import Pictures
from effnet.data.ahead import ahead
from effnet.data.normalise import normalise
from effnet.data.pixels import fit, read
from effnet.doctor.diagnosis import Reading
from effnet.doctor.dress import dressed
from effnet.net import EfficientNet
from effnet.net.surgery import fold

BATCH = 16
# The pictures' contrast and sharpness differ from set to set far more than their mean colour: a blurred set must not
# look like a wrong mean. So the spread counts for a tenth in the shift.
SPREAD = 0.1

Doubles = NDArray[np.float64]


@dataclass(eq=False)
class Measured:
    """What a reading made of the pictures so far."""

    reading: Reading
    parts: list[Doubles] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)  # of the stem's convolution, (pictures, channels)
    squares: list[Tensor] = field(default_factory=list)
    norm: nn.BatchNorm2d | None = None  # the stem's, which holds the statistics of the training

    @property
    def logits(self) -> Doubles:
        """(pictures, classes)."""
        return np.concatenate(self.parts)

    @property
    def pictures(self) -> int:
        """How many it has seen."""
        return sum(map(len, self.means))

    @property
    def shift(self) -> float:
        """How far the stem's statistics on these pictures lie from the stored ones, in standard deviations.

        The mean over channels of |μ̂ − μ| / σ, and a tenth of that of |log σ̂² / σ²|.
        """
        assert self.norm is not None
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean, variance = self.norm.running_mean, self.norm.running_var + self.norm.eps
        seen = torch.cat(self.means).mean(0)
        spread = (torch.cat(self.squares).mean(0) - seen**2).clamp_min(0) + self.norm.eps
        moved = ((seen - mean).abs() / variance.sqrt()).mean() + SPREAD * (spread / variance).log().abs().mean()
        return float(moved)


def measure(
    model: EfficientNet,
    readings: Sequence[Reading],
    pictures: Pictures,
    device: torch.device,
    stem_only: bool = False,
    hopeless: Callable[[Measured, Measured], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """What each of ``readings`` makes of ``pictures``, which can all be read.

    ``stem_only`` asks for the shift and no logits. The first reading sees all; another stops where
    ``hopeless(it, the first)`` says so after a batch.
    """
    found = [Measured(reading) for reading in readings]
    networks: dict[tuple[object, ...], _Network] = {}
    for reading in readings:
        if _weights(reading) not in networks:
            networks[_weights(reading)] = _Network(model, reading, pictures, device)
    alive = list(found)
    for done, images in enumerate(_decoded(pictures), start=1):
        for one in alive:
            networks[_weights(one.reading)].add(one, _input(images, one.reading, device), stem_only)
        if hopeless:
            alive = [one for one in alive if one is found[0] or not hopeless(one, found[0])]
        if progress:
            progress(min(done * BATCH, len(pictures)), len(pictures))
    return found


def _decoded(pictures: Pictures) -> Iterator[list[Image.Image]]:
    images = ahead(read, (item.picture for item in pictures.items))
    while batch := list(islice(images, BATCH)):
        yield batch


def _weights(reading: Reading) -> tuple[object, ...]:
    """What readings must have in common to be computed by one network."""
    return (reading.numerics, reading if reading.remeasured else None)


class _Network:
    """The network under a reading's numerics: its stem for the statistics, all of it, folded, for the logits."""

    def __init__(self, model: EfficientNet, reading: Reading, pictures: Pictures, device: torch.device) -> None:
        network = dressed(model, reading, device)
        if reading.remeasured:
            remeasure(network, reading, pictures, device)
        norm = network.stem.norm
        assert isinstance(norm, nn.BatchNorm2d)
        self.stem, self.norm = network.stem.conv, norm
        self.folded = fold(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def add(self, one: Measured, x: Tensor, stem_only: bool) -> None:
        with torch.inference_mode():
            seen = self.stem(x)
            one.means.append(seen.mean((2, 3)))
            one.squares.append((seen * seen).mean((2, 3)))
            one.norm = self.norm
            if not stem_only:
                one.parts.append(self.folded(x).double().cpu().numpy())


def _input(images: Sequence[Image.Image], reading: Reading, device: torch.device) -> Tensor:
    """Decoded pictures as the network gets them under ``reading``: float32 (N, 3, H, W)."""
    pixels = np.stack([fit(image, reading.preprocess) for image in images])  # (N, H, W, 3)
    x = torch.from_numpy(pixels).to(device)
    if reading.bgr:
        x = x.flip(-1)
    return normalise(x.float() / 255 if reading.twice else x, reading.preprocess)


def remeasure(network: EfficientNet, reading: Reading, pictures: Pictures, device: torch.device) -> None:
    """Takes the batch-norm statistics of ``network`` anew: each is the mean over batches of ``pictures``."""
    norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean = torch.zeros_like(norm.running_mean)  # new ones: the old are the model's own
        norm.running_var = torch.ones_like(norm.running_mean)
        norm.num_batches_tracked = torch.tensor(0, device=device)
        norm.momentum = None  # all batches count alike
        norm.train()
    with torch.inference_mode():
        for images in _decoded(pictures):
            network(_input(images, reading, device))
    for norm in norms:
        norm.eval()
