"""Drawing a map over its image."""

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.data import image_io, preprocessing

# From little support for a class to most: dark violet, red, orange, yellow, like embers. Each color is brighter than
# the one before, so that the order is visible to the color-blind and in print.
COLOR_STOPS = ((0.0, (60, 15, 110)), (0.35, (190, 40, 80)), (0.7, (250, 140, 20)), (1.0, (255, 245, 130)))
OVERLAY_OPACITY = 0.62  # where the map is strongest
PHOTO_BRIGHTNESS = 0.75  # of the gray photo below the colors, so that only the map shows where to look
UNSEEN_BRIGHTNESS = 0.45  # of that, where the network did not see the photo


def overlay(
    image: image_io.InputImage,
    values: NDArray[np.float32],
    maximum: float | None = None,
    box: preprocessing.Box | None = None,
) -> Image.Image:
    """Draw the positive part of a map (height, width) in colors over the image (H, W, C) of 0 to 255 in gray.

    ``maximum`` is the value of the brightest color, for maps that are to be compared; default: the map's own maximum.
    What is outside of ``box``, the part of the image that the map covers, is darkened.
    """
    if image.ndim != 3 or values.ndim != 2:
        raise ValueError(f"expected an image (H, W, 3) and a map (height, width), got {image.shape} and {values.shape}")
    height, width = image.shape[:2]
    shown = image[..., 0] if image.shape[2] < 3 else image[..., :3]  # without alpha
    gray = np.asarray(Image.fromarray(shown.clip(0, 255).astype(np.uint8)).convert("L"), np.float32)[..., None]
    stretched = place_map(values, (height, width), box or (0, 0, width, height))
    visible = ~np.isnan(stretched)
    colors, opacity = colorize(np.where(visible, stretched, 0), float(values.max()) if maximum is None else maximum)
    background = PHOTO_BRIGHTNESS * gray * np.where(visible, 1, UNSEEN_BRIGHTNESS)[..., None]
    return Image.fromarray((background * (1 - opacity) + colors * opacity).round().astype(np.uint8))


def colorize(values: NDArray[np.float32], maximum: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the colors of a map, (H, W, 3) of 0 to 255, and their opacity, (H, W, 1), 0 for negative values."""
    share = (values / maximum).clip(0, 1) if maximum > 0 else np.zeros(values.shape, np.float32)
    stops, colors = [stop for stop, _ in COLOR_STOPS], np.array([color for _, color in COLOR_STOPS], np.float32)
    mixed = np.stack([np.interp(share, stops, colors[:, channel]) for channel in range(3)], -1)
    return mixed, OVERLAY_OPACITY * np.minimum(share / 0.5, 1)[..., None]


def place_map(values: NDArray[np.float32], size: tuple[int, int], box: preprocessing.Box) -> NDArray[np.float32]:
    """Return a map stretched over the part ``box`` of an image of ``size``: (H, W), NaN outside of it.

    Pixels that the border of ``box`` cuts through are outside.
    """
    (left, top, right, bottom), (height, width) = box, size
    x0, y0, x1, y1 = max(0, ceil(left)), max(0, ceil(top)), min(width, floor(right)), min(height, floor(bottom))
    placed = np.full(size, np.nan, np.float32)
    if x0 < x1 and y0 < y1:
        scale_x, scale_y = values.shape[1] / (right - left), values.shape[0] / (bottom - top)
        region = ((x0 - left) * scale_x, (y0 - top) * scale_y, (x1 - left) * scale_x, (y1 - top) * scale_y)
        image = Image.fromarray(values.astype(np.float32))
        placed[y0:y1, x0:x1] = np.asarray(image.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, region))
    return placed
