"""Conversion of named tensors between any two layouts."""

from collections.abc import Iterable, Mapping

import torch

from effnet.arch import Arch, serde, tensor_shapes
from effnet.metadata import Numerics
from effnet.weights.key_maps import BATCH_NORM_TENSORS, LAYOUTS

Tensors = Mapping[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


def convert(
    tensors: Tensors, arch: Arch, source: str = "timm", target: str = "effnet", numerics: Numerics | None = None
) -> dict[str, torch.Tensor]:
    """Convert tensors from one layout to another.

    No bit changes, except for "tflite", which has no batch norm: it is folded into weights and biases there, and coming
    from there it only adds the bias.

    Args:
        tensors: tensors by the names of ``source``. Any number of classes and input channels is possible.
        arch: the network that they are of.
        source, target: "effnet", "timm", "torchvision", "lukemelas", "huggingface", "tensorflow", "keras", "tflite".
        numerics: their ε is used in folding; by default the official one.

    Returns:
        Tensors by the names of ``target``.

    Raises:
        ValueError: with the first missing, extra and misshapen tensors, or if a layout has no such network.

    Example:
        >>> state = timm.create_model("efficientnet_b0").state_dict()
        >>> ours = effnet.convert(state, effnet.ARCHS["b0"], "timm", "effnet")
    """
    for layout in (source, target):
        serde.check_choice("layout", layout, tuple(LAYOUTS))
        if not LAYOUTS[layout].supports(arch):
            raise ValueError(f"{layout} has no {arch.name}: it has {', '.join(LAYOUTS[layout].archs)}")
    tensors = drop_batch_counters(tensors)
    classes, channels = read_sizes(tensors, arch, source)
    _check_shapes(layout_shapes(source, arch, classes, channels), tensors, arch, source)
    eps = (numerics or Numerics()).bn_eps
    ours = _to_effnet(tensors, arch, source, classes, eps)
    return ours if target == "effnet" else _from_effnet(ours, arch, target, classes, eps)


def key_map(layout: str, arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Return our tensor name → the layout's."""
    return LAYOUTS[layout].key_map(arch, classes)


def layout_shapes(layout: str, arch: Arch, classes: int = 1000, channels: int = 3) -> Shapes:
    """Return the layout's tensor name → shape, for every tensor that it has."""
    theirs, axes = key_map(layout, arch, classes), LAYOUTS[layout].axes
    return {
        theirs[ours]: tuple(shape[axis] for axis in axes.order(ours, len(shape)))
        for ours, shape in tensor_shapes(arch, classes, channels).items()
        if ours in theirs
    }


def drop_batch_counters(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return the tensors without batch norm's ``num_batches_tracked``, which are not used in any computation here."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def read_sizes(tensors: Tensors, arch: Arch, layout: str) -> tuple[int, int]:
    """Return the number of classes (0: no classifier) and of input channels, if the tensors are of ``arch``."""
    theirs, axes = key_map(layout, arch), LAYOUTS[layout].axes
    classifier, stem = tensors.get(theirs["classifier.weight"]), tensors.get(theirs["stem.conv.weight"])
    classes, channels = 0, 3
    if classifier is not None and classifier.ndim:
        classes = classifier.shape[axes.linear.index(0) % classifier.ndim]
    if stem is not None and stem.ndim == 4:
        channels = stem.shape[axes.conv.index(1)]
    return classes, channels


def _check_shapes(expected: Shapes, tensors: Tensors, arch: Arch, layout: str) -> None:
    found = [f"missing {name} {format_shape(shape)}" for name, shape in expected.items() if name not in tensors]
    found += [f"extra {name} {format_shape(value.shape)}" for name, value in tensors.items() if name not in expected]
    found += [
        f"misshapen {name}: {format_shape(tensors[name].shape)} instead of {format_shape(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if found:
        weights = f"the weights of {arch.name} in {layout}'s layout"
        first = ", the first five" if len(found) > 5 else ""
        raise ValueError("\n  ".join((f"these are not {weights}; {len(found)} differ{first}:", *found[:5])))


def _to_effnet(tensors: Tensors, arch: Arch, source: str, classes: int, eps: float) -> dict[str, torch.Tensor]:
    theirs, axes = key_map(source, arch, classes), LAYOUTS[source].axes
    found = {}
    for ours, shape in tensor_shapes(arch, classes).items():
        if ours in theirs:
            order = axes.order(ours, len(shape))
            inverse = tuple(order.index(axis) for axis in range(len(order)))
            found[ours] = tensors[theirs[ours]].permute(inverse).contiguous()
        else:  # a folded batch norm: it only adds the bias
            like = found[ours.rpartition(".norm.")[0] + ".conv.weight"]
            value = {"weight": 1.0, "running_mean": 0.0, "running_var": 1 - eps}[ours.rpartition(".")[2]]
            found[ours] = torch.full(shape, value, dtype=like.dtype)
    return found


def _from_effnet(ours: Tensors, arch: Arch, target: str, classes: int, eps: float) -> dict[str, torch.Tensor]:
    theirs, axes = key_map(target, arch, classes), LAYOUTS[target].axes
    if LAYOUTS[target].folds_batch_norm:
        ours = _fold_batch_norm(ours, eps)
    return {
        theirs[name]: tensor.permute(axes.order(name, tensor.ndim)).contiguous()
        for name, tensor in ours.items()
        if name in theirs
    }


def _fold_batch_norm(ours: Tensors, eps: float) -> dict[str, torch.Tensor]:
    """Fold batch norm into weights and biases (named as batch norm's): computed in float64, rounded once."""
    found = dict(ours)
    for name, kernel in ours.items():
        if name.endswith(".conv.weight"):
            norm = name.removesuffix("conv.weight") + "norm."
            scale, bias, mean, variance = (ours[norm + part].double() for part in BATCH_NORM_TENSORS)
            scale = scale / (variance + eps).sqrt()
            found[name] = (kernel.double() * scale[:, None, None, None]).to(kernel.dtype)
            found[norm + "bias"] = (bias - mean * scale).to(kernel.dtype)
    return found


def format_shape(shape: Iterable[int]) -> str:
    """Return 192×48×1×1, or "scalar"."""
    return "×".join(str(side) for side in shape) or "scalar"
