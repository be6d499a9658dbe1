"""Labelled pictures: what a source gives, how some are held out, and which of them cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.serde import check_int
from effnet.data.image_io import ImageError, LazyImage, Pixels, read_image
from effnet.data.prefetch import parallel_map
from effnet.metadata import Labels


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One labelled picture: a file, something that `Held` reads, or uint8 (H, W, 3).

    ``label``: the class; of labels of which any may be right, all that are; of values, the values. ``name`` tells it
    apart wherever its folder lies. ``weight``: how much it counts in training. Pictures of one ``group`` (a patient,
    a camera) must not stand on both sides of a split; ``fold``: the fold that the data itself puts it into.
    """

    image: Path | LazyImage | Pixels
    label: int | tuple[int, ...] | tuple[float, ...]
    name: str
    weight: float = 1.0
    group: str = ""
    fold: int | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that are right: one, or of labels of which any may be, several or none."""
        return (self.label,) if isinstance(self.label, int) else tuple(map(int, self.label))


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled pictures in a fixed order. ``mirror``: a mirrored picture keeps its label (not so for digits)."""

    items: tuple[Item, ...]
    labels: Labels
    allow_flip: bool = True

    def __len__(self) -> int:
        return len(self.items)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The class of each picture, in order: int64 (N,). Of pictures whose labels are of the kind "classification" only."""
        return np.fromiter((item.label for item in self.items), np.int64, len(self.items))

    @property
    def target_matrix(self) -> NDArray[np.float32]:
        """What the outputs should be, float32 (N, classes): 1 for what is right and 0 for the rest, or the values."""
        found = np.zeros((len(self.items), len(self.labels.names)), np.float32)
        for row, item in zip(found, self.items, strict=True):
            if self.labels.task == "regression":
                row[:] = item.label
            else:
                row[list(item.classes)] = 1
        return found

    def class_counts(self) -> tuple[int, ...]:
        """How many pictures each class has, in the order of ``labels``; of values, how many there are."""
        if self.labels.task == "regression":
            return (len(self.items),) * len(self.labels.names)
        labels = np.fromiter((one for item in self.items for one in item.classes), np.int64)
        return tuple(np.bincount(labels, minlength=len(self.labels.names)).tolist())

    def format_label(self, item: Item) -> str:
        """The label of ``item`` in words; several are separated by a bar."""
        if isinstance(item.label, tuple) and self.labels.task == "regression":
            return "|".join(f"{value:g}" for value in item.label)
        return "|".join(map(self.labels.name, item.classes))

    def subset(self, indices: Iterable[int]) -> ImageDataset:
        """Those pictures, in that order, with the same labels."""
        return replace(self, items=tuple(self.items[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Splits:
    """The pictures to learn from, to choose by and to judge by; None where a source has none."""

    train: ImageDataset | None
    val: ImageDataset | None
    test: ImageDataset | None

    @property
    def available(self) -> dict[str, ImageDataset]:
        """Those that there are, by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: found for name, found in every.items() if found is not None}


Fingerprints = dict[Item, bytes]  # the same for two pictures that are the same


def check_images(
    dataset: ImageDataset, num_workers: int = 2, fingerprints: Fingerprints | None = None
) -> tuple[ImageDataset, list[ImageError]]:
    """The pictures that can be read, and an error for each that cannot. Every file is decoded once, to its end.

    ``fingerprints`` is filled with a digest of each image's pixels, so that `find_duplicates` need not decode it again.
    Raises ``ValueError`` where a class has no readable picture left.
    """
    check_int("workers", num_workers, 1)

    def looked_at(item: Item) -> ImageError | None:
        try:
            image = read_reduced(item)
        except ImageError as error:
            return error
        if fingerprints is not None:
            fingerprints[item] = fingerprint_image(image)
        return None

    found = parallel_map(looked_at, dataset.items, num_workers)
    good = dataset.subset(index for index, error in enumerate(found) if error is None)
    for name, before, after in zip(dataset.labels.names, dataset.class_counts(), good.class_counts(), strict=True):
        if before and not after:
            first = next(
                error
                for item, error in zip(dataset.items, found, strict=True)
                if error and name in map(dataset.labels.name, item.classes)
            )
            raise ValueError(f"class {name!r} has no readable picture; the first of its {before}: {first}")
    return good, [error for error in found if error is not None]


def read_reduced(item: Item) -> Image.Image:
    """The picture, a JPEG at an eighth of its size: still read to its end, and several times faster."""
    return read_image(item.image, reduce_to=(1, 1))


def fingerprint_image(image: Image.Image) -> bytes:
    """A digest of what is to be seen."""
    return blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()
