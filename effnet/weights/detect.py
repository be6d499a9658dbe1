"""Detection of layout and architecture from the names and shapes of tensors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from effnet.arch import ARCHS, Arch, layers, operations
from effnet.weights import conversion, key_maps


@dataclass(frozen=True)
class Detection:
    """A layout and architecture that fit, with the tensors under the layout's own names."""

    layout: str
    arch: Arch
    classes: int  # 0: no classifier
    channels: int
    tensors: conversion.Tensors
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return ``b0 in timm's layout``."""
        return f"{self.arch.name} in {self.layout}'s layout"


def detect_layouts(
    tensors: conversion.Tensors,
    archs: Iterable[Arch] = ARCHS.values(),
    layouts: Iterable[str] = tuple(key_maps.LAYOUTS),
) -> list[Detection]:
    """Return every (layout, arch) with exactly the names and shapes of ``tensors``, except the classifier's size."""
    tensors = conversion.drop_batch_counters(tensors)
    candidates = []
    for layout in layouts:
        cleaned = key_maps.LAYOUTS[layout].clean(tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in cleaned.tensors.items()}
        for arch in _filter_by_tensor_count(layout, archs, len(shapes)):
            classes, channels = conversion.read_sizes(cleaned.tensors, arch, layout)
            if shapes == conversion.layout_shapes(layout, arch, classes, channels):
                candidates.append(Detection(layout, arch, classes, channels, cleaned.tensors, cleaned.notes))
    return candidates


def _filter_by_tensor_count(layout: str, archs: Iterable[Arch], count: int) -> Iterator[Arch]:
    """Yield the archs with that many tensors, with or without a classifier: cheap compared with all shapes."""
    for arch in archs:
        with_norm, without_norm = _count_operations(arch)
        each = 2 if key_maps.LAYOUTS[layout].folds_batch_norm else 1 + len(key_maps.BATCH_NORM_TENSORS)
        backbone = with_norm * each + 2 * without_norm
        if count in (backbone, backbone + 2) and key_maps.LAYOUTS[layout].supports(arch):
            yield arch


@lru_cache(maxsize=len(ARCHS))
def _count_operations(arch: Arch) -> tuple[int, int]:
    norms = [operation.norm for layer in layers(arch, classes=0) for operation in operations(layer)]
    return norms.count(True), norms.count(False)
