"""AutoAugment's policy v0 and RandAugment, as the official EfficientNet code applies them after crop and mirror.

Source: ``autoaugment.py`` of tensorflow/tpu, models/official/efficientnet, and of google/automl, efficientnetv2, which
is the same. v0 is not the policy of the AutoAugment paper (arXiv:1805.09501). RandAugment (arXiv:1909.13719) applies
every operation that it chooses, all at one magnitude. A magnitude of 10 is the far end of AutoAugment's scale, and
RandAugment goes beyond it without a stop. Not all grow with it: posterize and solarize do less up to 10, and something
else above. Pictures move by pixels, whatever their size; only where a side is shorter than 96, for which that code was
never meant, do distances shrink as from 224.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from effnet.data import operations

Change = Callable[[Image.Image], Image.Image]

# (operation, probability, magnitude), one after the other; one line is chosen for a picture.
V0 = (
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

RANDOM = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
)  # fmt: skip

FURTHEST_V0, FURTHEST_RANDOM = 250, 100  # pixels that a picture moves by at a magnitude of 10
SMALL, USUAL = 96, 224  # below the one, distances are in proportion to the other


def autoaugment() -> Change:
    """A function that applies one line of `V0` to a picture, by torch's own random numbers."""
    lines = [
        [(probability, operation(name, magnitude, FURTHEST_V0)) for name, probability, magnitude in line] for line in V0
    ]

    def change(picture: Image.Image) -> Image.Image:
        for probability, apply in lines[_one_of(len(lines))]:
            if torch.rand(()).item() < probability:
                picture = apply(picture)
        return picture

    return change


def randaugment(layers: int, magnitude: float) -> Change:
    """A function that applies ``layers`` operations of `RANDOM`, any of them again, by torch's own random numbers."""
    known = [operation(name, magnitude, FURTHEST_RANDOM) for name in RANDOM]

    def change(picture: Image.Image) -> Image.Image:
        for _ in range(layers):
            picture = known[_one_of(len(known))](picture)
        return picture

    return change


def operation(name: str, magnitude: float, furthest: float) -> Change:
    """The operation called ``name`` at ``magnitude``; at 10 a picture moves by ``furthest`` pixels.

    What goes in two directions takes either with even chance. Raises ``KeyError`` for an unknown name.
    """
    share = magnitude / 10
    factor = 1.8 * share + 0.1
    known: dict[str, Change] = {
        "AutoContrast": operations.autocontrast,
        "Equalize": operations.equalize,
        "Invert": operations.invert,
        "Posterize": lambda picture: operations.posterize(picture, int(4 * share)),
        "Solarize": lambda picture: operations.solarize(picture, int(256 * share)),
        "SolarizeAdd": lambda picture: operations.solarize_add(picture, int(110 * share)),
        "Color": lambda picture: operations.colour(picture, factor),
        "Contrast": lambda picture: operations.contrast(picture, factor),
        "Brightness": lambda picture: operations.brightness(picture, factor),
        "Sharpness": lambda picture: operations.sharpness(picture, factor),
        "Rotate": lambda picture: operations.rotate(picture, _either(30 * share)),
        "ShearX": lambda picture: operations.shear_x(picture, _either(0.3 * share)),
        "ShearY": lambda picture: operations.shear_y(picture, _either(0.3 * share)),
        "TranslateX": lambda picture: operations.translate_x(picture, _either(furthest * share * _scale(picture))),
        "TranslateY": lambda picture: operations.translate_y(picture, _either(furthest * share * _scale(picture))),
        "Cutout": lambda picture: operations.cutout(
            picture, int(40 * share * _scale(picture)), _one_of(picture.width), _one_of(picture.height)
        ),
    }
    return known[name]


def _one_of(count: int) -> int:
    return int(torch.randint(count, ()).item())


def _either(value: float) -> float:
    return value if torch.rand(()).item() < 0.5 else -value


def _scale(picture: Image.Image) -> float:
    side = min(picture.size)
    return 1.0 if side >= SMALL else side / USUAL
