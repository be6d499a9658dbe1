"""Images of more than 8 bits per sample: in how many bits their values lie, and how they become 8 bits. No torch."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OWN_MAXIMUM = -1  # instead of a number of bits: as few as this image's values need, to compare images, not to show them
BITS = (8, 10, 12, 14, 16)  # of sensors, as far as files hold them
MAX_CLIPPED_FRACTION = 0.001  # of pixels above the stated number of bits: hot pixels, which become white

_TIFF_BITS_PER_SAMPLE, _TIFF_MAX_SAMPLE_VALUE = 258, 281
_PNG_SCALES = {"L;2": 85, "L;4": 17}  # by which PIL multiplies the values of grey, but not the transparent one
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # PIL's byte orders of 16 bits


@dataclass(frozen=True, slots=True)
class SampleDepth:
    """In how many bits the values of an opened image lie.

    ``bits``: what the file says; ``container``: what it has room for; ``scaled``: PIL has already spread the values
    over the container, so that fewer bits cannot be meant. ``low``: PIL's name of how to decode the lower bytes, of
    which it drops those of colors.
    """

    bits: int
    container: int
    scaled: bool = False
    low: str = ""

    def resolve(self, stated: int, maximum: Callable[[], int]) -> int:
        """Return the number of bits to read; ``stated``: by the user or a model, 0 if nobody did."""
        if stated == OWN_MAXIMUM:
            return self.container if self.scaled else max(8, maximum().bit_length())
        return self.bits if self.scaled or not stated else min(stated, self.container)


def sample_depth(image: Image.Image) -> SampleDepth | None:
    """Return the depth of an image that is opened and perhaps not loaded; None for up to 8 bits, and 32 bits."""
    raw_mode = _raw_mode(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Netpbm states its maximum, and JPEG 2000 its bits; PIL spreads both over 16
        netpbm = image.format == "PPM" and any(tile.codec_name != "raw" for tile in _tiles(image))
        if netpbm or image.format == "JPEG2000":
            return SampleDepth(16, 16, scaled=True)
        container = 16 if image.format != "TIFF" else _tiff_bits(image)
        return SampleDepth(_stated_bits(image) or container, container)
    if image.mode == "I" and image.format == "TIFF" and _tiff_bits(image) == 16:
        return SampleDepth(_stated_bits(image) or 15, 15)  # signed: negative values are refused
    if image.mode in ("RGB", "RGBA", "CMYK") and ";16" in raw_mode:
        kind, order = raw_mode[:-1], raw_mode[-1]
        # of grey with alpha and of premultiplied colors PIL has no way to the lower bytes
        low = kind + _SWAPPED[order] if kind in ("RGB;16", "RGBA;16", "RGBX;16", "CMYK;16") else ""
        return SampleDepth(_stated_bits(image) or 16, 16, low=low)
    return None


def decode_low_bytes(image: Image.Image, depth: SampleDepth) -> NDArray[np.uint16]:
    """Return the lower bytes of 16-bit colors (H, W, C): ``image`` is opened again, and decoded with bytes swapped."""
    tiles = []
    for tile in _tiles(image):
        args = depth.low if isinstance(tile.args, str) else (depth.low, *tile.args[1:])
        tiles.append(tile._replace(args=args))
    image.tile = tiles  # type: ignore[attr-defined]
    image.load()
    return np.asarray(image, np.uint16)


def fix_transparency(image: Image.Image) -> None:
    """Scale the transparent grey of a PNG of 2 or 4 bits as PIL scales its pixels."""
    scale, value = _PNG_SCALES.get(_raw_mode(image)), image.info.get("transparency")
    if image.format == "PNG" and scale and isinstance(value, int):
        image.info["transparency"] = value * scale


def to_8_bits(
    image: Image.Image, depth: SampleDepth, stated: int, read_low: Callable[[], NDArray[np.uint16]]
) -> Image.Image:
    """Return a loaded image as L, LA, RGB, RGBA or CMYK. ``read_low`` decodes the lower bytes of colors.

    Raises ``ValueError`` with what is wrong with its values, to follow the image's name.
    """
    transparent = image.info.get("transparency")
    if image.mode in ("RGB", "RGBA", "CMYK"):
        exact = stated == OWN_MAXIMUM or depth.resolve(stated, lambda: 0) < 16 or isinstance(transparent, tuple)
        if not exact:
            return image
        if not depth.low:
            if stated in (0, OWN_MAXIMUM):
                return image
            raise ValueError(f"has 16 bits and alpha, which cannot be read as {stated} bits: save it without alpha")
        values = np.asarray(image, np.uint16) << 8 | read_low()
    else:
        values = np.asarray(image).astype(np.int32)  # (H, W)
        if values.size and values.min() < 0:
            raise ValueError("has negative values: shift them to 0 and above, and save it with 8 or 16 bits")
    colors = values[..., :3] if image.mode == "RGBA" else values
    bits = depth.resolve(stated, lambda: int(colors.max()))
    reduced = _reduce(colors, bits)
    if image.mode in ("RGBA", "CMYK"):
        alpha = values[..., 3:]
        fits = image.mode == "CMYK" or alpha.max() < 1 << bits
        if image.mode == "RGBA":
            reduced = np.concatenate([reduced, _reduce(alpha, bits if fits else 16)], -1)
        return Image.fromarray(np.ascontiguousarray(reduced), image.mode)
    if image.info.get("white_is_zero"):
        reduced = 255 - reduced
    if transparent is None:
        return Image.fromarray(reduced)
    seen = (colors != np.asarray(transparent)).reshape(*colors.shape[:2], -1).any(-1)
    return Image.fromarray(np.dstack([reduced, np.where(seen, 255, 0).astype(np.uint8)]))


def _reduce(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    above = values > (1 << bits) - 1
    if above.mean() > MAX_CLIPPED_FRACTION:
        raise ValueError(
            f"has values up to {int(values.max())}, and is read as {bits} bits: pass --bits 16, or leave it out"
        )
    return np.where(above, 255, values >> (bits - 8)).astype(np.uint8)


def _tiles(image: Image.Image) -> list[Any]:
    """Return how the file is to be decoded: empty for an image that was never in one, or is loaded."""
    return list(getattr(image, "tile", ()))


def _raw_mode(image: Image.Image) -> str:
    tiles = _tiles(image)
    args = tiles[0].args if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _tiff_bits(image: Image.Image) -> int:
    return int(getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (16,))[0])


def _stated_bits(image: Image.Image) -> int:
    """Return the bits of a TIFF's highest value as its tags state it, or 0."""
    maximum = getattr(image, "tag_v2", {}).get(_TIFF_MAX_SAMPLE_VALUE, (0,))
    highest = max(maximum) if isinstance(maximum, tuple) else maximum
    return min(16, max(8, int(highest).bit_length())) if highest else 0
