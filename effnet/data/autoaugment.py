"""AutoAugment v0 and RandAugment as in the official EfficientNet code, and their operations on RGB images.

Source: ``autoaugment.py`` of tensorflow/tpu, models/official/efficientnet, and the same file of google/automl,
efficientnetv2. That code is in TensorFlow, this in PIL. Geometric operations use the nearest pixel and fill with gray;
they differ in ties only. Of the color operations, Color and Sharpness round their intermediate image differently,
by one. What is surprising here is theirs, and the published accuracies were trained with it.
"""

from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance, ImageOps

ImageTransform = Callable[[Image.Image], Image.Image]

# AutoAugment's sub-policies, one of which is drawn per image: (operation, probability, magnitude) one after the other.
# v0 is not the policy of the AutoAugment paper (arXiv:1805.09501).
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

# RandAugment (arXiv:1909.13719) draws from these, and applies all at one magnitude.
RANDAUGMENT_OPS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
)  # fmt: skip

# Images move by pixels, at any size; only below a side of SMALL_SIDE, for which the official code was never meant, do
# distances shrink in proportion to REFERENCE_SIDE.
AUTOAUGMENT_MAX_SHIFT, RANDAUGMENT_MAX_SHIFT = 250, 100  # pixels at a magnitude of 10
SMALL_SIDE, REFERENCE_SIDE = 96, 224
GRAY = (128, 128, 128)
_NEAREST = Image.Resampling.NEAREST


def build_autoaugment() -> ImageTransform:
    """Return a function that applies one sub-policy of `AUTOAUGMENT_V0`, drawn by torch's random numbers."""
    policies = [
        [(probability, build_operation(name, magnitude, AUTOAUGMENT_MAX_SHIFT)) for name, probability, magnitude in row]
        for row in AUTOAUGMENT_V0
    ]

    def change(image: Image.Image) -> Image.Image:
        for probability, apply in policies[_random_index(len(policies))]:
            if torch.rand(()).item() < probability:
                image = apply(image)
        return image

    return change


def build_randaugment(num_ops: int, magnitude: float) -> ImageTransform:
    """Return a function that applies ``num_ops`` of `RANDAUGMENT_OPS`, drawn with replacement by torch."""
    operations = [build_operation(name, magnitude, RANDAUGMENT_MAX_SHIFT) for name in RANDAUGMENT_OPS]

    def change(image: Image.Image) -> Image.Image:
        for _ in range(num_ops):
            image = operations[_random_index(len(operations))](image)
        return image

    return change


def build_operation(name: str, magnitude: float, max_shift: float) -> ImageTransform:
    """Return the operation called ``name`` at ``magnitude``; at 10 it moves an image by ``max_shift`` pixels.

    AutoAugment's scale ends at 10, RandAugment's nowhere. Not every operation grows with it: posterize and solarize do
    less up to 10, and something else above. Operations with two directions take either with equal probability.
    """
    level = magnitude / 10
    factor = 1.8 * level + 0.1

    def shift(image: Image.Image) -> float:
        return _random_sign(max_shift * level * _shift_scale(image))

    def random_cutout(image: Image.Image) -> Image.Image:
        half = int(40 * level * _shift_scale(image))
        return cutout(image, half, _random_index(image.width), _random_index(image.height))

    operations: dict[str, ImageTransform] = {
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
        "Posterize": lambda image: posterize(image, int(4 * level)),
        "Solarize": lambda image: solarize(image, int(256 * level)),
        "SolarizeAdd": lambda image: solarize_add(image, int(110 * level)),
        "Color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "Contrast": lambda image: contrast(image, factor),
        "Brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "Sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        "Rotate": lambda image: rotate(image, _random_sign(30 * level)),
        "ShearX": lambda image: shear(image, x=_random_sign(0.3 * level)),
        "ShearY": lambda image: shear(image, y=_random_sign(0.3 * level)),
        "TranslateX": lambda image: translate(image, x=shift(image)),
        "TranslateY": lambda image: translate(image, y=shift(image)),
        "Cutout": random_cutout,
    }
    return operations[name]


def _random_index(count: int) -> int:
    return int(torch.randint(count, ()).item())


def _random_sign(value: float) -> float:
    return value if torch.rand(()).item() < 0.5 else -value


def _shift_scale(image: Image.Image) -> float:
    side = min(image.size)
    return 1.0 if side >= SMALL_SIDE else side / REFERENCE_SIDE


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keep the upper ``bits`` of each value: one for 0, and from 9 on, where a shift of −1 is the byte 255."""
    shift = min((8 - bits) % 256, 7)  # TensorFlow shifts out at most seven
    return image.point([value >> shift << shift for value in range(256)] * 3)


def solarize(image: Image.Image, threshold: int) -> Image.Image:
    """Invert values from ``threshold`` on, which is a byte: 256 is 0 (all of them), 435 is 179."""
    return ImageOps.solarize(image, threshold % 256)


def solarize_add(image: Image.Image, addition: int) -> Image.Image:
    """Add ``addition`` to values below 128."""
    return image.point([min(value + addition, 255) if value < 128 else value for value in range(256)] * 3)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blend with a uniform gray: the number of pixels divided by 256, white from 256×256 on.

    The official code means the mean of the image, but divides the sum of its histogram's counts.
    """
    level = min(image.width * image.height // 256, 255)
    return Image.blend(Image.new("RGB", image.size, (level,) * 3), image, factor)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate counterclockwise about the center."""
    return image.rotate(degrees, _NEAREST, fillcolor=GRAY)


def shear(image: Image.Image, x: float = 0, y: float = 0) -> Image.Image:
    """Shift each row to the left by ``x`` times its index, each column up by ``y`` times its index."""
    return _affine(image, (1, x, -x / 2, y, 1, -y / 2))  # PIL counts from pixels' corners, TensorFlow from centers


def translate(image: Image.Image, x: float = 0, y: float = 0) -> Image.Image:
    """Shift by ``x`` pixels to the left and ``y`` up."""
    return _affine(image, (1, 0, x, 0, 1, y))


def cutout(image: Image.Image, half: int, column: int, row: int) -> Image.Image:
    """Cover a gray square of twice ``half`` around (``column``, ``row``), clipped at the border (arXiv:1708.04552)."""
    covered = image.copy()
    covered.paste(GRAY, (column - half, row - half, column + half, row + half))
    return covered


def _affine(image: Image.Image, inverse_matrix: tuple[float, ...]) -> Image.Image:
    """``inverse_matrix`` maps a position in the result to one in ``image``."""
    return image.transform(image.size, Image.Transform.AFFINE, inverse_matrix, _NEAREST, fillcolor=GRAY)
