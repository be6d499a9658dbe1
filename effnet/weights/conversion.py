"""Tensors by name, from any layout into any other: a two-column table used in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from effnet.arch import Arch, tensor_shapes
from effnet.arch.serde import check_choice
from effnet.metadata import Numerics
from effnet.weights.key_maps import BATCH_NORM_TENSORS, LAYOUTS

Tensors = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def key_map(layout: str, arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → the layout's. Raises ``ValueError`` for an unknown layout."""
    check_choice("layout", layout, tuple(LAYOUTS))
    return LAYOUTS[layout].key_map(arch, classes)


def convert(
    given: Tensors,
    arch: Arch,
    source: str = "timm",
    target: str = "effnet",
    numerics: Numerics | None = None,
) -> dict[str, Tensor]:
    """``given`` in layout ``source`` → the same in layout ``target``; numbers of classes and channels are its own.

    A layout without batch norm ("tflite") takes it folded into weights and biases, with the ε of ``numerics``; from
    there it comes back as a batch norm that only adds the bias. Every other pair changes no bit.
    Raises ``ValueError`` that lists every missing, extra and misshapen tensor at once, or for a layout that has no
    such network.
    """
    for layout in (source, target):
        check_choice("layout", layout, tuple(LAYOUTS))
        if not LAYOUTS[layout].supports(arch):
            raise ValueError(f"{layout} has no {arch.name}: it has {', '.join(LAYOUTS[layout].archs)}")
    given = drop_batch_counters(given)
    classes, channels = read_sizes(given, arch, source)
    raise_differences(list_differences(layout_shapes(source, arch, classes, channels), given), arch, source)
    eps = (numerics or Numerics()).bn_eps
    ours = _to_effnet(given, arch, source, classes, eps)
    return ours if target == "effnet" else _from_effnet(ours, arch, target, classes, eps)


def drop_batch_counters(tensors_by_name: Tensors) -> dict[str, Tensor]:
    """``given`` without batch norm's batch counters, which no computation here reads."""
    return {name: tensor for name, tensor in tensors_by_name.items() if not name.endswith("num_batches_tracked")}


def layout_shapes(layout: str, arch: Arch, classes: int = 1000, channels: int = 3) -> Shapes:
    """The layout's tensor name → shape, of every tensor that it has."""
    theirs, axes = key_map(layout, arch, classes), LAYOUTS[layout].axes
    found = {}
    for ours, shape in tensor_shapes(arch, classes, channels).items():
        if ours in theirs:
            found[theirs[ours]] = tuple(shape[axis] for axis in axes.order(ours, len(shape)))
    return found


def read_sizes(given: Tensors, arch: Arch, layout: str) -> tuple[int, int]:
    """How many classes (0: no classifier) and input channels the tensors are for, if they are ``arch``'s."""
    theirs = key_map(layout, arch)
    axes = LAYOUTS[layout].axes
    classifier, stem = given.get(theirs["classifier.weight"]), given.get(theirs["stem.conv.weight"])
    classes, channels = 0, 3
    if classifier is not None and classifier.ndim:
        classes = classifier.shape[axes.linear.index(0) % classifier.ndim]
    if stem is not None and stem.ndim == 4:
        channels = stem.shape[axes.conv.index(1)]
    return classes, channels


def list_differences(expected: Mapping[str, tuple[int, ...]], given: Tensors) -> list[str]:
    """Every missing, extra and misshapen tensor, one line each."""
    found = [f"missing {name} {_format_shape(shape)}" for name, shape in expected.items() if name not in given]
    found += [f"extra {name} {_format_shape(tensor.shape)}" for name, tensor in given.items() if name not in expected]
    found += [
        f"misshapen {name}: {_format_shape(given[name].shape)} in place of {_format_shape(shape)}"
        for name, shape in expected.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    return found


def raise_differences(found: list[str], arch: Arch, layout: str) -> None:
    """Raises ``ValueError`` with all of ``found`` unless it is empty."""
    if found:
        lines = "\n  ".join(found)
        raise ValueError(
            f"these are not the weights of {arch.name} in {layout}'s layout; {len(found)} differ:\n  {lines}"
        )


def _to_effnet(given: Tensors, arch: Arch, source: str, classes: int, eps: float) -> dict[str, Tensor]:
    theirs, axes = key_map(source, arch, classes), LAYOUTS[source].axes
    found = {}
    for ours, shape in tensor_shapes(arch, classes).items():
        if ours in theirs:
            order = axes.order(ours, len(shape))
            found[ours] = given[theirs[ours]].permute(_invert_axes(order)).contiguous()
        else:  # a folded batch norm: no scale, no shift but the bias
            like = found[ours.rpartition(".norm.")[0] + ".conv.weight"]
            value = {"weight": 1.0, "running_mean": 0.0, "running_var": 1 - eps}[ours.rpartition(".")[2]]
            found[ours] = torch.full(shape, value, dtype=like.dtype)
    return found


def _from_effnet(ours: Tensors, arch: Arch, target: str, classes: int, eps: float) -> dict[str, Tensor]:
    theirs, axes = key_map(target, arch, classes), LAYOUTS[target].axes
    if LAYOUTS[target].folds_batch_norm:
        ours = _fold_batch_norm(ours, eps)
    found = {}
    for name, tensor in ours.items():
        if name in theirs:
            found[theirs[name]] = tensor.permute(axes.order(name, tensor.ndim)).contiguous()
    return found


def _fold_batch_norm(ours: Tensors, eps: float) -> dict[str, Tensor]:
    """Batch norm inside weights and biases, the bias where batch norm's was: computed in float64, rounded once."""
    found = dict(ours)
    for name, kernel in ours.items():
        if name.endswith(".conv.weight"):
            norm = name.removesuffix("conv.weight") + "norm."
            scale, bias, mean, variance = (ours[norm + part].double() for part in BATCH_NORM_TENSORS)
            scale = scale / (variance + eps).sqrt()
            found[name] = (kernel.double() * scale[:, None, None, None]).to(kernel.dtype)
            found[norm + "bias"] = (bias - mean * scale).to(kernel.dtype)
    return found


def _invert_axes(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))


def _format_shape(shape: Iterable[int]) -> str:
    return "×".join(str(side) for side in shape) or "scalar"
