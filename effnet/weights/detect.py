"""Detection of networks in files: layout, architecture and prefix, from the names and shapes of tensors.

Training code keeps its network under any name, beside losses, metrics, optimizers, other networks and averages of the
weights. So every name that ends like a layout's stem begins a search: if the tensors under the same prefix that are
named like that layout's backbone are those of an architecture, all of them and no more, the network is found.

Of several networks in one file an average of the weights is taken before the weights themselves (it is what was
evaluated), a student before its teacher; between equals the user chooses.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import sqrt
from typing import Any

import torch

from effnet.arch import ARCHS, Arch, layers, operations
from effnet.weights import conversion, heads, key_maps

_AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)($|[._])", re.I)
# Beside the network that is meant: a teacher, a momentum encoder, Lightning's weights beside their average
_SECOND = re.compile(r"(^|[._])(teacher|momentum|target|current)($|[._])", re.I)


@dataclass(frozen=True)
class Detection:
    """A network that was found, with its tensors under the layout's own names.

    Args:
        layout: how its tensors are named.
        arch: the architecture with these names and shapes.
        classes: outputs of its classifier, 0 for none.
        channels: input channels.
        tensors: by the layout's names, complete: batch norm around the classifier is folded, a head convolution that
            the file does not have is newly initialized.
        notes: tell the user what was taken and done.
        prefix: what precedes the network's names in the file, "" or with its last dot.
        names: the layout's name → the file's, of every tensor of the backbone.
        head: name in the file of the linear layer that is the classifier.
        choices: linear layers on the embedding.
    """

    layout: str
    arch: Arch
    classes: int
    channels: int
    tensors: conversion.Tensors
    notes: tuple[str, ...] = ()
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    head: str = ""
    choices: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """Whether the prefix says that these are averaged weights."""
        return bool(_AVERAGE.search(self.prefix))

    def describe(self) -> str:
        """Return ``b0 in timm's layout``."""
        return f"{self.arch.name} in {self.layout}'s layout"


@dataclass(frozen=True)
class _Backbone:
    """A backbone in a file, without its head. ``root`` precedes its names in the file, `prefix` those of its module."""

    layout: str
    arch: Arch
    channels: int
    root: str
    names: Mapping[str, str]  # the layout's name → the file's
    has_head: bool

    @property
    def prefix(self) -> str:
        return self.root.removesuffix(key_maps.LAYOUTS[self.layout].root)


def detect_layouts(
    tensors: conversion.Tensors,
    archs: Iterable[Arch] = ARCHS.values(),
    layouts: Iterable[str] = tuple(key_maps.LAYOUTS),
    head: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> list[Detection]:
    """Return every network of ``archs`` in ``tensors``, under any prefix and with any classifier.

    ``head`` names the linear layer that is the classifier; networks without it are left out. ``values`` are the file's
    plain values. Raises ``ValueError`` if no network has a linear layer ``head``.
    """
    tensors = conversion.drop_batch_counters(tensors)
    archs = tuple(archs)
    found: list[tuple[_Backbone, conversion.Tensors, tuple[str, ...]]] = []
    for layout in layouts:
        cleaned = key_maps.LAYOUTS[layout].clean(tensors)
        found += [
            (backbone, cleaned.tensors, cleaned.notes) for backbone in _find_backbones(cleaned.tensors, layout, archs)
        ]
    backbones = [backbone for backbone, _, _ in found]
    detections, error = [], None
    for backbone, named, notes in found:
        try:
            detections.append(_detect(backbone, named, notes, backbones, head, values))
        except ValueError as problem:  # it has no linear layer of that name
            error = problem
    if error and not detections:
        raise error
    return detections


def choose(found: Sequence[Detection]) -> Detection:
    """Return the network that is meant if there are several, by the rule above.

    Raises ``ValueError`` that names the candidates between which it cannot decide, and the options.
    """
    best = max(_rank(each) for each in found)
    kept = [each for each in found if _rank(each) == best]
    kept = [each for index, each in enumerate(kept) if not any(_is_same(each, other) for other in kept[:index])]
    if len(kept) == 1:
        return kept[0]
    prefixes = list(dict.fromkeys(each.prefix for each in kept))
    if len(prefixes) > 1:
        shown = ", ".join(prefix.rstrip(".") or "its first names" for prefix in prefixes[:8])
        raise ValueError(f"contains {len(prefixes)} networks, {shown}: choose one with --prefix")
    described = " or ".join(each.describe() for each in kept)
    raise ValueError(f"could be {described}: choose with convert --arch or --from")


def filter_by_prefix(found: Sequence[Detection], prefix: str) -> list[Detection]:
    """Return the networks under ``prefix``, of which the last parts are enough. Raises ``ValueError`` if none is."""
    wanted = prefix.strip(".")
    exact = [each for each in found if each.prefix.rstrip(".") == wanted]
    kept = exact or [each for each in found if each.prefix.rstrip(".").endswith(f".{wanted}")]
    if not kept:
        prefixes = ", ".join(dict.fromkeys(each.prefix.rstrip(".") or '""' for each in found))
        raise ValueError(f"contains no network under the prefix {prefix}: --prefix can be {prefixes}")
    return kept


def describe_nearest(
    tensors: conversion.Tensors,
    archs: Iterable[Arch] = ARCHS.values(),
    layouts: Iterable[str] = tuple(key_maps.LAYOUTS),
) -> str:
    """Say in at most six lines which network is nearest, how many of its tensors fit and what differs."""
    tensors, archs = conversion.drop_batch_counters(tensors), tuple(archs)
    best: _Nearest | None = None
    for layout in layouts:
        cleaned = key_maps.LAYOUTS[layout].clean(tensors).tensors
        shapes = {name: tuple(tensor.shape) for name, tensor in cleaned.items()}
        places = _list_places(cleaned, layout)
        for arch in archs:
            if key_maps.LAYOUTS[layout].supports(arch):
                for root in places:
                    near = _Nearest(layout, arch, root, shapes)
                    best = near if best is None or near.rank > best.rank else best
    assert best is not None
    known = "those of no known EfficientNet" if len(archs) > 1 else f"not those of {archs[0].name}"
    first = f"its {len(tensors)} tensors are {known}; {best.describe()}; convert --arch and --from choose what it is"
    return "\n  ".join((f"{first} compared with", *(best.differences()[:5] if best.is_near else ())))


class _Nearest:
    """A network, and which of its tensors are in a file."""

    def __init__(self, layout: str, arch: Arch, root: str, shapes: conversion.Shapes) -> None:
        self.layout, self.arch, self.root = layout, arch, root
        own, pattern = key_maps.LAYOUTS[layout].root, re.compile(key_maps.LAYOUTS[layout].backbone)
        named = {name.removeprefix(root): shape for name, shape in shapes.items() if name.startswith(root)}
        self.found = {name: shape for name, shape in named.items() if pattern.match(name)}
        shown = _backbone_shapes(layout, arch, 3)
        self.expected = {name.removeprefix(own): shape for name, shape in shown.items()}
        self.fitting = sum(self.found.get(name) == shape for name, shape in self.expected.items())
        self.rank = self.fitting, -len(self.differences()), root == ""

    @property
    def is_near(self) -> bool:
        """Whether the differences say anything: one tensor in ten fits."""
        return 10 * self.fitting >= len(self.expected)

    def describe(self) -> str:
        """Return the network, where it is and how many of its tensors fit."""
        under = f" under {self.root.rstrip('.')}" if self.root else ""
        counts = f"{self.fitting} of {len(self.expected)} tensors"
        return f"nearest is {self.arch.name} in {self.layout}'s layout{under}, of which it has {counts}"

    def differences(self) -> list[str]:
        """Return every missing, misshapen and extra tensor of the backbone."""
        shape = conversion.format_shape
        both = self.expected.keys() & self.found.keys()
        misshapen = [name for name in self.expected if name in both and self.expected[name] != self.found[name]]
        return [
            *(f"missing {self.root}{name} {shape(self.expected[name])}" for name in self.expected if name not in both),
            *(
                f"misshapen {self.root}{name}: {shape(self.found[name])} instead of {shape(self.expected[name])}"
                for name in misshapen
            ),
            *(f"extra {self.root}{name} {shape(self.found[name])}" for name in self.found if name not in both),
        ]


def _list_places(tensors: conversion.Tensors, layout: str) -> list[str]:
    """Return where a network may be: before a stem, or else before the names that many have in common."""
    if roots := _find_roots(tensors, layout):
        return roots[:4]
    own = key_maps.LAYOUTS[layout].root
    first = re.compile(rf"(?:^|(?<=[./]))(?:{key_maps.LAYOUTS[layout].backbone})")
    counts = Counter(name[: found.start()] for name in tensors if (found := first.search(name)))
    return [root for root, _ in counts.most_common(2)] or [own]


def _rank(found: Detection) -> tuple[bool, bool]:
    return found.is_average, not _SECOND.search(found.prefix)


def _is_same(one: Detection, other: Detection) -> bool:
    """Return whether both are one network that the file contains twice."""
    if (one.layout, one.arch, one.classes) != (other.layout, other.arch, other.classes) or one.prefix == other.prefix:
        return False
    pairs = [(tensor, other.tensors[name]) for name, tensor in one.tensors.items()]
    if all(a.data_ptr() == b.data_ptr() for a, b in pairs):
        return True
    return all(torch.equal(a, b) for a, b in pairs)


def _find_backbones(tensors: conversion.Tensors, layout: str, archs: tuple[Arch, ...]) -> Iterator[_Backbone]:
    ordered, pattern = sorted(tensors), re.compile(key_maps.LAYOUTS[layout].backbone)
    for root in _find_roots(tensors, layout):
        start, end = bisect_left(ordered, root), bisect_left(ordered, f"{root}\U0010ffff")
        names = (name.removeprefix(root) for name in ordered[start:end])
        shapes = {name: tuple(tensors[root + name].shape) for name in names if pattern.match(name)}
        for arch in _filter_by_tensor_count(layout, archs, len(shapes)):
            if found := _match(layout, arch, root, shapes):
                yield found


def _find_roots(tensors: conversion.Tensors, layout: str) -> list[str]:
    """Return what precedes each name that could be a stem's: the root and whatever is before it."""
    if layout == "tflite":  # its names are those of places in the graph
        return [""] if any(name.startswith("0_conv") for name in tensors) else []
    described = key_maps.LAYOUTS[layout]
    arch = ARCHS[described.archs[0]] if described.archs else ARCHS["b0"]
    stem = _backbone_names(layout, arch)["stem.conv.weight"].removeprefix(described.root)
    roots = [name.removesuffix(stem) for name, tensor in tensors.items() if name.endswith(stem) and tensor.ndim == 4]
    return [root for root in roots if not root or root.endswith((".", "/"))]


def _match(layout: str, arch: Arch, root: str, shapes: conversion.Shapes) -> _Backbone | None:
    """Return the backbone if ``shapes``, by names without the root, are those of ``arch``."""
    theirs, own_root = _backbone_names(layout, arch), key_maps.LAYOUTS[layout].root
    stem = shapes.get(theirs["stem.conv.weight"].removeprefix(own_root), ())
    if len(stem) != 4:
        return None
    channels = stem[key_maps.LAYOUTS[layout].axes.conv.index(1)]
    expected = {name.removeprefix(own_root): shape for name, shape in _backbone_shapes(layout, arch, channels).items()}
    has_head = len(shapes) == len(expected)
    if not has_head:
        head = {theirs[ours].removeprefix(own_root) for ours in theirs if ours.startswith("head.")}
        expected = {name: shape for name, shape in expected.items() if name not in head}
    if shapes != expected:
        return None
    return _Backbone(layout, arch, channels, root, {own_root + name: root + name for name in shapes}, has_head)


def _detect(
    found: _Backbone,
    tensors: conversion.Tensors,
    notes: tuple[str, ...],
    backbones: Sequence[_Backbone],
    head: str | None,
    values: Mapping[str, Any] | None,
) -> Detection:
    layout, arch = key_maps.LAYOUTS[found.layout], found.arch
    taken = {name: tensors[theirs] for name, theirs in found.names.items()}
    others = [each.prefix for each in backbones if not found.prefix.startswith(each.prefix)]
    owned = {name for each in backbones for name in each.names.values()}
    rest = {name: tensor for name, tensor in tensors.items() if name not in owned}
    beside = {name: tensor for name, tensor in rest.items() if not name.startswith(tuple(others))}
    new_head = _initialize_head(found) if not found.has_head else {}
    channels = [*layers(arch, classes=0)][-1].channels
    linear = heads.Head() if new_head else heads.find_head(beside, found.prefix, channels, layout, head, values)
    classes, place = 0, list[str]()
    if linear.weight is not None and linear.bias is not None:
        classes = linear.weight.shape[0]
        theirs = conversion.key_map(found.layout, arch, classes)
        taken[theirs["classifier.weight"]] = linear.weight.permute(layout.axes.linear)
        taken[theirs["classifier.bias"]] = linear.bias
        own = found.prefix + theirs["classifier.weight"].rpartition(layout.tensors.separator)[0]
        place = [f"its classifier is {linear.name}"] if linear.name != own else []
    aside = [name for name in rest if name not in linear.names and rest[name].is_floating_point()]
    said = [*notes, *_describe_place(found, backbones), *_describe_rest(aside, found.prefix), *place, linear.note]
    if new_head:
        said.append("it has no head convolution: this one is newly initialized, and there is no classifier")
    tensors = taken | new_head
    names, choices = found.names, linear.choices
    return Detection(
        found.layout,
        arch,
        classes,
        found.channels,
        tensors,
        tuple(filter(None, said)),
        found.prefix,
        names,
        linear.name,
        choices,
    )


def _describe_place(found: _Backbone, backbones: Sequence[_Backbone]) -> Iterator[str]:
    if not found.prefix:
        return
    prefix = found.prefix.rstrip(".")
    others = {each.prefix.rstrip(".") for each in backbones} - {prefix}
    kind = "averaged weights" if _AVERAGE.search(prefix) else "network"
    yield f"using the {kind} under {prefix}" + (f", not that under {', '.join(sorted(others))}" if others else "")


def _describe_rest(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Say what is left aside: each tensor, or what many have in common."""
    groups: dict[str, list[str]] = {}
    for name in names:
        parts, ancestors = name.split("."), prefix.split(".")
        same = next((i for i, (a, b) in enumerate(zip(parts, ancestors, strict=False)) if a != b), 0)
        groups.setdefault(".".join(parts[: same + 1]), []).append(name)
    shown = [found[0] if len(found) == 1 else f"{group}.… ({len(found)} tensors)" for group, found in groups.items()]
    if shown:
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        yield f"left aside: {', '.join(shown[:6])}{more}"


def _initialize_head(found: _Backbone) -> dict[str, torch.Tensor]:
    """Return the tensors of a new head convolution, always the same: the official initialization."""
    shapes, generator = _backbone_shapes(found.layout, found.arch, found.channels), torch.Generator().manual_seed(0)
    tensors = {}
    for ours, theirs in _backbone_names(found.layout, found.arch).items():
        if ours.startswith("head."):
            tensors[theirs] = torch.zeros(shapes[theirs])
            if ours.endswith("conv.weight"):
                tensors[theirs].normal_(0, sqrt(2 / max(shapes[theirs])), generator=generator)
            elif ours.endswith(("norm.weight", "running_var")):
                tensors[theirs] += 1
    return tensors


def _filter_by_tensor_count(layout: str, archs: Iterable[Arch], count: int) -> Iterator[Arch]:
    """Yield the archs whose backbone has that many tensors, with its head or without: cheap compared with shapes."""
    for arch in archs:
        with_norm, without_norm = _count_operations(arch)
        each = 2 if key_maps.LAYOUTS[layout].folds_batch_norm else 1 + len(key_maps.BATCH_NORM_TENSORS)
        backbone = with_norm * each + 2 * without_norm
        if count in (backbone, backbone - each) and key_maps.LAYOUTS[layout].supports(arch):
            yield arch


@lru_cache(maxsize=64)
def _backbone_names(layout: str, arch: Arch) -> dict[str, str]:
    return conversion.key_map(layout, arch, 0)


@lru_cache(maxsize=64)
def _backbone_shapes(layout: str, arch: Arch, channels: int) -> conversion.Shapes:
    return conversion.layout_shapes(layout, arch, 0, channels)


@lru_cache(maxsize=256)
def _count_operations(arch: Arch) -> tuple[int, int]:
    norms = [operation.norm for layer in layers(arch, classes=0) for operation in operations(layer)]
    return norms.count(True), norms.count(False)
