"""How many of their 16 bits the images of a set use: X-rays and microscopes fill 8 to 14, and would look black."""

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.data import deep_pixels, folders, image_io, prefetch
from effnet.metadata import Preprocess

_log = logging.getLogger(__name__)

# Files of these never have 16 bits of which only a few are used
_SHALLOW_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif"))
_MAX_PROBED = 256  # images of a set that are looked at, to see whether any has 16 bits


def find_bits(images: Iterable[image_io.ImageSource | image_io.ImageError]) -> int | None:
    """Return the fewest bits (8, 10, 12, 14 or 16) that hold the values of all 16-bit images.

    None if there are no such images among 256 of them, spread evenly, or all are black. What cannot be read is passed
    over, as are images that state their bits. A set with bright images is read only up to the first.

    Example:
        >>> find_bits(sorted(Path("x-rays").glob("*.tif")))
        12
    """
    candidates = [image for image in images if not isinstance(image, image_io.ImageError) and _may_be_deep(image)]
    probed = candidates[:: max(1, -(-len(candidates) // _MAX_PROBED))]
    if not any(maximum is not None for maximum in prefetch.prefetch_map(_find_maximum, probed, 2)):
        return None
    bits, brightest = deep_pixels.BITS[0], 0
    for maximum in prefetch.prefetch_map(_find_maximum, candidates, 2):
        brightest = max(brightest, maximum or 0)
        bits = next(bits for bits in deep_pixels.BITS if brightest < 1 << bits)
        if bits == deep_pixels.BITS[-1]:
            break
    return bits if brightest else None


def choose_bits(
    preprocess: Preprocess, images: Iterable[image_io.ImageSource | image_io.ImageError], bits: int | None = None
) -> Preprocess:
    """Return ``preprocess`` with the bits that a set of images is read with, and log what `find_bits` has decided.

    They are ``bits`` if given, else those that the model states, else those found if they are fewer than 16.
    """
    if bits or preprocess.bits:
        return replace(preprocess, bits=bits or preprocess.bits)
    found = find_bits(images)
    if found is None or found == deep_pixels.BITS[-1]:
        return preprocess
    log_bits(found)
    return replace(preprocess, bits=found)


def log_bits(bits: int) -> None:
    """Log with how many bits a set of images is read, and how to say otherwise."""
    _log.info(
        "no 16-bit image has a value above %s: they are read as images of %s bits (--bits 16 if they are just dark)",
        f"{(1 << bits) - 1:,}",
        bits,
    )


def hint_if_dark(sources: list[str]) -> None:
    """Log how a single image is read with fewer bits, if it would be nearly black: alone it may just be dark."""
    found = find_bits(images) if len(images := list_local_images(sources)) == 1 else None
    if found in deep_pixels.BITS[:3]:
        _log.info(
            "%s has 16 bits, and no value above %s: if it holds %s, pass --bits %s",
            images[0],
            (1 << found) - 1,
            *(found,) * 2,
        )


def list_local_images(sources: Iterable[str]) -> list[Path]:
    """Return the images among local files and folders; none if ``sources`` has anything else."""
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            found += folders.list_image_files(source)
        elif source.is_file():
            found.append(source)
        else:
            return []
    return found


def _may_be_deep(image: image_io.ImageSource) -> bool:
    if isinstance(image, np.ndarray):
        return False
    name = image if isinstance(image, (str, Path)) else getattr(image, "name", "")
    return os.path.splitext(str(name))[1].lower() not in _SHALLOW_SUFFIXES


def _find_maximum(image: image_io.ImageSource) -> int | None:
    try:
        return image_io.find_maximum(image)
    except image_io.ImageError:
        return None
