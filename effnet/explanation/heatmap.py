"""A map laid over its picture."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.data.image_io import InputImage
from effnet.data.preprocessing import Box

# From what speaks a little for a class to what speaks most for it: dark violet, red, orange, yellow, as of embers.
# Each is brighter than the one before, so that they keep their order for those who are colour-blind, and in print.
COLOR_STOPS = ((0.0, (60, 15, 110)), (0.35, (190, 40, 80)), (0.7, (250, 140, 20)), (1.0, (255, 245, 130)))
OVERLAY_OPACITY = 0.62  # how much of the picture the strongest part covers
PHOTO_BRIGHTNESS = 0.75  # brightness of the picture, in grey, below the colours: these alone are to say where to look
UNSEEN_BRIGHTNESS = 0.45  # of that, where the network did not see the picture


def overlay(
    image: InputImage, values: NDArray[np.float32], maximum: float | None = None, box: Box | None = None
) -> Image.Image:
    """``picture`` in grey, and over it in colours what of ``values`` is above zero; what speaks against is not shown.

    ``picture``: (H, W, 3) of 0 to 255; ``values``: (height, width), one map of `activation`, stretched smoothly over
    all of it, or over the part ``box`` (left, top, right, bottom) of it; what lies outside is darker, without colour.
    ``most``: the value of the brightest colour, for pictures that are to be compared; None for the map's own largest.
    An RGB image of the picture's size. Raises ``ValueError`` for shapes that are no picture and no map.
    """
    if image.ndim != 3 or values.ndim != 2:
        raise ValueError(f"give one picture (H, W, 3) and one map (height, width), not {image.shape}, {values.shape}")
    high, wide = image.shape[:2]
    grey = np.asarray(Image.fromarray(image.clip(0, 255).astype(np.uint8)).convert("L"), np.float32)[..., None]
    stretched = place_map(values, (high, wide), box or (0, 0, wide, high))
    seen = ~np.isnan(stretched)
    top = float(values.max()) if maximum is None else maximum
    shade, cover = colorize(np.where(seen, stretched, 0), top)
    mixed = PHOTO_BRIGHTNESS * grey * np.where(seen, 1, UNSEEN_BRIGHTNESS)[..., None] * (1 - cover) + shade * cover
    return Image.fromarray(mixed.round().astype(np.uint8))


def colorize(values: NDArray[np.float32], maximum: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A map (H, W) as colours (H, W, 3) of 0 to 255, and how much of the picture they cover, (H, W, 1) of 0 to 1.

    What is not above zero covers nothing. ``most``: the value of the brightest colour.
    """
    share = (values / maximum).clip(0, 1) if maximum > 0 else np.zeros(values.shape, np.float32)
    places, colours = [place for place, _ in COLOR_STOPS], np.array([colour for _, colour in COLOR_STOPS], np.float32)
    shade = np.stack([np.interp(share, places, colours[:, channel]) for channel in range(3)], -1)
    return shade, OVERLAY_OPACITY * np.minimum(share / 0.5, 1)[..., None]


def place_map(values: NDArray[np.float32], size: tuple[int, int], box: Box) -> NDArray[np.float32]:
    """The map (height, width) stretched over the part ``box`` of a picture of ``size``: (H, W), NaN outside of it.

    A pixel of the picture that ``box`` cuts through is outside.
    """
    (left, top, right, bottom), (high, wide) = box, size
    x, y, beyond, below = max(0, ceil(left)), max(0, ceil(top)), min(wide, floor(right)), min(high, floor(bottom))
    found = np.full(size, np.nan, np.float32)
    if x < beyond and y < below:
        across, down = values.shape[1] / (right - left), values.shape[0] / (bottom - top)
        cut = ((x - left) * across, (y - top) * down, (beyond - left) * across, (below - top) * down)
        whole = Image.fromarray(values.astype(np.float32))
        found[y:below, x:beyond] = np.asarray(whole.resize((beyond - x, below - y), Image.Resampling.BICUBIC, cut))
    return found
