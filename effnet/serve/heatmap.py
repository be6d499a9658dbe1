"""A class's map as a picture: over what the network saw, or as a layer of its own to lay over the photo."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.data.image_io import InputImage
from effnet.data.preprocessing import visible_region
from effnet.explanation.heatmap import colorize, overlay, place_map
from effnet.metadata import Preprocess
from effnet.serve.upload import ImageHeader


def visible_box(facts: ImageHeader, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """What the network sees of the upright picture: left, top, right, bottom as shares of its width and height."""
    left, top, right, bottom = visible_region(facts.height, facts.width, preprocess)
    return left / facts.width, top / facts.height, right / facts.width, bottom / facts.height


def overlay_png(image: InputImage, values: NDArray[np.float32]) -> bytes:
    """The map over the picture (H, W, 3) that the network saw, which is grey below it: a PNG."""
    return _encode_png(overlay(image, values))


def layer_png(size: tuple[int, int], values: NDArray[np.float32]) -> bytes:
    """The map alone, of that (height, width), and transparent where nothing speaks for the class: a PNG."""
    high, wide = size
    shade, cover = colorize(place_map(values, size, (0, 0, wide, high)), float(values.max()))
    return _encode_png(Image.fromarray(np.concatenate([shade, 255 * cover], -1).round().astype(np.uint8), "RGBA"))


def _encode_png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
