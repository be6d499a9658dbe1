"""The operations that AutoAugment and RandAugment choose from, on RGB pictures, as in the official EfficientNet code.

That code is written in TensorFlow, ours in PIL. Geometry takes the nearest pixel and fills with grey; what it does is
the same but for ties. Of the colours, ``colour`` and ``sharpness`` round their intermediate picture otherwise, by one.
What surprises here is theirs, and is what the published accuracies were trained with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance, ImageOps

GRAY = (128, 128, 128)


_NEAREST = Image.Resampling.NEAREST


def autocontrast(image: Image.Image) -> Image.Image:
    """Each channel stretched to 0 … 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image) -> Image.Image:
    """Each channel's histogram made even."""
    return ImageOps.equalize(image)


def invert(image: Image.Image) -> Image.Image:
    """The negative."""
    return ImageOps.invert(image)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """The upper ``bits`` of each number; one for 0, since seven are shifted out at the most.

    One also from 9 on: a shift of −1 is the byte 255, and of that seven.
    """
    shift = min((8 - bits) % 256, 7)
    return image.point([value >> shift << shift for value in range(256)] * 3)


def solarize(image: Image.Image, threshold: int) -> Image.Image:
    """The negative of what is not below ``threshold``, a byte: 256 is 0 (all of it), 435 is 179."""
    return ImageOps.solarize(image, threshold % 256)


def solarize_add(image: Image.Image, addition: int) -> Image.Image:
    """What is below 128 brighter by ``addition``."""
    return image.point([min(value + addition, 255) if value < 128 else value for value in range(256)] * 3)


def color(image: Image.Image, factor: float) -> Image.Image:
    """Saturation: 0 for grey, 1 as it is, above it more."""
    return ImageEnhance.Color(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Away from or towards an even grey: a 256th of how many pixels there are, white from 256×256 on.

    The official code means the mean of the picture, and divides the sum of its histogram's counts instead.
    """
    level = min(image.width * image.height // 256, 255)
    return Image.blend(Image.new("RGB", image.size, (level,) * 3), image, factor)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """0 for black, 1 as it is, above it brighter."""
    return ImageEnhance.Brightness(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """0 for blurred, 1 as it is, above it sharpened."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """About the middle, counterclockwise."""
    return image.rotate(degrees, _NEAREST, fillcolor=GRAY)


def shear_x(image: Image.Image, slope: float) -> Image.Image:
    """Each row shifted to the left by ``slope`` times its number; the first one stays."""
    return _affine(image, (1, slope, -slope / 2, 0, 1, 0))  # PIL counts from pixels' corners, TensorFlow from centres


def shear_y(image: Image.Image, slope: float) -> Image.Image:
    """Each column shifted up by ``slope`` times its number; the first one stays."""
    return _affine(image, (1, 0, 0, slope, 1, -slope / 2))


def translate_x(image: Image.Image, pixels: float) -> Image.Image:
    """To the left."""
    return _affine(image, (1, 0, pixels, 0, 1, 0))


def translate_y(image: Image.Image, pixels: float) -> Image.Image:
    """Up."""
    return _affine(image, (1, 0, 0, 0, 1, pixels))


def cutout(image: Image.Image, half: int, column: int, row: int) -> Image.Image:
    """A grey square of twice ``half`` about (``column``, ``row``); what lies outside is cut off (arXiv:1708.04552)."""
    covered = image.copy()
    covered.paste(GRAY, (column - half, row - half, column + half, row + half))
    return covered


def _affine(image: Image.Image, inverse_matrix: tuple[float, ...]) -> Image.Image:
    """``back`` takes a place in the result to where it was in ``picture``."""
    return image.transform(image.size, Image.Transform.AFFINE, inverse_matrix, _NEAREST, fillcolor=GRAY)


# Policies, which the official code applies after crop and flip
#
# v0 is not the policy of the AutoAugment paper (arXiv:1805.09501). RandAugment (arXiv:1909.13719) applies all that it
# draws at one magnitude. A magnitude of 10 is the end of AutoAugment's scale; RandAugment goes beyond it without a
# limit. Not every operation grows with it: posterize and solarize do less up to 10, and something else above.
# Images move by pixels, at any size; only below a side of 96, for which that code was never meant, do distances shrink
# in proportion to 224.


ImageTransform = Callable[[Image.Image], Image.Image]


# (operation, probability, magnitude), one after the other; one line is chosen for a picture.
AUTOAUGMENT_V0 = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)


RANDAUGMENT_OPS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
)  # fmt: skip


AUTOAUGMENT_MAX_SHIFT, RANDAUGMENT_MAX_SHIFT = 250, 100  # pixels that a picture moves by at a magnitude of 10


SMALL_SIDE, REFERENCE_SIDE = 96, 224  # below the one, distances are in proportion to the other


def build_autoaugment() -> ImageTransform:
    """A function that applies one line of `V0` to a picture, by torch's own random numbers."""
    lines = [
        [
            (probability, build_operation(name, magnitude, AUTOAUGMENT_MAX_SHIFT))
            for name, probability, magnitude in line
        ]
        for line in AUTOAUGMENT_V0
    ]

    def change(picture: Image.Image) -> Image.Image:
        for probability, apply in lines[_random_index(len(lines))]:
            if torch.rand(()).item() < probability:
                picture = apply(picture)
        return picture

    return change


def build_randaugment(num_ops: int, magnitude: float) -> ImageTransform:
    """A function that applies ``layers`` operations of `RANDOM`, any of them again, by torch's own random numbers."""
    known = [build_operation(name, magnitude, RANDAUGMENT_MAX_SHIFT) for name in RANDAUGMENT_OPS]

    def change(picture: Image.Image) -> Image.Image:
        for _ in range(num_ops):
            picture = known[_random_index(len(known))](picture)
        return picture

    return change


def build_operation(name: str, magnitude: float, max_shift: float) -> ImageTransform:
    """The operation called ``name`` at ``magnitude``; at 10 a picture moves by ``furthest`` pixels.

    What goes in two directions takes either with even chance. Raises ``KeyError`` for an unknown name.
    """
    share = magnitude / 10
    factor = 1.8 * share + 0.1
    known: dict[str, ImageTransform] = {
        "AutoContrast": autocontrast,
        "Equalize": equalize,
        "Invert": invert,
        "Posterize": lambda picture: posterize(picture, int(4 * share)),
        "Solarize": lambda picture: solarize(picture, int(256 * share)),
        "SolarizeAdd": lambda picture: solarize_add(picture, int(110 * share)),
        "Color": lambda picture: color(picture, factor),
        "Contrast": lambda picture: contrast(picture, factor),
        "Brightness": lambda picture: brightness(picture, factor),
        "Sharpness": lambda picture: sharpness(picture, factor),
        "Rotate": lambda picture: rotate(picture, _random_sign(30 * share)),
        "ShearX": lambda picture: shear_x(picture, _random_sign(0.3 * share)),
        "ShearY": lambda picture: shear_y(picture, _random_sign(0.3 * share)),
        "TranslateX": lambda picture: translate_x(picture, _random_sign(max_shift * share * _shift_scale(picture))),
        "TranslateY": lambda picture: translate_y(picture, _random_sign(max_shift * share * _shift_scale(picture))),
        "Cutout": lambda picture: cutout(
            picture,
            int(40 * share * _shift_scale(picture)),
            _random_index(picture.width),
            _random_index(picture.height),
        ),
    }
    return known[name]


def _random_index(count: int) -> int:
    return int(torch.randint(count, ()).item())


def _random_sign(value: float) -> float:
    return value if torch.rand(()).item() < 0.5 else -value


def _shift_scale(image: Image.Image) -> float:
    side = min(image.size)
    return 1.0 if side >= SMALL_SIDE else side / REFERENCE_SIDE
