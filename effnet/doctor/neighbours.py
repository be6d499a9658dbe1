"""The readings next to one: each differs by one thing that is commonly wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from effnet.arch import Arch
from effnet.contract import IMAGENET_MEAN, IMAGENET_STD, RESAMPLINGS, Preprocess, crop_fraction
from effnet.doctor.diagnosis import Reading
from effnet.weights import official

Values = tuple[float, ...]

# What people normalise with, for values in [0, 1]; the arch's own official way is tried before these
NORMALISATIONS: tuple[tuple[str, Values, Values], ...] = (
    ("ImageNet's mean and std", IMAGENET_MEAN, IMAGENET_STD),
    ("mean 0.5, std 0.5: −1 to 1", (0.5,) * 3, (0.5,) * 3),
    ("mean 0, std 1: 0 to 1", (0.0,) * 3, (1.0,) * 3),
    ("no rescaling: 0 to 255", (0.0,) * 3, (1 / 255,) * 3),
    (
        "ImageNet's mean and std on 0 to 255",
        tuple(mean / 255 for mean in IMAGENET_MEAN),
        tuple(std / 255 for std in IMAGENET_STD),
    ),
)
INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
BY_TENSORFLOW = ("bicubic", "bilinear")
WHOSE = {"pil": "PIL", "tensorflow": "TensorFlow 2", "tensorflow1": "TensorFlow 1"}
EPSILONS = (1e-3, 1e-5)  # TensorFlow's and this family's, PyTorch's
SIZE_STEP = 8 / 7  # 224 to 256: what FixRes (arXiv:1906.06423) finds best when training saw 224
_SAME = 0.02  # normalisations this close, in standard deviations, are one


@dataclass(frozen=True)
class Change:
    """One step away from a reading. ``code`` names the cause that it would mend, ``what`` what is tried."""

    code: str
    what: str
    reading: Reading


def neighbours(reading: Reading, arch: Arch) -> Iterator[Change]:
    """The readings that differ from this one by one thing, the likelier causes first. Labels are `orders`' matter."""
    now, numerics = reading.preprocess, reading.numerics
    for what, mean, std in _normalisations(now, arch):
        yield Change("mean-std", what, replace(reading, preprocess=replace(now, mean=mean, std=std)))
    order = "RGB" if reading.bgr else "BGR"
    yield Change("channel-order", f"channels in the order {order}", replace(reading, bgr=not reading.bgr))
    times = "once" if reading.twice else "twice"
    yield Change("rescaled-twice", f"divided by 255 {times}", replace(reading, twice=not reading.twice))
    for code, what, changed in (*_sizes(now, arch), *_crops(now), *_resizes(now)):
        yield Change(code, what, replace(reading, preprocess=replace(now, **changed)))
    for epsilon in EPSILONS:
        if epsilon != numerics.bn_eps:
            yield Change(
                "epsilon", f"batch-norm ε {epsilon:g}", replace(reading, numerics=replace(numerics, bn_eps=epsilon))
            )
    padding = "symmetric" if numerics.padding == "same" else "same"
    yield Change("padding", f"{padding} padding", replace(reading, numerics=replace(numerics, padding=padding)))
    if not reading.remeasured:  # last: it hides whatever is wrong with mean and std
        yield Change("statistics", "batch norm measured on these pictures", replace(reading, remeasured=True))


def _normalisations(now: Preprocess, arch: Arch) -> Iterator[tuple[str, Values, Values]]:
    """Mean and std to try, in words too; none that is nearly another."""
    usual = official.preprocess(arch)
    tried = [(now.mean, now.std)]
    for what, mean, std in ((f"the official {arch.name}'s mean and std", usual.mean, usual.std), *NORMALISATIONS):
        if not any(alike(mean, std, *other) for other in tried):
            tried.append((mean, std))
            named = [name for name, *values in NORMALISATIONS if values == [mean, std]]
            yield (named[0] if named else what), mean, std


def alike(mean: Values, std: Values, other_mean: Values, other_std: Values) -> bool:
    """Whether two normalisations give nearly the same input."""
    return all(
        abs(one - two) < _SAME * spread and abs(spread / other - 1) < _SAME
        for one, spread, two, other in zip(mean, std, other_mean, other_std, strict=True)
    )


def _sizes(now: Preprocess, arch: Arch) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The arch's own resolution, one step smaller, one larger."""
    smaller, larger = (
        (_eights(now.size[0] * step), _eights(now.size[1] * step)) for step in (1 / SIZE_STEP, SIZE_STEP)
    )
    for size in dict.fromkeys(((arch.resolution, arch.resolution), smaller, larger)):
        if size != now.size:
            yield "size", f"{size[0]}×{size[1]} pixels", {"size": size}


def _eights(side: float) -> int:
    return max(round(side / 8), 1) * 8


def _crops(now: Preprocess) -> Iterator[tuple[str, str, dict[str, Any]]]:
    tried = [now.crop] if now.resize == "crop" else []
    for crop in (crop_fraction(min(now.size)), 0.875, 1.0):
        if all(abs(crop - other) > 0.005 for other in tried):
            tried.append(crop)
            yield "crop", f"crop {crop:.3g}", {"crop": crop, "resize": "crop"}
    if now.resize == "crop":
        yield "crop", "squashed, not cropped", {"crop": 1.0, "resize": "squash"}


def _resizes(now: Preprocess) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for interpolation in INTERPOLATIONS:
        if interpolation != now.interpolation:
            whose = now.resampling if interpolation in BY_TENSORFLOW else "pil"
            changed = {"interpolation": interpolation, "resampling": whose}
            yield "interpolation", f"{interpolation} interpolation", changed
    for resampling in RESAMPLINGS:
        if resampling != now.resampling and (resampling == "pil" or now.interpolation in BY_TENSORFLOW):
            yield "resampling", f"the resize of {WHOSE[resampling]}", {"resampling": resampling}
