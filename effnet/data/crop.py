"""A random part of a picture at the network's size: drawn first, so that no more is decoded than will be seen."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional

from effnet.contract import Preprocess
from effnet.data.pixels import Chosen, Pixels, Source, part
from effnet.data.resize import Box

RATIOS = (3 / 4, 4 / 3)  # of a crop's width to its height (Szegedy et al., arXiv:1409.4842, section 6)
_TRIES = 10
_BY_TORCH = ("bilinear", "bicubic")


def random_crop(preprocess: Preprocess, least: float) -> Callable[[Source], Pixels]:
    """A function from a picture to a random part of it, uint8 (H, W, 3) of ``preprocess.size``.

    At least the share ``least`` of its area is kept, as torchvision's ``RandomResizedCrop`` does it; the dice are
    torch's own. With ``decode="reduced"`` a JPEG is decoded at the smallest scale at which no pixel has to be made up.
    It raises ``PictureError`` as `effnet.data.pixels.read` does.
    """

    size, interpolation = preprocess.size, preprocess.interpolation

    def draw(height: int, width: int) -> Chosen:
        return drawn(height, width, least), size

    def crop(source: Source) -> Pixels:
        if isinstance(source, np.ndarray) and source.shape[2:] == (3,) and source.dtype == np.uint8:
            left, top, right, bottom = drawn(source.shape[0], source.shape[1], least)
            return resized(source[top:bottom, left:right], size, interpolation)
        return resized(cut_out(*part(source, draw, preprocess.decode == "reduced")), size, interpolation)

    return crop


def cut_out(image: Image.Image, box: Box) -> Pixels:
    """The part of an RGB image, uint8 (H, W, 3), to whole pixels that belong to it at least by half."""
    left, top, right, bottom = map(round, box)
    return np.array(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))


def drawn(height: int, width: int, least: float) -> tuple[int, int, int, int]:
    """A part of a picture of so many pixels, of a share between ``least`` and 1 of its area and one of `RATIOS`.

    Where ten throws do not fit, it is the middle, as much of it as has such a ratio.
    """
    area = height * width
    low, high = map(log, RATIOS)
    for share, ratio, across, down in torch.rand(_TRIES, 4, dtype=torch.float64).tolist():
        aimed = area * (least + share * (1 - least))
        slope = exp(low + ratio * (high - low))
        wide, tall = round((aimed * slope) ** 0.5), round((aimed / slope) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, round(height * RATIOS[1]))
    tall = min(height, round(width / RATIOS[0]))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def resized(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Uint8 (H, W, 3) of ``size`` (height, width), with antialiasing.

    Torch computes in whole numbers as PIL does, several times as fast; between the two, one value in twenty differs by
    a step. What torch has not (lanczos, box, nearest), PIL does.
    """
    if pixels.shape[:2] == size:
        return pixels
    if interpolation not in _BY_TORCH:
        height, width = size
        filter = Resampling[interpolation.upper()]
        return np.array(Image.fromarray(pixels).resize((width, height), filter))
    batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))[None].permute(
        0, 3, 1, 2
    )  # (H, W, 3) -> (1, 3, H, W)
    done: Tensor = functional.interpolate(batch, size, mode=interpolation, antialias=True)
    return done[0].permute(1, 2, 0).numpy()  # (1, 3, H, W) -> (H, W, 3)
