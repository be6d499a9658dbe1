"""Labelled pictures: what a source gives, how some are held out, and which of them cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import whole
from effnet.contract import Labels
from effnet.data.pixels import PictureError, Pixels, read

_BATCH = 1024  # pictures queued at once when checking: a queue of all ImageNet would take a gigabyte


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One labelled picture: a file, or uint8 (H, W, 3). ``name`` tells it apart wherever its folder lies."""

    picture: Path | Pixels
    label: int
    name: str


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
        """The class of each picture, in order: int64 (N,)."""
        return np.fromiter((item.label for item in self.items), np.int64, len(self.items))

    def counts(self) -> tuple[int, ...]:
        """How many pictures each class has, in the order of ``labels``."""
        return tuple(np.bincount(self.targets, minlength=len(self.labels.names)).tolist())

    def take(self, indices: Iterable[int]) -> Pictures:
        """Those pictures, in that order, with the same labels."""
        return replace(self, items=tuple(self.items[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Splits:
    """The pictures to learn from, to choose by and to judge by; None where a source has none."""

    train: Pictures | None
    val: Pictures | None
    test: Pictures | None


def holdout(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """``pictures`` in two, (kept, held out): about ``share`` of every class is held out, and at least one picture.

    Which ones depends on the seed and the pictures' names alone, through a hash: the same on every machine, with every
    version, and hardly changed when pictures are added. Raises ``ValueError`` for a class of one picture.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share!r}")
    members: dict[int, list[int]] = {}
    for index, item in enumerate(pictures.items):
        members.setdefault(item.label, []).append(index)
    held: set[int] = set()
    for label, indices in members.items():
        if len(indices) < 2:
            raise ValueError(
                f"class {pictures.labels.name(label)!r} has only one picture, too few to hold one out: add another"
            )
        shuffled = sorted(indices, key=lambda index: sha256(f"{seed}/{pictures.items[index].name}".encode()).digest())
        held.update(shuffled[: min(max(round(share * len(indices)), 1), len(indices) - 1)])
    kept = (index for index in range(len(pictures)) if index not in held)
    return pictures.take(kept), pictures.take(sorted(held))


def check(pictures: Pictures, workers: int = 2) -> tuple[Pictures, list[PictureError]]:
    """The pictures that can be read, and an error for each that cannot. Every file is decoded once, to its end.

    Raises ``ValueError`` where a class has no readable picture left.
    """
    whole("workers", workers, 1)
    found: list[PictureError | None] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(pictures), _BATCH):
            found += pool.map(_error, pictures.items[start : start + _BATCH])
    good = pictures.take(index for index, error in enumerate(found) if error is None)
    for name, before, after in zip(pictures.labels.names, pictures.counts(), good.counts(), strict=True):
        if before and not after:
            first = next(
                error
                for item, error in zip(pictures.items, found, strict=True)
                if error and pictures.labels.name(item.label) == name
            )
            raise ValueError(f"class {name!r} has no readable picture; the first of its {before}: {first}")
    return good, [error for error in found if error is not None]


def _error(item: Item) -> PictureError | None:
    try:
        read(item.picture, reduce_to=(1, 1))  # a JPEG at an eighth: still read to its end, and several times faster
    except PictureError as error:
        return error
    return None
