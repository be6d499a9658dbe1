"""The operations that AutoAugment and RandAugment choose from, on RGB pictures, as in the official EfficientNet code.

That code is written in TensorFlow, ours in PIL. Geometry takes the nearest pixel and fills with grey; what it does is
the same but for ties. Of the colours, ``colour`` and ``sharpness`` round their intermediate picture otherwise, by one.
What surprises here is theirs, and is what the published accuracies were trained with.
"""

from __future__ import annotations

from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)
_NEAREST = Image.Resampling.NEAREST


def autocontrast(picture: Image.Image) -> Image.Image:
    """Each channel stretched to 0 … 255."""
    return ImageOps.autocontrast(picture)


def equalize(picture: Image.Image) -> Image.Image:
    """Each channel's histogram made even."""
    return ImageOps.equalize(picture)


def invert(picture: Image.Image) -> Image.Image:
    """The negative."""
    return ImageOps.invert(picture)


def posterize(picture: Image.Image, bits: int) -> Image.Image:
    """The upper ``bits`` of each number; one for 0, since seven are shifted out at the most.

    One also from 9 on: a shift of −1 is the byte 255, and of that seven.
    """
    shift = min((8 - bits) % 256, 7)
    return picture.point([value >> shift << shift for value in range(256)] * 3)


def solarize(picture: Image.Image, threshold: int) -> Image.Image:
    """The negative of what is not below ``threshold``, a byte: 256 is 0 (all of it), 435 is 179."""
    return ImageOps.solarize(picture, threshold % 256)


def solarize_add(picture: Image.Image, addition: int) -> Image.Image:
    """What is below 128 brighter by ``addition``."""
    return picture.point([min(value + addition, 255) if value < 128 else value for value in range(256)] * 3)


def colour(picture: Image.Image, factor: float) -> Image.Image:
    """Saturation: 0 for grey, 1 as it is, above it more."""
    return ImageEnhance.Color(picture).enhance(factor)


def contrast(picture: Image.Image, factor: float) -> Image.Image:
    """Away from or towards an even grey: a 256th of how many pixels there are, white from 256×256 on.

    The official code means the mean of the picture, and divides the sum of its histogram's counts instead.
    """
    level = min(picture.width * picture.height // 256, 255)
    return Image.blend(Image.new("RGB", picture.size, (level,) * 3), picture, factor)


def brightness(picture: Image.Image, factor: float) -> Image.Image:
    """0 for black, 1 as it is, above it brighter."""
    return ImageEnhance.Brightness(picture).enhance(factor)


def sharpness(picture: Image.Image, factor: float) -> Image.Image:
    """0 for blurred, 1 as it is, above it sharpened."""
    return ImageEnhance.Sharpness(picture).enhance(factor)


def rotate(picture: Image.Image, degrees: float) -> Image.Image:
    """About the middle, counterclockwise."""
    return picture.rotate(degrees, _NEAREST, fillcolor=GREY)


def shear_x(picture: Image.Image, slope: float) -> Image.Image:
    """Each row shifted to the left by ``slope`` times its number; the first one stays."""
    return _moved(picture, (1, slope, -slope / 2, 0, 1, 0))  # PIL counts from pixels' corners, TensorFlow from centres


def shear_y(picture: Image.Image, slope: float) -> Image.Image:
    """Each column shifted up by ``slope`` times its number; the first one stays."""
    return _moved(picture, (1, 0, 0, slope, 1, -slope / 2))


def translate_x(picture: Image.Image, pixels: float) -> Image.Image:
    """To the left."""
    return _moved(picture, (1, 0, pixels, 0, 1, 0))


def translate_y(picture: Image.Image, pixels: float) -> Image.Image:
    """Up."""
    return _moved(picture, (1, 0, 0, 0, 1, pixels))


def cutout(picture: Image.Image, half: int, column: int, row: int) -> Image.Image:
    """A grey square of twice ``half`` about (``column``, ``row``); what lies outside is cut off (arXiv:1708.04552)."""
    covered = picture.copy()
    covered.paste(GREY, (column - half, row - half, column + half, row + half))
    return covered


def _moved(picture: Image.Image, back: tuple[float, ...]) -> Image.Image:
    """``back`` takes a place in the result to where it was in ``picture``."""
    return picture.transform(picture.size, Image.Transform.AFFINE, back, _NEAREST, fillcolor=GREY)
