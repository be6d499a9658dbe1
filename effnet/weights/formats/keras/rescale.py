"""What the layers before a Keras network do to its pictures: Rescaling and Normalization, made into mean and std.

Keras' users feed pixels of 0 … 255; each layer takes x to scale · x + offset, a number a channel. V1 with
``weights="imagenet"`` has a second Rescaling by 1/√std, because the published files hold ImageNet's standard deviations
where the layer expects their squares (keras-team/keras ``applications/efficientnet.py``; tensorflow#49930).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effnet.contract import IMAGENET_STD

Floats = NDArray[np.float64]
EXTRA = (
    "its stored variance is ImageNet's standard deviation, as in the published files, which Keras loads into a network "
    'that rescales once more (weights="imagenet"): taken so'
)


@dataclass(frozen=True)
class Affine:
    """x → scale · x + offset, a number each or one a channel."""

    scale: Floats
    offset: Floats

    def then(self, other: Affine) -> Affine:
        """This one first, then ``other``."""
        return Affine(self.scale * other.scale, self.offset * other.scale + other.offset)

    def preprocess(self, channels: int) -> dict[str, Any]:
        """Mean and std for values in [0, 1], of what takes values of 0 … 255 to the network's own."""
        with np.errstate(all="ignore"):  # what is infinite then is complained about as any other nonsense
            std = 1 / (255 * self.scale)
            mean = 0 - self.offset * std
        return {"mean": _seven_digits(mean, channels), "std": _seven_digits(std, channels)}


IDENTITY = Affine(np.ones(()), np.zeros(()))


def rescaling(scale: Any, offset: Any) -> Affine:
    """What a Rescaling layer does."""
    return Affine(np.asarray(scale, np.float64), np.asarray(offset, np.float64))


def normalisation(mean: Any, variance: Any) -> Affine:
    """What a Normalization layer does: (x − mean) / √variance."""
    with np.errstate(all="ignore"):
        std = np.maximum(np.sqrt(np.asarray(variance, np.float64).reshape(-1)), 1e-7)
    return Affine(1 / std, -np.asarray(mean, np.float64).reshape(-1) / std)


def preprocess(normalisations: Sequence[Mapping[str, Tensor]], rescalings: int, remarks: list[str]) -> dict[str, Any]:
    """Mean and std of V1, whose weights hold them; nothing of V2, whose weights do not.

    ``rescalings``: how many Rescaling layers the file lists. Files of weights do not say what these do.
    """
    if len(normalisations) != 1:
        return {}
    mean, variance = (normalisations[0][name].double().numpy() for name in ("mean", "variance"))
    done = rescaling(1 / 255, 0).then(normalisation(mean, variance))
    published = np.shape(variance) == (3,) and np.allclose(variance, IMAGENET_STD, rtol=1e-5)
    if published and rescalings < 2:
        remarks.append(EXTRA)
    if published or rescalings > 1:
        done = done.then(rescaling(1 / np.sqrt(IMAGENET_STD), 0))
    return done.preprocess(len(mean))


def _seven_digits(values: Floats, channels: int) -> tuple[float, ...]:
    """What is left of a float32: 0.229, not 0.22900000214576721."""
    return tuple(float(f"{value:.7g}") for value in np.broadcast_to(values.reshape(-1), (channels,)))
