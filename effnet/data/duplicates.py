"""Duplicate images: by their files' bytes, or by their pixels where only the file around them differs."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from effnet.arch.serde import check_int
from effnet.data import image_io, prefetch
from effnet.data.dataset import Fingerprints, ImageDataset, Item, Splits, fingerprint_image, read_reduced

DuplicatePair = tuple[Item, Item]

_MAX_PAIRS_SHOWN = 3  # in a message


def compute_fingerprints(datasets: Iterable[ImageDataset], decoded: bool = True, num_workers: int = 2) -> Fingerprints:
    """Return a fingerprint of each readable image that may have a duplicate in any of ``datasets``.

    ``decoded``: decode each image (a JPEG at an eighth of its size), so that copies with other metadata and lossless
    files of the same pixels are found too. Otherwise only files with equal bytes are, and only files that are as large
    as another one are read.
    """
    check_int("num_workers", num_workers, 1)
    items = [item for dataset in datasets for item in dataset.items]
    if decoded:
        digests = prefetch.parallel_map(_fingerprint_pixels, items, num_workers)
    else:
        digests = _fingerprint_bytes(items, num_workers)
    return {item: digest for item, digest in zip(items, digests, strict=True) if digest is not None}


def find_duplicates(
    dataset: ImageDataset,
    others: ImageDataset | None = None,
    decoded: bool = True,
    fingerprints: Fingerprints | None = None,
) -> list[DuplicatePair]:
    """Return pairs of the same image, one of ``dataset`` and one of ``others``; without these, two of ``dataset``.

    ``fingerprints``: of all of them, from `compute_fingerprints` or `check_images`; None computes them.
    """
    if fingerprints is None:
        fingerprints = compute_fingerprints((dataset, others) if others else (dataset,), decoded)
    first: dict[bytes, Item] = {}
    for item in dataset.items:
        if item in fingerprints:
            first.setdefault(fingerprints[item], item)
    candidates = dataset.items if others is None else others.items
    pairs = [(first[digest], item) for item in candidates if (digest := fingerprints.get(item)) in first]
    return [pair for pair in pairs if others is not None or pair[0] is not pair[1]]


def group_duplicates(dataset: ImageDataset, pairs: Iterable[DuplicatePair]) -> ImageDataset:
    """Return the same images with each pair in one group, joined with the groups that the two were in."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find_root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    for first, second in pairs:
        parent[find_root(_group_key(second))] = find_root(_group_key(first))
    if not parent:
        return dataset
    joined = {find_root(key) for key in parent}

    def set_group(item: Item) -> Item:
        kind, name = find_root(_group_key(item))
        if (kind, name) not in joined:
            return item
        return replace(item, group=name if kind == "group" else f"duplicates of {name}")

    return replace(dataset, items=tuple(map(set_group, dataset.items)))


def describe_split_overlap(splits: Splits, decoded: bool = True, fingerprints: Fingerprints | None = None) -> list[str]:
    """Return a sentence per held-out split that contains training images, and one if their labels disagree."""
    if splits.train is None:
        return []
    sentences = []
    for name, heldout in (("val", splits.val), ("test", splits.test)):
        pairs = find_duplicates(splits.train, heldout, decoded, fingerprints) if heldout is not None else []
        if pairs:
            count = len({second.name for _, second in pairs})
            sentences.append(
                f"{_format_image_count(count)} of {name} {'is' if count == 1 else 'are'} in train as well: "
                f"{format_pairs(pairs)}; results on {name} will look better than they are"
            )
            sentences += describe_label_conflicts(pairs)
    return sentences


def describe_label_conflicts(pairs: Sequence[DuplicatePair]) -> list[str]:
    """Return a sentence if duplicates have different labels, else nothing."""
    conflicts = [pair for pair in pairs if pair[0].label != pair[1].label]
    if not conflicts:
        return []
    verb = "has a duplicate" if len(conflicts) == 1 else "have duplicates"
    return [f"{_format_image_count(len(conflicts))} {verb} with another label: {format_pairs(conflicts)}"]


def format_pairs(pairs: Sequence[DuplicatePair]) -> str:
    """Return the first pairs by name: "a.jpg = b.jpg, c.jpg = d.jpg, …"."""
    shown = ", ".join(f"{first.name} = {second.name}" for first, second in pairs[:_MAX_PAIRS_SHOWN])
    return shown + (", …" if len(pairs) > _MAX_PAIRS_SHOWN else "")


def _group_key(item: Item) -> tuple[str, str]:
    return ("group", item.group) if item.group else ("alone", item.name)


def _format_image_count(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _fingerprint_pixels(item: Item) -> bytes | None:
    try:
        return fingerprint_image(read_reduced(item))
    except image_io.ImageError:
        return None


def _fingerprint_bytes(items: Sequence[Item], num_workers: int) -> list[bytes | None]:
    """Return a digest of each file's bytes; None for files of a size that no other has."""
    sizes = [_file_size(item) for item in items]
    shared = {size for size, count in zip(*np.unique(sizes, return_counts=True), strict=True) if count > 1 or size < 0}

    def digest(index: int) -> bytes | None:
        if sizes[index] not in shared:
            return None
        image = items[index].image
        try:
            if isinstance(image, np.ndarray):
                content = image.tobytes()
            else:
                content = image.read_bytes() if isinstance(image, Path) else image.read()
        except (OSError, image_io.ImageError):
            return None
        return blake2b(content, digest_size=16).digest()

    return prefetch.parallel_map(digest, range(len(items)), num_workers)


def _file_size(item: Item) -> int:
    """Return the size in bytes; negative if it is not known before the image is read."""
    if isinstance(item.image, Path):
        try:
            return os.stat(item.image).st_size
        except OSError:
            return -2
    return item.image.nbytes if isinstance(item.image, np.ndarray) else -1
