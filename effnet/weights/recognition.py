"""What tensors are the weights of, by their names and shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from effnet.arch import ARCHS, Arch
from effnet.weights.conversion import Tensors, counted, differences, names, read_sizes, shapes
from effnet.weights.layouts import LAYOUTS


@dataclass(frozen=True)
class Found:
    """What tensors were recognised as; their names are the layout's own, and ``remarks`` say how they got them."""

    layout: str
    arch: Arch
    classes: int  # 0: no classifier among them
    channels: int
    tensors: Tensors
    remarks: tuple[str, ...] = ()


def recognise(
    given: Tensors, archs: Iterable[Arch] = ARCHS.values(), layouts: Iterable[str] = tuple(LAYOUTS)
) -> list[Found]:
    """Every (layout, arch) whose names and shapes are exactly those of ``given``, the classifier's size aside."""
    given = counted(given)
    candidates = []
    for layout in layouts:
        tidied = LAYOUTS[layout].tidy(given)
        for arch in _same_number(layout, archs, len(tidied.tensors)):
            classes, channels = read_sizes(tidied.tensors, arch, layout)
            if not differences(shapes(layout, arch, classes, channels), tidied.tensors):
                candidates.append(Found(layout, arch, classes, channels, tidied.tensors, tidied.remarks))
    return candidates


def _same_number(layout: str, archs: Iterable[Arch], number: int) -> Iterator[Arch]:
    """The ``archs`` that have as many tensors, with a classifier or without: a cheap question before the exact one."""
    for arch in archs:
        published = LAYOUTS[layout].archs
        if not published or arch.name in published:
            with_classifier = len(names(layout, arch))
            if number in (with_classifier, with_classifier - 2):
                yield arch
