"""From an image to the network's input: resize and crop as PIL or as TensorFlow does, and normalization."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.metadata import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]  # left, top, right, bottom
Float32Array = NDArray[np.float32]

# An image is resized to at most this many times the size of the crop: a 2 × 5000 strip would become gigabytes.
MAX_RESIZE_RATIO = 8
_CUBIC_TABLE_SIZE = 1024  # TensorFlow looks up the cubic kernel's weights in a table of this many steps


def visible_region(height: int, width: int, preprocess: Preprocess) -> Box:
    """Return the region of an image, upright and at full scale, that becomes the network's input."""
    if preprocess.resampling == "pil":
        return pil_crop_box((0, 0, width, height), preprocess)
    top, left, crop_height, crop_width = tensorflow_crop_box(height, width, preprocess)
    return left, top, left + crop_width, top + crop_height


def resize_pil(image: Image.Image, preprocess: Preprocess, box: Box | None = None) -> NDArray[np.uint8]:
    """Resize with antialiasing and crop an image to ``preprocess.size``: uint8 (H, W, C), as torchvision and timm.

    ``box`` is the region that is image in an image decoded at reduced scale. With it, what is cropped away is not
    computed either, which saves a third of the time and changes one value in a thousand by one step.
    """
    (tall, wide), kept, (left, top, right, bottom) = _plan_resize(box or (0, 0, *image.size), preprocess)
    filter = Image.Resampling[preprocess.interpolation.upper()]
    if box is None:
        # PIL's box is float32, and by the sizes PIL chooses which side goes first: with a box, other bits come out.
        return np.atleast_3d(np.array(image.resize((wide, tall), filter, kept).crop((left, top, right, bottom))))
    height, width = preprocess.size
    return np.atleast_3d(np.array(image.resize((width, height), filter, pil_crop_box(box, preprocess))))  # (H, W, C)


def pil_crop_box(box: Box, preprocess: Preprocess) -> Box:
    """Return the part of the region ``box`` that `resize_pil` makes the network's input."""
    (tall, wide), kept, (left, top, right, bottom) = _plan_resize(box, preprocess)
    x, y, dx, dy = kept[0], kept[1], (kept[2] - kept[0]) / wide, (kept[3] - kept[1]) / tall
    return x + left * dx, y + top * dy, x + right * dx, y + bottom * dy


def _plan_resize(box: Box, preprocess: Preprocess) -> tuple[tuple[int, int], Box, tuple[int, int, int, int]]:
    """Return the size (height, width) to resize to, the part of ``box`` that is resized, and the crop of the result."""
    kept, (tall, wide) = box, preprocess.resize_size
    if preprocess.resize == "crop":
        (tall, wide), kept = _scale_to_cover(box, preprocess.resize_size)
    height, width = preprocess.size
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    return (tall, wide), kept, (left, top, left + width, top + height)


def _scale_to_cover(box: Box, target: tuple[int, int]) -> tuple[tuple[int, int], Box]:
    """Return the size (height, width) at which the box just covers ``target``, and the part of it that is resized."""
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    kept_height, kept_width = height, width
    square = target[0] == target[1]
    if target[0] * width >= target[1] * height:
        tall = target[0]
        wide, kept_width = _scale_long_side(width, height, tall, MAX_RESIZE_RATIO * target[1], square)
    else:
        wide = target[1]
        tall, kept_height = _scale_long_side(height, width, wide, MAX_RESIZE_RATIO * target[0], square)
    left, top = left + (width - kept_width) / 2, top + (height - kept_height) / 2
    return (tall, wide), (left, top, left + kept_width, top + kept_height)


def _scale_long_side(long: float, short: float, target: int, max_side: int, square: bool) -> tuple[int, float]:
    """Return the long side when the short one becomes ``target``, at most ``max_side``, and how much of it is kept."""
    # torchvision, for squares, truncates; timm, for all other sizes, rounds after dividing in this order.
    side = int(target * long / short) if square else round(long / (short / target))
    return (side, long) if side <= max_side else (max_side, max_side * short / target)


# TensorFlow: crop first, then resize without antialiasing, in numpy
#
# Sources: ``preprocessing.py`` of tensorflow/tpu efficientnet and of google/automl efficientnetv2 (crop and resize);
# TensorFlow's ``core/kernels/image/resize_bicubic_op.cc`` and ``resize_bilinear_op.cc``.


def resize_tensorflow(image: Image.Image, preprocess: Preprocess) -> Float32Array:
    """Crop and resize an image as TensorFlow does: float32 (H, W, C), 0 to 255 with a cubic's overshoots."""
    top, left, height, width = tensorflow_crop_box(image.height, image.width, preprocess)
    half_pixel = preprocess.resampling == "tensorflow"
    rows, row_weights = _interpolation_taps(height, preprocess.size[0], preprocess.interpolation, half_pixel)
    columns, column_weights = _interpolation_taps(width, preprocess.size[1], preprocess.interpolation, half_pixel)
    needed, index = np.unique(rows, return_inverse=True)
    pixels = _read_rows(image, needed + top, left, width)
    lines = _weighted_sum(pixels, 0, index.reshape(rows.shape), row_weights[..., None, None])
    return _weighted_sum(lines, 1, columns, column_weights[..., None])


def tensorflow_crop_box(height: int, width: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Return top, left, height and width, in whole pixels, of the crop of an image of this size."""
    max_height, max_width = float(height), float(width)
    if preprocess.resize == "crop":  # the output's aspect ratio; for a square both are the short side
        out_height, out_width = preprocess.size
        max_height = min(max_height, width * out_height / out_width)
        max_width = min(max_width, height * out_width / out_height)
    fraction = np.float32(preprocess.crop_fraction)  # the product is in float32, and decides about a pixel
    crop_height, crop_width = (max(1, int(fraction * np.float32(side))) for side in (max_height, max_width))
    odd = preprocess.resampling == "tensorflow1"  # tpu puts the odd pixel above and left, automl below and right
    return (height - crop_height + odd) // 2, (width - crop_width + odd) // 2, crop_height, crop_width


def _read_rows(image: Image.Image, rows: NDArray[np.intp], left: int, width: int) -> NDArray[np.uint8]:
    """Return these rows, (rows, width, C): of a large photo only few are needed, and converting all is slow."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    parts = [np.asarray(image.crop((left, run[0], left + width, run[-1] + 1))) for run in runs]
    return np.concatenate(list(map(np.atleast_3d, parts)))


def _weighted_sum(pixels: NDArray[Any], axis: int, places: NDArray[np.intp], weights: Float32Array) -> Float32Array:
    """Return the sum over taps of the pixels at ``places`` along ``axis`` times their weights."""
    parts = (pixels.take(place, axis) * weight for place, weight in zip(places, weights, strict=True))
    return sum(parts, np.zeros((), np.float32))


def _interpolation_taps(
    length: int, target: int, interpolation: str, half_pixel: bool
) -> tuple[NDArray[np.intp], Float32Array]:
    """Return (taps, target) each: which of ``length`` pixels make each of ``target`` pixels, and their weights."""
    half = np.float32(0.5 if half_pixel else 0)
    position = (np.arange(target, dtype=np.float32) + half) * (np.float32(length) / np.float32(target)) - half
    floor = np.floor(position)
    fraction = position - floor
    if interpolation == "bilinear":
        offsets, weights = np.arange(2), np.stack([1 - fraction, fraction])
    else:
        offsets = np.arange(-1, 3)
        distance = np.abs(np.rint(fraction * _CUBIC_TABLE_SIZE) / _CUBIC_TABLE_SIZE - offsets[:, None])
        weights = _cubic_kernel(distance, -0.5 if half_pixel else -0.75)
    taps = floor.astype(np.intp) + offsets[:, None]
    places = taps.clip(0, length - 1)
    if interpolation == "bicubic" and half_pixel:  # pixels outside do not count; otherwise the edge is repeated
        weights *= places == taps
        weights /= weights.sum(axis=0)
    return places, weights.astype(np.float32)


def _cubic_kernel(distance: NDArray[np.floating], a: float) -> NDArray[np.floating]:
    """Return the weight of a pixel at ``distance`` (0 to 2) in Keys' cubic convolution."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def normalize(images: "Tensor", preprocess: Preprocess) -> "Tensor":
    """Turn images of 0 to 255 (N, H, W, C) into the network's float32 input (N, C, H, W), channels last in memory.

    Divided, subtracted, divided in the order of torchvision's ``ToTensor`` and ``Normalize``: equal to the last bit.
    """
    import torch  # images are read and resized without it

    mean = torch.tensor(preprocess.mean, device=images.device)
    std = torch.tensor(preprocess.std, device=images.device)
    return (images / 255).sub_(mean).div_(std).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
