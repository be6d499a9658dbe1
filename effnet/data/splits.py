"""Hold-outs and cross-validation folds: stratified, groups kept whole, the same for any order of the images.

scikit-learn's ``StratifiedGroupKFold`` is not used: it stratifies by one class per image, not by several labels or by
values, and its folds depend on the images' order. Here they depend on the seed and the images' names.
"""

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import sha256

import numpy as np

from effnet.arch.serde import check_int
from effnet.data.dataset import ImageDataset
from effnet.tasks import task_of

log = logging.getLogger("effnet")

QUANTILE_BINS = 10  # strata of values, if each has at least four images

Strata = Sequence[tuple[Hashable, ...]]  # of each image


def holdout(dataset: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Split ``dataset`` in two, (kept, held out).

    About ``fraction`` of every class is held out, of every label for multi-label, and of every tenth of the values for
    regression; at least one image. Groups stay whole. The choice depends on the seed and a hash of the images' names:
    it is the same on every machine and with every version and, for classes without groups, changes little when images
    are added.

    Raises ``ValueError`` for a class of one image, and if no group can be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be above 0 and below 1, got {fraction!r}")
    if dataset.labels.task != "classification" or any(item.group for item in dataset.items):
        held = _choose_stratified_holdout(dataset, fraction, seed)
    else:
        held = _choose_holdout_per_class(dataset, fraction, seed)
    kept = (index for index in range(len(dataset)) if index not in held)
    return dataset.subset(kept), dataset.subset(sorted(held))


def make_folds(dataset: ImageDataset, num_folds: int = 5, seed: int = 0) -> list[tuple[ImageDataset, ImageDataset]]:
    """Return (training, held out) of each fold; every image is held out once.

    Each fold has its share of every label, or of every tenth of the values. No group is on both sides. The choice
    depends on the seed and the images' names. Where images carry a ``fold``, those folds are used instead, whatever
    ``num_folds``; images without one are then always trained on. Raises ``ValueError`` for fewer groups than folds.
    """
    check_int("folds", num_folds, 2)
    fold_of = read_predefined_folds(dataset)
    if fold_of is None:
        units = _make_units(dataset, seed)
        if len(units) < num_folds:
            what = "images" if len(units) == len(dataset) else "groups"
            raise ValueError(f"{len(units)} {what} are too few for {num_folds} folds: use fewer folds")
        fold_of = [0] * len(dataset)
        folds = _assign_to_parts(units, _compute_strata(dataset), (1 / num_folds,) * num_folds)
        for unit, fold in zip(units, folds, strict=True):
            for index in unit:
                fold_of[index] = fold
    elif len(set(fold_of) - {-1}) != num_folds:
        log.info("using the %d folds of the data instead of %d", len(set(fold_of) - {-1}), num_folds)
    held = [np.array(fold_of) == fold for fold in sorted(set(fold_of) - {-1})]
    return [(dataset.subset(np.flatnonzero(~fold)), dataset.subset(np.flatnonzero(fold))) for fold in held]


def read_predefined_folds(dataset: ImageDataset) -> list[int] | None:
    """Return the fold that the data itself assigns to each image, −1 for none; None if it assigns none at all.

    A group in several folds is only logged. Raises ``ValueError`` if there is only one fold.
    """
    fold_of = [-1 if item.fold is None else item.fold for item in dataset.items]
    folds = set(fold_of) - {-1}
    if not folds:
        return None
    if len(folds) < 2:
        raise ValueError(f"all images with a fold are in fold {folds.pop()}: at least two folds are needed")
    placed = dict.fromkeys((item.group, fold) for item, fold in zip(dataset.items, fold_of, strict=True) if item.group)
    torn = [group for group, count in Counter(group for group, _ in placed).items() if count > 1]
    if torn:
        log.warning(
            "%s in several folds of the data, such as %r: results will look better than they are",
            "1 group is" if len(torn) == 1 else f"{len(torn)} groups are",
            torn[0],
        )
    return fold_of


def _choose_holdout_per_class(dataset: ImageDataset, fraction: float, seed: int) -> set[int]:
    members: dict[int, list[int]] = {}
    for index, label in enumerate(dataset.targets.tolist()):
        members.setdefault(label, []).append(index)
    held: set[int] = set()
    for label, indices in members.items():
        if len(indices) < 2:
            name = dataset.labels.name(label)
            raise ValueError(f"class {name!r} has only one image, too few to hold one out: add another")
        shuffled = sorted(indices, key=lambda index: _hash(seed, dataset.items[index].name))
        held.update(shuffled[: min(max(round(fraction * len(indices)), 1), len(indices) - 1)])
    return held


def _choose_stratified_holdout(dataset: ImageDataset, fraction: float, seed: int) -> set[int]:
    """Choose about ``fraction`` of every stratum, in whole groups, and at least one image.

    Of each label the first group is kept, so that it can be learned, and another held out unless it is too large.
    """
    units, strata = _make_units(dataset, seed), _compute_strata(dataset)
    counts = [Counter(stratum for index in unit for stratum in strata[index]) for unit in units]
    parts = _assign_to_parts(units, strata, (1 - fraction, fraction), cover_strata=True)
    kept: Counter[Hashable] = Counter()
    held: Counter[Hashable] = Counter()
    for count, part in zip(counts, parts, strict=True):
        (held if part else kept).update(count)

    def is_removable(unit: int) -> bool:
        return all(kept[stratum] > n for stratum, n in counts[unit].items())

    def hold_out(unit: int) -> None:
        parts[unit] = 1
        kept.subtract(counts[unit])
        held.update(counts[unit])

    smallest_first = sorted(range(len(units)), key=lambda unit: len(units[unit]))
    for stratum in sorted(kept, key=repr):
        for unit in smallest_first if not held[stratum] and task_of(dataset.labels.task).has_probabilities else ():
            is_small = len(units[unit]) <= max(1, fraction * len(dataset))
            if is_small and not parts[unit] and counts[unit][stratum] and is_removable(unit):
                hold_out(unit)
                break
    if not any(parts):
        removable = next((unit for unit in smallest_first if len(units) > 1 and is_removable(unit)), None)
        if removable is None:
            raise ValueError(
                f"none of the {len(units)} groups of images can be held out, since each has all images of a label: "
                "make the groups smaller, or provide validation images"
            )
        hold_out(removable)
    return {index for unit, part in zip(units, parts, strict=True) if part for index in unit}


def _compute_strata(dataset: ImageDataset) -> Strata:
    """Return what must be spread evenly: the labels of each image, or the quantiles that its values are in."""
    if task_of(dataset.labels.task).has_probabilities:
        return [item.classes for item in dataset.items]
    values = dataset.target_matrix  # (N, values)
    bins = max(1, min(QUANTILE_BINS, len(values) // 4))
    edges = np.quantile(values, np.arange(1, bins) / bins, axis=0)  # (bins − 1, values)
    quantiles = (values[None] > edges[:, None]).sum(0)  # (N, values)
    return [tuple(enumerate(row)) for row in quantiles.tolist()]


def _make_units(dataset: ImageDataset, seed: int) -> list[list[int]]:
    """Return the indices of the images, a group's together, in an order that only the seed and the names decide."""
    units: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(dataset.items):
        units.setdefault(("group", item.group) if item.group else ("name", item.name), []).append(index)
    return [units[key] for key in sorted(units, key=lambda key: _hash(seed, key[1]))]


def _hash(seed: int, name: str) -> bytes:
    return sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()


def _assign_to_parts(
    units: Sequence[Sequence[int]], strata: Strata, fractions: Sequence[float], cover_strata: bool = False
) -> list[int]:
    """Return the part of each unit, such that part p has about ``fractions[p]`` of every stratum.

    Large units come first, then those with rare strata. Each goes where the squares of all parts' counts, divided by
    the counts they should have, grow least: Webster's method of apportionment if a unit is one image with one label,
    and for several labels in the manner of Sechidis et al., "On the stratification of multi-label data", 2011.
    Ties go to the part that is smallest for its fraction. ``cover_strata``: the first unit of every stratum goes into
    part 0.
    """
    totals = Counter(stratum for row in strata for stratum in row)
    held: list[Counter[Hashable]] = [Counter() for _ in fractions]
    sizes = [0] * len(fractions)
    counts = [Counter(stratum for index in unit for stratum in strata[index]) for unit in units]
    rarest = [min((totals[stratum] for stratum in count), default=len(strata)) for count in counts]
    # The rarest stratum itself is part of the key, so that equally rare ones come one after the other.
    names = [
        min((repr(stratum) for stratum in count if totals[stratum] == total), default="")
        for count, total in zip(counts, rarest, strict=True)
    ]
    parts = [0] * len(units)
    for unit in sorted(range(len(units)), key=lambda unit: (-len(units[unit]), rarest[unit], names[unit])):
        best, lowest = 0, (float("inf"), float("inf"))
        for part, fraction in enumerate(fractions):
            if part and cover_strata and any(not held[0][stratum] for stratum in counts[unit]):
                continue
            growth = sum(
                (2 * held[part][stratum] + n) * n / (totals[stratum] ** 2 * fraction)
                for stratum, n in counts[unit].items()
            )
            key = (round(growth, 15), (sizes[part] + len(units[unit])) / fraction)
            if key < lowest:
                best, lowest = part, key
        parts[unit] = best
        held[best].update(counts[unit])
        sizes[best] += len(units[unit])
    return parts
