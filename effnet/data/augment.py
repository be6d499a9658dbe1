"""Augmentation of training images: random crops, flips and color, AutoAugment, erasing; MixUp and CutMix of batches.

Random numbers come from torch's global generator; `stable_seed` and `temporary_seed` make them depend on seed,
epoch and image alone.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from effnet.arch.serde import Record, check_choice, check_float, check_int
from effnet.data import autoaugment, image_io, preprocessing, torchvision_compat
from effnet.metadata import Preprocess

AUGMENT_POLICIES = ("none", "autoaugment", "randaugment")
CROP_ASPECT_RATIOS = (3 / 4, 4 / 3)  # width to height (Szegedy et al., arXiv:1409.4842, section 6)
_ERASED_AREA = (0.02, 0.2)  # smallest and largest fraction of the image


@dataclass(frozen=True)
class Augment(Record):
    """Random changes of training images. With all at zero and ``min_crop_area`` at 1 there are none."""

    min_crop_area: float = 0.5  # smallest fraction of the image's area that a random crop keeps
    horizontal_flip: bool = True  # of half of the images, if the dataset allows it
    color_jitter: float = 0.0  # largest relative change of brightness, contrast and saturation
    rotation: float = 0.0  # largest angle in degrees, either way
    translation: float = 0.0  # largest shift as a fraction of the side, either way
    random_erasing: float = 0.0  # probability of a blank box
    policy: str = "none"  # of `AUGMENT_POLICIES`: AutoAugment v0 or RandAugment as in the official EfficientNet code
    randaugment_ops: int = 2  # operations that RandAugment applies to an image
    randaugment_magnitude: float = 9.0  # their strength
    mixup: float = 0.0  # α with which the images of a batch are mixed, 0 for not at all (see `mix_batch`)
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        check_float("min_crop_area", self.min_crop_area, 0, 1, exclusive=True)
        check_choice("policy", self.policy, AUGMENT_POLICIES)
        check_int("randaugment_ops", self.randaugment_ops, 1)
        check_float("randaugment_magnitude", self.randaugment_magnitude, 0, 30)
        for name, limit in {"color_jitter": 1, "rotation": 180, "translation": 0.9, "random_erasing": 1}.items():
            check_float(name, getattr(self, name), 0, limit)
        check_float("mixup", self.mixup, 0)
        check_float("cutmix", self.cutmix, 0)


def build_augmentation(augment: Augment, preprocess: Preprocess) -> Callable[[image_io.ImageSource], image_io.Pixels]:
    """Return a function from an image to its augmented uint8 (H, W, C) of ``preprocess.size``, or ``ImageError``.

    Images are augmented as RGB or RGBA (`working_color`), and become grey, HSV, … at the end.
    """
    change, crop = _build_augmentation_steps(augment), random_resized_crop(preprocess, augment.min_crop_area)
    finish, working = _color_converter(preprocess.color_mode), working_color(preprocess)
    if not (augment.rotation or augment.translation):
        return lambda image: finish(change(crop(image)))
    v2 = torchvision_compat.import_torchvision("transforms.v2", "augmentation")
    interpolation = getattr(v2.InterpolationMode, preprocess.interpolation.upper())
    resize = v2.Resize(preprocess.size, interpolation)  # first, so that shifts are finer than a source pixel
    move = v2.RandomAffine(augment.rotation, (augment.translation,) * 2, interpolation=v2.InterpolationMode.BILINEAR)
    reduce_to = preprocess.resize_size if preprocess.decode == "reduced" else None

    def read(image: image_io.ImageSource) -> Image.Image:
        return image_io.read_image(image, reduce_to, working, preprocess.bits)

    return lambda image: finish(change(crop(move(resize(read(image))))))


def working_color(preprocess: Preprocess) -> str:
    """Return the mode in which training images are cached and augmented: RGBA if alpha counts, else RGB.

    Raises ``ValueError`` for CMYK, which RGB does not hold.
    """
    if preprocess.color_mode == "CMYK":
        raise ValueError("training reads images as grey, RGB or RGBA, not as CMYK: choose other --channels")
    return "RGBA" if preprocess.color_mode in ("RGBA", "LA") else "RGB"


def _color_converter(color: str) -> Callable[[image_io.Pixels], image_io.Pixels]:
    """Return a function from uint8 RGB or RGBA (H, W, 3 or 4) to ``color`` (H, W, C)."""
    if color in ("RGB", "RGBA"):
        return lambda pixels: pixels
    return lambda pixels: np.atleast_3d(np.array(Image.fromarray(pixels).convert(color)))


def _build_augmentation_steps(augment: Augment) -> Callable[[image_io.Pixels], image_io.Pixels]:
    """Return what follows the crop: a function of uint8 (H, W, 3), or (H, W, 4) whose alpha keeps its values."""
    steps: list[Callable[[Image.Image], Image.Image]] = []
    erase = None
    if augment.policy == "autoaugment":
        steps.append(autoaugment.build_autoaugment())
    if augment.policy == "randaugment":
        steps.append(autoaugment.build_randaugment(augment.randaugment_ops, augment.randaugment_magnitude))
    if augment.color_jitter or augment.random_erasing:
        v2 = torchvision_compat.import_torchvision("transforms.v2", "augmentation")
        if augment.color_jitter:
            steps.append(v2.ColorJitter(*(augment.color_jitter,) * 3))
        if augment.random_erasing:
            erase = v2.RandomErasing(augment.random_erasing, _ERASED_AREA, value=127)

    def change(pixels: image_io.Pixels) -> image_io.Pixels:
        if augment.horizontal_flip and torch.rand(1).item() < 0.5:
            pixels = torch.from_numpy(pixels).flip(1).numpy()  # ten times as fast as numpy's
        if steps:
            image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
            for step in steps:
                image = step(image)
            pixels = np.concatenate([np.array(image), pixels[..., 3:]], -1) if pixels.shape[2] > 3 else np.array(image)
        if erase is not None:
            pixels = erase(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()  # by way of (C, H, W)
        return pixels

    return change


def random_resized_crop(preprocess: Preprocess, min_area: float) -> Callable[[image_io.ImageSource], image_io.Pixels]:
    """Return a function from an image to a random crop (see `sample_crop`), uint8 (H, W, C) of ``preprocess.size``.

    As torchvision's ``RandomResizedCrop``, but sampled before decoding: a JPEG can be decoded at reduced scale.
    """
    size, interpolation, color = preprocess.size, preprocess.interpolation, working_color(preprocess)

    def choose_region(height: int, width: int) -> image_io.CropRegion:
        return sample_crop(height, width, min_area), size

    def crop(source: image_io.ImageSource) -> image_io.Pixels:
        if isinstance(source, np.ndarray) and source.shape[2:] == (len(color),) and source.dtype == np.uint8:
            left, top, right, bottom = sample_crop(source.shape[0], source.shape[1], min_area)
            return resize_array(source[top:bottom, left:right], size, interpolation)
        may_reduce = preprocess.decode == "reduced"
        region = crop_to_box(*image_io.read_region(source, choose_region, may_reduce, color, preprocess.bits))
        return resize_array(region, size, interpolation)

    return crop


def sample_crop(height: int, width: int, min_area: float) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of a random crop with an area from ``min_area`` to 1 of the image.

    If ten samples do not fit, it is the center, as large as `CROP_ASPECT_RATIOS` allow.
    """
    area = height * width
    low, high = map(log, CROP_ASPECT_RATIOS)
    for fraction, ratio, across, down in torch.rand(10, 4, dtype=torch.float64).tolist():
        crop_area = area * (min_area + fraction * (1 - min_area))
        aspect = exp(low + ratio * (high - low))
        wide, tall = round((crop_area * aspect) ** 0.5), round((crop_area / aspect) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, round(height * CROP_ASPECT_RATIOS[1]))
    tall = min(height, round(width / CROP_ASPECT_RATIOS[0]))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def crop_to_box(image: Image.Image, box: preprocessing.Box) -> image_io.Pixels:
    """Return the region of an RGB or RGBA image as uint8 (H, W, C), rounded to whole pixels."""
    left, top, right, bottom = map(round, box)
    return np.array(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))


def resize_array(pixels: image_io.Pixels, size: tuple[int, int], interpolation: str) -> image_io.Pixels:
    """Resize uint8 (H, W, C) to ``size`` (height, width) with antialiasing.

    Torch is several times as fast as PIL, which does what torch lacks; one value of twenty differs by one step.
    """
    if pixels.shape[:2] == size:
        return pixels
    if interpolation not in ("bilinear", "bicubic"):
        return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling[interpolation.upper()]))
    batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))[None].permute(0, 3, 1, 2)  # (1, C, H, W)
    resized: Tensor = torch.nn.functional.interpolate(batch, size, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()  # (1, C, H, W) -> (H, W, C)


def mix_batch(images: Tensor, targets: Tensor, mixup_alpha: float, cutmix_alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one before it, and their targets in the same proportion.

    By MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899); with both, a fair coin chooses one for the batch.
    Images are (N, H, W, C) of 0 to 255, in float32 after MixUp; targets are floating (N, classes). An image's own
    fraction is sampled from Beta(α, α), on the CPU: the same on every device. An α of 0 switches off.
    """
    if mixup_alpha and (not cutmix_alpha or torch.rand(()) < 0.5):
        fractions = torch.distributions.Beta(mixup_alpha, mixup_alpha).sample((len(images),))
        images = images.float()
        images = torch.lerp(images.roll(1, 0), images, fractions.to(images.device)[:, None, None, None])
    elif cutmix_alpha:
        fractions = torch.distributions.Beta(cutmix_alpha, cutmix_alpha).sample((len(images),))
        images, fractions = _apply_cutmix(images, fractions)
    else:
        return images, targets
    return images, torch.lerp(targets.roll(1, 0), targets, fractions.to(targets)[:, None])


def _apply_cutmix(images: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box of the other image, of the area 1 − fraction, around a random point; return what is left of each.

    The box is clipped at the border, so that more is left than was sampled.
    """
    _, height, width, _ = images.shape
    half = (1 - fractions).sqrt() / 2
    inside_rows, rows = _sample_interval(half, height)
    inside_columns, columns = _sample_interval(half, width)
    box = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]  # (N, H, W, 1)
    mixed = torch.where(box.to(images.device), images.roll(1, 0), images)
    return mixed, 1 - rows * columns / (height * width)


def _sample_interval(half: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return (N, side), which pixels lie within ``half`` × side of a random point, and (N,), how many they are."""
    center = torch.randint(side, half.shape)
    reach = (half * side).int()
    position = torch.arange(side)
    inside = (position >= (center - reach)[:, None]) & (position < (center + reach)[:, None])
    return inside, inside.sum(1)


def stable_seed(*parts: int | str) -> int:
    """Return a seed made of ``parts`` (seed, epoch, index, …): the same on every machine, different for other parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's random numbers with ``seed`` in this block; afterwards they continue as if it had not been."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
