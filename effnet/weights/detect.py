"""What tensors are the weights of, by their names and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from effnet.arch import ARCHS, Arch, layers, operations
from effnet.weights.conversion import Tensors, drop_batch_counters, layout_shapes, read_sizes
from effnet.weights.key_maps import BATCH_NORM_TENSORS, LAYOUTS


@dataclass(frozen=True)
class Detection:
    """What tensors were recognised as; their names are the layout's own, and ``remarks`` say how they got them."""

    layout: str
    arch: Arch
    classes: int  # 0: no classifier among them
    channels: int
    tensors: Tensors
    notes: tuple[str, ...] = ()


def detect_layouts(
    tensors: Tensors, archs: Iterable[Arch] = ARCHS.values(), layouts: Iterable[str] = tuple(LAYOUTS)
) -> list[Detection]:
    """Every (layout, arch) whose names and shapes are exactly those of ``given``, the classifier's size aside."""
    tensors = drop_batch_counters(tensors)
    candidates = []
    for layout in layouts:
        tidied = LAYOUTS[layout].clean(tensors)
        told = {name: tuple(tensor.shape) for name, tensor in tidied.tensors.items()}
        for arch in _filter_by_tensor_count(layout, archs, len(told)):
            classes, channels = read_sizes(tidied.tensors, arch, layout)
            if told == layout_shapes(layout, arch, classes, channels):
                candidates.append(Detection(layout, arch, classes, channels, tidied.tensors, tidied.notes))
    return candidates


def _filter_by_tensor_count(layout: str, archs: Iterable[Arch], number: int) -> Iterator[Arch]:
    """The ``archs`` that have as many tensors, with a classifier or without: a cheap question before the exact one."""
    for arch in archs:
        normed, plain = _count_operations(arch)
        body = normed * (2 if LAYOUTS[layout].folds_batch_norm else 1 + len(BATCH_NORM_TENSORS)) + 2 * plain
        if number in (body, body + 2) and LAYOUTS[layout].supports(arch):
            yield arch


@lru_cache(maxsize=len(ARCHS))
def _count_operations(arch: Arch) -> tuple[int, int]:
    """How many operations have a batch norm, and how many have not: of all but the classifier."""
    found = Counter(operation.norm for layer in layers(arch, classes=0) for operation in operations(layer))
    return found[True], found[False]
