"""Tensors by name, from any layout into any other: a two-column table used in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from effnet.arch import ARCHS, Arch, tensors
from effnet.arch.record import choice
from effnet.weights.layouts import timm

Tensors = Mapping[str, Tensor]


def _own(arch: Arch, classes: int = 1000) -> dict[str, str]:
    return {name: name for name in tensors(arch, classes)}


# layout → (arch, classes) → {our tensor name: theirs}
LAYOUTS: dict[str, Callable[[Arch, int], dict[str, str]]] = {"effnet": _own, "timm": timm.names}


@dataclass(frozen=True)
class Found:
    """What a file was recognised as."""

    layout: str
    arch: Arch
    classes: int  # 0: no classifier in it
    channels: int


def names(layout: str, arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → the layout's. Raises ``ValueError`` for an unknown layout."""
    choice("layout", layout, tuple(LAYOUTS))
    return LAYOUTS[layout](arch, classes)


def convert(given: Tensors, arch: Arch, source: str = "timm", target: str = "effnet") -> dict[str, Tensor]:
    """``given`` renamed from layout ``source`` to layout ``target``; numbers of classes and channels are its own.

    Raises ``ValueError`` that lists every missing, extra and misshapen tensor at once.
    """
    given = counted(given)
    found = read_sizes(given, arch, source)
    to_target = names(target, arch, found.classes)
    to_source = names(source, arch, found.classes)
    shapes = tensors(arch, found.classes, found.channels)
    complain(differences({to_source[ours]: shape for ours, shape in shapes.items()}, given), arch, source)
    return {to_target[ours]: given[to_source[ours]] for ours in shapes}


def counted(given: Tensors) -> dict[str, Tensor]:
    """``given`` without batch norm's batch counters, which no computation here reads."""
    return {name: tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")}


def read_sizes(given: Tensors, arch: Arch, layout: str) -> Found:
    """How many classes and input channels the tensors are for, if they are ``arch`` in ``layout``."""
    theirs = names(layout, arch)
    classifier, stem = given.get(theirs["classifier.weight"]), given.get(theirs["stem.conv.weight"])
    classes = classifier.shape[0] if classifier is not None and classifier.ndim else 0
    return Found(layout, arch, classes, stem.shape[1] if stem is not None and stem.ndim == 4 else 3)


def differences(expected: Mapping[str, tuple[int, ...]], given: Tensors) -> list[str]:
    """Every missing, extra and misshapen tensor, one line each."""
    found = [f"missing {name} {_shape(shape)}" for name, shape in expected.items() if name not in given]
    found += [f"extra {name} {_shape(tensor.shape)}" for name, tensor in given.items() if name not in expected]
    found += [
        f"misshapen {name}: {_shape(given[name].shape)} in place of {_shape(shape)}"
        for name, shape in expected.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    return found


def complain(found: list[str], arch: Arch, layout: str) -> None:
    """Raises ``ValueError`` with all of ``found`` unless it is empty."""
    if found:
        lines = "\n  ".join(found)
        raise ValueError(
            f"these are not the weights of {arch.name} in {layout}'s layout; {len(found)} differ:\n  {lines}"
        )


def recognise(given: Tensors, archs: Iterable[Arch] = ARCHS.values()) -> list[Found]:
    """Every (layout, arch) whose names and shapes are exactly those of ``given``, the classifier's size aside."""
    given = counted(given)
    candidates = []
    for arch in archs:
        for layout in LAYOUTS:
            found = read_sizes(given, arch, layout)
            shapes = tensors(arch, found.classes, found.channels)
            theirs = names(layout, arch, found.classes)
            if not differences({theirs[ours]: shape for ours, shape in shapes.items()}, given):
                candidates.append(found)
    return candidates


def _shape(shape: Iterable[int]) -> str:
    return "×".join(str(side) for side in shape) or "scalar"
