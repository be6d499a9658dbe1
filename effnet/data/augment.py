"""Random changes of training pictures, by torchvision; every picture's dice come from seed, epoch and index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from effnet.arch.record import Record, choice, number, whole
from effnet.contract import Preprocess
from effnet.data.crop import random_crop
from effnet.data.pixels import Pixels, Source, read
from effnet.data.policy import autoaugment, randaugment
from effnet.data.without_operators import transforms

POLICIES = ("none", "autoaugment", "randaugment")


@dataclass(frozen=True)
class Augment(Record):
    """How much training pictures are changed. All zero, with a crop of 1: not at all.

    ``crop``: the smallest share of the picture's area that a random crop keeps. ``mirror``: flip half of them (only
    where a mirrored picture keeps its label). ``jitter``: brightness, contrast and saturation by up to this share.
    ``rotate``: degrees either way; ``shift``: share of the side either way. ``erase``: probability of a blank box.
    ``policy``: "autoaugment" (v0) or "randaugment", of ``layers`` operations of ``magnitude`` (0 to 30) each, as in the
    official EfficientNet code (see `effnet.data.policy`). ``mixup`` and ``cutmix``: α with which batches are mixed, 0
    for not at all (see `effnet.data.mixing`).
    """

    crop: float = 0.5
    mirror: bool = True
    jitter: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    erase: float = 0.0
    policy: str = "none"
    layers: int = 2
    magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        number("crop", self.crop, 0, 1, above=True)
        number("jitter", self.jitter, 0, 1)
        number("rotate", self.rotate, 0, 180)
        number("shift", self.shift, 0, 0.9)
        number("erase", self.erase, 0, 1)
        choice("policy", self.policy, POLICIES)
        whole("layers", self.layers, 1)
        number("magnitude", self.magnitude, 0, 30)
        number("mixup", self.mixup, 0)
        number("cutmix", self.cutmix, 0)


def augmenter(augment: Augment, preprocess: Preprocess) -> Callable[[Source], Pixels]:
    """A function from a picture to its randomly changed uint8 (H, W, 3), by torch's own random numbers.

    It raises ``PictureError`` as `effnet.data.pixels.read` does.
    """
    after, crop = _after(augment), random_crop(preprocess, augment.crop)
    if not (augment.rotate or augment.shift):
        return lambda picture: after(crop(picture))
    v2 = transforms()
    interpolation = getattr(v2.InterpolationMode, preprocess.interpolation.upper())
    whole = v2.Resize(preprocess.size, interpolation)  # first, so that shifts are finer than a source pixel
    turn = v2.RandomAffine(augment.rotate, (augment.shift,) * 2, interpolation=v2.InterpolationMode.BILINEAR)
    reduce_to = preprocess.resized if preprocess.decode == "reduced" else None
    return lambda picture: after(crop(turn(whole(read(picture, reduce_to)))))


def _after(augment: Augment) -> Callable[[Pixels], Pixels]:
    """What is done to a picture that is cut out and has the network's size: uint8 (H, W, 3) both."""
    steps: list[Callable[[Image.Image], Image.Image]] = []
    if augment.policy == "autoaugment":
        steps.append(autoaugment())
    if augment.policy == "randaugment":
        steps.append(randaugment(augment.layers, augment.magnitude))
    if augment.jitter:
        steps.append(transforms().ColorJitter(augment.jitter, augment.jitter, augment.jitter))
    erase = transforms().RandomErasing(augment.erase, (0.02, 0.2), value=127) if augment.erase else None

    def change(pixels: Pixels) -> Pixels:
        if augment.mirror and torch.rand(1).item() < 0.5:
            pixels = torch.from_numpy(pixels).flip(1).numpy()  # ten times as fast as numpy's
        if steps:
            image = Image.fromarray(pixels)
            for step in steps:
                image = step(image)
            pixels = np.array(image)
        if erase is not None:
            pixels = erase(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()  # by way of (3, H, W)
        return pixels

    return change


def dice(*parts: int | str) -> int:
    """A seed made of ``parts`` (seed, epoch, index, …): the same on every machine, unlike for unlike parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In this block torch's random numbers come from ``seed``; after it they go on as if it had not been."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
