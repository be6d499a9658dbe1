"""A map laid over its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.data.pixels import Fitted

# From what speaks a little for a class to what speaks most for it: dark violet, red, orange, yellow, as of embers.
# Each is brighter than the one before, so that they keep their order for those who are colour-blind, and in print.
STOPS = ((0.0, (60, 15, 110)), (0.35, (190, 40, 80)), (0.7, (250, 140, 20)), (1.0, (255, 245, 130)))
STRENGTH = 0.62  # how much of the picture the strongest part covers
DIM = 0.75  # brightness of the picture, in grey, below the colours: these alone are to say where to look


def overlay(picture: Fitted, values: NDArray[np.float32], most: float | None = None) -> Image.Image:
    """``picture`` in grey, and over it in colours what of ``values`` is above zero; what speaks against is not shown.

    ``picture``: (H, W, 3) of 0 to 255; ``values``: (height, width), one map of `activation`, stretched smoothly over
    all of it. ``most``: the value of the brightest colour, for pictures that are to be compared; None for the map's own
    largest. An RGB image of the picture's size. Raises ``ValueError`` for shapes that are no picture and no map.
    """
    if picture.ndim != 3 or values.ndim != 2:
        raise ValueError(f"give one picture (H, W, 3) and one map (height, width), not {picture.shape}, {values.shape}")
    high, wide = picture.shape[:2]
    grey = np.asarray(Image.fromarray(picture.clip(0, 255).astype(np.uint8)).convert("L"), np.float32)[..., None]
    stretched = np.asarray(Image.fromarray(values.astype(np.float32)).resize((wide, high), Image.Resampling.BICUBIC))
    top = float(values.max()) if most is None else most
    share = (stretched / top).clip(0, 1) if top > 0 else np.zeros((high, wide), np.float32)  # (H, W)
    places, colours = [place for place, _ in STOPS], np.array([colour for _, colour in STOPS], np.float32)
    shade = np.stack([np.interp(share, places, colours[:, channel]) for channel in range(3)], -1)  # (H, W, 3)
    cover = STRENGTH * np.minimum(share / 0.5, 1)[..., None]
    mixed = DIM * grey * (1 - cover) + shade * cover
    return Image.fromarray(mixed.round().astype(np.uint8))
