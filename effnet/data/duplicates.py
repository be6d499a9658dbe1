"""Duplicate images: by their files' bytes, or by their pixels where only the file around them differs."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from effnet.data import image_io, prefetch
from effnet.data.dataset import (
    Fingerprints,
    ImageDataset,
    Item,
    Label,
    Splits,
    digest_content,
    fingerprint_image,
    read_reduced,
)
from effnet.timing.machine import count_cores

log = logging.getLogger("effnet")

MAX_IMAGES_COMPARED = 5_000  # of more, training alone, which reads every image anyway, finds the duplicates


class LabeledCopy(NamedTuple):
    """A file of an image that has several labels."""

    image: str
    label: str
    split: str


DuplicatePair = tuple[Item, Item]
LabelConflict = tuple[LabeledCopy, ...]  # all files of one image


def compute_fingerprints(datasets: Iterable[ImageDataset], decoded: bool = True) -> Fingerprints:
    """Return a fingerprint of each readable image that may have a duplicate in any of ``datasets``.

    ``decoded``: by pixels (of a JPEG at an eighth of its size), whatever file they are in. Otherwise only files with
    equal bytes are duplicates, and only those as large as another one are read.
    """
    items = [item for dataset in datasets for item in dataset.items]
    if not decoded:
        sizes = [file_size(item) for item in items]
        counts = Counter(sizes)
        items = [item for item, size in zip(items, sizes, strict=True) if size < 0 or counts[size] > 1]
    digests = prefetch.parallel_map(_fingerprint_pixels if decoded else _fingerprint_bytes, items, count_cores())
    return {item: digest for item, digest in zip(items, digests, strict=True) if digest is not None}


def find_duplicates(
    dataset: ImageDataset, fingerprints: Fingerprints, others: ImageDataset | None = None
) -> list[DuplicatePair]:
    """Return pairs of the same image, one of ``dataset`` and one of ``others``; without these, two of ``dataset``."""
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


def describe_split_overlap(splits: Splits, fingerprints: Fingerprints) -> list[str]:
    """Return a sentence per held-out split that contains training images."""
    if splits.train is None:
        return []
    sentences = []
    for name, heldout in (("val", splits.val), ("test", splits.test)):
        pairs = find_duplicates(splits.train, fingerprints, heldout) if heldout is not None else []
        if pairs:
            count = len({second.name for _, second in pairs})
            sentences.append(
                f"{_format_image_count(count)} of {name} {'is' if count == 1 else 'are'} in train as well: "
                f"{format_pairs(pairs)}; results on {name} will look better than they are"
            )
    return sentences


def find_label_conflicts(splits: Mapping[str, ImageDataset], fingerprints: Fingerprints) -> list[LabelConflict]:
    """Return every image that has several labels, with all of its copies, within a split and across them."""
    copies: dict[bytes, list[tuple[LabeledCopy, Label]]] = {}
    for split, images in splits.items():
        for item in images.items:
            if item in fingerprints:
                copy = LabeledCopy(item.name, images.format_label(item), split)
                copies.setdefault(fingerprints[item], []).append((copy, item.label))
    return [
        tuple(copy for copy, _ in group) for group in copies.values() if any(label != group[0][1] for _, label in group)
    ]


def describe_label_conflicts(conflicts: Sequence[LabelConflict]) -> list[str]:
    """Return a sentence that names the first three images with several labels, or nothing."""
    if not conflicts:
        return []
    shown = []
    for conflict in conflicts[:3]:
        first = conflict[0]
        other = next(copy for copy in conflict if copy.label != first.label)
        shown.append(f"{first.image} ({first.label}) = {other.image} ({other.label})")
    more = ", …" * (len(conflicts) > 3)
    verb = "has" if len(conflicts) == 1 else "have"
    return [f"{_format_image_count(len(conflicts))} {verb} several labels: {', '.join(shown)}{more}"]


def log_label_conflicts(splits: Mapping[str, ImageDataset]) -> None:
    """Log which images of a small local dataset have several labels; only files of equal sizes are read."""
    local = {
        split: images.subset(n for n, item in enumerate(images.items) if isinstance(item.image, (Path, np.ndarray)))
        for split, images in splits.items()
    }
    if sum(map(len, local.values())) <= MAX_IMAGES_COMPARED:
        fingerprints = compute_fingerprints(local.values(), decoded=False)
        for sentence in describe_label_conflicts(find_label_conflicts(local, fingerprints)):
            log.warning(sentence)


def format_pairs(pairs: Sequence[DuplicatePair]) -> str:
    """Return the first three pairs by name: "a.jpg = b.jpg, c.jpg = d.jpg, …"."""
    return ", ".join(f"{first.name} = {second.name}" for first, second in pairs[:3]) + ", …" * (len(pairs) > 3)


def _group_key(item: Item) -> tuple[str, str]:
    return ("group", item.group) if item.group else ("alone", item.name)


def _format_image_count(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _fingerprint_pixels(item: Item) -> bytes | None:
    try:
        return fingerprint_image(read_reduced(item.image))
    except image_io.ImageError:
        return None


def _fingerprint_bytes(item: Item) -> bytes | None:
    try:
        return digest_content(item.image)
    except (OSError, image_io.ImageError):
        return None


def file_size(item: Item) -> int:
    """Return the size in bytes; -1 if it is not known before the image is read."""
    if isinstance(item.image, Path):
        return item.image.stat().st_size if item.image.is_file() else -1
    size = getattr(item.image, "nbytes" if isinstance(item.image, np.ndarray) else "size", -1)
    return size if isinstance(size, int) else -1
