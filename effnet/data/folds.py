"""Folds for cross-validation: every picture is held out exactly once."""

from __future__ import annotations

import logging

from effnet.arch.record import whole
from effnet.data.pictures import Pictures
from effnet.data.stratify import spread, strata, units

log = logging.getLogger("effnet")


def folds(pictures: Pictures, count: int = 5, seed: int = 0) -> list[tuple[Pictures, Pictures]]:
    """(to learn from, held out) for each fold, in which every picture is held out once.

    Each fold has its share of every label, of several as well as of one; of values, of every tenth of them. No group is
    on both sides. Which ones depends on the seed and the names alone, whatever the pictures' order. Where the pictures
    say their `fold`, those are taken, whatever ``count``; pictures without one are then always learned from.
    Raises ``ValueError`` where there are fewer pictures, or groups, than folds.
    """
    whole("folds", count, 2)
    places = own_folds(pictures)
    if places is None:
        together = units(pictures, seed)
        if len(together) < count:
            what = "pictures" if len(together) == len(pictures) else "groups"
            raise ValueError(f"{len(together)} {what} are too few for {count} folds: ask for fewer")
        places = [0] * len(pictures)
        for unit, fold in zip(together, spread(together, strata(pictures), (1 / count,) * count), strict=True):
            for index in unit:
                places[index] = fold
    elif len(set(places) - {-1}) != count:
        log.info("the data has %d folds of its own, which are taken in place of %d", len(set(places) - {-1}), count)
    found = []
    for fold in sorted(set(places) - {-1}):
        held = [index for index, place in enumerate(places) if place == fold]
        kept = [index for index, place in enumerate(places) if place != fold]
        found.append((pictures.take(kept), pictures.take(held)))
    return found


def own_folds(pictures: Pictures) -> list[int] | None:
    """The fold that the data itself puts each picture into, −1 for none; None where it says nothing of folds.

    Raises ``ValueError`` where that is one fold only. A group in two of them is said: its pictures are then judged by
    a network that has seen others of it.
    """
    places = [-1 if item.fold is None else item.fold for item in pictures.items]
    there = set(places) - {-1}
    if not there:
        return None
    if len(there) < 2:
        raise ValueError(f"all pictures with a fold are in fold {there.pop()}: at least two folds are needed")
    homes: dict[str, set[int]] = {}
    for item, place in zip(pictures.items, places, strict=True):
        if item.group:
            homes.setdefault(item.group, set()).add(place)
    torn = [group for group, where in homes.items() if len(where) > 1]
    if torn:
        log.warning(
            "%s in several folds of the data, such as %r: figures will look better than they are",
            "1 group is" if len(torn) == 1 else f"{len(torn)} groups are",
            torn[0],
        )
    return places
