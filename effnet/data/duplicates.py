"""The same picture twice: by its file's bytes, or by what is to be seen where only the file around it differs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from effnet.arch.serde import check_int
from effnet.data.dataset import Fingerprints, ImageDataset, Item, Splits, fingerprint_image, read_reduced
from effnet.data.image_io import ImageError
from effnet.data.prefetch import parallel_map

log = logging.getLogger("effnet")

_MAX_PAIRS_SHOWN = 3  # pairs that a message names

DuplicatePair = tuple[Item, Item]


def compute_fingerprints(datasets: Iterable[ImageDataset], decoded: bool = True, num_workers: int = 2) -> Fingerprints:
    """By what the same picture is known again, of each picture that may have a twin among all of these.

    ``decoded``: each is decoded (a JPEG at an eighth of its size), so that a copy with other metadata, or another
    lossless file of the same pixels, is found too; without it files of the same bytes are, and only files that are as
    large as another are read. Pictures that cannot be read have no mark.
    """
    check_int("workers", num_workers, 1)
    items = [item for pictures in datasets for item in pictures.items]
    found = parallel_map(_fingerprint_pixels, items, num_workers) if decoded else _fingerprint_bytes(items, num_workers)
    return {item: mark for item, mark in zip(items, found, strict=True) if mark is not None}


def find_duplicates(
    dataset: ImageDataset,
    others: ImageDataset | None = None,
    decoded: bool = True,
    fingerprints: Fingerprints | None = None,
) -> list[DuplicatePair]:
    """Pairs of the same picture, one of ``pictures`` and one of ``others``; without these, the first of it and a later.

    ``known``: the `marks` of them all, or what `check` made of them; otherwise they are taken now, ``decoded`` or not.
    """
    if fingerprints is None:
        fingerprints = compute_fingerprints((dataset, others) if others else (dataset,), decoded)
    found: list[DuplicatePair] = []
    first: dict[bytes, Item] = {}
    for item in dataset.items:
        if (mark := fingerprints.get(item)) is None:
            continue
        if others is None and mark in first:
            found.append((first[mark], item))
        first.setdefault(mark, item)
    for item in others.items if others else ():
        if (mark := fingerprints.get(item)) in first:
            found.append((first[mark], item))
    return found


def group_duplicates(dataset: ImageDataset, pairs: Iterable[DuplicatePair]) -> ImageDataset:
    """The same pictures, the two of each pair in one group, and with them the groups that they were in."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    for one, other in pairs:
        parent[root(_group_key(other))] = root(_group_key(one))
    if not parent:
        return dataset
    joined = {root(key) for key in parent}

    def grouped(item: Item) -> Item:
        kind, name = root(_group_key(item))
        if (kind, name) not in joined:
            return item
        return replace(item, group=name if kind == "group" else f"twins of {name}")

    return replace(dataset, items=tuple(map(grouped, dataset.items)))


def describe_split_overlap(splits: Splits, decoded: bool = True, fingerprints: Fingerprints | None = None) -> list[str]:
    """A sentence for each held-out split that has pictures of the training set in it, and for labels that disagree.

    ``decoded`` and ``known`` as in `twins`.
    """
    if splits.train is None:
        return []
    said = []
    for name, held in (("val", splits.val), ("test", splits.test)):
        pairs = find_duplicates(splits.train, held, decoded, fingerprints) if held is not None else []
        if pairs:
            again = dict.fromkeys(other.name for _, other in pairs)
            which = f"{_format_image_count(len(again))} of {name} {'is' if len(again) == 1 else 'are'} in train as well"
            said.append(f"{which}: {format_pairs(pairs)}; figures on {name} will look better than they are")
            said += describe_label_conflicts(splits.train, pairs)
    return said


def describe_label_conflicts(dataset: ImageDataset, pairs: Sequence[DuplicatePair]) -> list[str]:
    """A sentence where the same picture has two labels; nothing where none has."""
    torn = [pair for pair in pairs if pair[0].label != pair[1].label]
    if not torn:
        return []
    return [
        f"{_format_image_count(len(torn))} {'has' if len(torn) == 1 else 'have'} another label the second time: "
        f"{format_pairs(torn)}"
    ]


def format_pairs(pairs: Sequence[DuplicatePair]) -> str:
    """The first of the pairs by name: "a.jpg = b.jpg, c.jpg = d.jpg, …"."""
    told = ", ".join(f"{one.name} = {other.name}" for one, other in pairs[:_MAX_PAIRS_SHOWN])
    return told + (", …" if len(pairs) > _MAX_PAIRS_SHOWN else "")


def _group_key(item: Item) -> tuple[str, str]:
    """What an item is grouped by: its group, or itself."""
    return ("group", item.group) if item.group else ("alone", item.name)


def _format_image_count(pairs: int) -> str:
    return "1 picture" if pairs == 1 else f"{pairs} pictures"


def _fingerprint_pixels(item: Item) -> bytes | None:
    """A digest of the picture's pixels; None where it cannot be read."""
    try:
        return fingerprint_image(read_reduced(item))
    except ImageError:
        return None


def _fingerprint_bytes(items: Sequence[Item], num_workers: int) -> list[bytes | None]:
    """A digest of each picture's bytes; None for a file that no other is as large as."""
    sizes = [_file_size(item) for item in items]
    shared = {size for size, count in zip(*np.unique(sizes, return_counts=True), strict=True) if count > 1 or size < 0}

    def digest(at: int) -> bytes | None:
        if sizes[at] not in shared:
            return None
        picture = items[at].image
        try:
            content = picture.tobytes() if isinstance(picture, np.ndarray) else (
                picture.read_bytes() if isinstance(picture, Path) else picture.read())  # fmt: skip
        except (OSError, ImageError):
            return None
        return blake2b(content, digest_size=16).digest()

    return parallel_map(digest, range(len(items)), num_workers)


def _file_size(item: Item) -> int:
    """Bytes; −1 where that is not known before it is read."""
    if isinstance(item.image, Path):
        try:
            return os.stat(item.image).st_size
        except OSError:
            return -2
    return item.image.nbytes if isinstance(item.image, np.ndarray) else -1
