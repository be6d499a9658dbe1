"""What tensors are the weights of, by their names and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from effnet.arch import ARCHS, Arch, layers, operations
from effnet.weights.conversion import Tensors, counted, read_sizes, shapes
from effnet.weights.layouts import LAYOUTS
from effnet.weights.layouts.rows import NORM


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
        told = {name: tuple(tensor.shape) for name, tensor in tidied.tensors.items()}
        for arch in _same_number(layout, archs, len(told)):
            classes, channels = read_sizes(tidied.tensors, arch, layout)
            if told == shapes(layout, arch, classes, channels):
                candidates.append(Found(layout, arch, classes, channels, tidied.tensors, tidied.remarks))
    return candidates


def _same_number(layout: str, archs: Iterable[Arch], number: int) -> Iterator[Arch]:
    """The ``archs`` that have as many tensors, with a classifier or without: a cheap question before the exact one."""
    for arch in archs:
        normed, plain = _operations(arch)
        body = normed * (2 if LAYOUTS[layout].folded else 1 + len(NORM)) + 2 * plain
        if number in (body, body + 2) and LAYOUTS[layout].has(arch):
            yield arch


@lru_cache(maxsize=len(ARCHS))
def _operations(arch: Arch) -> tuple[int, int]:
    """How many operations have a batch norm, and how many have not: of all but the classifier."""
    found = Counter(operation.norm for layer in layers(arch, classes=0) for operation in operations(layer))
    return found[True], found[False]
