"""The same picture twice: by its file's bytes, or by what is to be seen where only the file around it differs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from effnet.arch.record import whole
from effnet.data.ahead import every
from effnet.data.pictures import Item, Marks, Pictures, Splits, looked, mark_of
from effnet.data.pixels import PictureError

log = logging.getLogger("effnet")

_NAMED = 3  # pairs that a message names

Pair = tuple[Item, Item]


def marks(of: Iterable[Pictures], decoded: bool = True, workers: int = 2) -> Marks:
    """By what the same picture is known again, of each picture that may have a twin among all of these.

    ``decoded``: each is decoded (a JPEG at an eighth of its size), so that a copy with other metadata, or another
    lossless file of the same pixels, is found too; without it files of the same bytes are, and only files that are as
    large as another are read. Pictures that cannot be read have no mark.
    """
    whole("workers", workers, 1)
    items = [item for pictures in of for item in pictures.items]
    found = every(_seen, items, workers) if decoded else _stored(items, workers)
    return {item: mark for item, mark in zip(items, found, strict=True) if mark is not None}


def twins(
    pictures: Pictures, others: Pictures | None = None, decoded: bool = True, known: Marks | None = None
) -> list[Pair]:
    """Pairs of the same picture, one of ``pictures`` and one of ``others``; without these, the first of it and a later.

    ``known``: the `marks` of them all, or what `check` made of them; otherwise they are taken now, ``decoded`` or not.
    """
    if known is None:
        known = marks((pictures, others) if others else (pictures,), decoded)
    found: list[Pair] = []
    first: dict[bytes, Item] = {}
    for item in pictures.items:
        if (mark := known.get(item)) is None:
            continue
        if others is None and mark in first:
            found.append((first[mark], item))
        first.setdefault(mark, item)
    for item in others.items if others else ():
        if (mark := known.get(item)) in first:
            found.append((first[mark], item))
    return found


def together(pictures: Pictures, pairs: Iterable[Pair]) -> Pictures:
    """The same pictures, the two of each pair in one group, and with them the groups that they were in."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    for one, other in pairs:
        parent[root(_home(other))] = root(_home(one))
    if not parent:
        return pictures
    joined = {root(key) for key in parent}

    def grouped(item: Item) -> Item:
        kind, name = root(_home(item))
        if (kind, name) not in joined:
            return item
        return replace(item, group=name if kind == "group" else f"twins of {name}")

    return replace(pictures, items=tuple(map(grouped, pictures.items)))


def overlap(splits: Splits, decoded: bool = True, known: Marks | None = None) -> list[str]:
    """A sentence for each held-out split that has pictures of the training set in it, and for labels that disagree.

    ``decoded`` and ``known`` as in `twins`.
    """
    if splits.train is None:
        return []
    said = []
    for name, held in (("val", splits.val), ("test", splits.test)):
        pairs = twins(splits.train, held, decoded, known) if held is not None else []
        if pairs:
            again = dict.fromkeys(other.name for _, other in pairs)
            which = f"{_count(len(again))} of {name} {'is' if len(again) == 1 else 'are'} in train as well"
            said.append(f"{which}: {named(pairs)}; figures on {name} will look better than they are")
            said += disagreeing(splits.train, pairs)
    return said


def disagreeing(pictures: Pictures, pairs: Sequence[Pair]) -> list[str]:
    """A sentence where the same picture has two labels; nothing where none has."""
    torn = [pair for pair in pairs if pair[0].label != pair[1].label]
    if not torn:
        return []
    return [f"{_count(len(torn))} {'has' if len(torn) == 1 else 'have'} another label the second time: {named(torn)}"]


def named(pairs: Sequence[Pair]) -> str:
    """The first of the pairs by name: "a.jpg = b.jpg, c.jpg = d.jpg, …"."""
    told = ", ".join(f"{one.name} = {other.name}" for one, other in pairs[:_NAMED])
    return told + (", …" if len(pairs) > _NAMED else "")


def _home(item: Item) -> tuple[str, str]:
    """What an item is grouped by: its group, or itself."""
    return ("group", item.group) if item.group else ("alone", item.name)


def _count(pairs: int) -> str:
    return "1 picture" if pairs == 1 else f"{pairs} pictures"


def _seen(item: Item) -> bytes | None:
    """A digest of the picture's pixels; None where it cannot be read."""
    try:
        return mark_of(looked(item))
    except PictureError:
        return None


def _stored(items: Sequence[Item], workers: int) -> list[bytes | None]:
    """A digest of each picture's bytes; None for a file that no other is as large as."""
    sizes = [_size(item) for item in items]
    shared = {size for size, count in zip(*np.unique(sizes, return_counts=True), strict=True) if count > 1 or size < 0}

    def digest(at: int) -> bytes | None:
        if sizes[at] not in shared:
            return None
        picture = items[at].picture
        try:
            content = picture.tobytes() if isinstance(picture, np.ndarray) else (
                picture.read_bytes() if isinstance(picture, Path) else picture.read())  # fmt: skip
        except (OSError, PictureError):
            return None
        return blake2b(content, digest_size=16).digest()

    return every(digest, range(len(items)), workers)


def _size(item: Item) -> int:
    """Bytes; −1 where that is not known before it is read."""
    if isinstance(item.picture, Path):
        try:
            return os.stat(item.picture).st_size
        except OSError:
            return -2
    return item.picture.nbytes if isinstance(item.picture, np.ndarray) else -1
