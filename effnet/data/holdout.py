"""Some of the labelled pictures held out, the same ones wherever and whenever it is done."""

from __future__ import annotations

from hashlib import sha256

from effnet.data.pictures import Pictures
from effnet.data.stratify import held_out


def holdout(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """``pictures`` in two, (kept, held out): about ``share`` of every class is held out, and at least one picture.

    Where any label may be right it is about ``share`` of each, and of values of every tenth of them. A group stays
    together. Which ones depends on the seed and the pictures' names alone, through a hash: the same on every machine,
    with every version, and (of classes without groups) hardly changed when pictures are added. Raises ``ValueError``
    for a class of one picture, and for groups of which none can be held out.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share!r}")
    if pictures.labels.kind != "one" or any(item.group for item in pictures.items):
        held = held_out(pictures, share, seed)
        return pictures.take(index for index in range(len(pictures)) if index not in held), pictures.take(sorted(held))
    members: dict[int, list[int]] = {}
    for index, label in enumerate(pictures.targets.tolist()):
        members.setdefault(label, []).append(index)
    held = set()
    for label, indices in members.items():
        if len(indices) < 2:
            raise ValueError(
                f"class {pictures.labels.name(label)!r} has only one picture, too few to hold one out: add another"
            )
        shuffled = sorted(indices, key=lambda index: sha256(f"{seed}/{pictures.items[index].name}".encode()).digest())
        held.update(shuffled[: min(max(round(share * len(indices)), 1), len(indices) - 1)])
    kept = (index for index in range(len(pictures)) if index not in held)
    return pictures.take(kept), pictures.take(sorted(held))
