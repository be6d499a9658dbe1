"""Pictures into parts that each have their share of every label, none of a group in two of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.serde import check_int
from effnet.data.dataset import ImageDataset

if TYPE_CHECKING:
    from effnet.data.dataset import ImageDataset

QUANTILE_BINS = 10  # quantiles that values are told apart by


_MIN_IMAGES_PER_BIN = 4  # pictures a bin


Strata = Sequence[tuple[Hashable, ...]]


def compute_strata(dataset: ImageDataset) -> Strata:
    """What must be spread evenly, of each picture: its labels, or the quantiles that its values are in."""
    if dataset.labels.task != "regression":
        return [(item.label,) if isinstance(item.label, int) else item.label for item in dataset.items]
    wanted = dataset.target_matrix  # (N, values)
    bins = max(1, min(QUANTILE_BINS, len(wanted) // _MIN_IMAGES_PER_BIN))
    edges = np.quantile(wanted, np.arange(1, bins) / bins, axis=0)  # (bins − 1, values)
    places = (wanted[None] > edges[:, None]).sum(0)  # (N, values)
    return [tuple(enumerate(row)) for row in places.tolist()]


def make_split_units(dataset: ImageDataset, seed: int) -> list[list[int]]:
    """The pictures' indices, those of a group together, in an order that only the seed and the names decide."""
    found: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(dataset.items):
        found.setdefault(("group", item.group) if item.group else ("name", item.name), []).append(index)
    drawn = {key: sha256(f"{seed}/{key[1]}".encode()).digest() for key in found}
    return [found[key] for key in sorted(found, key=drawn.__getitem__)]


def assign_to_parts(
    units: Sequence[Sequence[int]],
    strata: Strata,
    fractions: Sequence[float],
    cover_strata: bool = False,
) -> list[int]:
    """The part that each unit goes into, such that part p has about ``shares[p]`` of every stratum.

    Large units first, and those with rare strata, each where the squares of all parts' counts, over what they should
    be, then grow the least (Webster's rule of apportionment where a unit is one picture with one label; for several
    labels in the manner of Sechidis et al., "On the stratification of multi-label data", 2011); among equals into
    the part that is smallest for its share. ``cover``: the first unit of every stratum goes into part 0.
    """
    totals = Counter(one for row in strata for one in row)
    held: list[Counter[Hashable]] = [Counter() for _ in fractions]
    sizes = [0] * len(fractions)
    counts = [Counter(one for index in unit for one in strata[index]) for unit in units]
    rarest = [min((totals[one] for one in count), default=len(strata)) for count in counts]
    # The rarest stratum itself is in the key, so that equally rare ones come one after the other
    names = [
        min((repr(one) for one in count if totals[one] == least), default="")
        for count, least in zip(counts, rarest, strict=True)
    ]
    found = [0] * len(units)
    for at in sorted(range(len(units)), key=lambda at: (-len(units[at]), rarest[at], names[at])):
        best, least = 0, (float("inf"), float("inf"))
        for part, share in enumerate(fractions):
            if part and cover_strata and any(not held[0][one] for one in counts[at]):
                continue
            growth = sum((2 * held[part][one] + n) * n / (totals[one] ** 2 * share) for one, n in counts[at].items())
            key = (round(growth, 15), (sizes[part] + len(units[at])) / share)
            if key < least:
                best, least = part, key
        found[at] = best
        held[best].update(counts[at])
        sizes[best] += len(units[at])
    return found


def choose_stratified_holdout(dataset: ImageDataset, fraction: float, seed: int) -> set[int]:
    """The indices of about ``share`` of every stratum, in whole groups, and of at least one picture.

    What only held-out pictures have could not be learned: the first group with a label is kept. Of a label in several
    groups one is held out, unless that is larger than ``share`` of all. Raises ``ValueError`` where nothing can be
    held out so.
    """
    together, layers = make_split_units(dataset, seed), compute_strata(dataset)
    counts = [Counter(one for index in unit for one in layers[index]) for unit in together]
    parts = assign_to_parts(together, layers, (1 - fraction, fraction), cover_strata=True)
    kept: Counter[Hashable] = Counter()
    held: Counter[Hashable] = Counter()
    for count, part in zip(counts, parts, strict=True):
        (held if part else kept).update(count)

    def give(at: int) -> None:
        parts[at] = 1
        kept.subtract(counts[at])
        held.update(counts[at])

    free = sorted(range(len(together)), key=lambda at: len(together[at]))  # small ones first
    for one in sorted(kept, key=repr):
        for at in free if not held[one] and dataset.labels.task != "regression" else ():
            small = len(together[at]) <= max(1, fraction * len(dataset))
            if small and not parts[at] and counts[at][one] and all(kept[each] > n for each, n in counts[at].items()):
                give(at)
                break
    if not any(parts):
        for at in free:
            if len(together) > 1 and all(kept[each] > n for each, n in counts[at].items()):
                give(at)
                break
        else:
            raise ValueError(
                f"none of the {len(together)} groups of pictures can be held out, since each has all the pictures of "
                "a label: make the groups smaller, or give pictures to judge by"
            )
    return {index for unit, part in zip(together, parts, strict=True) if part for index in unit}


# Some of the labelled pictures held out, the same ones wherever and whenever it is done.


def holdout(dataset: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """``pictures`` in two, (kept, held out): about ``share`` of every class is held out, and at least one picture.

    Where any label may be right it is about ``share`` of each, and of values of every tenth of them. A group stays
    together. Which ones depends on the seed and the pictures' names alone, through a hash: the same on every machine,
    with every version, and (of classes without groups) hardly changed when pictures are added. Raises ``ValueError``
    for a class of one picture, and for groups of which none can be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"share must be above 0 and below 1, got {fraction!r}")
    if dataset.labels.task != "classification" or any(item.group for item in dataset.items):
        held = choose_stratified_holdout(dataset, fraction, seed)
        return dataset.subset(index for index in range(len(dataset)) if index not in held), dataset.subset(sorted(held))
    members: dict[int, list[int]] = {}
    for index, label in enumerate(dataset.targets.tolist()):
        members.setdefault(label, []).append(index)
    held = set()
    for label, indices in members.items():
        if len(indices) < 2:
            raise ValueError(
                f"class {dataset.labels.name(label)!r} has only one picture, too few to hold one out: add another"
            )
        shuffled = sorted(indices, key=lambda index: sha256(f"{seed}/{dataset.items[index].name}".encode()).digest())
        held.update(shuffled[: min(max(round(fraction * len(indices)), 1), len(indices) - 1)])
    kept = (index for index in range(len(dataset)) if index not in held)
    return dataset.subset(kept), dataset.subset(sorted(held))


# Folds for cross-validation: every picture is held out exactly once.


log = logging.getLogger("effnet")


def make_folds(dataset: ImageDataset, num_folds: int = 5, seed: int = 0) -> list[tuple[ImageDataset, ImageDataset]]:
    """(to learn from, held out) for each fold, in which every picture is held out once.

    Each fold has its share of every label, of several as well as of one; of values, of every tenth of them. No group is
    on both sides. Which ones depends on the seed and the names alone, whatever the pictures' order. Where the pictures
    say their `fold`, those are taken, whatever ``count``; pictures without one are then always learned from.
    Raises ``ValueError`` where there are fewer pictures, or groups, than folds.
    """
    check_int("folds", num_folds, 2)
    places = read_predefined_folds(dataset)
    if places is None:
        together = make_split_units(dataset, seed)
        if len(together) < num_folds:
            what = "pictures" if len(together) == len(dataset) else "groups"
            raise ValueError(f"{len(together)} {what} are too few for {num_folds} folds: ask for fewer")
        places = [0] * len(dataset)
        for unit, fold in zip(
            together, assign_to_parts(together, compute_strata(dataset), (1 / num_folds,) * num_folds), strict=True
        ):
            for index in unit:
                places[index] = fold
    elif len(set(places) - {-1}) != num_folds:
        log.info("the data has %d folds of its own, which are taken in place of %d", len(set(places) - {-1}), num_folds)
    found = []
    for fold in sorted(set(places) - {-1}):
        held = [index for index, place in enumerate(places) if place == fold]
        kept = [index for index, place in enumerate(places) if place != fold]
        found.append((dataset.subset(kept), dataset.subset(held)))
    return found


def read_predefined_folds(dataset: ImageDataset) -> list[int] | None:
    """The fold that the data itself puts each picture into, −1 for none; None where it says nothing of folds.

    Raises ``ValueError`` where that is one fold only. A group in two of them is said: its pictures are then judged by
    a network that has seen others of it.
    """
    places = [-1 if item.fold is None else item.fold for item in dataset.items]
    there = set(places) - {-1}
    if not there:
        return None
    if len(there) < 2:
        raise ValueError(f"all pictures with a fold are in fold {there.pop()}: at least two folds are needed")
    homes: dict[str, set[int]] = {}
    for item, place in zip(dataset.items, places, strict=True):
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
