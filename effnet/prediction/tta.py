"""Test-time augmentation: the scores of several views of an image are averaged."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from effnet.data.image_io import InputImage
from effnet.metadata import Preprocess
from effnet.runtime.base import FloatArray
from effnet.tasks import Float64Array, Task

TTA_MODES = ("none", "mirror", "crops")
CROP_MARGIN = 8 / 7  # of the image over its crops if preprocessing leaves less: 256 to 224


def tta_preprocess(preprocess: Preprocess, tta: str) -> Preprocess:
    """Return the preprocessing from whose images `tta_views` takes its views.

    For "crops" it keeps what the center crop would cut off, except the ends of long images; where that is little or
    nothing, the image is made larger instead.
    """
    if tta != "crops":
        return preprocess
    (height, width), (min_height, min_width) = preprocess.resize_size, (round(CROP_MARGIN * s) for s in preprocess.size)
    return replace(preprocess, size=(max(height, min_height), max(width, min_width)), crop_fraction=1.0)


def average_scores(logits_of_views: Sequence[FloatArray], task: Task) -> Float64Array:
    """Return the mean scores (N, outputs) of several views' logits, after the activation; NaN if one is not finite."""
    total = np.zeros(logits_of_views[0].shape)
    for logits in logits_of_views:
        total += task.activate(logits)
        total[~np.isfinite(logits).all(1)] = np.nan
    return total / len(logits_of_views)


def tta_views(images: InputImage, preprocess: Preprocess, tta: str) -> Iterator[InputImage]:
    """Yield views (N, *preprocess.size, 3) of images that went through `tta_preprocess`.

    "none": the images. "mirror": the images, and mirrored left to right. "crops": center crop and the four corners.
    """
    if tta != "crops":
        yield images
        if tta == "mirror":
            yield np.ascontiguousarray(images[:, :, ::-1])
        return
    height, width = preprocess.size
    bottom, right = images.shape[1] - height, images.shape[2] - width
    for y, x in ((round(bottom / 2), round(right / 2)), (0, 0), (0, right), (bottom, 0), (bottom, right)):
        yield np.ascontiguousarray(images[:, y : y + height, x : x + width])
