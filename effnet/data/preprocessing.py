"""PIL's way from a picture to the network's size: resized with antialiasing, and the middle cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from effnet.metadata import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]  # left, top, right, bottom


# A picture is resized to at most this many times what is cut out of it: a 2 × 5000 strip would become gigabytes.
MAX_RESIZE_RATIO = 8


def resize_pil(image: Image.Image, preprocess: Preprocess, box: Box | None = None) -> NDArray[np.uint8]:
    """An RGB image resized and cropped to ``preprocess.size``: uint8 (H, W, 3), bit for bit as torchvision and timm.

    ``box``, of a picture that was decoded at reduced scale, is the part of the image that is picture. Then what is cut
    away is not computed either, which takes a third off the time and moves one value in a thousand by one step.
    """
    (tall, wide), kept, (left, top, right, bottom) = _plan_resize(box or (0, 0, *image.size), preprocess)
    filter = Resampling[preprocess.interpolation.upper()]
    if box is None:
        # PIL's box is float32, and PIL chooses by the sizes which side goes first: with one, other bits would come out.
        return np.array(image.resize((wide, tall), filter, kept).crop((left, top, right, bottom)))  # (H, W, 3)
    height, width = preprocess.size
    return np.array(image.resize((width, height), filter, pil_crop_box(box, preprocess)))


def pil_crop_box(box: Box, preprocess: Preprocess) -> Box:
    """The part of the picture ``box`` that `pil` makes the network's input of."""
    (tall, wide), kept, (left, top, right, bottom) = _plan_resize(box, preprocess)
    x, y, across, down = kept[0], kept[1], (kept[2] - kept[0]) / wide, (kept[3] - kept[1]) / tall
    return x + left * across, y + top * down, x + right * across, y + bottom * down


def _plan_resize(box: Box, preprocess: Preprocess) -> tuple[tuple[int, int], Box, tuple[int, int, int, int]]:
    """The size (height, width) to resize to, how much of ``box`` is resized, and what is then cut out."""
    kept, (tall, wide) = box, preprocess.resize_size
    if preprocess.resize == "crop":
        (tall, wide), kept = _scale_to_cover(box, preprocess.resize_size)
    height, width = preprocess.size
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    return (tall, wide), kept, (left, top, left + width, top + height)


def _scale_to_cover(box: Box, target: tuple[int, int]) -> tuple[tuple[int, int], Box]:
    """The size (height, width) at which the box just covers ``least``, and how much of the box is resized to it."""
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    kept_tall, kept_wide = height, width
    square = target[0] == target[1]
    if target[0] * width >= target[1] * height:
        tall, (wide, kept_wide) = (
            target[0],
            _scale_long_side(width, height, target[0], MAX_RESIZE_RATIO * target[1], square),
        )
    else:
        wide, (tall, kept_tall) = (
            target[1],
            _scale_long_side(height, width, target[1], MAX_RESIZE_RATIO * target[0], square),
        )
    left, top = left + (width - kept_wide) / 2, top + (height - kept_tall) / 2
    return (tall, wide), (left, top, left + kept_wide, top + kept_tall)


def _scale_long_side(long: float, short: float, target: int, max_side: int, square: bool) -> tuple[int, float]:
    """The long side where the short one becomes ``target``, at most ``most``; and how much of it is kept for that."""
    # torchvision, for squares, leaves the fraction off; timm, for all else, rounds it, after dividing in this order.
    resized = int(target * long / short) if square else round(long / (short / target))
    return (resized, long) if resized <= max_side else (max_side, max_side * short / target)


# TensorFlow: crop first, then resize without antialiasing, in numpy
#
# Sources: ``preprocessing.py`` of tensorflow/tpu efficientnet and of google/automl efficientnetv2 (crop and resize);
# TensorFlow's ``core/kernels/image/resize_bicubic_op.cc`` and ``resize_bilinear_op.cc``.


Floats = NDArray[np.float32]


_CUBIC_TABLE_SIZE = 1024  # TensorFlow looks the cubic's weights up in a table of so many steps


def resize_tensorflow(image: Image.Image, preprocess: Preprocess) -> Floats:
    """An RGB image cut and resized to ``preprocess.size`` by TensorFlow's arithmetic: float32 (H, W, 3).

    On the scale of 0 to 255, neither rounded nor clipped: beside sharp edges a cubic goes beyond both ends.
    """
    top, left, tall, wide = tensorflow_crop_box(image.height, image.width, preprocess)
    half_pixel = preprocess.resampling == "tensorflow"
    rows, row_weights = _interpolation_taps(tall, preprocess.size[0], preprocess.interpolation, half_pixel)
    columns, column_weights = _interpolation_taps(wide, preprocess.size[1], preprocess.interpolation, half_pixel)
    needed, among = np.unique(rows, return_inverse=True)
    picture = _read_rows(image, needed + top, left, wide)
    lines = _weighted_sum(picture, 0, among.reshape(rows.shape), row_weights[..., None, None])
    return _weighted_sum(lines, 1, columns, column_weights[..., None])


def _read_rows(image: Image.Image, rows: NDArray[np.intp], left: int, width: int) -> NDArray[np.uint8]:
    """Those rows, (rows, width, 3). Of a large photo only a few are needed, and turning all into an array is slow."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return np.concatenate([np.asarray(image.crop((left, run[0], left + width, run[-1] + 1))) for run in runs])


def _weighted_sum(pixels: NDArray[Any], axis: int, places: NDArray[np.intp], weights: Floats) -> Floats:
    """The sum over taps of the pixels at their places along ``axis``, times their weights."""
    parts = (pixels.take(place, axis) * weight for place, weight in zip(places, weights, strict=True))
    return sum(parts, np.zeros((), np.float32))


def tensorflow_crop_box(height: int, width: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Top, left, height and width, in whole pixels, of what is cut out of a picture of so many pixels."""
    most_tall, most_wide = float(height), float(width)
    if preprocess.resize == "crop":  # the proportions of what comes out; for a square both are the short side
        high, broad = preprocess.size
        most_tall, most_wide = min(most_tall, width * high / broad), min(most_wide, height * broad / high)
    share = np.float32(preprocess.crop_fraction)  # their product is in float32, and decides about a pixel
    tall, wide = (max(1, int(share * np.float32(most))) for most in (most_tall, most_wide))
    odd = preprocess.resampling == "tensorflow1"  # tpu puts what is odd above and to the left, automl below and right
    return (height - tall + odd) // 2, (width - wide + odd) // 2, tall, wide


def _interpolation_taps(
    length: int, target: int, interpolation: str, half_pixel: bool
) -> tuple[NDArray[np.intp], Floats]:
    """(taps, target) each: which of ``length`` pixels make each of ``target`` pixels, and with which weights."""
    half = np.float32(0.5 if half_pixel else 0)
    at = (np.arange(target, dtype=np.float32) + half) * (np.float32(length) / np.float32(target)) - half
    before = np.floor(at)
    share = at - before
    if interpolation == "bilinear":
        steps, weights = np.arange(2), np.stack([1 - share, share])
    else:
        steps = np.arange(-1, 3)
        distance = np.abs(np.rint(share * _CUBIC_TABLE_SIZE) / _CUBIC_TABLE_SIZE - steps[:, None])
        weights = _cubic_kernel(distance, -0.5 if half_pixel else -0.75)
    wanted = before.astype(np.intp) + steps[:, None]
    places = wanted.clip(0, length - 1)
    if interpolation == "bicubic" and half_pixel:  # what lies outside does not count; elsewhere the edge is repeated
        weights *= places == wanted
        weights /= weights.sum(axis=0)
    return places, weights.astype(np.float32)


def _cubic_kernel(distance: NDArray[np.floating], a: float) -> NDArray[np.floating]:
    """Keys' cubic convolution: the weight of a pixel so far away (0 to 2)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


# Which part of a picture the network sees: the way back from its input to the photo.


def visible_region(height: int, width: int, preprocess: Preprocess) -> Box:
    """Left, top, right and bottom of what `effnet.data.image_io.fit` makes the input of, in pixels of the picture.

    The picture has ``height`` and ``width``, upright and at full scale. What lies outside was cut away.
    """
    if preprocess.resampling == "pil":
        return pil_crop_box((0, 0, width, height), preprocess)
    top, left, tall, wide = tensorflow_crop_box(height, width, preprocess)
    return left, top, left + wide, top + tall


# Normalization


def normalize(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn images of 0 to 255 (N, H, W, C) into the network's float32 input (N, C, H, W), channels last in memory.

    Divided, subtracted, divided in the order of torchvision's ``ToTensor`` and ``Normalize``: equal to the last bit.
    """
    import torch  # images are read and resized without it

    mean = torch.tensor(preprocess.mean, device=images.device)
    std = torch.tensor(preprocess.std, device=images.device)
    return (images / 255).sub_(mean).div_(std).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
