"""Pictures into parts that each have their share of every label, none of a group in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from effnet.data.pictures import Pictures

BINS = 10  # quantiles that values are told apart by
_LEAST = 4  # pictures a bin

Strata = Sequence[tuple[Hashable, ...]]


def strata(pictures: Pictures) -> Strata:
    """What must be spread evenly, of each picture: its labels, or the quantiles that its values are in."""
    if pictures.labels.kind != "value":
        return [(item.label,) if isinstance(item.label, int) else item.label for item in pictures.items]
    wanted = pictures.wanted  # (N, values)
    bins = max(1, min(BINS, len(wanted) // _LEAST))
    edges = np.quantile(wanted, np.arange(1, bins) / bins, axis=0)  # (bins − 1, values)
    places = (wanted[None] > edges[:, None]).sum(0)  # (N, values)
    return [tuple(enumerate(row)) for row in places.tolist()]


def units(pictures: Pictures, seed: int) -> list[list[int]]:
    """The pictures' indices, those of a group together, in an order that only the seed and the names decide."""
    found: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(pictures.items):
        found.setdefault(("group", item.group) if item.group else ("name", item.name), []).append(index)
    drawn = {key: sha256(f"{seed}/{key[1]}".encode()).digest() for key in found}
    return [found[key] for key in sorted(found, key=drawn.__getitem__)]


def spread(
    units: Sequence[Sequence[int]],
    strata: Strata,
    shares: Sequence[float],
    cover: bool = False,
) -> list[int]:
    """The part that each unit goes into, such that part p has about ``shares[p]`` of every stratum.

    Large units first, and those with rare strata, each where the squares of all parts' counts, over what they should
    be, then grow the least (Webster's rule of apportionment where a unit is one picture with one label; for several
    labels in the manner of Sechidis et al., "On the stratification of multi-label data", 2011); among equals into
    the part that is smallest for its share. ``cover``: the first unit of every stratum goes into part 0.
    """
    totals = Counter(one for row in strata for one in row)
    held: list[Counter[Hashable]] = [Counter() for _ in shares]
    sizes = [0] * len(shares)
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
        for part, share in enumerate(shares):
            if part and cover and any(not held[0][one] for one in counts[at]):
                continue
            growth = sum((2 * held[part][one] + n) * n / (totals[one] ** 2 * share) for one, n in counts[at].items())
            key = (round(growth, 15), (sizes[part] + len(units[at])) / share)
            if key < least:
                best, least = part, key
        found[at] = best
        held[best].update(counts[at])
        sizes[best] += len(units[at])
    return found


def held_out(pictures: Pictures, share: float, seed: int) -> set[int]:
    """The indices of about ``share`` of every stratum, in whole groups, and of at least one picture.

    What only held-out pictures have could not be learned: the first group with a label is kept. Of a label in several
    groups one is held out, unless that is larger than ``share`` of all. Raises ``ValueError`` where nothing can be
    held out so.
    """
    together, layers = units(pictures, seed), strata(pictures)
    counts = [Counter(one for index in unit for one in layers[index]) for unit in together]
    parts = spread(together, layers, (1 - share, share), cover=True)
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
        for at in free if not held[one] and pictures.labels.kind != "value" else ():
            small = len(together[at]) <= max(1, share * len(pictures))
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
