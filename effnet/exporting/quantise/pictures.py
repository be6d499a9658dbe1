"""The pictures that ranges are taken from, and those by which the written file is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Preprocess
from effnet.data import open_data
from effnet.data.ahead import ahead
from effnet.data.pictures import Item, Pictures
from effnet.data.pixels import Fitted, PictureError, pixels
from effnet.data.sources import files_below
from effnet.net import EfficientNet

LEAST = 8  # to take ranges from: fewer say nothing of the next picture
BYTES_MOST = 2**29  # of the pictures to judge by, which are held in memory


@dataclass(frozen=True, eq=False)
class Judged:
    """``calibration`` and ``judged``: (N, H, W, C) of 0 … 255. ``targets``: classes of the latter, None: not known.

    ``unreadable``: how many pictures of either were left out.
    """

    calibration: Fitted
    judged: Fitted
    targets: NDArray[np.int64] | None
    unreadable: int


def read(folder: str | Path, model: EfficientNet, count: int) -> Judged:
    """``count`` pictures of ``folder`` to calibrate by, spread over its classes, and as many as fit to judge by.

    A folder with train and val is calibrated by the one and judged by the other; any other by all that is in it. The
    labels count where the folder's classes are the network's. Raises ``ValueError`` for fewer than `LEAST` pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: int8 needs a folder of pictures like those that it will see")
    train, held, labelled = _found(root, model)
    first = _prepared(spread(train, count), model.preprocess)
    if len(first[0]) < LEAST:
        raise ValueError(f"{root} has {len(first[0])} readable pictures, and int8 needs {LEAST} to take ranges from")
    bytes_each = first[0][0].nbytes
    second = _prepared(spread(held, max(BYTES_MOST // bytes_each, 1)), model.preprocess)
    return Judged(first[0], second[0], second[1] if labelled else None, len(first[2] | second[2]))


def _found(root: Path, model: EfficientNet) -> tuple[list[Item], list[Item], bool]:
    """Items to calibrate by, items to judge by, and whether their labels are the network's classes."""
    try:
        splits = open_data(root)
    except ValueError:  # no class folders
        items = [Item(path, 0, path.name) for path in files_below(root)]
        return items, items, False
    train = splits.train or splits.val or splits.test
    assert train is not None
    held = splits.val or splits.test or train
    order = _order(held, model)
    if order is None:
        return list(train.items), list(held.items), False
    return list(train.items), [Item(each.picture, order[each.label], each.name) for each in held.items], True


def _order(pictures: Pictures, model: EfficientNet) -> list[int] | None:
    """The network's class of each of the folder's; None where they are others."""
    known, found = model.labels.names, pictures.labels.names
    if not known:
        return list(range(model.classes)) if len(found) == model.classes else None
    return [known.index(name) for name in found] if set(found) <= set(known) else None


def spread(items: list[Item], count: int) -> list[Item]:
    """``count`` of ``items``, as many of each class as there are, in turn; within a class evenly over its order."""
    if len(items) <= count:
        return items
    members: dict[int, list[Item]] = {}
    for item in items:
        members.setdefault(item.label, []).append(item)
    share = dict.fromkeys(members, 0)
    left = count
    while left:  # one each in turn, until the smaller classes are used up
        open_ = [label for label in members if share[label] < len(members[label])][:left]
        for label in open_:
            share[label] += 1
        left -= len(open_)
    return [
        members[label][index * len(members[label]) // share[label]]
        for label in members
        for index in range(share[label])
    ]


def _prepared(items: list[Item], preprocess: Preprocess) -> tuple[Fitted, NDArray[np.int64], set[str]]:
    """The readable ones of ``items``, their labels, and the names of the others."""

    def prepare(item: Item) -> Fitted | None:
        try:
            return pixels(item.picture, preprocess)
        except PictureError:
            return None

    made = list(zip(items, ahead(prepare, items), strict=True))
    unreadable = {item.name for item, picture in made if picture is None}
    pairs = [(picture, item.label) for item, picture in made if picture is not None]
    if not pairs:
        return np.empty((0, *preprocess.size, 3), np.uint8), np.empty(0, np.int64), unreadable
    labels = np.array([label for _, label in pairs], np.int64)
    return np.stack([picture for picture, _ in pairs]), labels, unreadable
