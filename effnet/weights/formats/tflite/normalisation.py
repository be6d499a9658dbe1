"""How a file's network wants its pictures, from its input, its first operators and its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import ARCHS
from effnet.contract import Preprocess
from effnet.weights import official
from effnet.weights.formats.tflite.schema import Tensor
from effnet.weights.formats.tflite.walk import Picture

Pair = tuple[NDArray[Any], NDArray[Any]]

UNCLEAR = "what it does to the picture before its first convolution is not understood"


@dataclass(frozen=True)
class Stated:
    """``preprocess``: the fields of `Preprocess` that the file states. ``factor``: what the kernels of the stem are to
    be multiplied by for them, one number a channel of the picture.
    """

    preprocess: dict[str, Any] = field(default_factory=dict)
    factor: NDArray[Any] = field(default_factory=lambda: np.ones(1))
    remarks: tuple[str, ...] = ()


def stated(source: Tensor, picture: Picture | None, normalised: Pair | None, channels: int) -> Stated:
    """What is known of pictures of ``channels`` from the graph's input and what the stem sees of it.

    ``normalised``: mean and std by which the metadata says that pixels of 0 … 255 become the input. A converter moves
    the division by std into the stem's kernels where it can: for a mean of the official weights it is moved back.
    """
    if picture is None:
        return Stated(remarks=(UNCLEAR,))
    size = _size(source.shape, channels)
    pair = normalised or _raw(source) or _likely(picture)
    if pair is None:
        untouched = (picture.gain == 1).all() and (picture.offset == 0).all()
        return Stated(size, remarks=() if untouched else (UNCLEAR,))
    with np.errstate(all="ignore"):
        mean = (pair[0] - pair[1] * picture.offset / picture.gain) / 255
        std = pair[1] / picture.gain / 255
    if mean.size not in (1, channels) or std.size not in (1, channels):
        return Stated(size, remarks=(UNCLEAR,))
    mean, std = (np.broadcast_to(value.reshape(-1), channels) for value in (mean, std))
    if not ((std > 0) & (std <= 10) & (abs(mean) <= 10)).all():
        return Stated(size, remarks=(UNCLEAR,))
    said = tuple(map(_meant, mean)), tuple(map(_meant, std))
    for known in _official():
        if channels == 3 and np.allclose(said[0], known[0], 0, 1e-5) and not np.allclose(said[1], known[1], 0, 1e-5):
            remark = "the division by std, which was hidden in the stem's kernels, is preprocessing again"
            return Stated({**size, "mean": known[0], "std": known[1]}, np.array(known[1]) / said[1], (remark,))
    return Stated({**size, "mean": said[0], "std": said[1]})


def _size(shape: tuple[int, ...], channels: int) -> dict[str, Any]:
    """Height and width of the input, whether its channels come last or first; 1 stands for what is not known."""
    if len(shape) != 4:
        return {}
    height, width = shape[1:3] if shape[3] == channels else shape[2:4]
    return {"size": (height, width)} if min(height, width) > 1 else {}


def _raw(source: Tensor) -> Pair | None:
    """For an input of bytes, which are the pixels themselves (int8: less 128)."""
    if source.type not in ("UINT8", "INT8"):
        return None
    least = 0 if source.type == "UINT8" else 128
    scale, zero = (source.scale or (1.0,))[0], (source.zero or (0,))[0]
    return np.array(float(zero + least)), np.array(1 / scale if scale else np.inf)


def _likely(picture: Picture) -> Pair | None:
    """For an input of floats: 0 … 255 or 0 … 1, as its mean shows where the graph takes one off. None: no telling."""
    with np.errstate(all="ignore"):
        mean = -picture.offset / picture.gain
    if ((mean > 1) & (mean < 255)).all() or ((mean == 0) & (picture.gain < 0.02)).all():
        return np.array(0.0), np.array(1.0)
    if ((mean > 0) & (mean <= 1)).all():
        return np.array(0.0), np.array(255.0)
    return None


def _official() -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Mean and std of the official weights."""
    pairs: dict[Preprocess, None] = dict.fromkeys(official.preprocess(arch) for arch in ARCHS.values())
    return iter(dict.fromkeys((each.mean, each.std) for each in pairs))


def _meant(value: float) -> float:
    """A float32 as it was meant before it was rounded: 127/255, or .485 for .4850000143."""
    for meant in (round(value * 255) / 255, round(value, 6)):
        if abs(meant - value) <= 1e-7 * abs(value):
            return float(meant)
    return float(value)
