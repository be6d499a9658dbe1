"""Test-time augmentation: several views of a picture, whose answers are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from effnet.data.image_io import InputImage
from effnet.metadata import Preprocess

TTA_MODES = ("none", "mirror", "crops")
CROP_MARGIN = 8 / 7  # of a picture over its crops, where preprocessing leaves less: 256 to 224


def tta_preprocess(preprocess: Preprocess, tta: str) -> Preprocess:
    """How a picture must be prepared for its ``views`` to be taken by `each`.

    For "crops" it keeps what preprocessing cuts off, but for the ends of long pictures; where little or nothing is
    cut off, the picture becomes larger in its place.
    """
    if tta != "crops":
        return preprocess
    (high, wide), (least_high, least_wide) = (
        preprocess.resize_size,
        (round(CROP_MARGIN * side) for side in preprocess.size),
    )
    return replace(preprocess, size=(max(high, least_high), max(wide, least_wide)), crop_fraction=1.0)


def tta_views(images: InputImage, preprocess: Preprocess, tta: str) -> Iterator[InputImage]:
    """The views of pictures (N, H, W, 3) that were `prepared`: (N, *preprocess.size, 3) each.

    "none": themselves. "mirror": also from right to left. "crops": the middle, which is what is seen without, and the
    four corners.
    """
    if tta != "crops":
        yield images
        if tta == "mirror":
            yield np.ascontiguousarray(images[:, :, ::-1])
        return
    high, wide = preprocess.size
    down, right = images.shape[1] - high, images.shape[2] - wide
    for top, left in ((round(down / 2), round(right / 2)), (0, 0), (0, right), (down, 0), (down, right)):
        yield np.ascontiguousarray(images[:, top : top + high, left : left + wide])
