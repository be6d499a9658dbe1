"""Labelled pictures: what a source gives, how some are held out, and which of them cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.record import whole
from effnet.contract import Labels
from effnet.data.ahead import every
from effnet.data.pixels import Held, PictureError, Pixels, read


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One labelled picture: a file, something that `Held` reads, or uint8 (H, W, 3).

    ``label``: the class; of labels of which any may be right, all that are; of values, the values. ``name`` tells it
    apart wherever its folder lies. ``weight``: how much it counts in training. Pictures of one ``group`` (a patient,
    a camera) must not stand on both sides of a split; ``fold``: the fold that the data itself puts it into.
    """

    picture: Path | Held | Pixels
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
class Pictures:
    """Labelled pictures in a fixed order. ``mirror``: a mirrored picture keeps its label (not so for digits)."""

    items: tuple[Item, ...]
    labels: Labels
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.items)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The class of each picture, in order: int64 (N,). Of pictures whose labels are of the kind "one" only."""
        return np.fromiter((item.label for item in self.items), np.int64, len(self.items))

    @property
    def wanted(self) -> NDArray[np.float32]:
        """What the outputs should be, float32 (N, classes): 1 for what is right and 0 for the rest, or the values."""
        found = np.zeros((len(self.items), len(self.labels.names)), np.float32)
        for row, item in zip(found, self.items, strict=True):
            if self.labels.kind == "value":
                row[:] = item.label
            else:
                row[list(item.classes)] = 1
        return found

    def counts(self) -> tuple[int, ...]:
        """How many pictures each class has, in the order of ``labels``; of values, how many there are."""
        if self.labels.kind == "value":
            return (len(self.items),) * len(self.labels.names)
        labels = np.fromiter((one for item in self.items for one in item.classes), np.int64)
        return tuple(np.bincount(labels, minlength=len(self.labels.names)).tolist())

    def said(self, item: Item) -> str:
        """The label of ``item`` in words; several are separated by a bar."""
        if isinstance(item.label, tuple) and self.labels.kind == "value":
            return "|".join(f"{value:g}" for value in item.label)
        return "|".join(map(self.labels.name, item.classes))

    def take(self, indices: Iterable[int]) -> Pictures:
        """Those pictures, in that order, with the same labels."""
        return replace(self, items=tuple(self.items[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Splits:
    """The pictures to learn from, to choose by and to judge by; None where a source has none."""

    train: Pictures | None
    val: Pictures | None
    test: Pictures | None

    @property
    def given(self) -> dict[str, Pictures]:
        """Those that there are, by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: found for name, found in every.items() if found is not None}


Marks = dict[Item, bytes]  # the same for two pictures that are the same


def check(pictures: Pictures, workers: int = 2, marks: Marks | None = None) -> tuple[Pictures, list[PictureError]]:
    """The pictures that can be read, and an error for each that cannot. Every file is decoded once, to its end.

    Into ``marks`` goes what is to be seen in each, as a digest, so that `effnet.data.twins` need not decode it again.
    Raises ``ValueError`` where a class has no readable picture left.
    """
    whole("workers", workers, 1)

    def looked_at(item: Item) -> PictureError | None:
        try:
            image = looked(item)
        except PictureError as error:
            return error
        if marks is not None:
            marks[item] = mark_of(image)
        return None

    found = every(looked_at, pictures.items, workers)
    good = pictures.take(index for index, error in enumerate(found) if error is None)
    for name, before, after in zip(pictures.labels.names, pictures.counts(), good.counts(), strict=True):
        if before and not after:
            first = next(
                error
                for item, error in zip(pictures.items, found, strict=True)
                if error and name in map(pictures.labels.name, item.classes)
            )
            raise ValueError(f"class {name!r} has no readable picture; the first of its {before}: {first}")
    return good, [error for error in found if error is not None]


def looked(item: Item) -> Image.Image:
    """The picture, a JPEG at an eighth of its size: still read to its end, and several times faster."""
    return read(item.picture, reduce_to=(1, 1))


def mark_of(image: Image.Image) -> bytes:
    """A digest of what is to be seen."""
    return blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()
